/** Small helpers around AbortSignal. */

/**
 * The promise, unless the signal aborts first: then its reason at once, whatever the promise does later. The listener
 * is removed when either happens.
 */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await promise
  return await new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

/** A signal that aborts when one of several does. Unlike AbortSignal.any it exists in Node 20.0; `release` it. */
export function anySignal(signals: (AbortSignal | undefined)[]): {
  signal: AbortSignal | undefined
  release: () => void
} {
  const sources = signals.filter((signal) => signal !== undefined)
  if (sources.length < 2) return { signal: sources[0], release: () => {} }
  const control = new AbortController()
  const listeners = sources.map((source) => {
    const onAbort = (): void => control.abort(source.reason)
    if (source.aborted) onAbort()
    else source.addEventListener('abort', onAbort, { once: true })
    return () => source.removeEventListener('abort', onAbort)
  })
  return {
    signal: control.signal,
    release: () => {
      for (const release of listeners) release()
    }
  }
}
