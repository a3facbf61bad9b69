/** Server-sent events, and several streams as one. */
import type { Chunk, GenerateResult } from '../api/options/results'
import type { GenerateStream } from '../api/tasks/stream'
import type { Call } from './call'
import { clientGone, failureOf, type ErrorBody } from './errors'

/**
 * Answers with events as they come. The first is waited for: what fails before it gets a status of its own. Later
 * errors
 * are told by `describe` in an event, since the status is gone. The client's leaving ends the work.
 */
export async function eventStream(
  call: Call,
  events: AsyncGenerator<string, void, void>,
  describe: (error: ErrorBody) => string
): Promise<Response> {
  let next: Promise<IteratorResult<string, void>> | undefined = events.next()
  await next
  call.streaming = true
  const encoder = new TextEncoder()
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await (next ?? events.next())
          next = undefined
          if (!done) return controller.enqueue(encoder.encode(value))
          controller.close()
          call.end(200)
        } catch (error) {
          if (call.request.signal.aborted) {
            call.end(clientGone)
          } else {
            const { status, body: told } = failureOf(error)
            controller.enqueue(encoder.encode(describe(told)))
            call.end(status, error)
          }
          controller.close()
        }
      },
      cancel() {
        call.abort(new Error('the client has left'))
        void events.return().catch(() => {})
        call.end(clientGone)
      }
    },
    { highWaterMark: 0 }
  )
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      // proxies such as nginx would collect the events
      'x-accel-buffering': 'no'
    }
  })
}

export const dataEvent = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`
export const namedEvent = (name: string, value: unknown): string => `event: ${name}\ndata: ${JSON.stringify(value)}\n\n`

/** The last event of OpenAI's streams, and of ours. */
export const done = 'data: [DONE]\n\n'

/** The chunks of a stream and then its result. */
export async function* withEnd(stream: GenerateStream): AsyncGenerator<Chunk | { result: GenerateResult }, void, void> {
  yield* stream
  yield { result: await stream.result }
}

/** The items of several streams as they come, each with its stream's index. The first error ends all. */
export async function* merge<T>(
  streams: readonly AsyncIterable<T>[]
): AsyncGenerator<[index: number, item: T], void, void> {
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]())
  const step = async (i: number): Promise<[number, IteratorResult<T>]> => [i, await iterators[i]!.next()]
  const waiting = new Map(iterators.map((_, i) => [i, step(i)]))
  try {
    while (waiting.size > 0) {
      const [i, { done, value }] = await Promise.race(waiting.values())
      if (done) waiting.delete(i)
      else {
        waiting.set(i, step(i))
        yield [i, value]
      }
    }
  } finally {
    for (const promise of waiting.values()) promise.catch(() => {})
    for (const iterator of iterators) void iterator.return?.()
  }
}
