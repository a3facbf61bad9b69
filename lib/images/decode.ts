/** From an opened picture to RGB8. */
import type { Metadata, Sharp } from 'sharp'
import { decodeBmp, readBmpHeader } from './bmp'
import { decodingCost, formatOf, type PictureFormat } from './formats'
import { decodeApart, helperObstacle, type HelperResult } from './helper'
import {
  defaultMaxImagePixels,
  isSharp,
  type DecodedImage,
  type DecodeOptions,
  type ImageEmbedding,
  type ImageInput
} from './image-input'
import { Limiter } from './limiter'
import { decodeNetpbm, readNetpbmHeader } from './netpbm'
import { openImage, readPicture, type OpenedImage } from './open'
import { checkPixels, invalid, undecodable } from './problems'
import { pipelineReady, renderPipeline } from './pipeline'
import { decodeRaw } from './raw-pixels'
import { loadSharp } from './sharp'
import { applySteps, cmykSteps, rgbSteps, sharpOptions } from './steps'
import { untilAborted } from '../base/signals'

/** Milliseconds for pictures that are decoded apart. */
export const defaultDecodeTimeoutMs = 10_000
/** Of drawings: their filters keep many copies of all pixels. */
const maxSvgPixels = 25_000_000
/** Work that this process does itself, see `decodingCost`: under half a second, for it cannot be stopped. */
const largestCostHere = 40_000_000

/** A picture whose decoding is left to a process that can be ended. */
interface Apart {
  source: Buffer | string
  format: PictureFormat | undefined
}

// A decoded photograph is 30 to 600 MB. Decoding and resizing share libuv's four threads in order of arrival, so
// without a limit a burst of requests would decode every picture before it resized the first.
const decoding = new Limiter(2)
// What may take long waits for its like, and others do not wait for it.
export const apart = new Limiter(2)
const pipelines = new Limiter(2)

/**
 * Decodes an opened picture and gives it to `use`, both within the limit of pictures at a time; where `known` has a
 * value for the encoded bytes, gives that instead.
 * Rejects with ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_DEPENDENCY_MISSING, or at once with the signal's reason.
 */
export async function withDecoded<T>(
  opened: OpenedImage,
  options: DecodeOptions,
  use: (image: DecodedImage) => Promise<T>,
  known?: (encoded: Buffer) => Promise<T | undefined>
): Promise<T> {
  const { signal } = options
  const done = async (image: DecodedImage): Promise<{ value: T }> => {
    signal?.throwIfAborted()
    return { value: await use(image) }
  }
  const here = async (): Promise<{ value: T } | Apart> => {
    signal?.throwIfAborted()
    const source = await readHere(opened)
    const value = Buffer.isBuffer(source) ? await known?.(source) : undefined
    if (value !== undefined) return { value }
    const decoded = await decodeHere(opened.name, source, options.maxImagePixels ?? defaultMaxImagePixels)
    return 'width' in decoded ? await done(decoded) : decoded
  }
  const work = async (): Promise<T> => {
    if (isSharp(opened.source)) await pipelineReady(opened.source, opened.name)
    const first = await (isSharp(opened.source) ? pipelines : decoding).run(here)
    if ('value' in first) return first.value
    return await apart.run(async () => (await done(await decodeSlow(first, opened.name, options))).value)
  }
  return await untilAborted(work(), signal)
}

/** Decodes to RGB8. Rejects as {@link withDecoded}, and with ERR_INVALID_OPTION for what is no picture. */
export async function decodeImage(
  image: Exclude<ImageInput, ImageEmbedding>,
  options: DecodeOptions = {}
): Promise<DecodedImage> {
  return await withDecoded(await openImage(image, options), options, async (decoded) => decoded)
}

/** Files as their bytes; large ones stay where they are. */
async function readHere({ name, source }: OpenedImage): Promise<Exclude<OpenedImage['source'], string> | Apart> {
  if (typeof source !== 'string') return source
  const { bytes, whole } = await readPicture(source, name)
  if (whole) return bytes
  const format = formatOf(bytes)
  // from its path an SVG could name other files
  if (format === 'svg' || format === 'bmp' || format === 'pnm')
    throw invalid(name, 'a file of this format and size is not read; save it as PNG')
  return { source, format }
}

