/** JSON lines of examples, in the form of PaliGemma's data sets: `image` (or `images`), `prefix`, `suffix`. */
import { createReadStream } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { PaliGemmaError } from '../base/errors'
import { isObject } from '../formats/fields'

export interface FileExample {
  /** Of the file, from 1. */
  line: number
  /** Absolute paths and URLs. */
  images: string[]
  prompt: string
  response: string
}

/**
 * Every line that is not empty. Relative pictures lie in `imagesDir`, by default where the file is.
 * @throws PaliGemmaError ERR_INVALID_OPTION that names file, line and field; ERR_MODEL_NOT_FOUND where there is no file
 */
export async function readDataFile(path: string, imagesDir = dirname(path)): Promise<FileExample[]> {
  const examples: FileExample[] = []
  const lines = createInterface({ input: createReadStream(path, 'utf8'), crlfDelay: Infinity })
  let number = 0
  try {
    for await (const line of lines) {
      number++
      if (line.trim() !== '') examples.push(parseLine(line, number, path, imagesDir))
    }
  } catch (cause) {
    if (cause instanceof PaliGemmaError) throw cause
    throw new PaliGemmaError('ERR_INVALID_OPTION', `${path} cannot be read: ${(cause as Error).message}`, { cause })
  } finally {
    lines.close()
  }
  if (examples.length === 0) throw new PaliGemmaError('ERR_INVALID_OPTION', `${path} holds no examples`)
  return examples
}

function parseLine(line: string, number: number, path: string, imagesDir: string): FileExample {
  const wrong = (what: string, cause?: unknown): PaliGemmaError =>
    new PaliGemmaError('ERR_INVALID_OPTION', `${path}:${number}: ${what}`, cause === undefined ? {} : { cause })
  let value: unknown
  try {
    value = JSON.parse(number === 1 ? line.replace(/^\uFEFF/, '') : line)
  } catch (cause) {
    throw wrong(`is no JSON (${(cause as Error).message})`, cause)
  }
  if (!isObject(value)) throw wrong('is no JSON object with image, prefix and suffix')
  const fields = value
  const text = (one: string, other: string): string => {
    const found = fields[one] ?? fields[other]
    if (typeof found !== 'string') throw wrong(`expected a string for ${one} but found ${JSON.stringify(found)}`)
    return found
  }
  const pictures = fields['images'] ?? (fields['image'] === undefined ? [] : [fields['image']])
  if (!Array.isArray(pictures) || !pictures.every((one) => typeof one === 'string' && one !== ''))
    throw wrong(`expected a path for image (or a list of them for images) but found ${JSON.stringify(pictures)}`)
  const images = (pictures as string[]).map((one) => (/^[a-z][a-z0-9+.-]+:/i.test(one) ? one : resolve(imagesDir, one)))
  return { line: number, images, prompt: text('prefix', 'prompt'), response: text('suffix', 'response') }
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
