/** Label files of the YOLO family beside their pictures: https://docs.ultralytics.com/datasets/detect/ */
import { readFile, stat } from 'node:fs/promises'
import { dirname, extname, join, resolve, sep } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { isObject } from '../formats/fields'
import { ringsInSquare } from './fill'
import { clipped, type Labelled, labelProblem, rowsOf } from './labelled'
import type { Reading, Rows, SourceRow } from './source'

const pictureTypes = 'bmp,dng,jpeg,jpg,png,tif,tiff,webp,gif,avif,ppm,pgm'

interface Folder {
  names: string[]
  /** Pictures, or folders of them. */
  places: string[]
}

export async function* yoloRows(reading: Reading): Rows {
  const { names, places } = await open(reading)
  const order = reading.labels ?? names
  for await (const image of pictures(places)) {
    reading.signal.throwIfAborted()
    const file = labelFileOf(image)
    const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT' || cause.code === 'ENOTDIR') return undefined // a picture without one shows nothing
      throw wrong(`${file} cannot be read: ${cause.message}`, cause)
    })
    if (text === undefined) continue
    yield* rowsOfFile(reading, image, file, text, names, order)
  }
}

const wrong = (text: string, cause?: unknown): PaliGemmaError =>
  new PaliGemmaError('ERR_INVALID_OPTION', text, cause === undefined ? undefined : { cause })

async function open({ source, images, subset, labels }: Reading): Promise<Folder> {
  const isFolder = (await stat(source)).isDirectory()
  const folder = isFolder ? source : dirname(source)
  const described = isFolder ? await firstThere(join(folder, 'data.yaml'), join(folder, 'data.yml')) : source
  if (described === undefined) {
    const list = await firstThere(join(folder, 'classes.txt'), join(folder, 'labels', 'classes.txt'))
    if (list === undefined && labels === undefined)
      throw wrong(`${folder} has neither data.yaml nor classes.txt; give the names of its classes, in order, as labels`)
    const lines = list === undefined ? [] : (await readFile(list, 'utf8')).split(/\r?\n/).map((line) => line.trim())
    const names = list === undefined ? [...labels!] : lines.filter((line, i) => line !== '' || i < lines.length - 1)
    return { names, places: [images ?? folder] }
  }
  const { parse } = await import('./vendored.js')
  let fields: unknown
  try {
    fields = parse(await readFile(described, 'utf8'))
  } catch (cause) {
    throw wrong(`${described} cannot be read: ${(cause as Error).message}`, cause)
  }
  if (!isObject(fields)) throw wrong(`${described}: expected names, and where the pictures are`)
  const root = resolve(folder, typeof fields['path'] === 'string' ? fields['path'] : '.')
  const base = await stat(root).then(
    () => root,
    () => folder // of another machine
  )
  const given = fields[subset] ?? (fields['train'] === undefined ? '.' : undefined)
  if (given === undefined) throw wrong(`${described} names no ${subset}; subset may be train, val or test`)
  const list = (Array.isArray(given) ? given : [given]) as unknown[]
  if (!list.every((one) => typeof one === 'string')) throw wrong(`${described}: expected paths for ${subset}`)
  return { names: namesOf(described, fields['names']), places: images ? [images] : await found(base, list as string[]) }
}

/** Exports of some tools name "../train/images" from a folder that is beside it, or one too deep. */
async function found(base: string, list: readonly string[]): Promise<string[]> {
  const places: string[] = []
  for (const one of list) {
    const place = await firstThere(resolve(base, one), resolve(base, one.replace(/^(?:\.\.[\\/])+/, '')))
    if (place === undefined) throw wrong(`${resolve(base, one)}, where the pictures should be, is not there (images)`)
    places.push(place)
  }
  return places
}

async function firstThere(...paths: string[]): Promise<string | undefined> {
  for (const path of paths) if (await stat(path).catch(() => undefined)) return path
  return undefined
}

function namesOf(file: string, given: unknown): string[] {
  const names = Array.isArray(given) ? given : isObject(given) ? fromNumbers(given) : undefined
  if (!names || names.length === 0) throw wrong(`${file}: expected a list of classes, or their numbers, for names`)
  return names.map(String)
}

/** { 0: 'cat', 2: 'dog' } */
function fromNumbers(given: Record<string, unknown>): unknown[] | undefined {
  const list: unknown[] = []
  for (const [number, name] of Object.entries(given)) {
    if (!/^\d{1,6}$/.test(number)) return undefined
    list[Number(number)] = name
  }
  return Array.from(list, (name, i) => name ?? `class ${i}`)
}

