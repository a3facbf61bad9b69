/** The side that takes pictures and looks at them. */
import type * as Bull from 'bullmq'
import { callTask, type BatchTask } from '../api/many/batch-tasks'
import { loadModel } from '../api/load-model'
import { PaliGemma } from '../api/model'
import type { LoadOptions } from '../api/options/options'
import { resultFields, type ResultFields } from '../api/many/rows'
import { forThroughput } from '../base/call'
import { PaliGemmaError } from '../base/errors'
import { copyRecord, isError, isRecord, isUrl } from '../base/realms'
import { readOptions, rule, type Rule, type Rules, type WithPaths } from '../base/validate'
import { plannedSequences } from '../measure/sequences'
import { bullOptions, connected, connectionRules, loadBull, type ConnectionOptions } from './connection'
import { isFinal, readJob, type JobData } from './jobs'
import { reporting } from './progress'
import { ShardWriter } from './shards'

/** Options of {@link startWorker}. */
export interface WorkerOptions extends ConnectionOptions {
  /** As for `loadModel`, or a model that is loaded; that one is not disposed of at the end. */
  model: string | URL | LoadOptions | PaliGemma
  /**
   * Pictures decoded together; default: of `model`, else up to 8, as memory allows. As many more are taken ahead, so
   * that they are decoded while the engine works.
   */
  concurrency?: number | undefined
  /** At most so many jobs in so many milliseconds, by all workers together. */
  rate?: { max: number; perMs: number } | undefined
  /** A folder for results as lines of JSON as well, see {@link readShards}. */
  out?: string | URL | undefined
  /**
   * Milliseconds without a sign of life after which a worker's jobs go to others; default 30,000. Signs go out while
   * the engine computes, too.
   */
  stalledMs?: number | undefined
  /** How often a job may be in the hands of a worker that dies before it is a dead letter; default 3. */
  maxStalls?: number | undefined
}

const modelRule: Rule = {
  expected: 'path, name of a pulled model, options of loadModel or a loaded model',
  take: (v) => (isUrl(v) ? v.href : v),
  accepts: (v) => rule.path.accepts(v) || isRecord(v)
}
const rateRule: Rule = {
  expected: '{ max: integer >= 1, perMs: integer >= 1 }',
  take: copyRecord,
  accepts: (v) => {
    if (!isRecord(v)) return false // of a long text the rest would be an object with a name for each letter
    const { max, perMs, ...others } = v
    const count = rule.integer(1)
    return count.accepts(max) && count.accepts(perMs) && Object.keys(others).length === 0
  }
}
const workerRules: Rules<WorkerOptions> = {
  ...connectionRules,
  model: modelRule,
  concurrency: rule.integer(1, 1024),
  rate: rateRule,
  out: rule.file,
  stalledMs: rule.integer(100, 2 ** 31 - 1),
  maxStalls: rule.integer(0, 1000)
}

/** A running worker. Made by {@link startWorker}. */
export class PictureWorker {
  /** Jobs that this worker finished, and those that failed in its hands. */
  readonly counts = { done: 0, failed: 0 }
  /** Resolves when the worker was closed; rejects with what ended it, such as a model file that was cut. */
  readonly ended: Promise<void>
  #closing: Promise<void> | undefined
  #end!: { resolve: () => void; reject: (error: unknown) => void }
  #reason: unknown

