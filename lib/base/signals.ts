/**
 * AbortSignals of other people and of our own. A signal that users give may be shared by any number of calls, come from
 * another realm or be a polyfill: only `follow` touches it. Inside a call there is one signal of our own, see call.ts.
 */
import { setMaxListeners } from 'node:events'
import { PaliGemmaError } from './errors'

type Follower = (reason: unknown) => void

/** Per signal one listener, whatever the number of calls: more would make Node warn of a leak. */
const followed = new WeakMap<AbortSignal, { followers: Set<Follower>; stop: () => void }>()

/**
 * Calls `onAbort` when the signal aborts, at once if it has. The result ends that; with the last follower gone nothing
 * is left on the signal.
 * @throws PaliGemmaError ERR_INVALID_OPTION for a signal whose members throw
 */
export function follow(source: AbortSignal, onAbort: Follower): () => void {
  const aborted = ask(() => source.aborted)
  if (aborted) {
    onAbort(reasonOf(source))
    return () => {}
  }
  // one function may follow for several calls
  const follower: Follower = (reason) => onAbort(reason)
  const entry = followed.get(source)
  entry?.followers.add(follower)
  const { followers, stop } = entry ?? listen(source, follower)
  return () => {
    if (followers.delete(follower) && followers.size === 0) stop()
  }
}

/** With its first follower: a foreign signal may call its listener at once. */
function listen(source: AbortSignal, first: Follower): { followers: Set<Follower>; stop: () => void } {
  const followers = new Set([first])
  const stop = (): void => {
    if (followed.get(source) === entry) followed.delete(source)
    try {
      heedless(source.removeEventListener('abort', onAbort))
    } catch {} // it is of no use any more
  }
  const onAbort = (): void => {
    const reason = reasonOf(source)
    const all = [...followers]
    followers.clear()
    stop()
    for (const follower of all) follower(reason)
  }
  const entry = { followers, stop }
  ask(() => heedless(source.addEventListener('abort', onAbort)))
  if (followers.size > 0) followed.set(source, entry)
  return entry
}

/** Mocks have asynchronous methods: a promise that nobody looks at must not end the process when it fails. */
function heedless(returned: unknown): void {
  Promise.resolve(returned).catch(() => {})
}

function ask<T>(question: () => T): T {
  try {
    return question()
  } catch (cause) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected AbortSignal for signal but received an object of that kind whose members throw',
      { cause }
    )
  }
}

/** undefined, which becomes an AbortError, where an old or foreign signal has none. */
function reasonOf(source: AbortSignal): unknown {
  try {
    return source.reason
  } catch {
    return undefined
  }
}

/** A controller whose signal any number of our own functions may listen to. */
export function ownController(): AbortController {
  const control = new AbortController()
  setMaxListeners(0, control.signal)
  return control
}

/**
 * The promise, unless the signal aborts first: then its reason at once, whatever the promise does later. The listener
 * is removed when either happens.
 */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await promise
  return await new Promise<T>((resolve, reject) => {
    const release = follow(signal, reject)
    promise.then(resolve, reject).finally(release)
  })
}

/**
 * A signal that aborts when one of several does; `release` it. AbortSignal.any leaks on signals that live long (Node
 * 20).
 */
export function anySignal(signals: (AbortSignal | undefined)[]): {
  signal: AbortSignal | undefined
  release: () => void
} {
  const sources = signals.filter((signal) => signal !== undefined)
  if (sources.length < 2) return { signal: sources[0], release: () => {} }
  const control = ownController()
  const releases = sources.map((source) => follow(source, (reason) => control.abort(reason)))
  return {
    signal: control.signal,
    release: () => {
      for (const release of releases) release()
    }
  }
}
