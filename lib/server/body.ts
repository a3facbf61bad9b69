/** Bodies of requests, within the limits. */
import { isUtf8 } from 'node:buffer'
import type * as z from './schemas/vendored'
import { Pieces } from '../base/pieces'
import { parseLongJson } from '../formats/long-json'
import { ApiError } from './errors'
import { invalidBody } from './invalid-body'

/** The body as the schema wants it. @throws ApiError 400, 413, 415 */
export async function readBody<Body extends z.ZodType>(
  request: Request,
  schema: Body,
  { maxBytes, multipart, signal }: { maxBytes: number; multipart: boolean; signal: AbortSignal }
): Promise<z.output<Body>> {
  const type = request.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase() ?? ''
  const isForm = multipart && type === 'multipart/form-data'
  const isPicture = multipart && (type.startsWith('image/') || type === 'application/octet-stream')
  if (!isForm && !isPicture && type !== 'application/json' && !/^application\/[\w.+-]+\+json$/.test(type))
    throw wrongType(type, multipart)
  const bytes = await collectBytes(request, maxBytes, signal)
  const value = isForm
    ? await readForm(request, bytes)
    : isPicture
      ? await withQuery(request, bytes)
      : await parseJson(bytes)
  const result = schema.safeParse(value)
  if (!result.success) throw invalidBody(result.error)
  return result.data
}

function wrongType(type: string, multipart: boolean): ApiError {
  const wanted = multipart
    ? 'application/json, multipart/form-data, or image/* (the picture is the body, other fields stand in the query)'
    : type.startsWith('image/')
      ? 'application/json, with pictures as data: URLs,'
      : 'application/json'
  return new ApiError(
    415,
    'ERR_INVALID_OPTION',
    `Expected ${wanted} for content-type but received ${JSON.stringify(type)}`
  )
}

async function collectBytes(request: Request, most: number, signal: AbortSignal): Promise<Buffer> {
  if (Number(request.headers.get('content-length') ?? 0) > most) throw tooLarge(most)
  const reader = request.body?.getReader()
  const pieces = new Pieces()
  const stop = (): void => void reader?.cancel(signal.reason).catch(() => {})
  signal.addEventListener('abort', stop, { once: true })
  try {
    while (reader) {
      const { done, value } = await reader.read()
      signal.throwIfAborted()
      if (done) break
      pieces.add(value)
      if (pieces.bytes > most) {
        stop()
        throw tooLarge(most)
      }
    }
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof ApiError) throw error
    throw new ApiError(400, 'ERR_INVALID_OPTION', `The body could not be read: ${(error as Error).message}`)
  } finally {
    signal.removeEventListener('abort', stop)
  }
  return pieces.joined()
}

const tooLarge = (most: number): ApiError =>
  new ApiError(
    413,
    'ERR_IMAGE_TOO_LARGE',
    `The body has more than ${most} bytes, the most this server takes; send smaller pictures`
  )

// Beyond, JSON.parse would hold up the other requests, and so would listing the names of an object that has a million.
const shortJson = 1 << 16
const mostMembers = 50_000

async function jsonOf(bytes: Buffer): Promise<unknown> {
  if (bytes.length <= shortJson) return JSON.parse(bytes.toString('utf8')) as unknown
  return await parseLongJson(bytes, shortJson, mostMembers)
}

const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf])

async function parseJson(bytes: Buffer): Promise<unknown> {
  try {
    if (!isUtf8(bytes)) throw new SyntaxError('it is not valid UTF-8')
    return await jsonOf(bytes.indexOf(byteOrderMark) === 0 ? bytes.subarray(byteOrderMark.length) : bytes)
  } catch (cause) {
    throw new ApiError(400, 'ERR_INVALID_OPTION', `The body is no JSON: ${shortened((cause as Error).message)}`)
  }
}

/** Messages of the parser repeat what they do not understand. */
const shortened = (message: string): string => (message.length > 120 ? `${message.slice(0, 117)}...` : message)

/**
 * A form as the JSON that it stands for. Files are pictures; texts are themselves where the field is a text, and else
 * what they are in JSON (`0.5`, `true`, `["cow", "boat"]`). Fields that come several times are lists.
 */
async function readForm(request: Request, bytes: Buffer): Promise<Record<string, unknown>> {
  let form: FormData
  const [, quoted, plain] = /;\s*boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(request.headers.get('content-type')!) ?? []
  checkFields(partsOf(bytes, quoted ?? plain))
  try {
    const headers = { 'content-type': request.headers.get('content-type')! }
    form = await new Response(bytes, { headers }).formData()
  } catch (cause) {
    throw new ApiError(400, 'ERR_INVALID_OPTION', `The form could not be read: ${(cause as Error).message}`)
  }
  const fields: Record<string, unknown> = {}
  for (const name of new Set(form.keys())) {
    const values: unknown[] = []
    for (const value of form.getAll(name))
      values.push(typeof value === 'string' ? await textOf(name, value) : new Uint8Array(await value.arrayBuffer()))
    fields[name] = oneOrList(name, values)
  }
  return fields
}

// Nothing here has a hundred. Each name is looked for among all fields, and each part is read byte by byte.
const mostFields = 1000

function checkFields(count: number): void {
  if (count > mostFields)
    throw new ApiError(400, 'ERR_INVALID_OPTION', `Expected at most ${mostFields} fields but received more`)
}

/** How many parts a form has; no more are counted than tell that they are too many. */
function partsOf(bytes: Buffer, boundary: string | undefined): number {
  let count = 0
  if (boundary === undefined) return count // no form, as will be found
  for (let at = 0; (at = bytes.indexOf(`--${boundary}`, at)) >= 0 && count <= mostFields; at += boundary.length) count++
  return count
}

/** A picture as the whole body: the other fields stand in the query, as they would in a form. */
async function withQuery(request: Request, picture: Buffer): Promise<Record<string, unknown>> {
  const query = new URL(request.url).searchParams
  checkFields([...query.keys()].length)
  const fields: Record<string, unknown> = {}
  for (const name of new Set(query.keys()))
    fields[name] = oneOrList(name, await Promise.all(query.getAll(name).map((value) => textOf(name, value))))
  if ('image' in fields)
    throw new ApiError(400, 'ERR_INVALID_OPTION', 'Expected image in the body or in the query but received both')
  return { ...fields, image: new Uint8Array(picture) }
}

function oneOrList(name: string, values: unknown[]): unknown {
  const alone = values.length === 1 && (Array.isArray(values[0]) || !alwaysLists.has(name))
  return alone ? values[0] : values
}

// What is a text even where it looks like a number, and what is a text or a list of texts.
const texts = new Set([
  'model',
  'image',
  'images',
  'question',
  'prompt',
  'suffix',
  'text',
  'lang',
  'style',
  'mask_format'
])
const lists = new Set(['labels', 'choices', 'stop'])
const alwaysLists = new Set(['images', 'choices'])

async function textOf(name: string, value: string): Promise<unknown> {
  if (texts.has(name)) return value
  if (!(lists.has(name) ? /^\s*\[/ : /^\s*(?:[-+.\d]|true\b|false\b|null\b|[[{"])/).test(value)) return value
  try {
    return await jsonOf(Buffer.from(value))
  } catch {
    return value
  }
}
