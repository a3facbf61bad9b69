/** A large TIFF by its parts: its pixels are never all in memory, in this process or the decoder's. */
import { open } from 'node:fs/promises'
import { apart, defaultDecodeTimeoutMs } from './decode'
import { formatOf } from './formats'
import { decodeApart, helperObstacle } from './helper'
import { defaultMaxImagePixels, type DecodedImage, type DecodeOptions } from './image-input'
import type { OpenedImage } from './open'
import { checkPixels, undecodable } from './problems'
import { loadSharp } from './sharp'
import { sharpOptions, type Steps } from './steps'
import type { Tile } from './tile-plan'

/** Pixels of a picture that is read in parts. */
export interface Parts {
  width: number
  height: number
  /** The pixels of a rectangle, of one that is far larger than `square` each way fewer of them. */
  read: (tile: Tile, square: number) => Promise<DecodedImage>
}

/** In pixels. */
const limits = {
  /** Of larger pictures no more than parts are decoded. */
  picture: 64_000_000,
  /** A larger rectangle is made smaller while it is read, to so many times what the model sees. */
  part: 16_000_000
}
const reducedTo = 4
const headBytes = 1024

/**
 * undefined: it is small, or of a format or form that cannot be read so. Of bytes that are in memory already, of inks
 * and of turned pictures there is nothing to gain or too much to do.
 */
export async function openParts(
  { source, name }: OpenedImage,
  options: DecodeOptions,
  most = limits
): Promise<Parts | undefined> {
  if (typeof source !== 'string' || helperObstacle() !== undefined || !(await isTiff(source))) return undefined
  const { maxImagePixels: maxPixels = defaultMaxImagePixels, decodeTimeoutMs: timeoutMs = defaultDecodeTimeoutMs } =
    options
  const metadata = await (await loadSharp())(source, sharpOptions)
    .metadata()
    .catch(() => undefined)
  const { width = 0, height = 0, space, orientation = 1 } = metadata ?? {} // what is wrong, decoding says
  if (width * height <= most.picture || space === 'cmyk' || orientation !== 1) return undefined
  checkPixels(width, height, name, maxPixels)
  const read = async (tile: Tile, square: number): Promise<DecodedImage> => {
    const { signal } = options
    const part = { name, maxPixels, timeoutMs, signal, before: stepsTo(tile, square, most.part) }
    const { data, channels, ...shape } = await apart.run(async () => await decodeApart(source, part))
    if (channels !== 3) throw undecodable(name, new Error(`decoded to ${channels} channels`))
    return { ...shape, data }
  }
  return { width, height, read }
}

function stepsTo({ x, y, width, height }: Tile, square: number, most: number): Steps {
  const extract = ['extract', { left: x, top: y, width, height }] as const
  const factor = (reducedTo * square) / Math.min(width, height)
  if (width * height <= most || factor >= 1) return [extract]
  const [across, down] = [width, height].map((side) => Math.round(side * factor))
  return [extract, ['resize', across, down, { fit: 'fill', kernel: 'cubic' }]]
}

async function isTiff(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'r')
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0)
      return formatOf(buffer.subarray(0, bytesRead)) === 'tiff'
    } finally {
      await file.close()
    }
  } catch {
    return false // decoding says what is wrong
  }
}
