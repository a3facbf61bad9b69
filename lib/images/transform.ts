/** Where a picture lies in what the model sees. */
import { check, readFields, rule, type Rule } from '../base/validate'

/** Maps boxes back from the model's square input: original x = (x - offsetX) / scaleX. */
export interface ImageTransform {
  /** Resized pixels per original pixel. */
  scaleX: number
  /** The same from top to bottom; it differs with `fit: 'squash'`. */
  scaleY: number
  /** Width of the border at the left in resized pixels; not 0 only with `fit: 'pad'`. */
  offsetX: number
  /** Height of the border at the top in resized pixels; not 0 only with `fit: 'pad'`. */
  offsetY: number
  /** Of the square, in pixels. */
  size: number
  /** Of the original picture (after EXIF orientation), in pixels. */
  sourceWidth: number
  /** Of the original picture (after EXIF orientation), in pixels. */
  sourceHeight: number
}

// In pixels: beyond any picture, and short of what drawing cannot compute.
const farthest = 1e7
const offset = rule.number(0, farthest)
const side = rule.above(0, farthest)
const places: Record<keyof ImageTransform, Rule> = {
  scaleX: rule.above(0),
  scaleY: rule.above(0),
  offsetX: offset,
  offsetY: offset,
  size: side,
  sourceWidth: side,
  sourceHeight: side
}

/** Where a picture lies in the model's input, as `preprocessImage` and results have it. */
export function takeTransform(name: string, value: unknown): ImageTransform {
  const fields = readFields(name, value, Object.keys(places), 'the transform of preprocessImage')
  for (const [key, wanted] of Object.entries(places)) check(`${name}.${key}`, fields[key], wanted)
  const transform = fields as unknown as ImageTransform
  const inside = 2 * Math.max(transform.offsetX, transform.offsetY) < transform.size
  check(`${name}.size`, transform.size, { expected: 'a square larger than its borders', accepts: () => inside })
  return transform
}
