/** `batch`: any number of items through one task, with back-pressure. */
import { setTimeout as sleep } from 'node:timers/promises'
import { forThroughput, publicLoop, type Taken } from '../../base/call'
import { PaliGemmaError } from '../../base/errors'
import { flow } from '../../base/flow'
import { workingFolder } from '../../base/paths'
import { anySignal, untilAborted } from '../../base/signals'
import { check, readFields, readOptions, type Rule } from '../../base/validate'
import { isBytes, isIterable, isSharp } from '../../images/image-input'
import { asError } from './batch'
import { batchTaskRules, callTask, itemOptions, taskRule, type BatchTask, type TaskCalls } from './batch-tasks'
import { definedOnly, type ModelHost } from '../request/host'

interface RunOptions {
  task: BatchTask
  concurrency?: number
  ordered?: boolean
  signal?: AbortSignal
}

interface Outcome {
  index: number
  item: unknown
  result?: unknown
  error?: Error
}

export function runBatch(
  model: TaskCalls,
  host: ModelHost,
  items: unknown,
  given: unknown
): AsyncGenerator<Outcome, void, undefined> {
  const folder = workingFolder()
  return publicLoop(
    () => {
      const { task } = readFields('the options of batch', given, ['task']) as { task: BatchTask }
      check('task', task, taskRule)
      check('items', items, itemsRule)
      const options: object = readOptions('batch', given, batchTaskRules[task], ['task' as never])
      return options as RunOptions & Record<string, unknown>
    },
    (options) => run(model, host, items as AsyncIterable<unknown>, options, folder)
  )
}

const itemsRule: Rule = {
  expected: 'an iterable or async iterable of pictures',
  accepts: (items) =>
    typeof items === 'object' &&
    items !== null &&
    !isBytes(items) &&
    !isSharp(items) &&
    (isIterable(items) || Symbol.iterator in items)
}

async function* run(
  model: TaskCalls,
  host: ModelHost,
  items: AsyncIterable<unknown>,
  options: Taken<RunOptions & Record<string, unknown>>,
  folder: string
): AsyncGenerator<Outcome, void, undefined> {
  const { task, concurrency = 2 * host.maxSequences, ordered = false, signal, ...shared } = options
  host.throwIfDisposed()
  // As many pictures are ready as are decoded: those that began together often end together, too.
  const atOnce = Math.min(concurrency, host.options.maxQueue ?? Infinity)
  const call = callTask[task] as (model: TaskCalls, request: object) => Promise<unknown>
  const work = async (item: unknown, index: number, stop: AbortSignal): Promise<Outcome> => {
    try {
      const { signal: own, ...options } = definedOnly(itemOptions(item, folder))
      return {
        index,
        item,
        result: await withBoth(own as AbortSignal | undefined, stop, async (signal) => {
          return await whenNotBusy(
            async () => await call(model, { ...shared, ...options, ...patience(options), signal }),
            signal
          )
        })
      }
    } catch (error) {
      if (endsAll(error)) throw error
      return { index, item, error: asError(error) }
    }
  }
  // What takes long must not stop the others: as many as three times what is in work may wait behind it.
  yield* flow(items, work, { name: 'items', concurrency: atOnce, ordered, window: (ordered ? 4 : 2) * atOnce, signal })
}

/** Unless its caller follows an item's tokens or objects, only the ends of all are waited for. */
function patience(item: Record<string, unknown>): object {
  return item['onToken'] === undefined && item['onObject'] === undefined ? { [forThroughput]: true } : {}
}

/** `work` with a signal that aborts when the item's own or the run's does. */
async function withBoth<R>(
  own: AbortSignal | undefined,
  stop: AbortSignal,
  work: (signal: AbortSignal) => Promise<R>
): Promise<R> {
  const { signal, release } = anySignal([own, stop])
  try {
    return await work(signal!)
  } finally {
    release()
  }
}

const [shortestWaitMs, longestWaitMs] = [20, 1000]

/** `maxQueue` may be taken up by others: an item then waits its turn. */
async function whenNotBusy<R>(work: () => Promise<R>, signal: AbortSignal): Promise<R> {
  for (let waitMs = shortestWaitMs; ; waitMs = Math.min(2 * waitMs, longestWaitMs)) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof PaliGemmaError && error.code === 'ERR_BUSY')) throw error
    }
    await untilAborted(sleep(waitMs), signal)
  }
}

/** No other item will fare better. */
function endsAll(error: unknown): boolean {
  return (
    error instanceof PaliGemmaError && ['ERR_DISPOSED', 'ERR_MODEL_CHANGED', 'ERR_DEVICE_LOST'].includes(error.code)
  )
}
