/** `deadlineMs` of a request. */
import type { Taken } from '../../base/call'
import { PaliGemmaError } from '../../base/errors'
import { anySignal, ownController } from '../../base/signals'
import type { SamplingOptions } from './sampling'

/** Ends `work` with ERR_DEADLINE when its time is over; what it is given names no deadline of its own any more. */
export async function withDeadline<T extends SamplingOptions, R>(
  options: Taken<T>,
  work: (options: Taken<T>) => Promise<R>
): Promise<R> {
  const { deadlineMs, ...rest } = options
  if (deadlineMs === undefined) return await work(options)
  const late = ownController()
  const timer = setTimeout(() => {
    late.abort(
      new PaliGemmaError(
        'ERR_DEADLINE',
        `The request did not end within deadlineMs = ${deadlineMs}. Raise it, lower maxTokens or send fewer requests ` +
          'at once'
      )
    )
  }, deadlineMs)
  const { signal, release } = anySignal([options.signal, late.signal])
  try {
    return await work({ ...rest, signal: signal! } as Taken<T>)
  } finally {
    clearTimeout(timer)
    release()
  }
}
