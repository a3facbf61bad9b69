/** `bestOf`: several samples over one prefix, of which the most probable one is taken. */
import type { Taken } from '../../base/call'
import { untilAborted } from '../../base/signals'
import { together } from '../../base/together'
import type { ModelHost, PreparedImage } from './host'
import { runJob, type Generation, type GenerationOptions, type Streaming } from './job'
import type { Chunk } from '../options/results'

/** The pictures are read once, the engine keeps the prefix. */
export async function bestOf(
  host: ModelHost,
  options: Taken<GenerationOptions>,
  { emit, stop, prepared }: Streaming,
  ready?: PreparedImage[]
): Promise<Generation> {
  const { seed = 0, onToken, logProbs = false, signal, ...rest } = { ...options, throughput: true }
  const start = performance.now()
  const images = ready ?? (await untilAborted(host.prepareImages(options, signal), signal))
  const preprocessMs = performance.now() - start
  prepared?.(images)
  const samples = options.bestOf ?? 1
  const sampled = await together(
    samples,
    samples,
    signal,
    async (i, signal) =>
      await runJob(
        host,
        { ...rest, signal, seed: seed + i, logProbs: logProbs === false ? true : logProbs },
        { stop },
        images
      )
  )
  const best = sampled.reduce((best, one) => (meanLogProb(one) > meanLogProb(best) ? one : best))
  const { result } = best
  const tokens = logProbs === false ? result.tokens.map(({ id, text }) => ({ id, text })) : result.tokens
  // a stop string cuts the text inside a token: then it goes out in one piece
  const chunks: Chunk[] =
    tokens.map((token) => token.text).join('') === result.text
      ? tokens.map((token) => ({ text: token.text, token }))
      : [{ text: result.text }]
  for (const chunk of chunks) {
    emit?.(chunk)
    onToken?.(chunk)
  }
  // the first sample's seed: the whole request gives the same again
  return { result: { ...result, seed, tokens, timings: { ...result.timings, preprocessMs } }, images }
}

function meanLogProb({ result: { tokens } }: Generation): number {
  if (tokens.length === 0) return -Infinity
  return tokens.reduce((sum, token) => sum + (token.logProb ?? 0), 0) / tokens.length
}
