/** Results as label files of the YOLO family: a line an object, https://docs.ultralytics.com/datasets/detect/ */
import { extname, join } from 'node:path'
import { readOptions, rule, type Rules } from '../../base/validate'
import { Classes, classNamesRule, takeClassed } from './classes'
import { sizeOf } from './coco'
import type { Drawable } from '../drawable'
import { joinRings, polygonsOf } from '../masks/polygons'

/** Options of {@link toYolo}. */
export interface YoloOptions {
  /** The classes, in the order of their numbers from 0 on. */
  labels: readonly string[]
  /**
   * "detect" (default): class x_center y_center width height; "segment": class x1 y1 x2 y2 ..., of objects with a mask.
   */
  task?: 'detect' | 'segment' | undefined
  /** true: the score stands at the end of each line, as predictions have it; default false. */
  scores?: boolean | undefined
  /** Points of outlines may go that lie nearer than this (pixels) to the line without them; default 1. */
  tolerance?: number | undefined
  /** Of the picture, in pixels; not needed where the objects are what `detect` or `segment` returned, or have masks. */
  width?: number | undefined
  /** As `width`. */
  height?: number | undefined
}

const yoloRules: Rules<YoloOptions> = {
  labels: classNamesRule,
  task: rule.oneOf('detect', 'segment'),
  scores: rule.flag,
  tolerance: rule.number(0, 1e6),
  width: rule.above(0),
  height: rule.above(0)
}

/**
 * The text of a picture's label file: coordinates in 0..1 of the picture. Boxes without area are left out. An object of
 * several parts or with holes is one outline, with bridges without width.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function toYolo(objects: readonly Drawable[], options: YoloOptions): string {
  const taken = readOptions<YoloOptions>('toYolo', options, yoloRules, ['labels'])
  return yoloLines(objects, new Classes(taken.labels), taken)
}

/** {@link toYolo} with classes that several pictures share. */
export function yoloLines(objects: readonly Drawable[], classes: Classes, taken: Omit<YoloOptions, 'labels'>): string {
  const { task = 'detect', scores = false, tolerance = 1 } = taken
  const found = takeClassed('objects', objects, classes)
  if (found.length === 0) return ''
  const size = sizeOf('options', { ...taken, objects }, found[0]!.object.mask)
  return found
    .flatMap(({ object, classId }) => {
      const numbers = task === 'segment' ? outline(object, tolerance) : centre(object)
      if (numbers.length === 0) return []
      const places = numbers.map((value, i) => fixed(value / size[i % 2]!))
      return [[classId, ...places, ...(scores && object.score !== undefined ? [fixed(object.score)] : [])].join(' ')]
    })
    .map((line) => `${line}\n`)
    .join('')
}

const fixed = (value: number): string => String(Number(Math.min(Math.max(value, 0), 1).toFixed(6)))

function centre({ box }: Drawable): number[] {
  return [box.x + box.width / 2, box.y + box.height / 2, box.width, box.height]
}

function outline({ mask }: Drawable, tolerance: number): number[] {
  return mask ? joinRings(polygonsOf(mask, tolerance)) : []
}

/** Of a picture's name: inside the folder of labels whatever that is; several of one name get numbers. */
export function labelFile(image: string, taken: Set<string>): string {
  const parts = image
    .replace(/^[a-z]+:\/*/i, '')
    .replace(/[?#].*$/, '')
    .split(/[/\\]+/)
    .filter((part) => part !== '' && part !== '.')
    .map((part) => (part === '..' ? '_' : part))
  const last = parts.pop() ?? 'image'
  const stem = join(...parts, last.slice(0, last.length - extname(last).length) || 'image')
  let path = `${stem}.txt`
  for (let n = 2; taken.has(path.toLowerCase()); n++) path = `${stem}-${n}.txt`
  taken.add(path.toLowerCase())
  return path
}
