/** One generation from options to result; `generate`, `stream` and the tasks are forms of it. */
import { toNativeConstraint } from '../output/constraint'
import { definedOnly, type EndEvent, type ModelHost, type PreparedImage } from '../engine/host'
import type { NativeRequest, NativeToken } from '../engine/native'
import { defaults, type GenerateOptions } from './options'
import { withoutPlaceholders } from './prompts'
import { PaliGemmaError } from '../base/errors'
import { anySignal, untilAborted } from '../base/signals'
import { wrongOption } from '../base/validate'
import type { Chunk, GeneratedToken, GenerateResult } from './results'

/** With what only our own calls ask for. */
export interface GenerationOptions extends GenerateOptions {
  /** Log-probabilities only of tokens that say something about an object: not of mask codes. */
  scoredOnly?: boolean
}

function toRequest(
  options: GenerationOptions,
  images: PreparedImage[],
  adapters: NativeRequest['adapters']
): NativeRequest {
  const {
    prompt,
    allowControlTokens,
    temperature,
    topK,
    topP,
    minP,
    repeatPenalty,
    beams,
    lengthPenalty,
    seed,
    stop,
    ignoreEos,
    logProbs,
    constrain,
    scoredOnly
  } = options
  return definedOnly({
    kind: 'generate' as const,
    images: images.map((image) => image.native),
    prompt,
    allowControlTokens,
    maxTokens: options.maxTokens ?? defaults.maxTokens,
    temperature,
    topK,
    topP,
    minP,
    repeatPenalty,
    beams,
    lengthPenalty,
    seed,
    stop,
    ignoreEos,
    logProbs: logProbs === undefined || logProbs === false ? -1 : logProbs === true ? 0 : logProbs,
    constraint: toNativeConstraint(constrain),
    scoredOnly,
    adapters
  })
}

export function toToken(token: NativeToken): GeneratedToken {
  return {
    id: token.id,
    text: token.tokenText,
    ...(token.logProb !== undefined && { logProb: token.logProb }),
    ...(token.nearLogProb !== undefined && { nearLogProb: token.nearLogProb }),
    ...(token.top !== undefined && { top: token.top })
  }
}

export interface Generation {
  result: GenerateResult
  images: PreparedImage[]
}
type Emit = (chunk: Chunk) => void

/** Runs a generation with options already checked. `stop` ends it with finishReason "abort". */
export async function runGeneration(
  host: ModelHost,
  options: GenerationOptions,
  emit?: Emit,
  stop?: AbortSignal
): Promise<Generation> {
  return await host.admit(
    async () =>
      await withDeadline(options, async (options) => {
        return (options.bestOf ?? 1) > 1
          ? await bestOf(host, options, emit, stop)
          : await runOne(host, options, emit, stop)
      })
  )
}

/** Ends `work` with ERR_DEADLINE when its time is over. */
async function withDeadline(
  options: GenerationOptions,
  work: (options: GenerationOptions) => Promise<Generation>
): Promise<Generation> {
  const { deadlineMs } = options
  if (deadlineMs === undefined) return await work(options)
  const late = new AbortController()
  const timer = setTimeout(() => {
    late.abort(
      new PaliGemmaError(
        'ERR_DEADLINE',
        `The request did not end within deadlineMs = ${deadlineMs}. Raise it, lower maxTokens or send fewer requests at once`
      )
    )
  }, deadlineMs)
  const { signal, release } = anySignal([options.signal, late.signal])
  try {
    return await work({ ...options, ...(signal && { signal }) })
  } finally {
    clearTimeout(timer)
    release()
  }
}

