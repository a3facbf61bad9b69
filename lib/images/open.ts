/** Bringing a picture to this machine, still encoded. */
import { open, stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Sharp } from 'sharp'
import { collect, collectBody } from './body'
import {
  checkImage,
  describe,
  hasBytes,
  isBytes,
  isIterable,
  isRaw,
  isSharp,
  isWebStream,
  viewOf,
  type Bytes,
  type DecodeOptions,
  type ImageEmbedding,
  type ImageInput,
  type RawPixels
} from './image-input'
import { invalid } from './problems'
import { download } from './remote'
import { textHint, fromBase64, fromDataUrl } from './texts'
import { isAddress } from '../base/paths'
import { isUrl } from '../base/realms'
import { longestName } from '../base/validate'

/** A picture that is on this machine, still encoded. */
export interface OpenedImage {
  /** For messages. */
  name: string
  /** A path, encoded bytes, raw pixels or a sharp pipeline. */
  source: string | Buffer | RawPixels | Sharp
}

/** Brings a picture to this machine: downloads, unpacks and collects. Rejects as `decodeImage`. */
export async function openImage(
  image: Exclude<ImageInput, ImageEmbedding>,
  options: DecodeOptions = {}
): Promise<OpenedImage> {
  const { signal } = options
  checkImage(image)
  signal?.throwIfAborted()
  const name = describe(image)
  if (isSharp(image)) return { name, source: image.clone() } // a stream too, so before streams
  if (typeof image === 'string' || isUrl(image)) return { name, source: await locate(image, name, options) }
  if (isBytes(image)) return { name, source: bytesOf(image, name) }
  if (isRaw(image)) return { name, source: image }
  if (hasBytes(image)) return { name, source: await collectBody(image, name, { signal }) }
  if (isWebStream(image) || isIterable(image)) return { name, source: await collect(image, name, { signal }) }
  throw invalid(name, 'an ImageEmbedding has no pixels')
}

function bytesOf(image: Bytes, name: string): Buffer {
  try {
    return viewOf(image)
  } catch (cause) {
    throw invalid(name, 'its buffer is gone: it was transferred', cause)
  }
}

/** A path, or the encoded bytes. */
async function locate(image: string | URL, name: string, options: DecodeOptions): Promise<string | Buffer> {
  const text = String(image)
  const scheme = /^(file|data|blob|https?):/i.exec(text.slice(0, 10))?.[1]?.toLowerCase()
  if (scheme === 'data') return await fromDataUrl(text, name, options.signal)
  if (scheme && text.length > longestName) throw invalid(name, 'this is longer than any address')
  if (scheme === 'file') {
    try {
      return fileURLToPath(text)
    } catch (cause) {
      throw invalid(name, (cause as Error).message, cause)
    }
  }
  if (scheme === 'blob') throw invalid(name, `${readUrls}; pass the Blob itself`)
  if (scheme) return await download(text, options)
  if (isUrl(image)) throw invalid(name, readUrls)
  if (await isThere(text)) return text
  if (isAddress(text)) throw invalid(name, readUrls)
  return (await fromBase64(text, options.signal)) ?? (await missing(text, name))
}

const readUrls = 'only file:, data:, http: and https: URLs are read'

// Longer texts cannot be paths; looking for them would put them into the system's messages whole.
const longestPath = 4096

async function isThere(text: string): Promise<boolean> {
  return (
    text.length <= longestPath &&
    (await stat(text).then(
      () => true,
      () => false
    ))
  )
}

async function missing(text: string, name: string): Promise<never> {
  const hint = textHint(text)
  if (text.length > longestPath) throw invalid(name, `this text is too long for a path${hint}`)
  const cause = await stat(text).then(
    () => undefined,
    (error: Error) => error
  )
  throw invalid(name, `cannot be read: ${cause ? reasonOf(cause) : 'it is gone'}${hint}`, cause)
}

/** Without the path, which the system's messages end with. */
const reasonOf = (error: Error): string => error.message.split(', ')[0]!

// Larger files are decoded by the helper, from their path.
const largestRead = 64 * 1024 * 1024
const headBytes = 4096

/** A file's bytes, or where it is large its beginning alone. Only regular files: pipes and devices never end. */
export async function readPicture(path: string, name: string): Promise<{ bytes: Buffer; whole: boolean }> {
  try {
    const found = await stat(path)
    if (!found.isFile()) {
      const what = found.isDirectory() ? 'EISDIR: it is a directory' : 'it is a pipe, socket or device'
      throw invalid(name, `cannot be read: ${what}, not a file`)
    }
    const file = await open(path, 'r')
    try {
      const { size } = await file.stat()
      // some of the system's own files have no size, and whoever reads them waits for ever
      if (size === 0) return { bytes: Buffer.alloc(0), whole: true }
      if (size <= largestRead) return { bytes: await file.readFile(), whole: true }
      const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0)
      return { bytes: buffer.subarray(0, bytesRead), whole: false }
    } finally {
      await file.close()
    }
  } catch (cause) {
    if ((cause as { code?: string }).code === 'ERR_IMAGE_INVALID') throw cause
    throw invalid(name, `cannot be read: ${reasonOf(cause as Error)}`, cause)
  }
}