async function decodeHere(
  name: string,
  source: Exclude<OpenedImage['source'], string> | Apart,
  limit: number
): Promise<DecodedImage | Apart> {
  try {
    if (Buffer.isBuffer(source)) return await decodeBytes(source, name, limit)
    if (isSharp(source)) return await decodePipeline(source, name, limit)
    return 'source' in source ? source : await decodeRaw(source, name, limit)
  } catch (error) {
    throw undecodable(name, error)
  }
}

async function decodeBytes(bytes: Buffer, name: string, limit: number): Promise<DecodedImage | Apart> {
  if (bytes.length === 0) throw invalid(name, 'it is empty')
  const format = formatOf(bytes.subarray(0, 1024))
  if (format === 'svg') return { source: bytes, format }
  if (format === 'bmp') {
    const header = readBmpHeader(bytes)
    checkPixels(header.width, header.height, name, limit)
    return await decodeBmp(bytes, header)
  }
  if (format === 'pnm') {
    const header = readNetpbmHeader(bytes)
    checkPixels(header.width, header.height, name, limit)
    return await decodeNetpbm(bytes, header)
  }
  const input = (await loadSharp())(bytes, sharpOptions)
  const metadata = await input.metadata()
  const [width, height] = frameSize(metadata)
  checkPixels(width, height, name, limit)
  const slow = format === undefined || (await decodingCost(format, width * height, bytes)) > largestCostHere
  if (slow && helperObstacle() === undefined) return { source: bytes, format }
  return metadata.space === 'cmyk' ? await toImage(input, true) : await toImage(input, false)
}

/** Of the first frame. */
function frameSize({ width, height, pageHeight }: Metadata): [number, number] {
  return [width, pageHeight ?? height]
}

async function decodeSlow({ source, format }: Apart, name: string, options: DecodeOptions): Promise<DecodedImage> {
  const obstacle = helperObstacle()
  if (obstacle !== undefined)
    throw invalid(
      name,
      `such pictures are decoded in a process of their own, but ${obstacle}; pass it as PNG or pixels`
    )
  await loadSharp() // the helper needs it too: where it is missing, this says so
  const limit = options.maxImagePixels ?? defaultMaxImagePixels
  const { cmyk, ...decoded } = await decodeApart(source, {
    name,
    maxPixels: format === 'svg' ? Math.min(limit, maxSvgPixels) : limit,
    timeoutMs: options.decodeTimeoutMs ?? defaultDecodeTimeoutMs,
    signal: options.signal
  })
  return await toRgb(decoded, cmyk)
}

async function toImage(input: Sharp, cmyk: boolean): Promise<DecodedImage> {
  const { data, info } = await applySteps(input, cmyk ? cmykSteps : rgbSteps).toBuffer({ resolveWithObject: true })
  return await toRgb({ data, width: info.width, height: info.height, channels: info.channels }, cmyk)
}

export async function toRgb(decoded: Omit<HelperResult, 'cmyk'>, cmyk: boolean): Promise<DecodedImage> {
  const { data, width, height, channels } = decoded
  if (cmyk ? channels < 4 : channels !== 3) throw new Error(`decoded to ${channels} channels`)
  return { data: cmyk ? await inksToRgb(data, width * height, channels) : data, width, height }
}

/** Pillow's conversion: R = (255 - K) - C (255 - K) / 255, rounded as its integer macro does; no ink profile. */
async function inksToRgb(data: Buffer, pixels: number, channels: number): Promise<Buffer> {
  const rgb = Buffer.alloc(pixels * 3)
  for (let from = 0, to = 0; to < rgb.length; from += channels, to += 3) {
    if (to % 786432 === 0 && to > 0) await new Promise(setImmediate) // keep the event loop free
    const light = 255 - data[from + 3]!
    for (let c = 0; c < 3; c++) {
      const product = data[from + c]! * light + 128
      rgb[to + c] = light - (((product >> 8) + product) >> 8)
    }
  }
  return rgb
}

/** Exactly what the pipeline itself puts out, of several frames the first. */
async function decodePipeline(pipeline: Sharp, name: string, limit: number): Promise<DecodedImage> {
  const { png, frameHeight } = await renderPipeline(pipeline, name, limit)
  const { data, width, height } = await toImage((await loadSharp())(png, sharpOptions), false)
  if (frameHeight === undefined) return { data, width, height }
  return { data: data.subarray(0, width * frameHeight * 3), width, height: frameHeight }
}
