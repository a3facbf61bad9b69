/**
 * A generation from options to result; `generate`, `stream` and the tasks are forms of it. The way: check (publicCall,
 * in model.ts), admit, seed and deadline, then one job of the engine or several, see job.ts.
 */
import type { Taken } from '../../base/call'
import type { ModelHost, PreparedImage } from './host'
import { bestOf } from './best-of'
import { withDeadline } from '../options/deadline'
import { runJob, type Generation, type GenerationOptions, type Streaming } from './job'
import { checkSampling, withSeed } from '../options/sampling'

/** Runs a generation with options already checked. */
export async function runGeneration(
  host: ModelHost,
  options: Taken<GenerationOptions>,
  streaming: Streaming = {}
): Promise<Generation> {
  return await admitted(host, options, async (options) => await generateOnce(host, options, streaming))
}

/** A request of the queue: `work` with its seed drawn, within its deadline. */
export async function admitted<T extends GenerationOptions, R>(
  host: ModelHost,
  options: Taken<T>,
  work: (options: Taken<T>) => Promise<R>
): Promise<R> {
  checkSampling(options, options.constrain !== undefined)
  const seeded = withSeed(options)
  return await host.admit(async () => await withDeadline(seeded, work))
}

/** `ready`: pictures already prepared. */
export async function generateOnce(
  host: ModelHost,
  options: Taken<GenerationOptions>,
  streaming: Streaming,
  ready?: PreparedImage[]
): Promise<Generation> {
  return (options.bestOf ?? 1) > 1
    ? await bestOf(host, options, streaming, ready)
    : await runJob(host, options, streaming, ready)
}
