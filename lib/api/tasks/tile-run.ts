/** One request for each view of a picture, all of them one batch. */
import type { Taken } from '../../base/call'
import { untilAborted } from '../../base/signals'
import { together } from '../../base/together'
import { wrongOption } from '../../base/validate'
import type { ImageInput } from '../../images/image-input'
import type { PlanTiles } from '../../images/tiles'
import { admitted, generateOnce } from '../request/generation'
import type { ModelHost, PreparedTile } from '../request/host'
import type { GenerationOptions } from '../request/job'
import type { TileOptions } from '../options/options'
import type { GenerateResult } from '../options/results'

export interface TileResult {
  view: PreparedTile
  result: GenerateResult
}

/** As many decode together as the model's `maxSequences` allows. `plan` says which views, see tile-plan.ts. */
export async function runTiles(
  host: ModelHost,
  image: ImageInput,
  request: Taken<GenerationOptions>,
  plan: PlanTiles,
  { onTile }: TileOptions
): Promise<TileResult[]> {
  if (request.onToken)
    throw wrongOption('onToken', 'nothing with tiles, whose tokens come mixed; use onTile', request.onToken)
  return await admitted(host, request, async (options) => {
    const views = await untilAborted(host.prepareTiles(image, plan, options.signal), options.signal)
    let done = 0
    return await together(views.length, host.maxSequences + 2, options.signal, async (i, signal) => {
      const view = views[i]!
      const { result } = await generateOnce(host, { ...options, signal, throughput: true }, {}, [view])
      onTile?.(++done, views.length)
      return { view, result }
    })
  })
}
