/** A running generation as an async iterable, and as what goes over HTTP. */
import type { PlainBytes } from '../../base/plain-memory'
import { PaliGemmaError } from '../../base/errors'
import { ownController } from '../../base/signals'
import { check, rule } from '../../base/validate'
import type { Chunk, GenerateResult } from '../options/results'
import { bodyOf, responseOf, type ResponseOptions } from './stream-body'

interface Waiter {
  resolve: (step: IteratorResult<Chunk, undefined>) => void
  reject: (error: unknown) => void
}

type Start = (emit: (chunk: Chunk) => void, stop: AbortSignal, onAbort: () => void) => Promise<GenerateResult>

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

  private readonly stop = ownController()
  private chunks: Chunk[] = []
  private waiting: Waiter[] = []
  private ended = false
  private failure: { error: unknown } | undefined
  private iterated = false
  private aborted = false

  /** @internal */
  constructor(start: Start) {
    check('a new GenerateStream', start, { expected: 'what model.stream() makes', accepts: rule.function.accepts })
    const onAbort = (): void => {
      // nobody wants what is still queued
      this.aborted = true
      this.chunks = []
    }
    this.result = Promise.resolve(start((chunk) => this.push(chunk), this.stop.signal, onAbort))
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

  /** The chunks, once. @throws PaliGemmaError ERR_INVALID_OPTION the second time */
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

  /** The whole text, when it is complete. */
  async text(): Promise<string> {
    return (await this.result).text
  }

  /**
   * The chunks as newline-separated JSON in UTF-8, to send over HTTP: `new Response(stream.toReadableStream())`.
   * Read as fast as the reader takes it; cancelling the readable stream cancels the work.
   */
  toReadableStream(): ReadableStream<PlainBytes> {
    return bodyOf(this, 'jsonl')
  }

  /** The text alone, in UTF-8; otherwise as {@link toReadableStream}. */
  toTextStream(): ReadableStream<PlainBytes> {
    return bodyOf(this, 'text')
  }

  /**
   * The generation as the answer of a web handler: `return model.stream(request).toResponse({ format: 'sse' })`. The
   * client's leaving cancels the work. See {@link ResponseOptions.format} for what is sent, also in case of an error.
   * @throws PaliGemmaError ERR_INVALID_OPTION
   */
  toResponse(options: ResponseOptions = {}): Response {
    return responseOf(this, options)
  }

  /** `await using` cancels the work, and waits until it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
    await this.result.catch(() => {})
  }

  private push(chunk: Chunk): void {
    if (this.ended || this.aborted) return
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
    this.ended = true
    const waiters = this.waiting.splice(0)
    if (waiters.length === 0) this.failure = { error }
    waiters.forEach((waiter, i) => (i === 0 ? waiter.reject(error) : waiter.resolve({ done: true, value: undefined })))
  }

  private async next(): Promise<IteratorResult<Chunk, undefined>> {
    const chunk = this.chunks.shift()
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
