/** The side that adds pictures and reads results. */
import { setTimeout as sleep } from 'node:timers/promises'
import type * as Bull from 'bullmq'
import { isAnyIterable, iteratorOf } from '../base/iterate'
import { publicCall } from '../base/call'
import { untilAborted } from '../base/signals'
import { check, readOptions, rule, wrongOption, type Rules } from '../base/validate'
import {
  bullId,
  parseFailure,
  revived,
  takeJob,
  type JobData,
  type JobResult,
  type NewJob,
  type PictureJob,
  noPriority
} from './jobs'
import { readProgress, type JobProgress } from './progress'
import { bullOptions, connected, connectionRules, loadBull, type ConnectionOptions } from './connection'

/** Options of {@link createQueue}. */
export interface QueueOptions extends ConnectionOptions {
  /** How often a job is tried before it lies among the dead letters; default 3. */
  attempts?: number | undefined
  /** Milliseconds before the second try, twice as many before each further one; default 1000. */
  backoffMs?: number | undefined
  /** Seconds for which Redis keeps results; default: until `forget`. */
  keepSeconds?: number | undefined
}

const queueRules: Rules<QueueOptions> = {
  ...connectionRules,
  attempts: rule.integer(1, 1000),
  backoffMs: rule.integer(0, 2 ** 31 - 1),
  keepSeconds: rule.integer(1)
}

/** Options of `addMany`. */
export interface AddManyOptions {
  /** Wait while so many jobs wait; default: never. */
  maxWaiting?: number | undefined
  /** Aborting rejects with the signal's reason; jobs that were added stay. */
  signal?: AbortSignal | undefined
}

/** How many jobs are where. */
export interface QueueCounts {
  /** Not taken yet, delayed and paused ones too. */
  waiting: number
  /** In the hands of workers. */
  active: number
  /** With results that are kept. */
  done: number
  /** The dead letters: tried as often as allowed, or not worth trying again. */
  failed: number
}

const atOnce = 500 // jobs of one round trip
const pollMs = 200

/** A queue of pictures. Made by {@link createQueue}. */
export class PictureQueue {
  #events: Promise<Bull.QueueEvents> | undefined

  /** @internal */
  constructor(
    private readonly queue: Bull.Queue,
    private readonly options: QueueOptions
  ) {}

  /**
   * Adds a job; the result is its id. A job of this id that is there already, also done, stays as it is.
   * @throws PaliGemmaError ERR_INVALID_OPTION
   */
  async add(job: PictureJob): Promise<string> {
    const taken = takeJob('job', job)
    await this.#addAll([taken])
    return taken.data.id
  }

  /**
   * Adds any number of jobs, some hundred in each round trip; the result is how many were given. With `maxWaiting` it
   * reads on only while fewer wait: so a billion jobs never fill Redis.
   */
  async addMany(jobs: Iterable<PictureJob> | AsyncIterable<PictureJob>, options: AddManyOptions = {}): Promise<number> {
    if (!isAnyIterable(jobs)) throw wrongOption('jobs', 'an iterable or async iterable of jobs', jobs)
    return await publicCall<AddManyOptions, number>(
      'addMany',
      options,
      { maxWaiting: rule.integer(1), signal: rule.signal },
      [],
      async ({ maxWaiting = Infinity, signal }) => {
        let count = 0
        let ready: NewJob[] = []
        for await (const job of { [Symbol.asyncIterator]: () => iteratorOf(jobs, 'jobs') }) {
          signal.throwIfAborted()
          ready.push(takeJob(`jobs[${count++}]`, job))
          if (ready.length < Math.min(atOnce, maxWaiting)) continue
          await this.#addAll(ready)
          ready = []
          await this.#untilFewer(maxWaiting, signal)
        }
        await this.#addAll(ready)
        return count
      }
    )
  }

