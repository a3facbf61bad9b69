/** Whether no text that is written for one schema can satisfy another: what `oneOf` needs. */
import { isDeepStrictEqual } from 'node:util'
import { fail, type JsonSchemaObject, members, names } from './read'

const typesOf = (schema: JsonSchemaObject): Set<string> | undefined => {
  if ('const' in schema || schema['enum'] !== undefined)
    return new Set(
      valuesOf(schema)!.map((value) => (value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value))
    )
  if (schema['type'] === undefined) return undefined
  const types = [schema['type']].flat().map((type) => (type === 'integer' ? 'number' : String(type)))
  return new Set(schema['nullable'] === true ? [...types, 'null'] : types)
}

const valuesOf = (schema: JsonSchemaObject): unknown[] | undefined =>
  'const' in schema ? [schema['const']] : Array.isArray(schema['enum']) ? schema['enum'].slice(0, 1000) : undefined

/** `flat` gives the keywords of a schema, references followed. */
function disjoint(a: JsonSchemaObject, b: JsonSchemaObject, flat: (schema: unknown) => JsonSchemaObject): boolean {
  const [types, others] = [typesOf(a), typesOf(b)]
  if (types && others && ![...types].some((type) => others.has(type))) return true
  const [values, otherValues] = [valuesOf(a), valuesOf(b)]
  if (values && otherValues)
    return !values.some((value) => otherValues.some((other) => isDeepStrictEqual(value, other)))
  if (a['properties'] === undefined || b['properties'] === undefined) return false
  const [first, second] = [members(a['properties'], 'oneOf'), members(b['properties'], 'oneOf')]
  const [needed, otherNeeded] = [names(a['required'], 'oneOf'), names(b['required'], 'oneOf')]
  // what comes has its own properties alone
  if (otherNeeded.some((name) => !Object.hasOwn(first, name)) && needed.some((name) => !Object.hasOwn(second, name)))
    return true
  return needed.some(
    (name) =>
      otherNeeded.includes(name) &&
      Object.hasOwn(first, name) &&
      Object.hasOwn(second, name) &&
      disjoint(flat(first[name]), flat(second[name]), flat)
  )
}

export function checkOneOf(
  options: JsonSchemaObject[],
  path: string,
  flat: (schema: unknown) => JsonSchemaObject
): void {
  options.forEach((a, i) => {
    const other = options.findIndex((b, j) => j > i && !disjoint(a, b, flat))
    if (other >= 0)
      fail(
        path,
        `a value may satisfy both alternative ${i} and ${other}, which oneOf forbids; use anyOf, or tell them apart ` +
          'by type or a const property'
      )
  })
}
