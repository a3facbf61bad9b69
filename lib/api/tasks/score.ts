/** Teacher forcing: how probable a given output is. */
import type { Taken } from '../../base/call'
import { untilAborted } from '../../base/signals'
import { definedOnly, type ModelHost } from '../request/host'
import { controlName } from '../options/control-names'
import type { ScoreOptions } from '../options/options'
import { toToken } from '../request/output'
import type { GeneratedToken } from '../options/results'

/** What `score` gives: one entry per token of the suffix, the end token last, by its name: "<eos>". */
export interface ScoreResult {
  /** With `logProb` each. */
  tokens: GeneratedToken[]
  /** Natural logarithms. */
  logProbs: number[]
  /** Their sum. */
  total: number
  /** Per token. */
  mean: number
}

export async function score(host: ModelHost, options: Taken<ScoreOptions>): Promise<ScoreResult> {
  const { prompt, suffix, allowControlTokens, signal } = options
  const adapters = await host.adapterUses(options.adapters)
  const end = await host.admit(async () => {
    host.throwIfDisposed()
    const images = await untilAborted(host.prepareImages(options, signal), signal)
    const pictures = images.map((image) => image.native)
    return await host.run(
      definedOnly({ kind: 'score' as const, images: pictures, prompt, suffix, allowControlTokens, adapters }),
      { signal }
    )
  })
  const tokens = (end?.scored ?? []).map(toToken)
  const last = tokens.at(-1)
  if (last?.text === '') last.text = controlName(host.model, last.id)
  const logProbs = tokens.map((token) => token.logProb ?? NaN)
  const total = logProbs.reduce((sum, logProb) => sum + logProb, 0)
  return { tokens, logProbs, total, mean: total / logProbs.length }
}
