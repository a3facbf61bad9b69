/** Rows in the forms of other tools. */
import { copyFile, link } from 'node:fs/promises'
import { dirname, extname, join, relative, resolve, sep } from 'node:path'
import { makeFolder, writeFailure, writeOutput } from '../base/output-file'
import { writeText, type Write } from '../base/text-output'
import { decodeImage } from '../images/decode'
import { type ParsedObject, parsePieces } from '../output/parse'
import { labelFile } from '../output/labels/yolo'
import type { DataRow, TruthObject } from '../train/data-file'
import { csvLine } from './csv'

export type Form = 'jsonl' | 'csv' | 'coco' | 'yolo' | 'vqa'

export interface Sink {
  out: string
  /** YOLO: the folders' name. */
  subset: 'train' | 'val'
  labels?: readonly string[] | undefined
  rows: () => AsyncIterable<DataRow>
  signal: AbortSignal
}

/** What keeps a row from the form, in words. */
export function formProblem(form: Form, row: DataRow): string | undefined {
  if (form === 'jsonl' || form === 'csv') return undefined
  if (row.images.length !== 1) return `it has ${row.images.length} pictures, where ${form} has one`
  if (form === 'vqa' || objectsOf(row).length > 0) return undefined
  return `its suffix names no objects (<loc....> four times and a name), which ${form} is made of`
}

export const writers: Record<Form, (sink: Sink) => Promise<void>> = {
  jsonl: writeJsonLines,
  csv: writeCsv,
  coco: writeCoco,
  yolo: writeYolo,
  vqa: writeVqa
}

/** A path as it is written: beside the file where that is possible, with slashes. */
function pathFrom(out: string, image: string): string {
  if (/^[a-z][a-z0-9+.-]+:/i.test(image) && !/^[a-z]:[\\/]/i.test(image)) return image
  return relative(dirname(out), image).split(sep).join('/')
}

export function jsonLine({ images, prompt, response, answers, objects, width, height }: DataRow): string {
  const [image, ...others] = images
  const pictures = others.length > 0 ? { images } : { ...(image !== undefined && { image }) }
  return `${JSON.stringify({ ...pictures, prefix: prompt, suffix: response, answers, objects, width, height })}\n`
}

async function writeJsonLines({ out, rows, signal }: Sink): Promise<void> {
  await writeText(out, 'out', async (write) => {
    for await (const row of rows()) {
      signal.throwIfAborted()
      await write(jsonLine({ ...row, images: row.images.map((image) => pathFrom(out, image)) }))
    }
  })
}

async function writeCsv({ out, rows, signal }: Sink): Promise<void> {
  await writeText(out, 'out', async (write) => {
    let hasAnswers = false
    for await (const { answers } of rows()) if ((hasAnswers = answers !== undefined)) break
    await write(csvLine(['image', 'prefix', 'suffix', ...(hasAnswers ? ['answers'] : [])]))
    for await (const { images, prompt, response, answers } of rows()) {
      signal.throwIfAborted()
      const paths = images.map((image) => pathFrom(out, image))
      const cell = paths.length > 1 ? JSON.stringify(paths) : (paths[0] ?? '')
      const own = hasAnswers ? [answers ? JSON.stringify(answers) : ''] : []
      await write(csvLine([cell, prompt, response, ...own]))
    }
  })
}

interface Found {
  label: string
  /** y0, x0, y1, x1 in 0..1. */
  box: [number, number, number, number]
  truth?: TruthObject
}

function objectsOf({ prompt, response, objects, width = 1, height = 1 }: DataRow): Found[] {
  if (objects)
    return objects.map((truth) => {
      const [x, y, w, h] = truth.bbox
      return { label: truth.label, box: [y / height, x / width, (y + h) / height, (x + w) / width], truth }
    })
  const asked = /^(?:detect|segment) ([^;]+)$/.exec(prompt.trim())?.[1] ?? ''
  return parsePieces(response, { width: 1, height: 1 })
    .flatMap(({ object }): ParsedObject[] => (object?.valid ? [object] : []))
    .map(({ label, normalized: { yMin, xMin, yMax, xMax } }) => ({
      label: label || asked.trim(),
      box: [yMin, xMin, yMax, xMax]
    }))
}

interface Gathered {
  found: Found[]
  size?: [number, number]
}

/** What all rows say about each picture. */
async function gather({ rows, signal }: Sink): Promise<Map<string, Gathered>> {
  const pictures = new Map<string, Gathered>()
  for await (const row of rows()) {
    signal.throwIfAborted()
    const [image] = row.images as [string]
    const picture = pictures.get(image) ?? { found: [] }
    if (row.width !== undefined && row.height !== undefined) picture.size = [row.width, row.height]
    picture.found.push(...objectsOf(row))
    pictures.set(image, picture)
  }
  return pictures
}

