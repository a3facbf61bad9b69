/** JSON lines of examples, in the form of PaliGemma's data sets: `image` (or `images`), `prefix`, `suffix`. */
import { dirname, resolve } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { longestLine, textLines } from '../base/lines'
import { show } from '../base/validate'
import { isObject } from '../formats/fields'

/** What is on a picture, exactly: what `evaluate` compares with, where the codes of the suffix are coarse. */
export interface TruthObject {
  label: string
  /** x, y, width, height in pixels. */
  bbox: [number, number, number, number]
  /** In pixels, for COCO's ranges of sizes; default: the box's. */
  area?: number
  /** 1: a group, which is neither found nor missed. */
  iscrowd?: number
  /** COCO's polygons or runs. */
  segmentation?: number[][] | { size: [number, number]; counts: string | number[] }
}

export interface DataRow {
  /** Absolute paths and URLs. */
  images: string[]
  prompt: string
  response: string
  /** All right answers, where there are several. */
  answers?: string[]
  objects?: TruthObject[]
  /** Of the picture, in pixels; given with `objects`. */
  width?: number
  height?: number
}

export interface FileExample extends DataRow {
  /** Of the file, from 1. */
  line: number
}

/**
 * Every line that is not empty, one at a time. Relative pictures lie in `imagesDir`, by default where the file is.
 * `onBad`: what to do about a line that is wrong, instead of throwing.
 * @throws PaliGemmaError ERR_INVALID_OPTION that names file, line and field; ERR_MODEL_NOT_FOUND where there is no file
 */
export async function* dataLines(
  path: string,
  imagesDir = dirname(path),
  onBad?: (line: number, error: PaliGemmaError) => void
): AsyncGenerator<FileExample, void, undefined> {
  try {
    for await (const { text, line } of textLines(path)) {
      if (text?.trim() === '') continue
      let example: FileExample | undefined
      try {
        example = parseLine(text, line, path, imagesDir)
      } catch (error) {
        if (!onBad || !(error instanceof PaliGemmaError)) throw error
        onBad(line, error)
      }
      if (example) yield example
    }
  } catch (cause) {
    if (cause instanceof PaliGemmaError || (cause as NodeJS.ErrnoException).syscall === undefined) throw cause
    throw new PaliGemmaError('ERR_INVALID_OPTION', `${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

/** All of them; there must be some. Throws as {@link dataLines}. */
export async function readDataFile(path: string, imagesDir = dirname(path)): Promise<FileExample[]> {
  const examples: FileExample[] = []
  for await (const example of dataLines(path, imagesDir)) examples.push(example)
  if (examples.length === 0) throw new PaliGemmaError('ERR_INVALID_OPTION', `${path} holds no examples`)
  return examples
}

/** A path beside `folder`, or a URL as it is. */
export function pictureOf(name: string, folder: string): string {
  return /^[a-z][a-z0-9+.-]+:/i.test(name) ? name : resolve(folder, name)
}

function parseLine(line: string | undefined, number: number, path: string, imagesDir: string): FileExample {
  const wrong = (what: string, cause?: unknown): PaliGemmaError =>
    new PaliGemmaError('ERR_INVALID_OPTION', `${path}:${number}: ${what}`, cause === undefined ? {} : { cause })
  if (line === undefined) throw wrong(`is longer than ${longestLine} bytes; examples stand one a line`)
  let value: unknown
  try {
    value = JSON.parse(number === 1 ? line.replace(/^\uFEFF/, '') : line)
  } catch (cause) {
    const other = number === 1 ? '; "paligemma dataset" makes JSON lines of CSV, COCO, YOLO and VQA' : ''
    throw wrong(`is no JSON (${(cause as Error).message})${other}`, cause)
  }
  if (!isObject(value)) throw wrong('is no JSON object with image, prefix and suffix')
  const fields = value
  const text = (one: string, other: string): string => {
    const found = fields[one] ?? fields[other]
    if (typeof found !== 'string') throw wrong(`expected a string for ${one} but found ${show(found)}`)
    return found
  }
  const pictures = fields['images'] ?? (fields['image'] === undefined ? [] : [fields['image']])
  if (!Array.isArray(pictures) || !pictures.every((one) => typeof one === 'string' && one !== ''))
    throw wrong(`expected a path for image (or a list of them for images) but found ${show(pictures)}`)
  const images = (pictures as string[]).map((one) => pictureOf(one, imagesDir))
  const row = { images, prompt: text('prefix', 'prompt'), response: text('suffix', 'response') }
  return { line: number, ...row, ...extrasOf(fields, wrong) }
}

const isSide = (value: unknown): value is number => typeof value === 'number' && value > 0 && value < 1e7

/** What only `evaluate` reads. */
function extrasOf(fields: Record<string, unknown>, wrong: (what: string) => PaliGemmaError): Partial<DataRow> {
  const { answers, objects, width, height } = fields
  const extras: Partial<DataRow> = {}
  if (answers !== undefined) {
    if (!Array.isArray(answers) || answers.length === 0 || !answers.every((one) => typeof one === 'string'))
      throw wrong(`expected a list of texts for answers but found ${show(answers)}`)
    extras.answers = answers as string[]
  }
  if (objects === undefined) return extras
  if (!Array.isArray(objects) || !objects.every(isTruth))
    throw wrong('expected a list of { label, bbox: [x, y, width, height], ... } for objects')
  if (!isSide(width) || !isSide(height)) throw wrong('expected width and height of the picture beside objects')
  return { ...extras, objects: objects as TruthObject[], width, height }
}

function isTruth(value: unknown): value is TruthObject {
  if (!isObject(value) || typeof value['label'] !== 'string') return false
  const { bbox } = value
  return Array.isArray(bbox) && bbox.length === 4 && bbox.every((side) => Number.isFinite(side))
}

/** What looks wrong in the answer of an example, in words; undefined: nothing. */
export function responseProblem(response: string): string | undefined {
  if (response.trim() === '') return 'the suffix is empty'
  for (const [run] of response.matchAll(/(?:<loc\d{4}>)+/g)) {
    const codes = [...run.matchAll(/\d{4}/g)].map(Number)
    const beyond = codes.find((code) => code > 1023)
    if (beyond !== undefined) return `<loc${beyond}> is beyond <loc1023>`
    if (codes.length !== 4) return `${codes.length} <loc> in a row, where a box has 4 (y0, x0, y1, x1)`
    const [y0, x0, y1, x1] = codes as [number, number, number, number]
    if (y1 < y0 || x1 < x0) return `the box ${run} ends before it begins (the order is y0, x0, y1, x1)`
  }
  for (const [run] of response.matchAll(/(?:<seg\d{3}>)+/g)) {
    if (run.length / 8 !== 16) return `${run.length / 8} <seg> in a row, where a mask has 16`
  }
  return undefined
}
