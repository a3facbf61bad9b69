/** `bestOf`: several samples over one prefix, of which the most probable one is taken. */
import type { Taken } from '../base/call'
import { anySignal, ownController, untilAborted } from '../base/signals'
import { wrongOption } from '../base/validate'
import type { ModelHost } from './host'
import { runJob, type Generation, type GenerationOptions, type Streaming } from './job'
import type { Chunk } from './results'

/** The pictures are read once, the engine keeps the prefix. */
export async function bestOf(
  host: ModelHost,
  options: Taken<GenerationOptions>,
  { emit, stop }: Streaming
): Promise<Generation> {
  const { temperature = 0, seed = 0, onToken, logProbs = false, signal, ...rest } = options
  if (!(temperature > 0)) throw wrongOption('temperature', 'number > 0 with bestOf', temperature)
  const start = performance.now()
  const images = await untilAborted(host.prepareImages(options, signal), signal)
  const preprocessMs = performance.now() - start
  const best = await pickBest(
    signal,
    options.bestOf ?? 1,
    async (i, signal) =>
      await runJob(
        host,
        { ...rest, temperature, signal, seed: seed + i, logProbs: logProbs === false ? true : logProbs },
        { stop },
        images
      )
  )
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

async function pickBest(
  outer: AbortSignal,
  samples: number,
  sample: (i: number, signal: AbortSignal) => Promise<Generation>
): Promise<Generation> {
  const failed = ownController()
  const { signal, release } = anySignal([outer, failed.signal])
  try {
    const all = await Promise.all(Array.from({ length: samples }, async (_, i) => await sample(i, signal!)))
    return all.reduce((best, one) => (meanLogProb(one) > meanLogProb(best) ? one : best))
  } catch (error) {
    failed.abort(error) // the other samples are of no use any more
    throw error
  } finally {
    release()
  }
}

function meanLogProb({ result: { tokens } }: Generation): number {
  if (tokens.length === 0) return -Infinity
  return tokens.reduce((sum, token) => sum + (token.logProb ?? 0), 0) / tokens.length
}
