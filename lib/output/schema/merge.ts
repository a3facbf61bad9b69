/** `allOf`, and keywords beside `$ref` or `anyOf`: several schemas that must hold together, as one. */
import { fail, type JsonSchemaObject, keywordsOf, list, members, names } from './read'
import type { References } from './references'
import { canonical, same, type Steps, tooLarge, type Work } from './work'

const alternativesOf = (schema: JsonSchemaObject): 'anyOf' | 'oneOf' | undefined =>
  schema['anyOf'] !== undefined ? 'anyOf' : schema['oneOf'] !== undefined ? 'oneOf' : undefined

/** A schema as a whole, and what was done for it. */
export interface Whole {
  references: References
  steps: Steps
}

/** All parts of a schema that must hold together: itself, what it refers to, and its `allOf`. */
export function* parts(
  whole: Whole,
  schema: unknown,
  path: string,
  open: ReadonlySet<unknown>,
  depth = 0
): Work<{ parts: JsonSchemaObject[]; open: ReadonlySet<unknown> }> {
  whole.steps.take(path)
  yield
  const { $ref: reference, allOf, ...own } = keywordsOf(schema, path)
  const found: JsonSchemaObject[] = Object.keys(own).length > 0 ? [own] : []
  let within = open
  function* add(part: unknown, at: string): Work<void> {
    const more = yield* parts(whole, part, at, within, depth + 1)
    found.push(...more.parts)
    if (found.length > 100) fail(path, 'more than 100 schemas that must hold together are not supported')
    within = more.open
    if (within.size > 1000) tooLarge(path)
  }
  if (depth > 32) fail(path, 'schemas nested more than 32 deep are not supported')
  if (reference !== undefined) {
    const target = yield* whole.references.find(reference, path)
    if (open.has(target) || target === whole.references.root)
      fail(`${path}.$ref`, `"${String(reference)}" leads back to itself; recursive schemas are not supported`)
    within = new Set([...within, target])
    yield* add(target, path)
  }
  if (allOf !== undefined)
    for (const [i, part] of list(allOf, `${path}.allOf`, 'schemas').entries()) yield* add(part, `${path}.allOf[${i}]`)
  return { parts: found, open: within }
}

/** One schema that holds where all parts do; keywords that cannot be put together are refused by name. */
export function* merged(all: JsonSchemaObject[], path: string): Work<JsonSchemaObject> {
  const several = all.find(
    (part) => alternativesOf(part) !== undefined && (all.length > 1 || Object.keys(part).length > 1)
  )
  if (several) return distributed(several, all, path)
  let result = all[0] ?? {}
  for (const part of all.slice(1)) {
    result = yield* both(result, part, path)
    yield
  }
  return result
}

/** Keywords beside alternatives hold in each of them. */
function distributed(schema: JsonSchemaObject, all: JsonSchemaObject[], path: string): JsonSchemaObject {
  const name = alternativesOf(schema)!
  const { [name]: alternatives, ...own } = schema
  const beside = [own, ...all.filter((part) => part !== schema)].filter((part) => Object.keys(part).length > 0)
  return {
    [name]: list(alternatives, `${path}.${name}`, 'alternatives').map((option) => ({ allOf: [...beside, option] }))
  }
}

/** Of one text: all of them hold. */
export class Patterns {
  constructor(readonly all: unknown[]) {}
}

