/** What the functions of this folder take: results of `detect`, `segment` and `parseOutput`. */
import { check, readFields, rule } from '../base/validate'
import { type Mask, takeMask } from './masks/mask'
import type { Box } from './parse'

/** What can be drawn and written to files: results of `detect`, `segment` and `parseOutput`. */
export interface Drawable {
  /** The object's name. */
  label: string
  /** In pixels of the image. */
  box: Box
  /** 0..1 of this package's own results; of others any number. */
  score?: number | undefined
  /** In pixels of the whole image, 0..255. */
  mask?: Mask | undefined
}

// Of boxes, in pixels: beyond any picture, and short of what drawing cannot compute.
const farthest = 1e7
const boxKeys = ['x', 'y', 'width', 'height'] as const
const place = rule.number(-farthest, farthest)

const expected = 'a detection ({ label, box, score?, mask? })'
export const resultsRule = rule.listOf(expected, (v) => typeof v === 'object' && v !== null)

export function takeBox(name: string, given: unknown): Box {
  const sides = readFields(name, given, boxKeys, '{ x, y, width, height }')
  for (const key of boxKeys) check(`${name}.${key}`, sides[key], place)
  return sides as unknown as Box
}

export function takeDrawable(name: string, given: unknown): Drawable {
  const { label, score, box, mask } = readFields(name, given, ['label', 'score', 'box', 'mask'], expected)
  check(`${name}.label`, label, rule.name)
  if (score !== undefined) check(`${name}.score`, score, rule.number(-Number.MAX_VALUE))
  return {
    label: label as string,
    box: takeBox(`${name}.box`, box),
    ...(score !== undefined && { score: score as number }),
    ...(mask !== undefined && { mask: takeMask(`${name}.mask`, mask) })
  }
}

export const hasArea = ({ box }: Drawable): boolean => box.width > 0 && box.height > 0
