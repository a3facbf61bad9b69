/**
 * The border of the library. What users hand over is read here, once: checked, copied, its callbacks tied to the place
 * they come from and its signal followed. Behind it there are plain values, and a signal of our own that ends the call.
 */
import { AsyncResource } from 'node:async_hooks'
import { isProxy } from 'node:util/types'
import { follow, ownController, untilAborted } from './signals'
import { explainSystem } from './system-limits'
import { readOptions, type Rule, type Rules } from './validate'

/** What `work` gets: the options as they were when the call was made. */
export type Taken<T> = T & { signal: AbortSignal; throughput?: boolean | undefined }

/**
 * Among the options of a public call that is one of many: nobody waits for its tokens, only for the ends of all. A
 * symbol, so that only our own calls can say so.
 */
export const forThroughput = Symbol('for throughput')

/**
 * A public call: `work` with checked options of its own. It ends early with the reason of the user's signal, or with
 * what one of the user's callbacks throws or rejects with, unchanged.
 */
export async function publicCall<T extends { signal?: AbortSignal | undefined }, R>(
  name: string,
  given: unknown,
  rules: Rules<T>,
  required: (keyof T)[],
  work: (options: Taken<T>) => Promise<R>,
  folder?: string
): Promise<R> {
  const options = readOptions<T>(name, given, rules, required, folder)
  const callbacks = new Callbacks(options, rules)
  const { signal } = callbacks.end
  const release = options.signal ? follow(options.signal, (reason) => callbacks.end.abort(reason)) : () => {}
  try {
    signal.throwIfAborted()
    const result = await work({ ...options, signal, ...(isForThroughput(given) && { throughput: true }) })
    await callbacks.settled()
    return result
  } catch (error) {
    throw callbacks.threw(error) ? error : explainSystem(error)
  } finally {
    release()
  }
}

/** Asks nothing that a user's proxy could answer. */
function isForThroughput(options: unknown): boolean {
  return !isProxy(options) && Object.hasOwn(options as object, forThroughput)
}

/**
 * A public call whose results come in a loop: `read` takes the options now, in the caller's state, and what is wrong
 * with them comes out of the loop, as everything else does. Whoever runs the loop, the user's sources and callbacks run
 * in the context of this call. Leaving it ends the work at once, also while a result is waited for.
 */
export function publicLoop<T extends { signal?: AbortSignal | undefined }, R>(
  read: () => T,
  work: (options: Taken<T>) => AsyncGenerator<R, void, undefined>
): AsyncGenerator<R, void, undefined> {
  const options = attempt(read)
  const end = ownController()
  let [waiting, left] = [0, false]
  const loop = run()
  const [next, leave, fail] = [loop.next.bind(loop), loop.return.bind(loop), loop.throw.bind(loop)]
  // A generator that waits keeps whoever wants to end it waiting, too.
  const stop = (): void => {
    if (waiting === 0) return
    left = true
    end.abort(new Error('the loop was left'))
  }
  return Object.assign(loop, {
    next: AsyncResource.bind(async () => {
      waiting++
      return await next().finally(() => waiting--)
    }),
    return: AsyncResource.bind(async () => {
      stop()
      return await leave()
    }),
    throw: AsyncResource.bind(async (error: unknown) => {
      stop()
      return await fail(error)
    })
  })

  async function* run(): AsyncGenerator<R, void, undefined> {
    const taken = options()
    const release = taken.signal ? follow(taken.signal, (reason) => end.abort(reason)) : () => {}
    try {
      end.signal.throwIfAborted()
      yield* work({ ...taken, signal: end.signal })
    } catch (error) {
      if (!left) throw explainSystem(error)
    } finally {
      release()
    }
  }
}

/** The value, or what the question throws, later. */
function attempt<T>(question: () => T): () => T {
  try {
    const value = question()
    return () => value
  } catch (error) {
    return () => {
      throw explainSystem(error)
    }
  }
}

/**
 * The user's functions among the options, replaced by ones that run in the AsyncLocalStorage context of this call,
 * wherever they are called from. Promises that callbacks return are gathered: a rejected one ends the call.
 */
class Callbacks {
  /** Ends the call. */
  readonly end = ownController()
  private readonly pending = new Set<Promise<unknown>>()
  private readonly thrown = new Set<unknown>()

  constructor(options: object, rules: object) {
    const table = options as Record<string, unknown>
    for (const [name, { kind }] of Object.entries(rules as Record<string, Rule>)) {
      const callback = table[name]
      if (kind === undefined || typeof callback !== 'function') continue
      const bound = AsyncResource.bind(callback as (...args: unknown[]) => unknown)
      table[name] = kind === 'callback' ? (...args: unknown[]) => this.call(bound, args) : bound
    }
  }

  private call(callback: (...args: unknown[]) => unknown, args: unknown[]): void {
    let returned: unknown
    try {
      returned = callback(...args)
    } catch (error) {
      this.thrown.add(error)
      throw error
    }
    if (!isThenable(returned)) return
    const settled: Promise<unknown> = Promise.resolve(returned).then(
      () => this.pending.delete(settled),
      (error: unknown) => {
        this.pending.delete(settled)
        this.thrown.add(error)
        this.end.abort(error)
      }
    )
    this.pending.add(settled)
  }

  threw(error: unknown): boolean {
    return this.thrown.has(error)
  }

  /** When all promises of callbacks are; rejects with the first that failed. */
  async settled(): Promise<void> {
    if (this.pending.size > 0) await untilAborted(Promise.all(this.pending), this.end.signal)
    this.end.signal.throwIfAborted()
  }
}

function isThenable(value: unknown): boolean {
  try {
    return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
  } catch {
    return false
  }
}

const outside = AsyncResource.bind((work: () => unknown) => work())

/**
 * For what outlives the call that starts it, such as a model: nobody's context, so that it keeps nobody's data alive.
 */
export function inNoContext<T>(work: () => T): T {
  return outside(work) as T
}
