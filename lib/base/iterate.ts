/** Reading iterables that others wrote: what is wrong with one is named and has a code. */
import { wrongOption } from './validate'

/** An object that a loop can go over; what cannot be read is none. */
export function isAnyIterable(value: unknown): boolean {
  try {
    return typeof value === 'object' && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value)
  } catch {
    return false
  }
}

/** As `for await` reads it, but for values that are promises. `name`: the option that it came in. */
export function iteratorOf<T>(source: AsyncIterable<T> | Iterable<T>, name: string): AsyncIterator<T> {
  const either = source as Partial<AsyncIterable<T> & Iterable<T>>
  const iterator = either[Symbol.asyncIterator] ? either[Symbol.asyncIterator]!() : either[Symbol.iterator]!()
  if (typeof (iterator as Partial<typeof iterator> | null | undefined)?.next !== 'function')
    throw wrongOption(name, 'iterable whose iterator has next()', iterator)
  return {
    // async: what they throw is a rejection, too
    async next() {
      const result: unknown = await iterator.next()
      if (typeof result === 'object' && result !== null) return result as IteratorResult<T>
      throw wrongOption(name, 'iterable whose next() gives { done, value }', result)
    },
    async return() {
      await iterator.return?.()
      return { done: true, value: undefined }
    }
  }
}