/** Numbers in the order of `labels`, others as they come. */
function numbersOf(labels: readonly string[] = []): { of: (label: string) => number; names: () => string[] } {
  const numbers = new Map(labels.map((label, i) => [label, i]))
  const of = (label: string): number => {
    const number = numbers.get(label) ?? numbers.size
    numbers.set(label, number)
    return number
  }
  return { of, names: () => [...numbers.keys()] }
}

async function writeCoco(sink: Sink): Promise<void> {
  const { out, labels, signal } = sink
  const pictures = await gather(sink)
  const classes = numbersOf(labels)
  const sizes = new Map<string, [number, number]>()
  for (const [image, { size }] of pictures) sizes.set(image, size ?? (await sizeOf(image, signal)))
  await writeText(out, 'out', async (write) => {
    const list = lister(write)
    await write('{"images":[')
    for (const [i, image] of [...pictures.keys()].entries()) {
      const [width, height] = sizes.get(image)!
      await list({ id: i + 1, file_name: pathFrom(out, image), width, height })
    }
    list.restart()
    await write('],\n"annotations":[')
    let [id, imageId] = [0, 0]
    for (const [image, { found }] of pictures) {
      imageId++
      for (const one of found)
        await list({
          id: ++id,
          image_id: imageId,
          category_id: classes.of(one.label) + 1,
          ...exact(one, sizes.get(image)!)
        })
    }
    const categories = classes.names().map((name, i) => ({ id: i + 1, name }))
    await write(`],\n"categories":${JSON.stringify(categories)}}\n`)
  })
}

async function sizeOf(image: string, signal: AbortSignal): Promise<[number, number]> {
  const { width, height } = await decodeImage(image, { signal })
  return [width, height]
}

function exact({ box: [y0, x0, y1, x1], truth }: Found, [width, height]: [number, number]): object {
  const rounded = (value: number): number => Math.round(value * 100) / 100
  if (truth) {
    const { label: _, area = truth.bbox[2] * truth.bbox[3], iscrowd = 0, ...rest } = truth
    return { ...rest, area, iscrowd }
  }
  const bbox = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height].map(rounded)
  return { bbox, area: rounded(bbox[2]! * bbox[3]!), iscrowd: 0 }
}

function lister(write: Write): ((value: object) => Promise<void>) & { restart: () => void } {
  let between = ''
  const list = async (value: object): Promise<void> => {
    await write(`${between}\n${JSON.stringify(value)}`)
    between = ','
  }
  return Object.assign(list, { restart: () => (between = '') })
}

/** images/ and labels/ beside each other, as the YOLO family wants it, and data.yaml. */
async function writeYolo(sink: Sink): Promise<void> {
  const { out, subset, labels, signal } = sink
  const classes = numbersOf(labels)
  const taken = new Set<string>()
  const pictures = await gather(sink)
  for (const [image, { found }] of pictures) {
    signal.throwIfAborted()
    const name = labelFile(relative(dirname(out), image), taken)
    const lines = found.map(({ label, box: [y0, x0, y1, x1] }) => {
      const places = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
      return `${[classes.of(label), ...places.map((value) => Number(value.toFixed(6)))].join(' ')}\n`
    })
    const [from, to] = ['labels', 'images'].map((folder) => join(out, folder, subset, name)) as [string, string]
    await makeFolder(dirname(from), 'out')
    await writeOutput(from, lines.join(''), { option: 'out' })
    await lend(image, `${to.slice(0, -4)}${extname(image)}`)
  }
  const names = classes.names().map((name, i) => `  ${i}: ${JSON.stringify(name)}\n`)
  await writeOutput(join(out, 'data.yaml'), `train: images/train\nval: images/val\nnames:\n${names.join('')}`)
}

/** The same bytes under another name where the file system can, else a copy. URLs stay where they are. */
async function lend(image: string, to: string): Promise<void> {
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(image)) return
  await makeFolder(dirname(to), 'out')
  await link(resolve(image), to).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST') return
    await copyFile(image, to).catch((cause: Error) => {
      throw writeFailure(cause, to, 'out')
    })
  })
}

/** Questions and annotations in one file. */
async function writeVqa({ out, rows, signal }: Sink): Promise<void> {
  const each = async (write: Write, make: (row: DataRow, id: number) => object): Promise<void> => {
    const list = lister(write)
    let id = 0
    for await (const row of rows()) {
      signal.throwIfAborted()
      await list(make(row, ++id))
    }
  }
  await writeText(out, 'out', async (write) => {
    await write('{"questions":[')
    await each(write, ({ images, prompt }, id) => ({
      question_id: id,
      image_id: pathFrom(out, images[0]!),
      question: prompt.replace(/^answer [a-z]{2,3}(?:-\w+)? /i, '')
    }))
    await write('],\n"annotations":[')
    await each(write, ({ images, response, answers = [response] }, id) => ({
      question_id: id,
      image_id: pathFrom(out, images[0]!),
      multiple_choice_answer: response,
      answers: answers.map((answer, i) => ({ answer, answer_id: i + 1 }))
    }))
    await write(']}\n')
  })
}
