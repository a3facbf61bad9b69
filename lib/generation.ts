/** One generation from options to result; `generate`, `stream` and the tasks are forms of it. */
import { definedOnly, type EndEvent, type ModelHost, type PreparedImage } from './host'
import type { NativeRequest, NativeToken } from './native'
import { defaults, type GenerateOptions } from './options'
import { untilAborted } from './signals'
import type { Chunk } from './stream'

/** A token of the output. */
export interface GeneratedToken {
  id: number
  /** The characters that this token completed; '' for control tokens and parts of a character. */
  text: string
  /** Natural logarithm, before temperature and filters; with `logProbs`. */
  logProb?: number
  /** The most probable tokens, best first; with `logProbs: n`. */
  top?: { id: number, text: string, logProb: number }[]
}

/** What `generate` gives. */
export interface GenerateResult {
  text: string
  tokens: GeneratedToken[]
  /** "stop": the model ended or a stop string came; "length": `maxTokens` or the context; "abort": the stream was left. */
  finishReason: 'stop' | 'length' | 'abort'
  /** In tokens; `promptTokens` counts the text only. */
  usage: { imageTokens: number, promptTokens: number, completionTokens: number }
  /** Milliseconds; parts that an abort left unknown are 0. */
  timings: {
    /** Reading, decoding and resizing the pictures. */
    preprocessMs: number
    /** Waiting for other requests on this model. */
    queueMs: number
    visionMs: number
    prefillMs: number
    /** From the call to the first token. */
    firstTokenMs: number
    /** From the first token to the last. */
    decodeMs: number
    decodeTokensPerSecond: number
  }
}

/** The constraint as the addon takes it. */
function toConstraint (constrain: GenerateOptions['constrain']): NativeRequest['constraint'] {
  if (constrain === undefined) return undefined
  if (typeof constrain === 'string') return { kind: constrain, labels: [] }
  return { kind: constrain.kind, labels: constrain.labels ?? [], ...(constrain.maxObjects !== undefined && { maxObjects: constrain.maxObjects }) }
}

function toRequest (options: GenerateOptions, images: PreparedImage[]): NativeRequest {
  const { prompt, allowControlTokens, temperature, topK, topP, minP, repeatPenalty, seed, stop, ignoreEos, logProbs, constrain } = options
  return definedOnly({
    kind: 'generate' as const,
    images: images.map(image => image.native),
    prompt,
    allowControlTokens,
    maxTokens: options.maxTokens ?? defaults.maxTokens,
    temperature,
    topK,
    topP,
    minP,
    repeatPenalty,
    seed,
    stop,
    ignoreEos,
    logProbs: logProbs === undefined || logProbs === false ? -1 : logProbs === true ? 0 : logProbs,
    constraint: toConstraint(constrain)
  })
}

export function toToken (token: NativeToken): GeneratedToken {
  return {
    id: token.id,
    text: token.tokenText,
    ...(token.logProb !== undefined && { logProb: token.logProb }),
    ...(token.top !== undefined && { top: token.top })
  }
}

/** Runs a generation with options already checked. `stop` ends it with finishReason "abort". */
export async function runGeneration (host: ModelHost, options: GenerateOptions, emit?: (chunk: Chunk) => void, stop?: AbortSignal):
Promise<{ result: GenerateResult, images: PreparedImage[] }> {
  const start = performance.now()
  const { signal } = options
  signal?.throwIfAborted()
  host.throwIfDisposed()
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
  const untilStopped = new Promise<typeof stopped>(resolve => {
    if (stop?.aborted) resolve(stopped)
    stop?.addEventListener('abort', () => resolve(stopped), { once: true })
  })
  const prepared = await Promise.race([untilAborted(host.prepareImages(options, signal), signal), untilStopped])
  preprocessMs = performance.now() - start
  if (prepared !== stopped) {
    images = prepared
    end = await host.run(toRequest(options, images), {
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
    usage: end?.usage ?? { imageTokens: images.length * host.info.imageTokens, promptTokens: promptTokens(host, options), completionTokens: tokens.length },
    timings: {
      preprocessMs,
      queueMs: end?.timings.queueMs ?? 0,
      visionMs: end?.timings.visionMs ?? 0,
      prefillMs: end?.timings.prefillMs ?? 0,
      firstTokenMs,
      decodeMs,
      // the first token comes out of the prefill
      decodeTokensPerSecond: decodeMs > 0 && tokens.length > 1 ? (tokens.length - 1) / decodeMs * 1000 : 0
    }
  }
  return { result, images }
}

/** Of an aborted run, whose end the engine does not report: <bos>, the text, the newline. */
function promptTokens (host: ModelHost, options: GenerateOptions): number {
  if (host.disposed) return 0
  return host.model.tokenize(options.prompt.replace(/\n+$/, ''), options.allowControlTokens ?? false).length + 2
}
