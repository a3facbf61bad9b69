/**
 * A generation from options to result; `generate`, `stream` and the tasks are forms of it. The way: check (publicCall,
 * in model.ts), admit, seed and deadline, then one job of the engine or several, see job.ts.
 */
import type { Taken } from '../base/call'
import type { ModelHost } from './host'
import { bestOf } from './best-of'
import { withDeadline } from './deadline'
import { runJob, type Generation, type GenerationOptions, type Streaming } from './job'
import { withSeed } from './sampling'

/** Runs a generation with options already checked. */
export async function runGeneration(
  host: ModelHost,
  options: Taken<GenerationOptions>,
  streaming: Streaming = {}
): Promise<Generation> {
  const seeded = withSeed(options)
  return await host.admit(
    async () =>
      await withDeadline(seeded, async (options) =>
        (options.bestOf ?? 1) > 1 ? await bestOf(host, options, streaming) : await runJob(host, options, streaming)
      )
  )
}
