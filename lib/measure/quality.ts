/** How far a model is from another one of the same architecture: a quantized file from its original. */
import { publicCall, type Taken } from '../base/call'
import { PaliGemmaError } from '../base/errors'
import { definedOnly, ModelHost } from '../api/request/host'
import type { ImageInput } from '../images/image-input'
import { defaultPrompts } from './importance'
import { native } from '../engine/native'
import { type ResolvedModel, resolveModel } from '../hub/resolve'
import { loadRules, type LoadOptions } from '../api/options/options'
import { type Sample, sampledRules, samplesOf, type SamplePrompt } from './samples'
import { rule, type Rules, type WithPaths } from '../base/validate'

/** Options of {@link compareQuality}. */
export interface QualityOptions
  extends Pick<
    LoadOptions,
    | 'device'
    | 'threads'
    | 'contextSize'
    | 'kvCacheType'
    | 'attentionWindow'
    | 'finalSoftcap'
    | 'resize'
    | 'fit'
    | 'signal'
  > {
  /** The file to judge. */
  model: string | URL
  /** Its vision GGUF, where it is separate. */
  vision?: string | URL | undefined
  /** The file it is compared with: the original, or a conversion to BF16 or Q8_0. */
  against: string | URL
  /** The vision GGUF of `against`, where it is separate. */
  againstVision?: string | URL | undefined
  /** At least one; every prompt is asked about each. */
  images: ImageInput[]
  /** With `answer`, that text is scored, else what `against` generates (greedily). Default: "caption en". */
  prompts?: (string | SamplePrompt)[]
  /** Tokens generated for prompts without an answer, up to 255; default 64. */
  maxTokens?: number | undefined
  /** Called with the share of samples that are done, 0..1; loading is before 0. */
  onProgress?: ((fraction: number) => void) | undefined
}

/** What {@link compareQuality} finds. All per token of the answers, end tokens included, under teacher forcing. */
export interface QualityResult {
  /** Pictures times prompts. */
  samples: number
  /** Of all answers, their end tokens included. */
  tokens: number
  /** exp(-mean log-probability of the answers' tokens). */
  perplexity: { model: number; against: number }
  /** How often both find the same token the most probable, 0..1. */
  topAgreement: number
  /** Kullback-Leibler divergence of `model` from `against` in nats, over the whole vocabulary. */
  kl: { mean: number; median: number; p99: number; max: number }
  /** Root of the mean square of the difference of the answers' log-probabilities. */
  logProbRms: number
}

const qualityRules: Rules<QualityOptions> = {
  ...sampledRules,
  against: loadRules.model,
  againstVision: rule.file,
  kvCacheType: loadRules.kvCacheType,
  finalSoftcap: loadRules.finalSoftcap,
  // the engine returns logits of 256 tokens, the end token among them
  maxTokens: rule.integer(1, 255)
}

/**
 * Compares two files of one model on pictures and prompts. Both are loaded at once; besides them, memory holds the
 * logits of one answer (two times 1 MB a token of it).
 * @throws PaliGemmaError as `loadModel` and `score` do; ERR_INVALID_OPTION where the two have different vocabularies
 */
export async function compareQuality(options: QualityOptions): Promise<QualityResult> {
  return await publicCall<WithPaths<QualityOptions>, QualityResult>(
    'compareQuality',
    options,
    qualityRules,
    ['model', 'against', 'images'],
    compare
  )
}

