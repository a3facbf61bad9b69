/**
 * A picture far larger than the views of it: read once, from front to back, and made smaller on the way. Its pixels are
 * never all in memory, in this process or the decoder's.
 */
import { open } from 'node:fs/promises'
import { untilAborted } from '../base/signals'
import { apart, defaultDecodeTimeoutMs, toRgb } from './decode'
import { formatOf, type PictureFormat } from './formats'
import { decodeApart, helperObstacle } from './helper'
import { defaultMaxImagePixels, isRaw, isSharp, type DecodedImage, type DecodeOptions } from './image-input'
import type { OpenedImage } from './open'
import type { PreprocessOptions } from './preprocess-options'
import { checkPixels } from './problems'
import { loadSharp } from './sharp'
import { sharpOptions, type Steps } from './steps'
import type { Tile } from './tile-plan'

interface Size {
  width: number
  height: number
}

/** In pixels: smaller pictures are decoded whole, and larger ones to no more where that is enough. */
const mostWhole = 64_000_000
/** Pixels each way that a view keeps, in what the model sees; the second where the first makes too many. */
const keptTimes = [4, 2] as const
/** libvips reads these row by row, and of JPEG as few pixels as are wanted. */
const formats: readonly (PictureFormat | undefined)[] = ['tiff', 'png', 'jpeg']
/** `decodeTimeoutMs` is for so many pixels: these are many, which is no sign of a trap. */
const timedPixels = 16_000_000
const headBytes = 1024

/**
 * The size of what is better not decoded whole, upright; undefined: it is small, or of another format.
 */
export async function largeSize(
  { source, name }: OpenedImage,
  { maxImagePixels = defaultMaxImagePixels }: DecodeOptions,
  most = mostWhole
): Promise<Size | undefined> {
  if (isRaw(source) || isSharp(source) || helperObstacle() !== undefined) return undefined
  if (!formats.includes(await formatAt(source))) return undefined
  const metadata = await (await loadSharp())(source, sharpOptions)
    .metadata()
    .catch(() => undefined) // what is wrong, decoding says
  if (!metadata || metadata.width * metadata.height <= most) return undefined
  checkPixels(metadata.width, metadata.height, name, maxImagePixels)
  const { width, height } = metadata.autoOrient
  return { width, height }
}

async function formatAt(source: string | Buffer): Promise<PictureFormat | undefined> {
  if (typeof source !== 'string') return formatOf(source.subarray(0, headBytes))
  try {
    const file = await open(source, 'r')
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0)
      return formatOf(buffer.subarray(0, bytesRead))
    } finally {
      await file.close()
    }
  } catch {
    return undefined // decoding says what is wrong
  }
}

/** With how many pixels a picture is enough for its tiles, which a model of `size` sees. */
export function reducedSize(
  picture: Size,
  tiles: readonly Tile[],
  { size, fit }: Pick<PreprocessOptions, 'size' | 'fit'>,
  most = mostWhole
): Size {
  const [across, down] = [tiles.map(({ width }) => width), tiles.map(({ height }) => height)].map((all) =>
    all.reduce((a, b) => Math.min(a, b))
  ) as [number, number]
  const sizes = keptTimes.map((times) => {
    const kept = times * size
    const [x, y] =
      fit === 'pad' // keeps the shape, so the longer side decides for both
        ? [kept / Math.max(across, down), kept / Math.max(across, down)]
        : [kept / across, kept / down]
    return {
      width: Math.max(Math.round(Math.min(x, 1) * picture.width), 1),
      height: Math.max(Math.round(Math.min(y, 1) * picture.height), 1)
    }
  })
  return sizes.find(({ width, height }) => width * height <= most) ?? sizes.at(-1)!
}

/**
 * The picture with `to` pixels, to `use`. Sharp weighs colours with their opacity where it resizes: what cannot be seen
 * at all is black. Rejects as `withDecoded`.
 */
export async function withReduced<T>(
  { source, name }: OpenedImage,
  { picture, to }: { picture: Size; to: Size },
  options: DecodeOptions,
  use: (image: DecodedImage) => Promise<T>
): Promise<T> {
  const { maxImagePixels: maxPixels = defaultMaxImagePixels, decodeTimeoutMs = defaultDecodeTimeoutMs } = options
  const { signal } = options
  const timeoutMs = decodeTimeoutMs * Math.ceil((picture.width * picture.height) / timedPixels)
  const before: Steps = [['resize', to.width, to.height, { fit: 'fill', kernel: 'cubic' }]]
  const work = apart.run(async () => {
    const { cmyk, ...decoded } = await decodeApart(source as string | Buffer, {
      ...{ name, maxPixels, timeoutMs, signal, before }
    })
    return await use(await toRgb(decoded, cmyk))
  })
  return await untilAborted(work, signal)
}
