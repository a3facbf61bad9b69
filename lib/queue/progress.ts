/** How far a job is: told by its worker a few times a second, asked for by whoever has its id. */
import type * as Bull from 'bullmq'
import type { BatchTask } from '../api/many/batch-tasks'

/** Where a job is, of `queue.progress(id)`. */
export interface JobProgress {
  /** "waiting" also while it is delayed or the queue is paused; "failed": among the dead letters. */
  state: 'waiting' | 'active' | 'done' | 'failed'
  /** What is counted: tiles of a large picture, or tokens of `generate`. */
  unit?: 'tiles' | 'tokens'
  /** How many so far, told four times a second at most; absent before the first. */
  done?: number
  /** All tiles; of tokens none knows. */
  all?: number
}

const betweenMs = 250

/** The callbacks of a request that tell Redis how far it is; none where a task has nothing to count. */
export function reporting(job: Bull.Job, task: BatchTask, options: Record<string, unknown>): object {
  let last = 0
  const tell = (progress: object): void => {
    const now = Date.now()
    if (now - last < betweenMs) return
    last = now
    job.updateProgress(progress).catch(() => {}) // the job's own end says whether Redis is there
  }
  if (options['tiles'] !== undefined)
    return { onTile: (done: number, all: number) => tell({ unit: 'tiles', done, all }) }
  if (task !== 'generate') return {}
  let done = 0
  return { onToken: () => tell({ unit: 'tokens', done: ++done }) }
}

/** BullMQ's state and what the worker told. */
export function readProgress(state: string, told: unknown): JobProgress {
  const name = state === 'completed' ? 'done' : state === 'failed' || state === 'active' ? state : 'waiting'
  const { unit, done, all } = (typeof told === 'object' && told !== null ? told : {}) as Partial<JobProgress>
  if (name === 'waiting' || unit === undefined || done === undefined) return { state: name }
  return { state: name, unit, done, ...(all !== undefined && { all }) }
}
