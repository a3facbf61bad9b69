/** COCO's detection and segmentation annotations: https://cocodataset.org/#format-data */
import { readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { isObject } from '../formats/fields'
import { parseLongJson } from '../formats/long-json'
import { pictureOf, type TruthObject } from '../train/data-file'
import { checkRings, maskInBox, ringsInBox, truthMask } from './fill'
import { clipped, type Labelled, labelProblem, rowsOf } from './labelled'
import { pictureProblem, type Reading, type Rows } from './source'

type Fields = Record<string, unknown>

interface Picture {
  file: string
  width: number
  height: number
  annotations: { index: number; fields: Fields }[]
}

export async function readJsonFile(path: string): Promise<unknown> {
  const bytes = await readFile(path).catch((cause: Error) => {
    throw new PaliGemmaError('ERR_INVALID_OPTION', `${path} cannot be read: ${cause.message}`, { cause })
  })
  try {
    return await parseLongJson(bytes)
  } catch (cause) {
    throw new PaliGemmaError('ERR_INVALID_OPTION', `${path} is no JSON: ${(cause as Error).message}`, { cause })
  }
}

export async function* cocoRows(reading: Reading, json: Fields): Rows {
  const { source, labels } = reading
  const [images, annotations, categories] = ['images', 'annotations', 'categories'].map((key) => {
    const list = json[key]
    if (Array.isArray(list)) return list as unknown[]
    throw new PaliGemmaError('ERR_INVALID_OPTION', `${source}: expected a list for ${key}, as COCO's instances have`)
  }) as [unknown[], unknown[], unknown[]]
  const names = categoryNames(source, categories)
  const pictures = new Map<unknown, Picture>()
  for (const [i, one] of images.entries()) {
    const picture = isObject(one) ? takePicture(one) : undefined
    if (picture) pictures.set((one as Fields)['id'], picture)
    else yield { where: `${source}: images[${i}]`, problem: 'expected { id, file_name, width, height }' }
  }
  for (const [index, one] of annotations.entries()) {
    const fields = isObject(one) ? one : {}
    const picture = pictures.get(fields['image_id'])
    if (picture) picture.annotations.push({ index, fields })
    else
      yield {
        where: nameOf(source, index, fields),
        problem: `its image_id ${JSON.stringify(fields['image_id'])} is the id of no picture in images`
      }
  }
  const unknown = labels?.find((label) => ![...names.values()].includes(label))
  if (unknown !== undefined)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected names of categories for labels but received ${JSON.stringify(unknown)}; ${source} has ` +
        [...names.values()].slice(0, 100).join(', ')
    )
  const folder = reading.images ?? (await folderOf(source, pictures))
  const order = labels ?? [...new Set(names.values())]
  for (const picture of pictures.values()) {
    reading.signal.throwIfAborted()
    if (picture.annotations.length > 0) yield* pictureRows(reading, picture, folder, names, order)
  }
}

const isSize = (value: unknown): value is number => typeof value === 'number' && value >= 1 && value < 1e7

function takePicture({ file_name, width, height }: Fields): Picture | undefined {
  if (typeof file_name !== 'string' || file_name === '' || !isSize(width) || !isSize(height)) return undefined
  return { file: file_name, width, height, annotations: [] }
}

function categoryNames(source: string, categories: unknown[]): Map<unknown, string> {
  const names = new Map<unknown, string>()
  for (const [i, one] of categories.entries()) {
    if (!isObject(one) || typeof one['name'] !== 'string')
      throw new PaliGemmaError('ERR_INVALID_OPTION', `${source}: categories[${i}]: expected { id, name }`)
    names.set(one['id'], one['name'].trim())
  }
  return names
}

/** Beside the file, or as COCO's own archives lie: annotations/instances_val2017.json, val2017/*.jpg. */
async function folderOf(source: string, pictures: Map<unknown, Picture>): Promise<string> {
  const [first] = pictures.values()
  const here = dirname(source)
  if (!first) return here
  const set = basename(source, '.json').replace(/^[a-z]+_/, '')
  const candidates = [here, join(here, 'images'), join(here, '..', set), join(here, '..', 'images', set)]
  candidates.push(join(here, '..', 'images'), join(here, '..'))
  for (const folder of candidates) {
    const probe = { source } as Reading // its own memory of what is there
    if ((await pictureProblem(probe, pictureOf(first.file, folder))) === undefined) return folder
  }
  return here
}

const nameOf = (source: string, index: number, { id }: Fields): string =>
  `${source}: annotations[${index}]${id === undefined ? '' : ` (id ${JSON.stringify(id)})`}`

async function* pictureRows(
  reading: Reading,
  { file, width, height, annotations }: Picture,
  folder: string,
  names: Map<unknown, string>,
  order: readonly string[]
): Rows {
  const { source, task, per, truth } = reading
  const objects: Labelled[] = []
  const ignored: TruthObject[] = []
  const image = pictureOf(file, folder)
  const missing = await pictureProblem(reading, image)
  if (missing !== undefined) {
    yield { where: `${source}: images (file_name ${JSON.stringify(file)})`, problem: missing }
    return
  }
  for (const { index, fields } of annotations) {
    const where = nameOf(source, index, fields)
    const label = names.get(fields['category_id'])
    if (label !== undefined && reading.labels && !reading.labels.includes(label)) continue
    try {
      const exact = takeAnnotation(where, label, fields)
      if (exact.iscrowd) ignored.push(exact)
      else objects.push(await labelled(reading, where, exact, width, height))
    } catch (error) {
      if (!(error instanceof PaliGemmaError)) throw error
      yield { where, problem: error.message.replace(`${where}: `, '') }
    }
  }
  for (const row of rowsOf({ image, width, height, objects, ignored }, { task, per, names: order, truth }))
    yield { where: nameOf(source, annotations[0]!.index, annotations[0]!.fields), row }
}

function takeAnnotation(where: string, label: string | undefined, fields: Fields): TruthObject {
  const wrong = (text: string): PaliGemmaError => new PaliGemmaError('ERR_INVALID_OPTION', `${where}: ${text}`)
  const { bbox, category_id, area, iscrowd, segmentation } = fields
  if (label === undefined) throw wrong(`its category_id ${JSON.stringify(category_id)} is the id of no category`)
  const problem = labelProblem(label)
  if (problem) throw wrong(problem)
  const isBox = Array.isArray(bbox) && bbox.length === 4 && bbox.every((side) => Number.isFinite(side))
  if (!isBox) throw wrong(`expected [x, y, width, height] for bbox but found ${JSON.stringify(bbox)}`)
  const box = bbox as TruthObject['bbox']
  if (!(box[2] > 0 && box[3] > 0)) throw wrong(`its box has no area: ${JSON.stringify(bbox)}`)
  return {
    label,
    bbox: box,
    ...(typeof area === 'number' && { area }),
    ...(iscrowd === 1 && { iscrowd }),
    ...(segmentation !== undefined && { segmentation: segmentation as NonNullable<TruthObject['segmentation']> })
  }
}

async function labelled(
  { task, encode }: Reading,
  where: string,
  truth: TruthObject,
  width: number,
  height: number
): Promise<Labelled> {
  const { label, bbox, segmentation } = truth
  const [x, y, w, h] = bbox
  const box = clipped([y / height, x / width, (y + h) / height, (x + w) / width])
  if (!box)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `${where}: its box ${JSON.stringify(bbox)} is outside the picture of ${width} x ${height}`
    )
  if (task === 'detect') return { label, box, truth }
  if (segmentation === undefined || (Array.isArray(segmentation) && segmentation.length === 0))
    throw new PaliGemmaError('ERR_INVALID_OPTION', `${where}: it has no segmentation`)
  const inside: TruthObject['bbox'] = [box[1] * width, box[0] * height, 0, 0]
  inside[2] = box[3] * width - inside[0]
  inside[3] = box[2] * height - inside[1]
  const name = `${where}.segmentation`
  if (Array.isArray(segmentation)) checkRings(name, segmentation)
  const mask = Array.isArray(segmentation)
    ? ringsInBox(segmentation, inside, { width, height })
    : maskInBox(truthMask(name, segmentation, width, height), inside)
  return { label, box, codes: await encode!(mask), truth }
}