  /** @internal */
  constructor(
    /** Pictures decoded together. */
    readonly concurrency: number,
    private readonly parts: { worker: Bull.Worker; model: PaliGemma; owns: boolean; shard: ShardWriter | undefined }
  ) {
    this.ended = new Promise((resolve, reject) => (this.#end = { resolve, reject }))
    this.ended.catch(() => {}) // for those who do not ask
  }

  /** Takes nothing more, finishes what it has, and frees the model. Idempotent. */
  async close(): Promise<void> {
    this.#closing ??= this.#close()
    await this.#closing
  }

  async #close(): Promise<void> {
    const { worker, model, owns, shard } = this.parts
    try {
      await worker.close()
      await shard?.close()
    } catch (error) {
      this.#reason ??= error
    } finally {
      if (owns) await model.dispose()
      if (this.#reason === undefined) this.#end.resolve()
      else this.#end.reject(this.#reason)
    }
  }

  /** @internal Ends the worker because of what no other job will fare better with. */
  fail(reason: unknown): void {
    this.#reason ??= reason
    void this.close()
  }

  /** `await using` calls {@link close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/**
 * Starts a worker: it loads the model and takes pictures from the queue until it is closed. Any number may run, on any
 * machines; one that dies loses nothing. Needs `bullmq` and `ioredis`, which are not among this package's own
 * dependencies.
 * @throws PaliGemmaError as `loadModel`; ERR_DEPENDENCY_MISSING, ERR_DOWNLOAD_FAILED where Redis does not answer
 */
export async function startWorker(options: WorkerOptions): Promise<PictureWorker> {
  const taken = readOptions<WithPaths<WorkerOptions>>('startWorker', options, workerRules, ['redis', 'model'])
  const bull = loadBull()
  const { model, owns, concurrency } = await openModel(taken)
  const shard = taken.out === undefined ? undefined : await ShardWriter.open(taken.out)
  let handle: PictureWorker | undefined
  let lastError: Error | undefined
  const worker = createWorker(bull, taken, 2 * concurrency, async (job, signal) => {
    try {
      return await process(model, shard, job, signal)
    } catch (error) {
      if (error instanceof PaliGemmaError && endsWorker.has(error.code)) handle?.fail(error)
      throw failure(bull, error, job.data)
    }
  })
  worker.on('error', (error) => (lastError = error)) // it connects again
  handle = new PictureWorker(concurrency, { worker, model, owns, shard })
  worker.on('completed', () => handle.counts.done++)
  worker.on('failed', () => handle.counts.failed++)
  try {
    await connected(taken, worker.waitUntilReady(), () => lastError)
    void worker.run()
    return handle
  } catch (error) {
    await worker.close(true).catch(() => {})
    handle.fail(error)
    throw error
  }
}

/** Nothing that this worker takes will go better. */
const endsWorker: ReadonlySet<string> = new Set([
  'ERR_DISPOSED',
  'ERR_MODEL_CHANGED',
  'ERR_DEVICE_LOST',
  'ERR_DISK_FULL',
  'ERR_WRITE_FAILED'
])

async function openModel({
  model,
  concurrency
}: WithPaths<WorkerOptions>): Promise<{ model: PaliGemma; owns: boolean; concurrency: number }> {
  if (model instanceof PaliGemma) return { model, owns: false, concurrency: concurrency ?? 4 }
  const load: LoadOptions = typeof model === 'string' ? { model } : model
  const maxSequences = concurrency ?? load.maxSequences ?? (await plannedSequences(load))
  return { model: await loadModel({ ...load, maxSequences }), owns: true, concurrency: maxSequences }
}

function createWorker(
  bull: typeof Bull,
  { rate, stalledMs = 30_000, maxStalls = 3, ...connection }: WorkerOptions,
  concurrency: number,
  work: (job: Bull.Job<JobData>, signal: AbortSignal | undefined) => Promise<ResultFields>
): Bull.Worker {
  const { name, options } = bullOptions(connection)
  const processor: Bull.Processor<JobData, ResultFields> = async (job, _token, signal) => await work(job, signal)
  return new bull.Worker(name, processor, {
    ...options,
    autorun: false,
    concurrency,
    lockDuration: stalledMs,
    stalledInterval: stalledMs,
    maxStalledCount: maxStalls,
    ...(rate && { limiter: { max: rate.max, duration: rate.perMs } })
  })
}

async function process(
  model: PaliGemma,
  shard: ShardWriter | undefined,
  job: Bull.Job<JobData>,
  signal: AbortSignal | undefined
): Promise<ResultFields> {
  const { id, task, image, bytes, options } = readJob(job.data)
  const picture = bytes === undefined ? image : Buffer.from(bytes, 'base64')
  const request = {
    ...options,
    ...reporting(job, task, options),
    ...(picture !== undefined && { image: picture }),
    ...(signal && { signal }),
    [forThroughput]: true
  }
  const call = callTask[task] as (model: PaliGemma, request: object) => Promise<unknown>
  const row = resultFields(task as BatchTask, await call(model, request))
  await shard?.append({ id, ...(image !== undefined && { image }), ...row })
  return row
}

/** As Redis keeps it: "CODE: message". */
function failure(bull: typeof Bull, error: unknown, data: JobData): Error {
  const code = (error as { code?: unknown } | undefined)?.code
  const text = isError(error) ? error.message : String(error)
  const message = typeof code === 'string' ? `${code}: ${text}` : text
  return isFinal(error, data) ? new bull.UnrecoverableError(message) : new Error(message, { cause: error })
}
