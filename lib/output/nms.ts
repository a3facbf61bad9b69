/** Dropping boxes that show an object again. Pure. */
import { check, readFields, readOptions, rule, take, type Rules } from '../base/validate'
import type { NormalizedBox } from './parse'

/** What {@link suppressOverlaps} compares. */
export interface ScoredBox {
  /** Boxes of other labels are not compared, unless `classAgnostic` says so. */
  label: string
  /** Where it is, 0..1 of height and width. */
  normalized: NormalizedBox
  /** The higher one stays. */
  score: number
}

const sides = ['yMin', 'xMin', 'yMax', 'xMax'] as const
const side = rule.number(-Number.MAX_VALUE)

function takeBox(name: string, value: unknown): NormalizedBox {
  const box = readFields(name, value, sides, '{ yMin, xMin, yMax, xMax }')
  for (const key of sides) check(`${name}.${key}`, box[key], side)
  return box as unknown as NormalizedBox
}

/**
 * Intersection over union of two boxes, 0..1; 0 where neither has an area.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function boxOverlap(a: NormalizedBox, b: NormalizedBox): number {
  return overlap(takeBox('a', a), takeBox('b', b))
}

function overlap(a: NormalizedBox, b: NormalizedBox): number {
  const area = (box: NormalizedBox): number => Math.max(box.yMax - box.yMin, 0) * Math.max(box.xMax - box.xMin, 0)
  const height = Math.min(a.yMax, b.yMax) - Math.max(a.yMin, b.yMin)
  const width = Math.min(a.xMax, b.xMax) - Math.max(a.xMin, b.xMin)
  const both = Math.max(height, 0) * Math.max(width, 0)
  const either = area(a) + area(b) - both
  return either > 0 ? both / either : 0
}

/** How {@link suppressOverlaps} compares. */
export interface OverlapOptions {
  /** true: boxes of different labels suppress each other too. Default false: only those of the same label do. */
  classAgnostic?: boolean | undefined
}

/**
 * Non-maximum suppression: of boxes with the same label that overlap more than `threshold` (intersection over union),
 * only the one with the highest score stays; of equal scores, the first. With `classAgnostic` labels make no
 * difference. The order of the rest is kept.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function suppressOverlaps<T extends ScoredBox>(
  boxes: readonly T[],
  threshold: number,
  options: OverlapOptions = {}
): T[] {
  check('threshold', threshold, rule.number(0, 1))
  const { classAgnostic = false } = readOptions<OverlapOptions>('suppressOverlaps', options, overlapRules)
  const list = take('boxes', boxes, boxesRule)
  const read: Scored[] = []
  for (let i = 0; i < list.length; i++) read.push(takeScored(`boxes[${i}]`, list[i]!))
  const kept: Scored[] = []
  const same = (a: Scored, b: Scored): boolean => classAgnostic || a.label === b.label
  for (const box of [...read].sort((a, b) => b.score - a.score)) {
    if (!kept.some((other) => same(other, box) && overlap(other.normalized, box.normalized) > threshold)) kept.push(box)
  }
  const stays = new Set(kept)
  return list.filter((_, i) => stays.has(read[i]!))
}

type Scored = Pick<ScoredBox, 'label' | 'normalized' | 'score'>
const boxesRule = rule.listOf('{ label, normalized, score }', () => true)
const overlapRules: Rules<OverlapOptions> = { classAgnostic: rule.flag }

function takeScored(name: string, value: unknown): Scored {
  const fields = readFields(name, value, ['label', 'normalized', 'score'], '{ label, normalized, score }')
  check(`${name}.label`, fields['label'], rule.name)
  check(`${name}.score`, fields['score'], side)
  return { ...(fields as unknown as Scored), normalized: takeBox(`${name}.normalized`, fields['normalized']) }
}
