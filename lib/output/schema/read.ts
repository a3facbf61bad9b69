/** Reading a JSON Schema that may hold anything: checks, references, and errors that name the place. */
import { PaliGemmaError } from '../../base/errors'
import { show } from '../../base/validate'
import { keysOf } from '../../formats/long-json'

export interface JsonSchemaObject {
  [keyword: string]: unknown
}

export const maxItems = 10_000

export function fail(path: string, message: string): never {
  throw new PaliGemmaError('ERR_INVALID_OPTION', `${path}: ${message}`)
}

/** What says nothing about the value. */
const annotations = new Set(
  (
    '$schema $id $comment $defs $anchor $vocabulary definitions id title description default example examples ' +
    'deprecated readOnly writeOnly discriminator externalDocs xml contentEncoding contentMediaType errorMessage'
  ).split(' ')
)

// all that there are, and some to spare
const mostKeywords = 100

export const isPlain = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && Object.prototype.toString.call(value) === '[object Object]'

/** The keywords that say something; `x-...` never do. */
export function keywordsOf(schema: unknown, path: string): JsonSchemaObject {
  if (schema === true) return {}
  if (schema === false) fail(path, 'false allows no value')
  if (!isPlain(schema)) fail(path, `expected a schema object but received ${show(schema)}`)
  const given: JsonSchemaObject = {}
  let count = 0
  for (const name of keysOf(schema)) {
    if (annotations.has(name) || name.startsWith('x-')) continue
    const value = (schema as JsonSchemaObject)[name]
    if (value === undefined) continue
    given[name] = value
    if (++count > mostKeywords) fail(path, `more than ${mostKeywords} keywords are no schema; ${show(name)} is one`)
  }
  return given
}

export function list(value: unknown, path: string, what: string): unknown[] {
  if (!Array.isArray(value) || value.length === 0) fail(path, `expected a non-empty array but received ${show(value)}`)
  if (value.length > maxItems) fail(path, `more than ${maxItems} ${what} are too large for a constraint`)
  return value
}

export function members(value: unknown, path: string): JsonSchemaObject {
  if (value === undefined) return {}
  if (!isPlain(value)) fail(path, `expected an object but received ${show(value)}`)
  return value as JsonSchemaObject
}

export function count(schema: JsonSchemaObject, name: string, path: string): number | undefined {
  const value = schema[name]
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > 10000)
    fail(`${path}.${name}`, `expected an integer from 0 to 10000 but received ${show(value)}`)
  return value
}

export function range(
  schema: JsonSchemaObject,
  path: string,
  least: string,
  most: string
): [number, number | undefined] {
  const from = count(schema, least, path) ?? 0
  const to = count(schema, most, path)
  if (to !== undefined && to < from) fail(path, `${most} is less than ${least}`)
  return [from, to]
}

export function finite(schema: JsonSchemaObject, name: string, path: string): number | undefined {
  const value = schema[name]
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isFinite(value))
    fail(`${path}.${name}`, `expected a number but received ${show(value)}`)
  return value
}

export function names(value: unknown, path: string): string[] {
  if (value === undefined) return []
  if (!Array.isArray(value) || value.length > maxItems || value.findIndex((name) => typeof name !== 'string') >= 0)
    fail(path, `expected an array of names but received ${show(value)}`)
  return value as string[]
}
