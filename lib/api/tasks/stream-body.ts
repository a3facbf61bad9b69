/** A generation as the body of an HTTP response. */
import type { PlainBytes } from '../../base/plain-memory'
import { longestName, rule, readOptions, type Rules } from '../../base/validate'
import type { Chunk, GenerateResult } from '../options/results'

/** Options of a stream's `toResponse`. */
export interface ResponseOptions {
  /**
   * "text" (default): the text alone. "jsonl": a {@link Chunk} as JSON a line. "sse": server-sent events, each chunk as
   * the JSON data of a message, then one event "end" with `{ finishReason, seed, usage }`, or "error" with
   * `{ code, message }`. In the other formats an error breaks the body off.
   */
  format?: 'text' | 'sse' | 'jsonl' | undefined
  /** 200 where not given. */
  status?: number | undefined
  /** Beside `content-type` and `cache-control: no-cache`, which may be replaced. */
  headers?: Record<string, string> | Headers | [string, string][] | undefined
}

/** What a body is made of: a GenerateStream. */
interface Source extends AsyncIterable<Chunk> {
  readonly result: Promise<GenerateResult>
  cancel: () => void
}

type Format = NonNullable<ResponseOptions['format']>

const types: Record<Format, string> = {
  text: 'text/plain; charset=utf-8',
  sse: 'text/event-stream; charset=utf-8',
  jsonl: 'application/jsonl; charset=utf-8'
}

type HeaderForms = NonNullable<ResponseOptions['headers']>

const mostHeaders = 1000

/** Throws for more than any server takes, before `Headers` looks at each letter. */
function shortHeaders(given: HeaderForms): [string, string][] {
  const pairs: [string, string][] = []
  for (const [name, value] of Symbol.iterator in given ? given : Object.entries(given)) {
    const isLong = [name, value].some((text: unknown) => typeof text === 'string' && text.length > longestName)
    if (isLong || pairs.push([name, value]) > mostHeaders) throw new RangeError('the headers are too long')
  }
  return pairs
}

const responseRules: Rules<ResponseOptions> = {
  format: rule.oneOf('text', 'sse', 'jsonl'),
  status: {
    expected: 'HTTP status with a body',
    accepts: (v) => rule.integer(200, 599).accepts(v) && ![204, 205, 304].includes(v as number)
  },
  headers: {
    expected: 'headers as the Headers constructor takes them',
    take: (v) => new Headers(shortHeaders(v as HeaderForms)),
    accepts: () => true
  }
}

const event = (name: string, data: unknown): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`

const writeChunk: Record<Format, (chunk: Chunk) => string> = {
  text: ({ text }) => text,
  sse: (chunk) => `data: ${JSON.stringify(chunk)}\n\n`,
  jsonl: (chunk) => `${JSON.stringify(chunk)}\n`
}

/** The bytes of a body, piece by piece. */
async function* pieces(
  chunks: AsyncIterable<Chunk>,
  stream: Source,
  format: Format
): AsyncGenerator<string, void, void> {
  if (format !== 'sse') {
    for await (const chunk of chunks) yield writeChunk[format](chunk)
    return
  }
  try {
    for await (const chunk of chunks) yield writeChunk.sse(chunk)
    const { finishReason, seed, usage } = await stream.result
    yield event('end', { finishReason, seed, usage })
  } catch (error) {
    // the connection is there to tell it; clients do not see a broken body's reason
    yield event('error', describe(error))
  }
}

function describe(error: unknown): { code: string; message: string } {
  const { code, name, message } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>
  return {
    code: typeof code === 'string' ? code : typeof name === 'string' ? name : 'Error',
    message: typeof message === 'string' ? message : String(error)
  }
}

/** A readable stream that asks for the next piece when its reader wants one; cancelling it cancels the generation. */
export function bodyOf(stream: Source, format: Format): ReadableStream<PlainBytes> {
  const chunks = stream[Symbol.asyncIterator]() // now: a second reader is told at once
  const iterator = pieces({ [Symbol.asyncIterator]: () => chunks }, stream, format)
  const encoder = new TextEncoder()
  return new ReadableStream<PlainBytes>(
    {
      async pull(controller) {
        for (;;) {
          const { done, value } = await iterator.next()
          if (done) return controller.close()
          if (value === '') continue // incomplete characters
          return controller.enqueue(encoder.encode(value) as PlainBytes)
        }
      },
      cancel() {
        // not iterator.return(), which would wait for the token that is on its way
        stream.cancel()
      }
    },
    { highWaterMark: 0 }
  )
}

export function responseOf(stream: Source, given: ResponseOptions): Response {
  const options = readOptions<ResponseOptions>('toResponse', given, responseRules)
  const { format = 'text', status = 200 } = options
  const headers = new Headers({ 'content-type': types[format], 'cache-control': 'no-cache' })
  for (const [name, value] of (options.headers as Headers | undefined) ?? []) headers.set(name, value)
  return new Response(bodyOf(stream, format), { status, headers })
}
