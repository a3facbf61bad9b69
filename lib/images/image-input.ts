/** Every form a picture may have, and which of them a value is. */
import type { Sharp } from 'sharp'
import { PaliGemmaError } from '../base/errors'
import {
  isAnyArrayBuffer,
  isDataView,
  isFloat32Array,
  isObject,
  isUint8Array,
  isUint8ClampedArray,
  isUrl
} from '../base/realms'
import type { ImageTransform } from './transform'
import { longestName, show } from '../base/validate'

/** Uncompressed pixels, row-major, channels last: [height, width, channels]. */
export interface RawPixels {
  /** 0..255, no padding at the ends of rows. */
  data: Uint8Array | Uint8ClampedArray
  /** In pixels. */
  width: number
  /** In pixels. */
  height: number
  /** 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; where missing, what the length of `data` says. Alpha is dropped. */
  channels?: 1 | 2 | 3 | 4 | undefined
}

/** What {@link PaliGemma.encodeImage} gives: the picture as the decoder sees it. Only for the model that made it. */
export interface ImageEmbedding {
  /** SigLIP features after the projector, [tokens, hidden], row-major. */
  data: Float32Array
  /** `info.imageTokens`: 256 at 224 px, 1024 at 448, 4096 at 896. */
  tokens: number
  /** `info.textHidden`: 2048 of PaliGemma 1, 2304 of PaliGemma 2 3B. */
  hidden: number
  /** Where the picture lay in the model's input, so that `detect` can give pixels. */
  transform?: ImageTransform | undefined
}

/** What a `ReadableStream` of the web is, of any realm and any TypeScript library. */
export interface WebStream {
  /** Called once: the stream is this call's from then on. */
  getReader: () => {
    /** The next piece; `done` after the last. */
    read: () => Promise<{ done: boolean; value?: Uint8Array | undefined }>
    /** Called where the rest is not wanted. */
    cancel: (reason?: unknown) => Promise<void>
  }
}

/** A `Blob`, `File`, `Response` or `Request`. */
export interface WithBytes {
  /** All of its bytes. */
  arrayBuffer: () => Promise<ArrayBuffer>
}

/** Encoded bytes that come piece by piece; they can be read once. Also a Node `Readable`. */
export type ImageStream = WebStream | AsyncIterable<Uint8Array>

/**
 * A picture: a path, a `file:`, `data:`, `http:` or `https:` URL, base64 text, encoded bytes (JPEG, PNG, WebP, GIF,
 * TIFF, AVIF, SVG, BMP, PPM, PGM), a `Blob`, `Response`, `Request` or stream of them, raw pixels, a `sharp` instance,
 * or an {@link ImageEmbedding}. EXIF orientation is applied, alpha is dropped (not composited), grey is replicated,
 * 16-bit samples keep their high byte, colour profiles and gamma are ignored, and of animations and multi-page files
 * the first frame is taken: as the reference processor's input is made. Of a `sharp` instance the model sees exactly
 * the output.
 */
export type ImageInput =
  | string
  | URL
  | Uint8Array
  | DataView
  | ArrayBuffer
  | SharedArrayBuffer
  | WithBytes
  | ImageStream
  | RawPixels
  | Sharp
  | ImageEmbedding

/** RGB8, rows of width * 3 bytes. */
export interface DecodedImage {
  data: Buffer
  width: number
  height: number
}

export interface DecodeOptions {
  /** Default 200 million; checked before decoding. */
  maxImagePixels?: number | undefined
  /** Milliseconds that decoding a slow picture may take; default 10 seconds. */
  decodeTimeoutMs?: number | undefined
  /** Default: what the variable PALIGEMMA_ALLOW_PRIVATE_ADDRESSES says. */
  allowPrivateAddresses?: boolean | undefined
  signal?: AbortSignal | undefined
}

/** 16320 x 12240 (200 megapixels, the largest phone cameras) passes; decoded this is 600 MB. */
export const defaultMaxImagePixels = 200_000_000

export function isEmbedding(image: unknown): image is ImageEmbedding {
  return isObject(image) && isFloat32Array(image.data) && !isRaw(image)
}

export function isSharp(image: unknown): image is Sharp {
  return (
    isObject(image) &&
    typeof image.toBuffer === 'function' &&
    typeof image.metadata === 'function' &&
    typeof image.clone === 'function'
  )
}

