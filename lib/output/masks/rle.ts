/**
 * Run lengths as COCO's tools write them: pixels column by column, the first run outside, and the short text form of
 * the runs (cocoapi, common/maskApi.c, rleToString: differences in groups of five bits from character "0" on).
 */
import type { PlainBytes } from '../../base/plain-memory'
import { PaliGemmaError } from '../../base/errors'
import { checkPixels, insideFrom, type Mask } from './mask'

/** The short form; what pycocotools' `mask.encode` gives, as text. */
export interface CompressedRle {
  /** In pixels. */
  size: [height: number, width: number]
  /** ASCII, as COCO's tools write it. */
  counts: string
}

/** Lengths of runs, outside and inside in turn. */
export interface UncompressedRle {
  /** In pixels. */
  size: [height: number, width: number]
  /** In pixels, column by column; the first run, which may be 0 long, is outside. Their sum is height times width. */
  counts: number[]
}

/** The rows that hold anything: [first, last + 1). */
function usedRows({ width, height, data }: Mask): [number, number] {
  const used = (y: number): boolean => {
    for (let i = y * width; i < (y + 1) * width; i++) if (data[i]! >= insideFrom) return true
    return false
  }
  let top = 0
  while (top < height && !used(top)) top++
  let bottom = height
  while (bottom > top && !used(bottom - 1)) bottom--
  return [top, bottom]
}

export function runsOf(mask: Mask): number[] {
  const { width, height, data } = mask
  const [top, bottom] = usedRows(mask)
  const counts: number[] = []
  let within = false
  let start = 0
  const turn = (at: number): void => {
    counts.push(at - start)
    start = at
    within = !within
  }
  for (let x = 0; x < width; x++) {
    const column = x * height
    if (within && top > 0) turn(column)
    for (let y = top; y < bottom; y++) if (data[y * width + x]! >= insideFrom !== within) turn(column + y)
    if (within && bottom < height) turn(column + bottom)
  }
  counts.push(width * height - start)
  return counts
}

export function encodeRle(mask: Mask): string {
  return compress(runsOf(mask))
}

const bits = 5
const firstCharacter = 48

function compress(counts: readonly number[]): string {
  const bytes: number[] = []
  for (let i = 0; i < counts.length; i++) {
    let rest = i > 2 ? counts[i]! - counts[i - 2]! : counts[i]!
    for (let more = true; more; ) {
      const low = rest & 31
      rest >>= bits
      more = low & 16 ? rest !== -1 : rest !== 0
      bytes.push((more ? low | 32 : low) + firstCharacter)
    }
  }
  return Buffer.from(bytes).toString('latin1')
}

const mostGroups = 7 // of five bits: more than any run that there can be

function uncompress(name: string, text: string): number[] {
  const counts: number[] = []
  for (let at = 0; at < text.length; ) {
    let value = 0
    for (let group = 0; ; group++, at++) {
      const code = text.charCodeAt(at) - firstCharacter // NaN behind the end
      if (!(code >= 0 && code < 64) || group === mostGroups)
        throw new PaliGemmaError(
          'ERR_INVALID_OPTION',
          `Expected COCO's compressed runs for ${name} but character ${at} is not part of any`
        )
      value += (code & 31) * 2 ** (bits * group)
      if (code & 32) continue
      if (code & 16) value -= 2 ** (bits * (group + 1))
      at++
      break
    }
    counts.push(counts.length > 2 ? value + counts.at(-2)! : value)
  }
  return counts
}

/** @throws PaliGemmaError ERR_INVALID_OPTION where the runs are not the picture's, ERR_IMAGE_TOO_LARGE */
export function decodeRle(
  name: string,
  [height, width]: readonly [number, number],
  given: string | readonly number[],
  maxPixels: number
): Mask & { data: PlainBytes } {
  const counts = typeof given === 'string' ? uncompress(name, given) : given
  const pixels = width * height
  let sum = 0
  for (const count of counts) {
    if (!Number.isSafeInteger(count) || count < 0 || count > pixels) {
      sum = NaN // it may be no number at all
      break
    }
    sum += count
  }
  if (sum !== pixels)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected runs of ${height} x ${width} = ${pixels} pixels for ${name} but received ` +
        (Number.isNaN(sum) ? 'a run that is no length' : `${sum}`)
    )
  checkPixels(width, height, maxPixels)
  return { width, height, data: paint(counts, width, height) }
}

function paint(counts: readonly number[], width: number, height: number): PlainBytes {
  const data = new Uint8Array(width * height)
  let at = 0
  counts.forEach((count, i) => {
    if (i % 2 === 1) {
      let x = Math.floor(at / height)
      let y = at % height
      for (let n = 0; n < count; n++) {
        data[y * width + x] = 255
        if (++y === height) [x, y] = [x + 1, 0]
      }
    }
    at += count
  })
  return data
}
