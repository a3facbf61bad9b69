/** Every form a picture may have, decoded to RGB8. */
import { readFile, open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import sharp, { type Metadata, type Sharp } from 'sharp'
import { decodeBmp, looksLikeBmp, readBmpHeader } from './bmp'
import { PaliGemmaError } from '../base/errors'
import type { ImageTransform } from '../output/parse'
import { show } from '../base/validate'

/** Uncompressed pixels, row-major, channels last: [height, width, channels]. */
export interface RawPixels {
  data: Uint8Array | Uint8ClampedArray
  /** In pixels. */
  width: number
  height: number
  /** 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; where missing, what the length of `data` says. Alpha is dropped. */
  channels?: 1 | 2 | 3 | 4
}

/** What {@link PaliGemma.encodeImage} gives: the picture as the decoder sees it. Only for the model that made it. */
export interface ImageEmbedding {
  /** SigLIP features after the projector, [tokens, hidden], row-major. */
  data: Float32Array
  tokens: number
  hidden: number
  /** Where the picture lay in the model's input, so that `detect` can give pixels. */
  transform?: ImageTransform
}

/**
 * A picture: a path, a `file:`, `data:`, `http:` or `https:` URL, encoded bytes (JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG,
 * BMP), raw pixels, a `sharp` instance, or an {@link ImageEmbedding}. EXIF orientation is applied, alpha is dropped
 * (not composited), grey is replicated, 16-bit samples keep their high byte, colour profiles and gamma are ignored, and
 * of animations and multi-page files the first frame is taken: as the reference processor's input is made.
 */
export type ImageInput =
  | string
  | URL
  | Uint8Array
  | ArrayBuffer
  | SharedArrayBuffer
  | Blob
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
  maxImagePixels?: number
  signal?: AbortSignal
}

/** 16320 x 12240 (200 megapixels, the largest phone cameras) passes; decoded this is 600 MB. */
export const defaultMaxImagePixels = 200_000_000

// Encoded pictures over this are refused while they are downloaded.
const maxDownloadBytes = 256 * 1024 * 1024
const downloadTimeoutMs = 60_000

export function isEmbedding(image: unknown): image is ImageEmbedding {
  return isObject(image) && image.data instanceof Float32Array
}

function isSharp(image: unknown): image is Sharp {
  return (
    isObject(image) &&
    typeof image.toBuffer === 'function' &&
    typeof image.metadata === 'function' &&
    typeof image.clone === 'function'
  )
}

function isRaw(image: unknown): image is RawPixels {
  return isObject(image) && 'data' in image && 'width' in image && 'height' in image
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

/** The picture in words, for messages. */
function describe(image: ImageInput): string {
  if (image instanceof URL) return describe(image.href)
  if (typeof image === 'string') return image.startsWith('data:') ? `${image.slice(0, 40)}...` : image
  if (isBytes(image)) return `image of ${image.byteLength} bytes`
  if (image instanceof Blob) return `image blob of ${image.size} bytes`
  if (isSharp(image)) return 'sharp instance'
  return 'raw pixels'
}

function isBytes(image: unknown): image is Uint8Array | ArrayBuffer | SharedArrayBuffer {
  return (
    image instanceof Uint8Array ||
    image instanceof ArrayBuffer ||
    (typeof SharedArrayBuffer !== 'undefined' && image instanceof SharedArrayBuffer)
  )
}

function invalid(what: string, why: string, cause?: unknown): PaliGemmaError {
  return new PaliGemmaError('ERR_IMAGE_INVALID', `${what}: ${why}`, cause === undefined ? undefined : { cause })
}

/** Throws ERR_INVALID_OPTION for what is no kind of image, before any work. */
export function checkImage(image: unknown, name = 'image'): void {
  if (
    (typeof image === 'string' && image !== '') ||
    image instanceof URL ||
    isBytes(image) ||
    image instanceof Blob ||
    isSharp(image) ||
    isEmbedding(image) ||
    isRaw(image)
  )
    return
  throw new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `Expected path, URL, encoded bytes, { data, width, height, channels }, sharp instance or ImageEmbedding for ${name} but received ${show(image)}`
  )
}

/** A picture that is on this machine, still encoded. */
export interface OpenedImage {
  /** For messages. */
  name: string
  /** A path, encoded bytes, raw pixels or a sharp pipeline. */
  source: string | Buffer | RawPixels | Sharp
}

/** Brings a picture to this machine: downloads and unpacks URLs. Rejects as {@link decodeImage}. */
export async function openImage(
  image: Exclude<ImageInput, ImageEmbedding>,
  signal?: AbortSignal
): Promise<OpenedImage> {
  checkImage(image)
  signal?.throwIfAborted()
  const name = describe(image)
  if (isSharp(image)) return { name, source: image.clone() }
  if (!isBytes(image) && isRaw(image)) return { name, source: image }
  return { name, source: await locate(image as string | URL | Uint8Array | ArrayBuffer | Blob, name, signal) }
}