const joins: Record<string, (a: never, b: never, path: string) => unknown> = {
  type: (a: unknown, b: unknown, path: string) => {
    const [first, second] = [[a].flat(), [b].flat()]
    const common = first.flatMap((type) =>
      second.includes(type)
        ? [type]
        : (type === 'integer' && second.includes('number')) || (type === 'number' && second.includes('integer'))
          ? ['integer']
          : []
    )
    return common.length > 0
      ? [...new Set(common)]
      : fail(`${path}.type`, 'the schemas of allOf have no type in common')
  },
  *enum(a: unknown, b: unknown, path: string): Work<unknown[]> {
    const texts = new Set<string>()
    for (const value of list(b, path, 'values')) {
      texts.add(yield* canonical(value, path))
      yield
    }
    const common: unknown[] = []
    for (const value of list(a, path, 'values')) {
      if (texts.has(yield* canonical(value, path))) common.push(value)
      yield
    }
    return common.length > 0 ? common : fail(`${path}.enum`, 'the schemas of allOf have no value in common')
  },
  required: (a: unknown, b: unknown, path: string) => [...new Set([...names(a, path), ...names(b, path)])],
  minimum: (a: number, b: number) => Math.max(a, b),
  minLength: (a: number, b: number) => Math.max(a, b),
  minItems: (a: number, b: number) => Math.max(a, b),
  maximum: (a: number, b: number) => Math.min(a, b),
  maxLength: (a: number, b: number) => Math.min(a, b),
  maxItems: (a: number, b: number) => Math.min(a, b),
  items: (a: unknown, b: unknown) => ({ allOf: [a, b] }),
  pattern: (a: unknown, b: unknown) => new Patterns([a, b].flatMap((one) => (one instanceof Patterns ? one.all : one))),
  nullable: (a: unknown, b: unknown) => a === true && b === true,
  unevaluatedProperties: () => undefined,
  unevaluatedItems: () => undefined
}

function* both(a: JsonSchemaObject, b: JsonSchemaObject, path: string): Work<JsonSchemaObject> {
  const result: JsonSchemaObject = { ...a, ...b }
  if (a['properties'] ?? b['properties'] ?? a['additionalProperties'] ?? b['additionalProperties'])
    Object.assign(result, yield* properties(a, b, path))
  if (
    numeric(a) &&
    numeric(b) &&
    typeof a['exclusiveMinimum'] === 'number' &&
    typeof b['exclusiveMinimum'] === 'number'
  )
    result['exclusiveMinimum'] = Math.max(a['exclusiveMinimum'], b['exclusiveMinimum'])
  if (
    numeric(a) &&
    numeric(b) &&
    typeof a['exclusiveMaximum'] === 'number' &&
    typeof b['exclusiveMaximum'] === 'number'
  )
    result['exclusiveMaximum'] = Math.min(a['exclusiveMaximum'], b['exclusiveMaximum'])
  for (const name of Object.keys(a)) {
    if (!(name in b) || ['properties', 'additionalProperties', 'exclusiveMinimum', 'exclusiveMaximum'].includes(name))
      continue
    if (yield* same(a[name], b[name], path)) continue
    const join = joins[name]
    if (!join) fail(path, `two different values of the keyword "${name}" in allOf are not supported`)
    const value = join(a[name] as never, b[name] as never, path)
    result[name] = name === 'enum' ? yield* value as Work<unknown[]> : value
  }
  return result
}

const numeric = (schema: JsonSchemaObject): boolean =>
  typeof schema['exclusiveMinimum'] !== 'boolean' && typeof schema['exclusiveMaximum'] !== 'boolean'

/** Properties of both; what one knows and the other forbids never comes. */
function* properties(a: JsonSchemaObject, b: JsonSchemaObject, path: string): Work<JsonSchemaObject> {
  const [first, second] = [
    members(a['properties'], `${path}.properties`),
    members(b['properties'], `${path}.properties`)
  ]
  const required = new Set([...names(a['required'], path), ...names(b['required'], path)])
  const result: [string, unknown][] = []
  for (const name of new Set([...Object.keys(first), ...Object.keys(second)])) {
    if (result.length % 100 === 99) yield
    const owns = [Object.hasOwn(first, name), Object.hasOwn(second, name)]
    const other = owns[0] ? (owns[1] ? undefined : b) : a
    const rest = other?.['additionalProperties']
    const own = owns[0] ? first[name] : second[name]
    if (rest === false) {
      if (required.has(name))
        fail(path, `additionalProperties: false of one schema in allOf forbids "${name}", which another requires`)
    } else if (other) result.push([name, typeof rest === 'object' ? { allOf: [own, rest] } : own])
    else
      result.push([name, (yield* same(first[name], second[name], path)) ? own : { allOf: [first[name], second[name]] }])
  }
  const further = [a, b].map((schema) => schema['additionalProperties'])
  const additionalProperties = further.includes(false)
    ? false
    : further.every((value) => typeof value === 'object')
      ? { allOf: further }
      : true
  return { properties: Object.fromEntries(result), additionalProperties }
}
