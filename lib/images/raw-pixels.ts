/** Pixels that are decoded already. */
import { checkPixels, invalid } from './problems'
import type { DecodedImage, RawPixels } from './image-input'
import { isUint8Array, isUint8ClampedArray } from '../base/realms'
import { show } from '../base/validate'

/** RGB8 of them: grey is replicated, alpha dropped. Always a copy, so that the engine reads memory of its own. */
export async function decodeRaw(image: RawPixels, name: string, limit: number): Promise<DecodedImage> {
  const { data, width, height } = image
  if (!isUint8Array(data) && !isUint8ClampedArray(data)) {
    throw invalid(name, `data must be a Uint8Array or Uint8ClampedArray, received ${show(data)}`)
  }
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1) {
    throw invalid(name, `width and height must be integers >= 1, received ${show(width)} and ${show(height)}`)
  }
  checkPixels(width, height, name, limit)
  const channels = image.channels ?? data.length / (width * height)
  if (![1, 2, 3, 4].includes(channels) || data.length !== width * height * channels) {
    const each = image.channels === undefined ? '1 to 4' : show(image.channels)
    throw invalid(name, `${width} x ${height} pixels of ${each} channels do not fit data of ${data.length} bytes`)
  }
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  return { data: await toRgb(bytes, channels, name), width, height }
}

const slicePixels = 1 << 18

/** In slices: the event loop goes on meanwhile, and may do anything to the source. */
async function toRgb(source: Buffer, channels: number, name: string): Promise<Buffer> {
  const { length } = source
  const pixels = length / channels
  const rgb = Buffer.allocUnsafeSlow(pixels * 3)
  for (let from = 0; from < pixels; from += slicePixels) {
    if (from > 0) await new Promise(setImmediate)
    if (source.length !== length) {
      throw invalid(name, 'the buffer of data was transferred or shrunk while the picture was read')
    }
    const to = Math.min(from + slicePixels, pixels)
    if (channels === 3) rgb.set(source.subarray(from * 3, to * 3), from * 3)
    else spread(source, rgb, from, to, channels)
  }
  return rgb
}

function spread(source: Buffer, rgb: Buffer, from: number, to: number, channels: number): void {
  const [green, blue] = channels < 3 ? [0, 0] : [1, 2]
  for (let pixel = from, at = from * channels, out = from * 3; pixel < to; pixel++, at += channels) {
    rgb[out++] = source[at]!
    rgb[out++] = source[at + green]!
    rgb[out++] = source[at + blue]!
  }
}