/** Decodes to RGB8. Rejects with ERR_IMAGE_INVALID or ERR_IMAGE_TOO_LARGE. */
export async function decodeOpened(
  { name, source }: OpenedImage,
  limit = defaultMaxImagePixels
): Promise<DecodedImage> {
  if (typeof source === 'string' || Buffer.isBuffer(source)) return await decodeEncoded(source, name, limit)
  return isSharp(source) ? await decodeSharp(source, name, limit) : await decodeRaw(source, name, limit)
}

/**
 * Decodes to RGB8. Rejects with ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_INVALID_OPTION, or the signal's reason.
 */
export async function decodeImage(
  image: Exclude<ImageInput, ImageEmbedding>,
  options: DecodeOptions = {}
): Promise<DecodedImage> {
  return await decodeOpened(await openImage(image, options.signal), options.maxImagePixels)
}

/** A path, or the encoded bytes. */
async function locate(
  image: string | URL | Uint8Array | ArrayBuffer | SharedArrayBuffer | Blob,
  name: string,
  signal?: AbortSignal
): Promise<string | Buffer> {
  if (image instanceof Uint8Array) return Buffer.from(image.buffer, image.byteOffset, image.byteLength)
  if (image instanceof Blob) return Buffer.from(await image.arrayBuffer())
  if (typeof image !== 'string' && !(image instanceof URL)) return Buffer.from(image as ArrayBuffer)
  const text = String(image)
  const scheme = /^(file|data|https?):/i.exec(text)?.[1]?.toLowerCase()
  if (scheme === 'data') return fromDataUrl(text, name)
  if (scheme === 'file') {
    try {
      return fileURLToPath(text)
    } catch (cause) {
      throw invalid(name, (cause as Error).message, cause)
    }
  }
  if (scheme) return await download(text, signal)
  if (image instanceof URL) throw invalid(name, 'only file:, data:, http: and https: URLs are read')
  return text
}

function fromDataUrl(url: string, name: string): Buffer {
  const comma = url.indexOf(',')
  if (comma < 0) throw invalid(name, 'a data: URL without a comma')
  const body = url.slice(comma + 1)
  let plain = body
  try {
    if (body.includes('%')) plain = decodeURIComponent(body)
  } catch (cause) {
    throw invalid(name, 'a data: URL with broken % escapes', cause)
  }
  const bytes = Buffer.from(plain, /;\s*base64\s*$/i.test(url.slice(0, comma)) ? 'base64' : 'utf8')
  if (bytes.length === 0) throw invalid(name, 'a data: URL without data')
  return bytes
}

async function download(url: string, signal?: AbortSignal): Promise<Buffer> {
  const control = new AbortController()
  const onAbort = (): void => control.abort(signal?.reason)
  const timer = setTimeout(
    () => control.abort(new Error(`no answer within ${downloadTimeoutMs / 1000} s`)),
    downloadTimeoutMs
  )
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const response = await fetch(url, { signal: control.signal })
    if (!response.ok) {
      await response.body?.cancel()
      throw invalid(url, `the server answered ${response.status} ${response.statusText}`.trimEnd())
    }
    const tooLarge = (bytes: number): PaliGemmaError =>
      new PaliGemmaError(
        'ERR_IMAGE_TOO_LARGE',
        `${url}: ${bytes} bytes or more, the limit for downloads is ${maxDownloadBytes}; download it yourself and pass the path`
      )
    const claimed = Number(response.headers.get('content-length') ?? 0)
    if (claimed > maxDownloadBytes) {
      await response.body?.cancel()
      throw tooLarge(claimed)
    }
    const pieces: Uint8Array[] = []
    let bytes = 0
    for await (const piece of response.body ?? []) {
      bytes += (piece as Uint8Array).length
      if (bytes > maxDownloadBytes) throw tooLarge(bytes)
      pieces.push(piece as Uint8Array)
    }
    return Buffer.concat(pieces)
  } catch (error) {
    if (signal?.aborted) throw signal.reason
    if (error instanceof PaliGemmaError) throw error
    const cause = (error as Error).cause
    throw invalid(
      url,
      `cannot be downloaded: ${(error as Error).message}${cause instanceof Error ? ` (${cause.message})` : ''}`,
      error
    )
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}

// ignoreIcc: the reference processor knows no colour profiles. failOn "error": damaged data is an error, oddities are not.
// limitInputPixels off: our own limit is checked on the header first, with our own message.
const sharpOptions = { ignoreIcc: true, failOn: 'error', limitInputPixels: false, pages: 1, page: 0 } as const

async function decodeEncoded(source: string | Buffer, name: string, limit: number): Promise<DecodedImage> {
  if (source.length === 0) throw invalid(name, 'it is empty')
  const head = typeof source === 'string' ? await readHead(source, name) : source
  const input = sharp(source, sharpOptions)
  let metadata: Metadata
  try {
    metadata = await input.metadata()
  } catch (error) {
    if (!looksLikeBmp(head)) throw undecodable(name, error)
    return await decodeBitmap(typeof source === 'string' ? await readFile(source) : source, name, limit)
  }
  checkPixels(metadata.width, metadata.pageHeight ?? metadata.height, name, limit)
  try {
    return metadata.space === 'cmyk' ? await decodeCmyk(input) : await toRgb(input)
  } catch (error) {
    throw undecodable(name, error)
  }
}