  async #untilFewer(most: number, signal: AbortSignal): Promise<void> {
    while (Number.isFinite(most) && (await this.counts()).waiting >= most) await untilAborted(sleep(pollMs), signal)
  }

  async #addAll(jobs: NewJob[]): Promise<void> {
    const { attempts = 3, backoffMs = 1000, keepSeconds } = this.options
    const kept = keepSeconds === undefined ? {} : { removeOnComplete: { age: keepSeconds } }
    const options = { attempts, backoff: { type: 'exponential', delay: backoffMs }, ...kept }
    await this.queue.addBulk(
      jobs.map(({ data, priority, delayMs }) => ({
        name: data.task,
        data,
        opts: {
          ...options,
          jobId: bullId(data.id),
          priority: priority ?? noPriority,
          ...(delayMs !== undefined && { delay: delayMs })
        }
      }))
    )
  }

  /** What became of a job; undefined while it is not done, and where there is none. */
  async get(id: string): Promise<JobResult | undefined> {
    check('id', id, rule.path)
    const job = (await this.queue.getJob(bullId(id))) as Bull.Job<JobData> | undefined
    if (!job) return undefined
    const state = await job.getState()
    return state === 'completed' || state === 'failed' ? resultOf(job, state) : undefined
  }

  /** Where a job is, and how far; undefined where there is none. */
  async progress(id: string): Promise<JobProgress | undefined> {
    check('id', id, rule.path)
    const job = (await this.queue.getJob(bullId(id))) as Bull.Job<JobData> | undefined
    return job && readProgress(await job.getState(), job.progress)
  }

  /** Waits for a job: its result, or its last error as one. An abort rejects with the signal's reason. */
  async wait(id: string, options: { signal?: AbortSignal | undefined } = {}): Promise<JobResult> {
    check('id', id, rule.path)
    return await publicCall<{ signal?: AbortSignal | undefined }, JobResult>(
      'wait',
      options,
      { signal: rule.signal },
      [],
      async ({ signal }) => await untilAborted(this.#waitFor(id), signal)
    )
  }

  async #waitFor(id: string): Promise<JobResult> {
    const events = await this.#listen()
    const job = (await this.queue.getJob(bullId(id))) as Bull.Job<JobData> | undefined
    if (!job) throw wrongOption('id', 'the id of a job that was added', id)
    await job.waitUntilFinished(events).catch(() => {}) // what became of it is asked for
    const result = await this.get(id)
    if (!result) throw wrongOption('id', 'the id of a job that is kept until it is read', id)
    return result
  }

  async #listen(): Promise<Bull.QueueEvents> {
    this.#events ??= (async () => {
      const { name, options } = bullOptions(this.options)
      const events = new (loadBull().QueueEvents)(name, options)
      events.on('error', () => {}) // it connects again
      await events.waitUntilReady()
      return events
    })()
    return await this.#events
  }

  /** All results, in the order in which they came, some hundred in each round trip. */
  results(): AsyncGenerator<JobResult, void, undefined> {
    return this.#read('completed')
  }

  /** The dead letters: jobs with their last error. */
  failures(): AsyncGenerator<JobResult, void, undefined> {
    return this.#read('failed')
  }

  async *#read(state: 'completed' | 'failed'): AsyncGenerator<JobResult, void, undefined> {
    for (let start = 0; ; start += atOnce) {
      const jobs = (await this.queue.getJobs([state], start, start + atOnce - 1, true)) as Bull.Job<JobData>[]
      for (const job of jobs) yield resultOf(job, state)
      if (jobs.length < atOnce) return
    }
  }

  /** How many jobs are where, at this moment. */
  async counts(): Promise<QueueCounts> {
    const counts = await this.queue.getJobCounts()
    const sum = (...names: string[]): number => names.reduce((all, name) => all + (counts[name] ?? 0), 0)
    return {
      waiting: sum('waiting', 'prioritized', 'delayed', 'paused', 'waiting-children'),
      active: sum('active'),
      done: sum('completed'),
      failed: sum('failed')
    }
  }

  /** Puts all dead letters back. */
  async retryFailed(): Promise<void> {
    await this.queue.retryJobs({ state: 'failed' })
  }

  /** Removes results that are older than so many seconds. */
  async forget(seconds = 0): Promise<void> {
    check('seconds', seconds, rule.number(0))
    while ((await this.queue.clean(seconds * 1000, 10_000, 'completed')).length > 0);
  }

  /** Workers finish what they have and take nothing more until `resume`. */
  async pause(): Promise<void> {
    await this.queue.pause()
  }

  /** Lets workers take jobs again after {@link pause}. */
  async resume(): Promise<void> {
    await this.queue.resume()
  }

  /** Closes the connections; jobs and results stay in Redis. */
  async close(): Promise<void> {
    const events = this.#events
    this.#events = undefined
    await (await events?.catch(() => undefined))?.close()
    await this.queue.close()
  }

  /** `await using` calls {@link close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** By its state: a job that went well in the end keeps the reason why it did not before. */
function resultOf(
  { data, returnvalue, failedReason, attemptsMade }: Bull.Job<JobData>,
  state: 'completed' | 'failed'
): JobResult {
  const { id, image, task } = data
  const job = { id, image, task, attempts: attemptsMade }
  if (state === 'completed') return { ...job, result: revived(returnvalue) }
  return { ...job, error: parseFailure(failedReason ?? 'unknown') }
}

/**
 * Opens a queue in Redis for adding pictures and reading results; workers (`startWorker`, `paligemma worker`) take
 * them.
 * Needs `bullmq` and `ioredis`, which are not among this package's own dependencies.
 * @throws PaliGemmaError ERR_INVALID_OPTION, ERR_DEPENDENCY_MISSING, ERR_DOWNLOAD_FAILED where Redis does not answer
 */
export async function createQueue(options: QueueOptions): Promise<PictureQueue> {
  const taken = readOptions<QueueOptions>('createQueue', options, queueRules, ['redis'])
  const { name, options: bull } = bullOptions(taken)
  let lastError: Error | undefined
  const queue = new (loadBull().Queue)(name, bull)
  queue.on('error', (error: Error) => (lastError = error)) // it connects again
  try {
    await connected(taken, queue.waitUntilReady(), () => lastError)
  } catch (error) {
    queue.disconnect().catch(() => {})
    throw error
  }
  return new PictureQueue(queue, taken)
}
