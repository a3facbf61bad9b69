/** One generation's output, gathered from the engine's events. */
import type { EndEvent } from './host'
import type { NativeToken } from '../../engine/native'
import type { Chunk, GeneratedToken, GenerateResult } from '../options/results'

export function toToken(token: NativeToken): GeneratedToken {
  return {
    id: token.id,
    text: token.tokenText,
    ...(token.logProb !== undefined && { logProb: token.logProb }),
    ...(token.nearLogProb !== undefined && { nearLogProb: token.nearLogProb }),
    ...(token.top !== undefined && { top: token.top })
  }
}

/** One generation's output so far, handed on as it comes. */
export class Output {
  readonly tokens: GeneratedToken[] = []
  preprocessMs = 0
  private text = ''
  private firstTokenMs = 0
  private lastTokenMs = 0
  private readonly start = performance.now()

  constructor(private readonly deliver: (chunk: Chunk) => void) {}

  elapsed(): number {
    return performance.now() - this.start
  }

  readonly add = (shown: string, native: NativeToken): void => {
    const token = toToken(native)
    this.lastTokenMs = this.elapsed()
    if (this.tokens.length === 0) this.firstTokenMs = this.lastTokenMs
    this.tokens.push(token)
    this.hand({ text: shown, token })
  }

  /** What the engine had held back. */
  finish(rest: string): void {
    if (rest !== '') this.hand({ text: rest })
  }

  private hand(chunk: Chunk): void {
    this.text += chunk.text
    this.deliver(chunk)
  }

  /** `end`: undefined where the work was stopped before it; then `usage` is what is known without it. */
  result(end: EndEvent | undefined, seed: number, usage: () => GenerateResult['usage']): GenerateResult {
    const { text, tokens, preprocessMs, firstTokenMs } = this
    const decodeMs = end?.timings.decodeMs ?? this.lastTokenMs - firstTokenMs
    return {
      text,
      tokens,
      finishReason: end?.finishReason ?? 'abort',
      seed,
      usage: end?.usage ?? usage(),
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
  }
}
