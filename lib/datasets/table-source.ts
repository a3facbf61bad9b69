/** Tables (CSV), and the questions and answers of VQA: https://visualqa.org/download.html */
import { createReadStream } from 'node:fs'
import { dirname } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { isObject } from '../formats/fields'
import { pictureOf } from '../train/data-file'
import { readJsonFile } from './coco-source'
import { csvRecords } from './csv'
import { fillTemplate, mostFrequent, pictureProblem, type Reading, type Rows, type SourceRow } from './source'

const imageColumns = ['image', 'images', 'file_name', 'filename', 'file', 'path']
const prefixColumns = ['prefix', 'prompt']
const suffixColumns = ['suffix', 'response', 'answer', 'answers', 'caption', 'text', 'label']

export async function* csvRows(reading: Reading): Rows {
  const { source } = reading
  let header: string[] | undefined
  try {
    for await (const { line, cells } of csvRecords(createReadStream(source, 'utf8'))) {
      reading.signal.throwIfAborted()
      if (!header) {
        header = cells.map((name) => name.trim())
        checkHeader(reading, header)
        continue
      }
      const where = `${source}:${line}`
      if (cells.length !== header.length)
        yield { where, problem: `${cells.length} cells, where the first line names ${header.length} columns` }
      else yield await tableRow(reading, where, Object.fromEntries(header.map((name, i) => [name, cells[i]!])))
    }
  } catch (cause) {
    if (cause instanceof PaliGemmaError || reading.signal.aborted) throw cause
    throw new PaliGemmaError('ERR_INVALID_OPTION', `${source} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

const present = (names: readonly string[], header: readonly string[]): string | undefined =>
  names.find((name) => header.includes(name))

function checkHeader({ source, imageName, prefix, suffix }: Reading, header: readonly string[]): void {
  const need = (what: string, names: readonly string[], option: string): void => {
    if (!present(names, header))
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `${source}:1: expected a column for the ${what} (${names.join(', ')}) but found ${header.join(', ')}; ` +
          `${option} makes one from others, such as "{${header[0]}}"`
      )
  }
  if (imageName === undefined) need('picture', imageColumns, 'imageName')
  if (prefix === undefined) need('prompt', [...prefixColumns, 'question'], 'prefix')
  if (suffix === undefined) need('answer', suffixColumns, 'suffix')
}

/** A cell that holds a list in JSON is one. */
function listOf(cell: string): string[] {
  if (!/^\s*\[/.test(cell)) return [cell]
  try {
    const list: unknown = JSON.parse(cell)
    if (Array.isArray(list) && list.length > 0) return list.map(String)
  } catch {
    // a text that begins with a bracket
  }
  return [cell]
}

async function tableRow(reading: Reading, where: string, values: Record<string, string>): Promise<SourceRow> {
  const names = Object.keys(values)
  const imageColumn = present(imageColumns, names)
  const answerColumn = values['answers'] ? 'answers' : present(suffixColumns, names)
  const answers = listOf(answerColumn === undefined ? '' : values[answerColumn]!)
  const own = { ...values, ...(answerColumn !== undefined && { [answerColumn]: mostFrequent(answers) }) }
  const defaultPrefix = present(prefixColumns, names) ?? 'answer en {question}'
  const templates = {
    prefix: reading.prefix ?? (defaultPrefix.includes('{') ? defaultPrefix : `{${defaultPrefix}}`),
    suffix: reading.suffix ?? `{${present(['suffix', 'response'], names) ?? answerColumn}}`
  }
  const [prefix, suffix] = [fillTemplate(templates.prefix, own), fillTemplate(templates.suffix, own)]
  const missing = prefix.missing ?? suffix.missing
  if (missing !== undefined) return { where, problem: `there is no column ${missing}, which prefix or suffix names` }
  const folder = reading.images ?? dirname(reading.source)
  const images =
    reading.imageName === undefined ? listOf(values[imageColumn!]!) : [fillTemplate(reading.imageName, own).text]
  return await finished(reading, where, {
    images: images.filter((name) => name !== '').map((name) => pictureOf(name, folder)),
    ...{ prefix: prefix.text, suffix: suffix.text, answers }
  })
}

interface Texts {
  images: string[]
  prefix: string
  suffix: string
  answers: string[]
}

async function finished(
  reading: Reading,
  where: string,
  { images, prefix, suffix, answers }: Texts
): Promise<SourceRow> {
  if (suffix.trim() === '') return { where, problem: 'its answer is empty' }
  for (const image of images) {
    const problem = await pictureProblem(reading, image)
    if (problem !== undefined) return { where, problem }
  }
  return { where, row: { images, prompt: prefix, response: suffix, ...(answers.length > 1 && { answers }) } }
}

/** `json`: the file of questions, which may hold the annotations too. */
export async function* vqaRows(reading: Reading, json: Record<string, unknown>): Rows {
  const { source, annotations, imageName = '{image_id}.jpg', prefix = 'answer en {question}' } = reading
  const other = annotations === undefined ? json : await readJsonFile(annotations)
  const [questions, given] = [json['questions'], isObject(other) ? other['annotations'] : undefined]
  if (!Array.isArray(questions) || !Array.isArray(given))
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `${annotations ?? source}: expected a list of annotations; annotations names the file of answers`
    )
  const answersOf = new Map<unknown, string[]>()
  for (const one of given as unknown[]) if (isObject(one)) answersOf.set(one['question_id'], answerTexts(one))
  const folder = reading.images ?? dirname(source)
  for (const [i, question] of (questions as unknown[]).entries()) {
    reading.signal.throwIfAborted()
    const where = `${source}: questions[${i}]`
    if (!isObject(question) || typeof question['question'] !== 'string') {
      yield { where, problem: 'expected { question, question_id, image_id }' }
      continue
    }
    const answers = answersOf.get(question['question_id']) ?? []
    const values = Object.fromEntries(Object.entries(question).map(([name, value]) => [name, String(value)]))
    const [text, image] = [fillTemplate(prefix, values), fillTemplate(imageName, values)]
    if (answers.length === 0)
      yield { where, problem: `no answers with its question_id ${JSON.stringify(question['question_id'])}` }
    else if (text.missing !== undefined || image.missing !== undefined)
      yield { where, problem: `it has no ${text.missing ?? image.missing}, which prefix or imageName names` }
    else
      yield await finished(reading, where, {
        images: [pictureOf(image.text, folder)],
        ...{ prefix: text.text, suffix: mostFrequent(answers), answers }
      })
  }
}

/** The most frequent answer, as the data set says, comes first among equals. */
function answerTexts({ answers, multiple_choice_answer: most }: Record<string, unknown>): string[] {
  const list = Array.isArray(answers) ? answers : []
  const texts = list
    .map((one: unknown) => (isObject(one) ? one['answer'] : one))
    .filter((one) => typeof one === 'string')
  if (texts.length === 0 && typeof most === 'string') return [most]
  return texts
}
