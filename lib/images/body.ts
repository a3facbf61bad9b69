/** Encoded pictures that come piece by piece: streams, bodies of requests and responses. */
import { Readable } from 'node:stream'
import { isIterable, isWebStream, viewOf, type ImageStream, type WithBytes } from './image-input'
import { invalid } from './problems'
import { PaliGemmaError } from '../base/errors'
import { Pieces } from '../base/pieces'
import { isAnyArrayBuffer, isError, isObject, isUint8Array } from '../base/realms'
import { untilAborted } from '../base/signals'
import { Turns } from '../base/turns'
import { show } from '../base/validate'

/** Encoded pictures over this are refused while they come. */
export const maxEncodedBytes = 256 * 1024 * 1024

/** What may still come: of one picture, or of several together. */
export interface Room {
  limit: number
  left: number
}
export const roomFor = (limit = maxEncodedBytes): Room => ({ limit, left: limit })

const defaultIdleMs = 60_000

export interface CollectOptions {
  signal?: AbortSignal | undefined
  /** Milliseconds without a piece after which the source is given up; default 60 s. */
  idleMs?: number
  room?: Room
}

interface Source {
  next: () => Promise<unknown>
  /** Lets the source go, also while a piece is awaited. */
  stop: (reason: Error) => void
}

/** All bytes of a stream. Rejects with ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE or the signal's reason. */
export async function collect(stream: ImageStream, name: string, options: CollectOptions = {}): Promise<Buffer> {
  const source = open(stream, name)
  const { room = roomFor(), idleMs = defaultIdleMs } = options
  const pieces = new Pieces()
  // a source that always has a piece, be it an empty one, must not hold everything up
  const turns = new Turns()
  let lastCame = performance.now()
  try {
    for (;;) {
      const piece = await nextPiece(source, name, options)
      if (!piece) return pieces.joined()
      room.left -= piece.length
      if (room.left < 0) throw tooLarge(name, room.limit - room.left, room.limit)
      pieces.add(piece)
      if (piece.length > 0) lastCame = performance.now()
      else if (performance.now() - lastCame > idleMs) throw nothingCame(name, idleMs)
      if (turns.due) await turns.next()
    }
  } catch (error) {
    source.stop(isError(error) ? error : new Error('the picture is not wanted any more'))
    throw error
  }
}

/** The bytes as a stream of Node's; it fails with ERR_IMAGE_INVALID. Destroying it lets the source go. */
export function readableOf(stream: ImageStream, name: string): Readable {
  const source = open(stream, name)
  const turns = new Turns()
  const next = async (): Promise<Uint8Array | null> => {
    const piece = await pieceOf(source, name)
    if (turns.due) await turns.next()
    return piece ?? null
  }
  return new Readable({
    read() {
      next().then(
        (piece) => this.push(piece),
        (error: unknown) => this.destroy(error as Error)
      )
    },
    destroy(error, done) {
      source.stop(error ?? new Error('the stream is not wanted any more'))
      done(error)
    }
  })
}

/** Throws where a server's answer is no success, or its body is gone. */
export function checkBody({ bodyUsed, ok, status, statusText }: Partial<Response>, name: string): void {
  if (ok === false) throw invalid(name, `the server answered ${status} ${statusText}`.trimEnd())
  if (bodyUsed === true) throw invalid(name, 'its body was read already; pass its bytes, or a clone()')
}

/** All bytes of a `Blob`, `Response` or `Request`. Rejects as {@link collect}. */
export async function collectBody(image: WithBytes, name: string, options: CollectOptions = {}): Promise<Buffer> {
  checkBody(image as Partial<Response>, name)
  const { body } = image as Partial<Response>
  const { size } = image as Partial<Blob>
  if (typeof size === 'number' && size > maxEncodedBytes) throw tooLarge(name, size)
  if (isWebStream(body) || isIterable(body)) return await collect(body, name, options)
  if (body === null) return Buffer.alloc(0)
  try {
    return Buffer.from(await untilAborted(image.arrayBuffer(), options.signal))
  } catch (error) {
    options.signal?.throwIfAborted()
    throw invalid(name, `cannot be read: ${(error as Error).message}`, error)
  }
}

export function tooLarge(name: string, bytes: number, limit = maxEncodedBytes): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_IMAGE_TOO_LARGE',
    `${name}: ${bytes} bytes or more, the limit is ${limit}; pass a smaller picture, or the path of a file`
  )
}

function open(stream: ImageStream, name: string): Source {
  try {
    if (isWebStream(stream)) {
      const reader = stream.getReader()
      return { next: async () => await reader.read(), stop: (reason) => quietly(() => reader.cancel(reason)) }
    }
    const iterator = stream[Symbol.asyncIterator]()
    return { next: async () => await iterator.next(), stop: (reason) => stopIterating(stream, iterator, reason) }
  } catch (error) {
    throw invalid(name, `cannot be read: ${(error as Error).message}`, error)
  }
}

function stopIterating(stream: unknown, iterator: AsyncIterator<unknown>, reason: Error): void {
  // a Readable's iterator ends only after the piece it waits for, so the stream itself is ended
  const readable = stream as { destroy?: (error: Error) => void; once?: (event: 'error', listener: () => void) => void }
  if (isObject(stream) && typeof readable.destroy === 'function') {
    readable.once?.('error', () => {})
    readable.destroy(reason)
  } else quietly(() => iterator.return?.())
}

/** What a source says when nobody wants it any more is of no interest, whatever its methods do. */
function quietly(end: () => unknown): void {
  try {
    Promise.resolve(end()).catch(() => {})
  } catch {}
}

async function nextPiece(source: Source, name: string, options: CollectOptions): Promise<Uint8Array | undefined> {
  const { signal, idleMs = defaultIdleMs } = options
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(nothingCame(name, idleMs)), idleMs)
  })
  try {
    return await untilAborted(Promise.race([pieceOf(source, name), late]), signal)
  } finally {
    clearTimeout(timer)
  }
}

const nothingCame = (name: string, idleMs: number): PaliGemmaError =>
  invalid(name, `nothing came for ${idleMs / 1000} s`)

/** undefined: there are no more. Rejects with a PaliGemmaError, whatever the source's own code does. */
async function pieceOf(source: Source, name: string): Promise<Uint8Array | undefined> {
  try {
    const { done, value } = (await source.next()) as { done?: unknown; value?: unknown }
    return done ? undefined : toBytes(value, name)
  } catch (error) {
    if (error instanceof PaliGemmaError) throw error
    throw invalid(name, `cannot be read: ${isError(error) ? error.message : show(error)}`, error)
  }
}

function toBytes(piece: unknown, name: string): Uint8Array {
  if (isUint8Array(piece)) return viewOf(piece)
  if (isAnyArrayBuffer(piece)) return new Uint8Array(piece)
  throw invalid(
    name,
    `the stream gave ${piece === null ? 'null' : `a ${typeof piece}`}, not bytes; do not set an encoding`
  )
}
