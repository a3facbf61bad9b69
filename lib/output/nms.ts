/** Dropping boxes that show an object again. Pure. */
import type { NormalizedBox } from './parse'

/** What {@link suppressOverlaps} compares. */
export interface ScoredBox {
  label: string
  normalized: NormalizedBox
  score: number
}

/** Intersection over union of two boxes, 0..1; 0 where neither has an area. */
export function boxOverlap(a: NormalizedBox, b: NormalizedBox): number {
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
 * only the one with the highest score stays; of equal scores, the first. With `classAgnostic` labels make no difference.
 * The order of the rest is kept.
 */
export function suppressOverlaps<T extends ScoredBox>(
  boxes: readonly T[],
  threshold: number,
  { classAgnostic = false }: OverlapOptions = {}
): T[] {
  const kept: T[] = []
  const same = (a: T, b: T): boolean => classAgnostic || a.label === b.label
  for (const box of [...boxes].sort((a, b) => b.score - a.score)) {
    if (!kept.some((other) => same(other, box) && boxOverlap(other.normalized, box.normalized) > threshold))
      kept.push(box)
  }
  const stays = new Set(kept)
  return boxes.filter((box) => stays.has(box))
}
