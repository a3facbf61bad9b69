/** Boxes in other people's forms, and what is inside them. */
import type { PlainBuffer } from '../base/plain-memory'
import { check, everyItem, readFields, rule, take, takeList, type Rule, type Rules } from '../base/validate'
import { publicCall, type Taken } from '../base/call'
import { untilAborted } from '../base/signals'
import { decodeImage } from '../images/decode'
import { takePicture } from '../images/image-rule'
import type { ImageInput } from '../images/image-input'
import { decodingCallRules, type DecodingCallOptions } from '../images/preprocess-options'
import { made } from '../images/problems'
import { loadSharp } from '../images/sharp'
import { takeBox } from './drawable'
import { type Mask, takeMask } from './masks/mask'
import type { Box } from './parse'

/** Left, top, right and bottom edge, as OpenCV, torchvision and many others want a box. */
export type XyxyBox = [x1: number, y1: number, x2: number, y2: number]

const xyxyRule: Rule = {
  expected: '[x1, y1, x2, y2]',
  take: (v) => takeList(v, 4),
  accepts: (v) => Array.isArray(v) && v.length === 4 && everyItem(v, rule.number(-Number.MAX_VALUE).accepts)
}

/**
 * Left, top, right and bottom edge of a box in pixels: `[x, y, x + width, y + height]`.
 *
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function toXyxy(box: Box): XyxyBox {
  const { x, y, width, height } = takeBox('box', box)
  return [x, y, x + width, y + height]
}

/**
 * The box of its left, top, right and bottom edge in pixels; what {@link toXyxy} gives becomes what it was.
 *
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function fromXyxy(corners: readonly [number, number, number, number]): Box {
  const [x1, y1, x2, y2] = take('corners', corners, xyxyRule)
  return { x: x1, y: y1, width: x2 - x1, height: y2 - y1 }
}

/** Options of {@link cropBox}. */
export interface CropOptions extends DecodingCallOptions {
  /** Pixels around the box, as far as the picture goes; default 0. */
  padding?: number | undefined
  /** true: pixels outside the object's mask are transparent; default false. */
  cutOut?: boolean | undefined
}

const cropRules: Rules<CropOptions> = {
  padding: rule.number(0),
  cutOut: rule.flag,
  ...decodingCallRules
}

/**
 * What is inside an object's box (or a box alone), as a PNG. Of a box that the picture's border cuts, the part inside.
 * @throws PaliGemmaError ERR_INVALID_OPTION also for boxes outside the picture, ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE,
 * ERR_DEPENDENCY_MISSING; an abort rejects at once with the signal's reason
 */
export async function cropBox(
  image: ImageInput,
  object: { box: Box; mask?: Mask | undefined } | Box,
  options: CropOptions = {}
): Promise<PlainBuffer> {
  return await publicCall<CropOptions, PlainBuffer>(
    'cropBox',
    options,
    cropRules,
    [],
    async (taken) => await untilAborted(crop(image, object, taken), taken.signal)
  )
}

async function crop(
  image: ImageInput,
  object: { box: Box; mask?: Mask | undefined } | Box,
  { padding = 0, cutOut = false, ...decoding }: Taken<CropOptions>
): Promise<PlainBuffer> {
  const fields = readFields('object', object, ['box', 'mask'], 'a detection or a box ({ x, y, width, height })')
  const box = takeBox(fields['box'] === undefined ? 'box' : 'object.box', fields['box'] ?? object)
  const mask = cutOut ? takeMask('object.mask', fields['mask']) : undefined
  // of its own memory: the mask's may be transferred meanwhile
  const alphas = mask && Buffer.from(mask.data)
  const { data, width, height } = await decodeImage(takePicture(image), decoding)
  const area = insideOf(box, padding, width, height)
  if (mask)
    check('object.mask', `${mask.width} x ${mask.height}`, {
      expected: `mask of ${width} x ${height} pixels, as the picture,`,
      accepts: (size) => size === `${width} x ${height}`
    })
  decoding.signal.throwIfAborted()
  return await made('the crop', cutPng(data, width, height, area, alphas))
}

async function cutPng(
  data: Buffer,
  width: number,
  height: number,
  area: ReturnType<typeof insideOf>,
  alphas: Buffer | undefined
): Promise<PlainBuffer> {
  const sharp = await loadSharp()
  const cut = sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false }).extract(area)
  if (!alphas) return await cut.png().toBuffer()
  const alpha = await sharp(alphas, { raw: { width, height, channels: 1 }, limitInputPixels: false })
    .extract(area)
    .toColourspace('b-w')
    .raw()
    .toBuffer()
  return await cut
    .joinChannel(alpha, { raw: { width: area.width, height: area.height, channels: 1 } })
    .png()
    .toBuffer()
}

/** Whole pixels: every one that the box touches. */
function insideOf(
  box: Box,
  padding: number,
  width: number,
  height: number
): { left: number; top: number; width: number; height: number } {
  const left = Math.max(Math.floor(box.x - padding), 0)
  const top = Math.max(Math.floor(box.y - padding), 0)
  const right = Math.min(Math.ceil(box.x + box.width + padding), width)
  const bottom = Math.min(Math.ceil(box.y + box.height + padding), height)
  check('box', `${box.x}, ${box.y}, ${box.width} x ${box.height}`, {
    expected: `box with an area inside the picture of ${width} x ${height} pixels`,
    accepts: () => right > left && bottom > top && box.width > 0 && box.height > 0
  })
  return { left, top, width: right - left, height: bottom - top }
}
