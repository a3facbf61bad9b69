/** One job of the engine: prepare the pictures, request, run, result. */
import type { Taken } from '../../base/call'
import { anySignal, untilAborted } from '../../base/signals'
import { definedOnly, type ModelHost, type PreparedImage } from './host'
import type { NativeRequest } from '../../engine/native'
import { engineSampling } from '../../engine/sampling'
import { toNativeConstraint } from '../../output/constraint'
import { defaults, type GenerateOptions } from '../options/options'
import { Output } from './output'
import { withoutPlaceholders } from '../options/prompts'
import type { Chunk, GenerateResult } from '../options/results'

/** With what only our own calls ask for. */
export interface GenerationOptions extends GenerateOptions {
  /** Log-probabilities only of tokens that say something about an object: not of mask codes. */
  scoredOnly?: boolean | undefined
  /** Nobody waits for its tokens one by one, only for its end together with others'. */
  throughput?: boolean | undefined
}

export interface Generation {
  result: GenerateResult
  images: PreparedImage[]
}

/** What a stream adds to a generation. */
export interface Streaming {
  emit?: ((chunk: Chunk) => void) | undefined
  /** Ends the generation with finishReason "abort". */
  stop?: AbortSignal | undefined
  /** Called with the pictures before anything is generated. */
  prepared?: ((images: PreparedImage[]) => void) | undefined
}

/** `ready`: pictures already prepared. */
export async function runJob(
  host: ModelHost,
  options: Taken<GenerationOptions>,
  { emit, stop, prepared }: Streaming,
  ready?: PreparedImage[]
): Promise<Generation> {
  const { signal, onToken } = options
  signal.throwIfAborted()
  host.throwIfDisposed()
  const adapters = await host.adapterUses(options.adapters)
  const constraint = await toNativeConstraint(options.constrain)
  const output = new Output((chunk) => {
    emit?.(chunk)
    onToken?.(chunk)
  })
  const images = ready ?? (await prepareUnlessStopped(host, options, signal, stop))
  output.preprocessMs = output.elapsed()
  if (images) prepared?.(images)
  const end =
    images && (await host.run(toRequest(options, images, adapters, constraint), { signal, stop, onToken: output.add }))
  output.finish(end?.text ?? '')
  const result = output.result(end, options.seed ?? 0, () => ({
    imageTokens: (images?.length ?? 0) * host.info.imageTokens,
    promptTokens: promptTokens(host, options, images?.length ?? pictureCount(options)),
    completionTokens: output.tokens.length
  }))
  return { result, images: images ?? [] }
}

function toRequest(
  options: GenerationOptions,
  images: PreparedImage[],
  adapters: NativeRequest['adapters'],
  constraint: NativeRequest['constraint']
): NativeRequest {
  const { prompt, allowControlTokens, logProbs = false, scoredOnly, throughput } = options
  return definedOnly({
    kind: 'generate' as const,
    images: images.map((image) => image.native),
    prompt,
    allowControlTokens,
    ...engineSampling({ ...options, maxTokens: options.maxTokens ?? defaults.maxTokens }),
    logProbs: logProbs === false ? -1 : logProbs === true ? 0 : logProbs,
    constraint,
    scoredOnly,
    throughput,
    adapters
  })
}

/** The pictures, or undefined at once when `stop` aborts: nothing of them is decoded any further. */
async function prepareUnlessStopped(
  host: ModelHost,
  options: Taken<GenerationOptions>,
  signal: AbortSignal,
  stop: AbortSignal | undefined
): Promise<PreparedImage[] | undefined> {
  const either = anySignal([signal, stop])
  try {
    return await untilAborted(host.prepareImages(options, either.signal), either.signal)
  } catch (error) {
    signal.throwIfAborted()
    if (stop?.aborted) return undefined
    throw error
  } finally {
    either.release()
  }
}

/** Of an aborted run, whose end the engine does not report: <bos>, the text, the newline. */
function promptTokens(
  host: ModelHost,
  { prompt, allowControlTokens = false }: GenerateOptions,
  pictures: number
): number {
  if (host.disposed) return 0
  const text = withoutPlaceholders(prompt, pictures).replace(/\n+$/, '')
  return host.model.tokenize(text, allowControlTokens).length + 2
}

function pictureCount({ image, images }: GenerateOptions): number {
  return images?.length ?? (image === undefined ? 0 : 1)
}
