/** Masks from what annotations hold, as far as a box goes. */
import { PaliGemmaError } from '../base/errors'
import { defaultMaxImagePixels } from '../images/image-input'
import type { Mask } from '../output/masks/mask'
import { decodeRle } from '../output/masks/rle'
import type { TruthObject } from '../train/data-file'

/** A part of the plane that a mask shows: `x`, `y` is its corner, `scale` how many of its pixels a unit has. */
interface Window {
  x: number
  y: number
  scaleX: number
  scaleY: number
  width: number
  height: number
}

/** Pixels whose centres are inside one of the rings (x, y, x, y, ...; even-odd within a ring). */
function fillRings(rings: readonly (readonly number[])[], window: Window): Mask {
  const { width, height } = window
  const data = new Uint8Array(width * height)
  for (const ring of rings)
    for (let row = 0; row < height; row++) {
      const crossings = crossingsAt(ring, window, row + 0.5)
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const from = Math.max(Math.ceil(crossings[i]! - 0.5), 0)
        const to = Math.min(Math.ceil(crossings[i + 1]! - 0.5), width)
        if (to > from) data.fill(255, row * width + from, row * width + to)
      }
    }
  return { width, height, data }
}

function crossingsAt(ring: readonly number[], { x, y, scaleX, scaleY }: Window, at: number): number[] {
  const crossings: number[] = []
  const points = ring.length / 2
  for (let i = 0; i < points; i++) {
    const j = (i + 1) % points
    const [x0, x1] = [(ring[2 * i]! - x) * scaleX, (ring[2 * j]! - x) * scaleX]
    const [y0, y1] = [(ring[2 * i + 1]! - y) * scaleY, (ring[2 * j + 1]! - y) * scaleY]
    if (y0 <= at !== y1 <= at) crossings.push(x0 + ((at - y0) / (y1 - y0)) * (x1 - x0))
  }
  return crossings.sort((a, b) => a - b)
}

type Box = readonly [x: number, y: number, width: number, height: number]

const encoderSide = 64
const fine = 4 // samples a pixel has in either direction

/** What of the rings is inside the box, stretched to what the encoder sees; for coordinates that are no pixels. */
export function ringsInSquare(rings: readonly (readonly number[])[], [x, y, width, height]: Box): Mask {
  const side = encoderSide * fine
  const { data } = fillRings(rings, { x, y, scaleX: side / width, scaleY: side / height, width: side, height: side })
  const mask = new Uint8Array(encoderSide * encoderSide)
  for (let i = 0; i < mask.length; i++) {
    const first = Math.floor(i / encoderSide) * fine * side + (i % encoderSide) * fine
    let sum = 0
    for (let k = 0; k < fine * fine; k++) sum += data[first + Math.floor(k / fine) * side + (k % fine)]!
    mask[i] = Math.round(sum / (fine * fine))
  }
  return { width: encoderSide, height: encoderSide, data: mask }
}

/** The whole pixels of a box, at least one. */
function pixelsOf([x, y, width, height]: Box, picture: { width: number; height: number }) {
  const left = Math.min(Math.max(Math.round(x), 0), picture.width - 1)
  const top = Math.min(Math.max(Math.round(y), 0), picture.height - 1)
  const right = Math.min(Math.max(Math.round(x + width), left + 1), picture.width)
  const bottom = Math.min(Math.max(Math.round(y + height), top + 1), picture.height)
  return { left, top, width: right - left, height: bottom - top }
}

/** What of the rings is inside the box, pixel by pixel. */
export function ringsInBox(rings: readonly number[][], box: Box, picture: { width: number; height: number }): Mask {
  const { left, top, ...size } = pixelsOf(box, picture)
  return fillRings(rings, { x: left, y: top, scaleX: 1, scaleY: 1, ...size })
}

/** What of a mask is inside the box. */
export function maskInBox(mask: Mask, box: Box): Mask {
  const { left, top, width, height } = pixelsOf(box, mask)
  const data = new Uint8Array(width * height)
  for (let row = 0; row < height; row++) {
    const from = (row + top) * mask.width + left
    data.set(mask.data.subarray(from, from + width), row * width)
  }
  return { width, height, data }
}

/**
 * The mask of a whole picture that an annotation describes.
 * @throws PaliGemmaError ERR_INVALID_OPTION that names `name`
 */
export function truthMask(
  name: string,
  segmentation: NonNullable<TruthObject['segmentation']>,
  width: number,
  height: number
): Mask {
  if (Array.isArray(segmentation)) {
    checkRings(name, segmentation)
    return fillRings(segmentation, { x: 0, y: 0, scaleX: 1, scaleY: 1, width, height })
  }
  const { size, counts } = segmentation
  if (!Array.isArray(size) || size[0] !== height || size[1] !== width)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected runs of [${height}, ${width}], the picture's height and width, for ${name} but received those of ` +
        JSON.stringify(size)
    )
  if (typeof counts !== 'string' && !Array.isArray(counts))
    throw new PaliGemmaError('ERR_INVALID_OPTION', `Expected text or a list of lengths for ${name}.counts`)
  return decodeRle(name, size, counts, defaultMaxImagePixels)
}

/** Throws ERR_INVALID_OPTION for what are no polygons. */
export function checkRings(name: string, rings: unknown): asserts rings is number[][] {
  const isRing = (ring: unknown): boolean =>
    Array.isArray(ring) && ring.length >= 6 && ring.length % 2 === 0 && ring.every((side) => Number.isFinite(side))
  if (!Array.isArray(rings) || rings.length === 0 || !rings.every(isRing))
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected polygons [[x, y, x, y, x, y, ...], ...] of at least three points for ${name}`
    )
}