async function compare(options: Taken<WithPaths<QualityOptions>>): Promise<QualityResult> {
  const {
    model,
    vision,
    against,
    againstVision,
    images,
    prompts = defaultPrompts,
    maxTokens = 64,
    onProgress,
    signal,
    ...load
  } = options
  const [own, other] = await Promise.all([resolveModel(model), resolveModel(against)])
  const open = async (files: ResolvedModel, tower = files.vision) =>
    await ModelHost.open(native(), definedOnly({ ...load, signal, model: files.path, vision: tower, maxSequences: 1 }))
  const reference = await open(other, againstVision)
  let judged: ModelHost | undefined
  try {
    judged = await open(own, vision)
    if (judged.info.vocab !== reference.info.vocab) {
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected two files of one model but ${own.path} has ${judged.info.vocab} tokens and ${other.path} has ` +
          `${reference.info.vocab}`
      )
    }
    const samples = samplesOf(images, prompts)
    const sums = new Sums()
    for (const [i, sample] of samples.entries()) {
      onProgress?.(i / samples.length)
      const answer = sample.answer ?? (await generate(reference, sample, maxTokens, signal))
      sums.add(
        await score(judged, sample, answer, signal),
        await score(reference, sample, answer, signal),
        judged.info.vocab
      )
    }
    onProgress?.(1)
    return sums.result(samples.length)
  } finally {
    await Promise.all([reference.dispose(), judged?.dispose()])
  }
}

async function prepare(host: ModelHost, { image, prompt }: Sample, signal: AbortSignal | undefined) {
  const [prepared] = await host.prepareImages({ image }, signal)
  return { images: [prepared!.native], prompt }
}

async function generate(
  host: ModelHost,
  sample: Sample,
  maxTokens: number,
  signal: AbortSignal | undefined
): Promise<string> {
  let text = ''
  const end = await host.run(
    { kind: 'generate', ...(await prepare(host, sample, signal)), maxTokens },
    {
      signal,
      onToken: (piece) => {
        text += piece
      }
    }
  )
  return text + (end?.text ?? '')
}

interface Scored {
  logProbs: number[]
  logits: Float32Array
}

async function score(
  host: ModelHost,
  sample: Sample,
  suffix: string,
  signal: AbortSignal | undefined
): Promise<Scored> {
  const end = await host.run(
    { kind: 'score', ...(await prepare(host, sample, signal)), suffix, logits: true },
    { signal }
  )
  return { logProbs: end!.scored!.map(({ logProb }) => logProb!), logits: end!.stages![0]!.data }
}

/** Running sums over tokens. */
class Sums {
  private readonly divergences: number[] = []
  private agreed = 0
  private model = 0
  private against = 0
  private squares = 0

  add(model: Scored, against: Scored, vocab: number): void {
    against.logProbs.forEach((expected, row) => {
      const found = model.logProbs[row]!
      this.model += found
      this.against += expected
      this.squares += (found - expected) ** 2
      const compared = compareRows(
        model.logits.subarray(row * vocab, (row + 1) * vocab),
        against.logits.subarray(row * vocab, (row + 1) * vocab)
      )
      this.divergences.push(compared.kl)
      if (compared.agree) this.agreed++
    })
  }

  result(samples: number): QualityResult {
    const tokens = this.divergences.length
    const ordered = [...this.divergences].sort((a, b) => a - b)
    const at = (quantile: number) => ordered[Math.min(tokens - 1, Math.floor(quantile * tokens))]!
    return {
      samples,
      tokens,
      perplexity: { model: Math.exp(-this.model / tokens), against: Math.exp(-this.against / tokens) },
      topAgreement: this.agreed / tokens,
      kl: { mean: ordered.reduce((sum, value) => sum + value, 0) / tokens, median: at(0.5), p99: at(0.99), max: at(1) },
      logProbRms: Math.sqrt(this.squares / tokens)
    }
  }
}

/** KL(reference || found) in nats and whether the most probable token is the same, from two rows of logits. */
export function compareRows(found: Float32Array, reference: Float32Array): { kl: number; agree: boolean } {
  const [a, b] = [normalizer(found), normalizer(reference)]
  let kl = 0
  for (let i = 0; i < reference.length; i++) {
    const logP = reference[i]! - b.logSum
    // Terms below e^-100 add nothing that a double could hold next to the rest.
    if (logP > -100) kl += Math.exp(logP) * (logP - (found[i]! - a.logSum))
  }
  // Rounding may take a divergence of nothing below zero.
  return { kl: Math.max(0, kl), agree: a.best === b.best }
}

function normalizer(logits: Float32Array): { logSum: number; best: number } {
  let best = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i
  const most = logits[best]!
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - most)
  return { logSum: most + Math.log(sum), best }
}