/** The first bytes of a file; sharp itself says "Input file is missing" whatever the reason. */
async function readHead(path: string, name: string): Promise<Buffer> {
  try {
    const file = await open(path, 'r')
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(64), 0, 64, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  } catch (cause) {
    throw invalid(name, `cannot be read: ${(cause as Error).message}`, cause)
  }
}

function undecodable(name: string, error: unknown): PaliGemmaError {
  const reason = (error as Error).message.split('\n').find((line) => line.trim() !== '') ?? 'unknown error'
  if (/creat\w* thread|temporarily unavailable|out of memory|cannot allocate/i.test(reason)) {
    const advice = 'the system refuses memory or threads (pids limit, TasksMax, ulimit -u): raise the limit'
    return new PaliGemmaError('ERR_OUT_OF_MEMORY', `${name}: ${reason}; ${advice}`, { cause: error })
  }
  return invalid(name, `cannot be decoded: ${reason}`, error)
}

function checkPixels(width: number, height: number, name: string, limit: number): void {
  if (width * height > limit) {
    throw new PaliGemmaError(
      'ERR_IMAGE_TOO_LARGE',
      `${name}: ${width} x ${height} is ${width * height} pixels, the limit is ${limit}; make it smaller or raise maxImagePixels`
    )
  }
}

async function toRgb(input: Sharp): Promise<DecodedImage> {
  const { data, info } = await input
    .autoOrient()
    .removeAlpha()
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true })
  if (info.channels !== 3) throw new Error(`decoded to ${info.channels} channels`)
  return { data, width: info.width, height: info.height }
}

/** Pillow's conversion: R = (255 - K) - C (255 - K) / 255, rounded as its integer macro does; no ink profile. */
async function decodeCmyk(input: Sharp): Promise<DecodedImage> {
  const { data, info } = await input
    .autoOrient()
    .pipelineColourspace('cmyk')
    .toColourspace('cmyk')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true })
  if (info.channels < 4) throw new Error(`decoded to ${info.channels} channels`)
  const rgb = Buffer.alloc(info.width * info.height * 3)
  for (let from = 0, to = 0; to < rgb.length; from += info.channels, to += 3) {
    if (to % 786432 === 0 && to > 0) await new Promise(setImmediate) // keep the event loop free
    const light = 255 - data[from + 3]!
    for (let c = 0; c < 3; c++) {
      const product = data[from + c]! * light + 128
      rgb[to + c] = light - (((product >> 8) + product) >> 8)
    }
  }
  return { data: rgb, width: info.width, height: info.height }
}

async function decodeBitmap(file: Buffer, name: string, limit: number): Promise<DecodedImage> {
  try {
    const header = readBmpHeader(file)
    checkPixels(header.width, header.height, name, limit)
    return await decodeBmp(file, header)
  } catch (error) {
    if (error instanceof PaliGemmaError) throw error
    throw undecodable(name, error)
  }
}

async function decodeRaw(image: RawPixels, name: string, limit: number): Promise<DecodedImage> {
  const { data, width, height } = image
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw invalid(name, `data must be a Uint8Array or Uint8ClampedArray, received ${show(data)}`)
  }
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1) {
    throw invalid(name, `width and height must be integers >= 1, received ${show(width)} and ${show(height)}`)
  }
  checkPixels(width, height, name, limit)
  const channels = image.channels ?? data.length / (width * height)
  if (![1, 2, 3, 4].includes(channels) || data.length !== width * height * channels) {
    throw invalid(
      name,
      `${width} x ${height} pixels of ${image.channels ?? '1 to 4'} channels do not fit data of ${data.length} bytes`
    )
  }
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  if (channels === 3) return { data: await ownCopy(bytes, name), width, height }
  return await toRgb(sharp(bytes, { raw: { width, height, channels: channels as 1 | 2 | 4 }, limitInputPixels: false }))
}

const sliceBytes = 1 << 20

/** The engine reads pixels in place, so they must be nobody else's to detach. Copied in slices: the event loop goes on meanwhile. */
async function ownCopy(source: Buffer, name: string): Promise<Buffer> {
  const { length } = source
  const copy = Buffer.allocUnsafeSlow(length)
  for (let at = 0; at < length; at += sliceBytes) {
    if (at > 0) await new Promise(setImmediate)
    if (source.length !== length)
      throw invalid(name, 'the buffer of data was transferred or shrunk while the picture was read')
    copy.set(source.subarray(at, at + sliceBytes), at)
  }
  return copy
}

async function decodeSharp(input: Sharp, name: string, limit: number): Promise<DecodedImage> {
  try {
    const metadata = await input.metadata()
    checkPixels(metadata.width, metadata.pageHeight ?? metadata.height, name, limit)
    const decoded = await toRgb(input)
    checkPixels(decoded.width, decoded.height, name, limit)
    return decoded
  } catch (error) {
    if (error instanceof PaliGemmaError) throw error
    throw undecodable(name, error)
  }
}
