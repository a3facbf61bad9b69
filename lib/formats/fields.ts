/** JSON files with errors that name the file and the field. */
import { readFile, stat } from 'node:fs/promises'
import { PaliGemmaError } from '../base/errors'
import { parseLongJson } from './long-json'

/** A JSON object of a file: `get...` checks types and ranges and names file and field in every error. */
export class Fields {
  constructor(
    readonly file: string,
    readonly values: Readonly<Record<string, unknown>>,
    private readonly prefix = ''
  ) {}

  /** The whole path of a field, as messages show it. */
  path(name: string): string {
    return this.prefix + name
  }

  /** JSON null counts as missing: Hugging Face writes it for "use the default". */
  has(name: string): boolean {
    return this.values[name] !== undefined && this.values[name] !== null
  }

  fail(name: string, expected: string): never {
    const found = shown(this.values[name])
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${this.file}: expected ${expected} for ${this.path(name)} but found ${found}`
    )
  }

  unsupported(name: string, why: string): never {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${this.file}: ${this.path(name)} is ${shown(this.values[name])}, ${why}`
    )
  }

  /** A whole number from min to most; `fallback` where the field is missing, an error where there is none. */
  integer(name: string, min: number, fallback?: number, most = Number.MAX_SAFE_INTEGER): number {
    if (!this.has(name) && fallback !== undefined) return fallback
    const value = this.values[name]
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min)
      this.fail(name, `an integer >= ${min}`)
    if (value > most) this.fail(name, `an integer from ${min} to ${most}`)
    return value
  }

  /** A number of this range, both ends included. */
  within(name: string, [least, most]: readonly [number, number], fallback?: number): number {
    if (!this.has(name) && fallback !== undefined) return fallback
    const value = this.values[name]
    if (typeof value !== 'number' || !(value >= least && value <= most))
      this.fail(name, `a number from ${least} to ${most}`)
    return value
  }

  /** A finite number >= 0. */
  number(name: string, fallback?: number): number {
    if (!this.has(name) && fallback !== undefined) return fallback
    const value = this.values[name]
    if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) this.fail(name, 'a number >= 0')
    return value
  }

  string(name: string, fallback?: string): string {
    if (!this.has(name) && fallback !== undefined) return fallback
    const value = this.values[name]
    if (typeof value !== 'string') this.fail(name, 'a string')
    return value
  }

  boolean(name: string, fallback: boolean): boolean {
    if (!this.has(name)) return fallback
    const value = this.values[name]
    if (typeof value !== 'boolean') this.fail(name, 'true or false')
    return value
  }

  /** A nested object; an empty one where the field is missing and `optional` is set. */
  object(name: string, optional = false): Fields {
    const value = this.values[name]
    if (!this.has(name) && optional) return new Fields(this.file, {}, `${this.prefix}${name}.`)
    if (!isObject(value)) this.fail(name, 'an object')
    return new Fields(this.file, value, `${this.prefix}${name}.`)
  }

  /** A list of nested objects. */
  objects(name: string): Fields[] {
    const list = this.values[name]
    if (!Array.isArray(list)) this.fail(name, 'a list of objects')
    return list.map((value: unknown, i) => {
      if (!isObject(value)) this.fail(name, `a list of objects (item ${i} is none)`)
      return new Fields(this.file, value, `${this.prefix}${name}[${i}].`)
    })
  }
}

/** A value as JSON, cut where it is long; what nests too deeply for JSON is named by its kind. */
function shown(value: unknown): string {
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch {
    text = Array.isArray(value) ? '[...]' : '{...}'
  }
  if (text === undefined) return 'missing'
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

// Parsed in a few milliseconds.
const shortJson = 1 << 18
// tokenizer.json of 256,000 pieces has 35 MB.
const maxJsonBytes = 256 << 20

/**
 * A whole file of at most this many bytes; undefined where there is none. Pipes and devices, which may never end, are
 * refused.
 */
export async function readRegularFile(file: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    const info = await stat(file)
    if (!info.isFile()) throw new Error('it is no regular file')
    if (info.size > maxBytes) throw new Error(`it has ${info.size} bytes, more than such a file can have (${maxBytes})`)
    return await readFile(file)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${file} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

/** The object that a JSON file holds; undefined where the file does not exist and `optional` is set. */
export async function readJson(file: string, optional: true): Promise<Fields | undefined>
export async function readJson(file: string, optional?: false): Promise<Fields>
export async function readJson(file: string, optional = false): Promise<Fields | undefined> {
  const bytes = await readRegularFile(file, maxJsonBytes)
  if (bytes === undefined) {
    if (optional) return undefined
    throw new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      `${file} does not exist; a Hugging Face model directory has it, download all its files`
    )
  }
  let value: unknown
  try {
    value = bytes.length > shortJson ? await parseLongJson(bytes) : JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${file} is not valid JSON: ${(cause as Error).message}; download it again`,
      { cause }
    )
  }
  if (!isObject(value)) throw new PaliGemmaError('ERR_MODEL_INVALID', `${file}: expected a JSON object`)
  return new Fields(file, value)
}