export function isRaw(image: unknown): image is RawPixels {
  return isObject(image) && 'data' in image && 'width' in image && 'height' in image
}

export type Bytes = Uint8Array | DataView | ArrayBuffer | SharedArrayBuffer

export function isBytes(image: unknown): image is Bytes {
  return isUint8Array(image) || isDataView(image) || isAnyArrayBuffer(image)
}

/** A transferred DataView throws where its like say 0. */
export function sizeOf(bytes: Bytes): number {
  try {
    return bytes.byteLength
  } catch {
    return 0
  }
}

/** The same memory. Throws where it was transferred. */
export function viewOf(bytes: Bytes): Buffer {
  return isAnyArrayBuffer(bytes) ? Buffer.from(bytes) : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function hasBytes(image: unknown): image is WithBytes {
  return isObject(image) && typeof image.arrayBuffer === 'function'
}

export function isWebStream(image: unknown): image is WebStream {
  return isObject(image) && typeof image.getReader === 'function'
}

export function isIterable(image: unknown): image is AsyncIterable<Uint8Array> {
  return isObject(image) && typeof image[Symbol.asyncIterator as unknown as string] === 'function'
}

const shownLength = 120

/** The picture in words, for messages: never more of a text than a person can read. */
export function describe(image: unknown): string {
  if (isUrl(image)) return describe(image.href)
  if (typeof image === 'string') return describeText(image)
  if (isBytes(image)) return `image of ${sizeOf(image)} bytes`
  if (isSharp(image)) return 'sharp instance'
  if (isRaw(image)) return 'raw pixels'
  if (!hasBytes(image)) return 'image stream'
  const { size, url } = image as { size?: unknown; url?: unknown }
  if (typeof size === 'number') return `image blob of ${size} bytes`
  return typeof url === 'string' && url !== '' ? describe(url) : 'image response'
}

function describeText(text: string): string {
  if (text.startsWith('data:')) return `${text.slice(0, 40)}...`
  if (/^https?:/i.test(text)) return shortened(withoutSecrets(text.slice(0, longestName)))
  return shortened(text)
}

/** User, password and query (which may be a signature) are nobody's business. */
function withoutSecrets(text: string): string {
  return text
    .replace(/^(https?:[\\/]*)[^\\/?#]*@/i, '$1')
    .replace(/[?#].*$/s, (rest) => (rest[0] === '?' ? '?...' : ''))
}

function shortened(text: string): string {
  return text.length <= 2 * shownLength ? text : `${text.slice(0, shownLength)}... (${text.length} characters)`
}

/** Throws ERR_INVALID_OPTION for what is no kind of image, before any work. */
export function checkImage(image: unknown, name = 'image'): void {
  if (
    (typeof image === 'string' && image !== '') ||
    isUrl(image) ||
    isBytes(image) ||
    hasBytes(image) ||
    isSharp(image) ||
    isEmbedding(image) ||
    isRaw(image) ||
    isWebStream(image) ||
    isIterable(image)
  )
    return
  throw new PaliGemmaError(
    'ERR_INVALID_OPTION',
    'Expected path, URL, base64 text, encoded bytes, Blob, Response, stream, { data, width, height, channels }, ' +
      `sharp instance or ImageEmbedding for ${name} but received ${show(image)}${nearMiss(image)}`
  )
}

/** What the value was before something was forgotten or went through JSON. */
function nearMiss(image: unknown): string {
  if (!isObject(image)) return ''
  if (typeof image['then'] === 'function') return '; it is a promise: await it'
  if (image['type'] === 'Buffer' && Array.isArray(image['data']))
    return ', a Buffer that went through JSON: pass Buffer.from(it.data), or send base64'
  if (isUint8ClampedArray(image)) return '; of pixels, pass { data, width, height }'
  if (ArrayBuffer.isView(image)) return '; pass its bytes: new Uint8Array(it.buffer, it.byteOffset, it.byteLength)'
  if (Array.isArray(image)) return typeof image[0] === 'number' ? '; pass Uint8Array.from(it)' : ''
  return typeof image['0'] === 'number' && typeof image['1'] === 'number'
    ? ', a Uint8Array that went through JSON: pass Uint8Array.from(Object.values(it)), or send base64'
    : ''
}