/** Samples over one prefix; the pictures are read once, the engine keeps the prefix. */
async function bestOf(
  host: ModelHost,
  options: GenerationOptions,
  emit?: Emit,
  stop?: AbortSignal
): Promise<Generation> {
  const { bestOf: samples = 1, seed = 0, onToken, logProbs, images: _, image: __, ...rest } = options
  if (!((options.temperature ?? 0) > 0))
    throw wrongOption('temperature', 'number > 0 with bestOf', options.temperature ?? 0)
  const start = performance.now()
  const images = await untilAborted(host.prepareImages(options, options.signal), options.signal)
  const preprocessMs = performance.now() - start
  const failed = new AbortController()
  const { signal, release } = anySignal([options.signal, failed.signal])
  let all: Generation[]
  try {
    all = await Promise.all(
      Array.from(
        { length: samples },
        async (_, i) =>
          await runOne(
            host,
            {
              ...rest,
              seed: seed + i,
              logProbs: logProbs === undefined || logProbs === false ? true : logProbs,
              ...(signal && { signal })
            },
            undefined,
            stop,
            images
          )
      )
    )
  } catch (error) {
    failed.abort(error) // the other samples are of no use any more
    throw error
  } finally {
    release()
  }
  const mean = ({ result: { tokens } }: Generation): number =>
    tokens.length === 0 ? -Infinity : tokens.reduce((sum, token) => sum + (token.logProb ?? 0), 0) / tokens.length
  const best = all.reduce((best, one) => (mean(one) > mean(best) ? one : best))
  const tokens =
    logProbs === undefined || logProbs === false
      ? best.result.tokens.map(({ id, text }) => ({ id, text }))
      : best.result.tokens
  // a stop string cuts the text inside a token: then it goes out in one piece
  const chunks: Chunk[] =
    tokens.map((token) => token.text).join('') === best.result.text
      ? tokens.map((token) => ({ text: token.text, token }))
      : [{ text: best.result.text }]
  for (const chunk of chunks) {
    emit?.(chunk)
    onToken?.(chunk)
  }
  return { result: { ...best.result, tokens, timings: { ...best.result.timings, preprocessMs } }, images }
}

/** One job of the engine. `ready`: pictures already prepared. */
async function runOne(
  host: ModelHost,
  options: GenerationOptions,
  emit?: Emit,
  stop?: AbortSignal,
  ready?: PreparedImage[]
): Promise<Generation> {
  const start = performance.now()
  const { signal } = options
  signal?.throwIfAborted()
  host.throwIfDisposed()
  const adapters = host.adapterUses(options.adapters)
  const tokens: GeneratedToken[] = []
  let text = ''
  let firstTokenMs = 0
  let lastTokenMs = 0
  const deliver = (chunk: Chunk): void => {
    text += chunk.text
    emit?.(chunk)
    options.onToken?.(chunk)
  }
  let images: PreparedImage[] = []
  let preprocessMs = 0
  let end: EndEvent | undefined
  const stopped = Symbol('stopped')
  const untilStopped = new Promise<typeof stopped>((resolve) => {
    if (stop?.aborted) resolve(stopped)
    stop?.addEventListener('abort', () => resolve(stopped), { once: true })
  })
  const prepared = await Promise.race([
    ready ?? untilAborted(host.prepareImages(options, signal), signal),
    untilStopped
  ])
  preprocessMs = performance.now() - start
  if (prepared !== stopped) {
    images = prepared
    end = await host.run(toRequest(options, images, adapters), {
      signal,
      stop,
      onToken: (shown, native) => {
        const token = toToken(native)
        lastTokenMs = performance.now() - start
        if (tokens.length === 0) firstTokenMs = lastTokenMs
        tokens.push(token)
        deliver({ text: shown, token })
      }
    })
    if (end && end.text !== '') deliver({ text: end.text })
  }
  const decodeMs = end?.timings.decodeMs ?? lastTokenMs - firstTokenMs
  const result: GenerateResult = {
    text,
    tokens,
    finishReason: end?.finishReason ?? 'abort',
    usage: end?.usage ?? {
      imageTokens: images.length * host.info.imageTokens,
      promptTokens: promptTokens(host, options, images.length || pictureCount(options)),
      completionTokens: tokens.length
    },
    timings: {
      preprocessMs,
      queueMs: end?.timings.queueMs ?? 0,
      visionMs: end?.timings.visionMs ?? 0,
      prefillMs: end?.timings.prefillMs ?? 0,
      firstTokenMs,
      decodeMs,
      // the first token comes out of the prefill
      decodeTokensPerSecond: decodeMs > 0 && tokens.length > 1 ? ((tokens.length - 1) / decodeMs) * 1000 : 0
    }
  }
  return { result, images }
}

/** Of an aborted run, whose end the engine does not report: <bos>, the text, the newline. */
function promptTokens(host: ModelHost, options: GenerateOptions, pictures: number): number {
  if (host.disposed) return 0
  const text = withoutPlaceholders(options.prompt, pictures).replace(/\n+$/, '')
  return host.model.tokenize(text, options.allowControlTokens ?? false).length + 2
}

function pictureCount({ image, images }: GenerateOptions): number {
  return images?.length ?? (image === undefined ? 0 : 1)
}
