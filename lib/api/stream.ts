/** A running generation as an async iterable. */
import type { Chunk, GenerateResult } from './results'
import { PaliGemmaError } from '../base/errors'

interface Waiter {
  resolve: (step: IteratorResult<Chunk, undefined>) => void
  reject: (error: unknown) => void
}

/**
 * A running generation. Iterate it once for the chunks, or await `result`, or both. Work starts when it is created and
 * does not wait for the reader. Leaving the loop cancels the work, and `result` then has `finishReason: 'abort'`.
 *
 * Errors (and an abort's reason) come out of the loop and of `result`; one of the two is enough to handle, and none
 * leads to an unhandled rejection.
 */
export class GenerateStream implements AsyncIterable<Chunk> {
  /** The whole result, as `generate` gives it. */
  readonly result: Promise<GenerateResult>

  private readonly stop = new AbortController()
  private chunks: Chunk[] = []
  private waiting: Waiter[] = []
  private ended = false
  private failure: { error: unknown } | undefined
  private iterated = false

  /** @internal */
  constructor(
    start: (emit: (chunk: Chunk) => void, stop: AbortSignal) => Promise<GenerateResult>,
    private readonly signal?: AbortSignal
  ) {
    this.result = start((chunk) => this.push(chunk), this.stop.signal)
    // Also marks the rejection as handled: the loop reports it, or nobody asked.
    this.result.then(
      () => this.end(),
      (error) => this.fail(error)
    )
  }

  /** Ends the work; `result` resolves with what there is and `finishReason: 'abort'`. */
  cancel(): void {
    this.chunks = []
    this.stop.abort()
    this.end()
  }

  [Symbol.asyncIterator](): AsyncIterator<Chunk, undefined> {
    if (this.iterated)
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        'A GenerateStream can be iterated only once; await its result instead'
      )
    this.iterated = true
    return {
      next: async () => await this.next(),
      return: async () => {
        this.cancel()
        return { done: true, value: undefined }
      }
    }
  }

  /**
   * The chunks as newline-separated JSON in UTF-8, to send over HTTP: `new Response(stream.toReadableStream())`.
   * Cancelling the readable stream cancels the work.
   */
  toReadableStream(): ReadableStream<Uint8Array> {
    const iterator = this[Symbol.asyncIterator]()
    const encoder = new TextEncoder()
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        try {
          const { done, value } = await iterator.next()
          if (done) controller.close()
          else controller.enqueue(encoder.encode(`${JSON.stringify(value)}\n`))
        } catch (error) {
          controller.error(error)
        }
      },
      async cancel() {
        await iterator.return?.()
      }
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
    await this.result.catch(() => {})
  }

  private push(chunk: Chunk): void {
    if (this.ended) return
    const waiter = this.waiting.shift()
    if (waiter) waiter.resolve({ done: false, value: chunk })
    else this.chunks.push(chunk)
  }

  private end(): void {
    this.ended = true
    for (const waiter of this.waiting.splice(0)) waiter.resolve({ done: true, value: undefined })
  }

  private fail(error: unknown): void {
    if (this.ended) return
    // After an abort nobody wants what is still queued.
    if (this.signal?.aborted) this.chunks = []
    this.ended = true
    const waiters = this.waiting.splice(0)
    if (waiters.length === 0) this.failure = { error }
    waiters.forEach((waiter, i) => (i === 0 ? waiter.reject(error) : waiter.resolve({ done: true, value: undefined })))
  }

  private async next(): Promise<IteratorResult<Chunk, undefined>> {
    const chunk = this.signal?.aborted && !this.ended ? undefined : this.chunks.shift()
    if (chunk) return { done: false, value: chunk }
    if (this.failure) {
      const { error } = this.failure
      this.failure = undefined
      throw error
    }
    if (this.ended) return { done: true, value: undefined }
    return await new Promise((resolve, reject) => this.waiting.push({ resolve, reject }))
  }
}
