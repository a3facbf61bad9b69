/** Objects that a model found, and those that are there, as COCO's metrics compare them. */
import type { Detection, ObjectList, Segmentation } from '../../api/options/objects'
import { nativeCall, PaliGemmaError } from '../../base/errors'
import { truthMask } from '../../datasets/fill'
import { native } from '../../engine/native'
import { insideFrom, type Mask } from '../../output/masks/mask'
import { maskBox, parsePieces } from '../../output/parse'
import type { FileExample } from '../../train/data-file'
import type { CocoGroup } from './coco'

type Corners = [x0: number, y0: number, x1: number, y1: number]

/** A thing on the picture, in pixels. */
interface Thing {
  label: string
  box: Corners
  area: number
  crowd: boolean
  score: number
  mask?: Mask
}

/** The labels that "detect a ; b" asks for; undefined for other prompts. */
export function askedLabels(prompt: string): string[] | undefined {
  const list = /^\s*(?:detect|segment)\s+(.+)$/s.exec(prompt)?.[1]
  const labels = list?.split(';').map((label) => label.trim())
  return labels?.every((label) => label !== '') ? [...new Set(labels)] : undefined
}

type FoundList = ObjectList<Detection> | ObjectList<Segmentation>
type DecodeMask = (codes: number[]) => Promise<Float32Array>

/** What is there: exactly where the row says so, else as its answer has it. */
async function truthsOf(
  { objects, response, width: w = 1, height: h = 1 }: FileExample,
  { width, height }: { width: number; height: number },
  labels: readonly string[],
  decodeMask: DecodeMask | undefined,
  where: string
): Promise<Thing[]> {
  if (objects)
    return objects.map(({ label, bbox: [x, y, bw, bh], area = bw * bh, iscrowd = 0, segmentation }) => {
      const thing = { label, box: [x, y, x + bw, y + bh] as Corners, area, crowd: iscrowd === 1, score: 1 }
      if (!decodeMask) return thing
      if (w !== width || h !== height)
        throw wrong(`${where}: objects are of a picture of ${w} x ${h}, but it has ${width} x ${height}`)
      if (segmentation === undefined) throw wrong(`${where}: the object ${JSON.stringify(label)} has no segmentation`)
      return { ...thing, mask: truthMask(`${where}: segmentation`, segmentation, width, height) }
    })
  const things: Thing[] = []
  for (const { object } of parsePieces(response, { width, height })) {
    if (!object?.valid) continue
    const { yMin, xMin, yMax, xMax } = object.normalized
    const box: Corners = [xMin * width, yMin * height, xMax * width, yMax * height]
    const thing: Thing = { label: object.label || labels[0]!, box, area: areaOf(box), crowd: false, score: 1 }
    if (!decodeMask) things.push(thing)
    else {
      if (!object.codes) throw wrong(`${where}: its suffix has no <seg> codes, and there are no objects with masks`)
      const codes = await decodeMask(object.codes)
      const data = await nativeCall(
        async () => await native().pasteMask(codes, maskBox(object, { width, height }), width, height, 'training')
      )
      const mask = { data, width, height }
      things.push({ ...thing, mask, area: inside(mask) })
    }
  }
  return things
}

const wrong = (text: string): PaliGemmaError => new PaliGemmaError('ERR_INVALID_OPTION', text)

const areaOf = ([x0, y0, x1, y1]: Corners): number => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0)

function inside({ data }: Mask): number {
  let count = 0
  for (let i = 0; i < data.length; i++) if (data[i]! >= insideFrom) count++
  return count
}

function foundThings(found: FoundList, withMasks: boolean): Thing[] {
  const { width, height } = found
  return found.map((one): Thing => {
    const { yMin, xMin, yMax, xMax } = one.normalized
    const box: Corners = [xMin * width, yMin * height, xMax * width, yMax * height]
    const mask = withMasks ? (one as Segmentation).mask : undefined
    const area = mask ? inside(mask) : areaOf(box)
    return { label: one.label, box, area, crowd: false, score: one.score, ...(mask && { mask }) }
  })
}

/** Intersection over union; over the found thing's area where the truth is a crowd. */
function overlap(found: Thing, truth: Thing): number {
  const [both, own, other] =
    found.mask && truth.mask ? masksOverlap(found.mask, truth.mask) : boxesOverlap(found, truth)
  const either = truth.crowd ? own : own + other - both
  return either > 0 ? both / either : 0
}

function boxesOverlap({ box: a }: Thing, { box: b }: Thing): [number, number, number] {
  const both: Corners = [Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]
  return [areaOf(both), areaOf(a), areaOf(b)]
}

function masksOverlap(a: Mask, b: Mask): [number, number, number] {
  let [both, own, other] = [0, 0, 0]
  for (let i = 0; i < a.data.length; i++) {
    const [inA, inB] = [a.data[i]! >= insideFrom, b.data[i]! >= insideFrom]
    if (inA) own++
    if (inB) other++
    if (inA && inB) both++
  }
  return [both, own, other]
}

export interface Compared {
  groups: { label: string; group: CocoGroup }[]
  /** Of every truth that is no crowd: the overlap with what was found for it, 0 where nothing was. */
  best: number[]
}

/** `decodeMask`: masks are compared, else boxes. */
export async function compareObjects(
  example: FileExample,
  found: FoundList,
  decodeMask: DecodeMask | undefined,
  where: string
): Promise<Compared> {
  const labels = askedLabels(example.prompt)!
  const truths = await truthsOf(example, found, labels, decodeMask, where)
  const own = foundThings(found, decodeMask !== undefined)
  const result: Compared = { groups: [], best: [] }
  for (const label of new Set([...labels, ...truths.map((truth) => truth.label)])) {
    const [mine, theirs] = [own, truths].map((list) => list.filter((one) => one.label === label)) as [Thing[], Thing[]]
    const overlaps = mine.map((one) => theirs.map((truth) => overlap(one, truth)))
    result.groups.push({ label, group: { detections: mine, truths: theirs, overlaps } })
    result.best.push(...bestOverlaps(overlaps, theirs))
  }
  return result
}

/** The largest overlaps first; what was found counts once. */
function bestOverlaps(overlaps: readonly (readonly number[])[], truths: readonly Thing[]): number[] {
  const pairs = overlaps
    .flatMap((row, d) => row.map((value, t) => ({ d, t, value })))
    .filter(({ t, value }) => value > 0 && !truths[t]!.crowd)
    .sort((a, b) => b.value - a.value)
  const best = truths.map(() => 0)
  const used = new Set<number>()
  for (const { d, t, value } of pairs) {
    if (best[t]! > 0 || used.has(d)) continue
    best[t] = value
    used.add(d)
  }
  return best.filter((_, t) => !truths[t]!.crowd)
}
