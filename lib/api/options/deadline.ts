/** `deadlineMs` of a request. */
import type { Taken } from '../../base/call'
import { PaliGemmaError } from '../../base/errors'
import { anySignal, ownController } from '../../base/signals'
import type { SamplingOptions } from './sampling'

/** Ends `work` with ERR_DEADLINE when its time is over. */
export async function withDeadline<T extends SamplingOptions, R>(
  options: Taken<T>,
  work: (options: Taken<T>) => Promise<R>
): Promise<R> {
  const { deadlineMs } = options
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
    return await work({ ...options, signal: signal! })
  } finally {
    clearTimeout(timer)
    release()
  }
}
