/** Work on the items of a source, several at a time, never further ahead of the reader than agreed. */
import { iteratorOf } from './iterate'
import { ownController, untilAborted } from './signals'

export interface FlowOptions {
  /** The option that the source came in, for errors. */
  name: string
  /** Items in work at once. */
  concurrency: number
  /** Results in the order of their items; else as they come. */
  ordered: boolean
  /** Items that were read and whose results were not yet taken; at least `concurrency`. */
  window: number
  /** Aborting ends the flow with the signal's reason. */
  signal?: AbortSignal | undefined
}

type Source<T> = AsyncIterable<T> | Iterable<T>
type Work<T, R> = (item: T, index: number, signal: AbortSignal) => Promise<R>

/**
 * The results of `work`, whose rejection ends the flow. When the source fails, what was read before is finished first.
 * Leaving the loop aborts what is in work and closes the source.
 */
export async function* flow<T, R>(
  source: Source<T>,
  work: Work<T, R>,
  options: FlowOptions
): AsyncGenerator<R, void, undefined> {
  const state = new Flow(source, work, options)
  try {
    for (;;) {
      state.fill()
      const done = state.take()
      if (done) yield done.value
      else if (state.finished) return
      else await untilAborted(state.change(), options.signal)
    }
  } finally {
    await state.close()
  }
}

class Flow<T, R> {
  readonly #iterator: AsyncIterator<T>
  readonly #stop = ownController()
  readonly #results = new Map<number, R>()
  #read = 0
  #taken = 0
  #running = 0
  #reading = false
  /** The source has no more, or failed. */
  #ended = false
  #failure: { error: unknown; atOnce: boolean } | undefined
  #wake = (): void => {}

  constructor(
    source: Source<T>,
    private readonly work: Work<T, R>,
    private readonly options: FlowOptions
  ) {
    this.#iterator = iteratorOf(source, options.name)
  }

  /** Reads and begins as much as there is room for. */
  fill(): void {
    const { concurrency, window } = this.options
    if (this.#reading || this.#ended || this.#running >= concurrency || this.#read - this.#taken >= window) return
    this.#reading = true
    this.#iterator.next().then(
      ({ done, value }) => {
        this.#reading = false
        if (done) this.#end()
        else this.#begin(value as T)
      },
      (error: unknown) => {
        this.#reading = false
        this.#end({ error, atOnce: false })
      }
    )
  }

  #end(failure?: { error: unknown; atOnce: boolean }): void {
    this.#ended = true
    this.#failure ??= failure
    this.#wake()
  }

  #begin(item: T): void {
    if (this.#stop.signal.aborted) return
    const index = this.#read++
    this.#running++
    this.work(item, index, this.#stop.signal).then(
      (result) => {
        this.#running--
        this.#results.set(index, result)
        this.fill()
        this.#wake()
      },
      (error: unknown) => {
        this.#running--
        this.#end({ error, atOnce: true })
      }
    )
    this.fill()
  }

  /** The next result, if there is one; throws what ended the flow. */
  take(): { value: R } | undefined {
    if (this.#failure?.atOnce) throw this.#failure.error
    const first = this.options.ordered ? this.#taken : this.#results.keys().next().value
    if (first === undefined || !this.#results.has(first)) {
      if (this.#failure && this.#running === 0) throw this.#failure.error
      return undefined
    }
    const value = this.#results.get(first)!
    this.#results.delete(first)
    this.#taken++
    this.fill()
    return { value }
  }

  get finished(): boolean {
    return this.#ended && this.#running === 0 && this.#results.size === 0
  }

  async change(): Promise<void> {
    await new Promise<void>((resolve) => (this.#wake = resolve))
  }

  async close(): Promise<void> {
    const closed = this.#ended && !this.#reading
    this.#ended = true
    this.#stop.abort(new Error('the loop was left'))
    if (closed) return
    const closing = this.#iterator.return!().catch(() => {}) // the loop is over; its end is what counts
    // A generator that waits for its next item cannot be closed before that comes.
    if (!this.#reading) await closing
  }
}