async function* pictures(places: readonly string[]): AsyncGenerator<string> {
  const { glob } = await import('../base/vendored.js')
  for (const place of places) {
    const info = await stat(place)
    if (info.isDirectory()) {
      const options = { cwd: place, absolute: true, caseSensitiveMatch: false, expandDirectories: false }
      yield* (await glob(`**/*.{${pictureTypes}}`, options)).map((path) => resolve(path)).sort()
    } else if (/\.txt$/i.test(place)) {
      const lines = (await readFile(place, 'utf8')).split(/\r?\n/)
      yield* lines.filter((line) => line.trim() !== '').map((line) => resolve(dirname(place), line.trim()))
    } else yield place
  }
}

/** .../images/x/1.jpg has .../labels/x/1.txt; other pictures have it beside them. */
function labelFileOf(image: string): string {
  const stem = image.slice(0, image.length - extname(image).length)
  const from = `${sep}images${sep}`
  const at = stem.lastIndexOf(from)
  if (at < 0) return `${stem}.txt`
  return `${stem.slice(0, at)}${sep}labels${sep}${stem.slice(at + from.length)}.txt`
}

async function* rowsOfFile(
  reading: Reading,
  image: string,
  file: string,
  text: string,
  names: readonly string[],
  order: readonly string[]
): Rows {
  const { task, per, labels } = reading
  const objects: Labelled[] = []
  const bad: SourceRow[] = []
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '') continue
    try {
      const object = parseLine(line, names)
      if (labels && !labels.includes(object.label)) continue
      const { ring, ...rest } = object
      if (task === 'segment') objects.push({ ...rest, codes: await codesOf(reading, ring, rest.box) })
      else objects.push(rest)
    } catch (error) {
      if (!(error instanceof PaliGemmaError)) throw error
      bad.push({ where: `${file}:${i + 1}`, problem: error.message })
    }
  }
  yield* bad
  for (const row of rowsOf({ image, objects }, { task, per, names: order, truth: false })) yield { where: file, row }
}

async function codesOf({ encode }: Reading, ring: number[] | undefined, box: Labelled['box']): Promise<number[]> {
  if (!ring) throw wrong('it has a box only, where segment needs an outline (class x1 y1 x2 y2 x3 y3 ...)')
  return await encode!(ringsInSquare([ring], [box[1], box[0], box[3] - box[1], box[2] - box[0]]))
}

const slack = 0.01 // of rounding, beyond the picture's edge

function parseLine(line: string, names: readonly string[]): Labelled & { ring?: number[] } {
  const [first, ...rest] = line.trim().split(/\s+/).map(Number) as [number, ...number[]]
  if (!Number.isSafeInteger(first) || rest.some((value) => !Number.isFinite(value)))
    throw wrong(`expected numbers (class x_center y_center width height) but found ${JSON.stringify(line.trim())}`)
  const label = names[first]
  if (label === undefined) throw wrong(`class ${first} has no name: there are ${names.length}, from 0 on`)
  const problem = labelProblem(label)
  if (problem) throw wrong(problem)
  const isBox = rest.length === 4 || rest.length === 5 // predictions have a score behind it
  if (!isBox && (rest.length < 6 || rest.length % 2 === 1))
    throw wrong(`expected 4 numbers of a box or an outline of x y behind the class but found ${rest.length}`)
  const places = isBox ? rest.slice(0, 4) : rest
  if (places.some((value) => value < -slack || value > 1 + slack))
    throw wrong('its coordinates are beyond 0..1: YOLO has them in parts of width and height, not in pixels')
  const box = clipped(isBox ? aroundCentre(places) : around(places))
  if (!box) throw wrong('its box has no area')
  return { label: label.trim(), box, ...(!isBox && { ring: places }) }
}

function aroundCentre(places: readonly number[]): Labelled['box'] {
  const [x, y, width, height] = places as [number, number, number, number]
  return [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
}

function around(ring: readonly number[]): Labelled['box'] {
  const xs = ring.filter((_, i) => i % 2 === 0)
  const ys = ring.filter((_, i) => i % 2 === 1)
  return [Math.min(...ys), Math.min(...xs), Math.max(...ys), Math.max(...xs)]
}
