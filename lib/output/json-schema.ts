/** JSON Schema to a regular expression for the engine. Pure. */
import { PaliGemmaError } from '../base/errors'
import { show } from '../base/validate'

/**
 * The part of JSON Schema that a generated text can be held to. Supported: `type` (one, or a list of them) "object",
 * "array", "string", "number", "integer", "boolean", "null"; `enum`, `const`; `anyOf`, `oneOf`; `$ref` into `$defs` or
 * `definitions`, not recursive; objects: `properties`, `required`, `additionalProperties: boolean`; arrays: `items`,
 * `minItems`, `maxItems`; strings: `minLength`, `maxLength`; integers: `minimum`, `maximum` at most 1000 apart.
 * Annotations (`title`, `description`, `default`, `examples`, ...) are ignored. Anything else is refused by name.
 */
export interface JsonSchema {
  [keyword: string]: unknown
}

const annotations = new Set([
  '$schema',
  '$id',
  '$comment',
  '$defs',
  'definitions',
  'title',
  'description',
  'default',
  'examples',
  'deprecated',
  'readOnly',
  'writeOnly'
])
const keywords: Record<string, string[]> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength'],
  integer: ['minimum', 'maximum'],
  number: [],
  boolean: [],
  null: []
}
const maxDepth = 32
const maxPattern = 1_000_000
const maxVisits = 10_000

// A control character has one spelling, other characters stand for themselves: so lengths are those of the text.
const character = '(?:[^"\\\\\\x00-\\x1f]|\\\\["\\\\bfnrt]|\\\\u00[01][0-9a-f])'
const numberDigits = '-?(?:0|[1-9][0-9]{0,14})'
const primitives: Record<string, string> = {
  number: `${numberDigits}(?:\\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?`,
  integer: numberDigits,
  boolean: '(?:true|false)',
  null: 'null'
}

const escapeText = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
const literal = (value: unknown): string => escapeText(JSON.stringify(value))
const either = (options: string[]): string =>
  options.length === 1 ? options[0]! : `(?:${[...new Set(options)].join('|')})`

/** `{least,most}`; most undefined: no limit. */
function times(least: number, most: number | undefined): string {
  return most === undefined ? (least === 0 ? '*' : `{${least},}`) : `{${least},${most}}`
}

class Translator {
  #visited = 0

  constructor(readonly root: JsonSchema) {}

  fail(path: string, message: string): never {
    throw new PaliGemmaError('ERR_INVALID_OPTION', `${path}: ${message}`)
  }

  schema(schema: unknown, path: string, depth: number): string {
    const pattern = ++this.#visited > maxVisits ? '' : this.translate(schema, path, depth)
    // at every level: an expression can double with each
    if (this.#visited > maxVisits || pattern.length > maxPattern)
      this.fail(path, 'the schema is too large: nest less, make fewer properties optional or repeat fewer $refs')
    return pattern
  }

  translate(schema: unknown, path: string, depth: number): string {
    if (depth > maxDepth)
      this.fail(
        path,
        `schemas nested more than ${maxDepth} deep (or a $ref that leads back to itself) are not supported`
      )
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
      this.fail(path, `expected a schema object but received ${show(schema)}`)
    const given = Object.fromEntries(
      Object.entries(schema).filter(([name, value]) => value !== undefined && !annotations.has(name))
    ) as JsonSchema
    const only = (...names: string[]): void => {
      const other = Object.keys(given).find((name) => !names.includes(name))
      if (other) this.fail(path, `the keyword ${show(other)} is not supported here`)
    }
    const alternatives = given.anyOf ?? given.oneOf
    if (given.$ref !== undefined) {
      only('$ref')
      return this.schema(this.resolve(given.$ref, path), path, depth + 1)
    }
    if (alternatives !== undefined) {
      const name = given.anyOf !== undefined ? 'anyOf' : 'oneOf'
      only(name)
      if (!Array.isArray(alternatives) || alternatives.length === 0)
        this.fail(`${path}.${name}`, `expected a non-empty array but received ${show(alternatives)}`)
      return either(alternatives.map((option, i) => this.schema(option, `${path}.${name}[${i}]`, depth + 1)))
    }
    if ('const' in given) {
      only('const', 'type')
      return literal(given.const)
    }
    if (given.enum !== undefined) {
      only('enum', 'type')
      if (!Array.isArray(given.enum) || given.enum.length === 0)
        this.fail(`${path}.enum`, `expected a non-empty array but received ${show(given.enum)}`)
      return either(given.enum.map(literal))
    }
    const types = Array.isArray(given.type) ? (given.type as unknown[]) : [given.type]
    for (const type of types) {
      if (typeof type !== 'string' || !Object.hasOwn(keywords, type)) {
        this.fail(
          `${path}.type`,
          `expected ${Object.keys(keywords).map(show).join(', ')} or a list of them but received ${show(type)}`
        )
      }
    }
    if (types.length === 0) this.fail(`${path}.type`, 'expected at least one type but received []')
    only('type', ...types.flatMap((type) => keywords[type as string]!))
    return either(types.map((type) => this.type(type as string, given, path, depth)))
  }

  resolve(reference: unknown, path: string): unknown {
    const match = typeof reference === 'string' ? /^#\/(\$defs|definitions)\/([^/]+)$/.exec(reference) : null
    const table = match && this.root[match[1]!]
    const name = match?.[2]?.replaceAll('~1', '/').replaceAll('~0', '~')
    if (typeof table !== 'object' || table === null || !Object.hasOwn(table, name!)) {
      this.fail(
        `${path}.$ref`,
        `expected a reference such as "#/$defs/name" to something in $defs but received ${show(reference)}`
      )
    }
    return (table as JsonSchema)[name!]
  }

  count(schema: JsonSchema, name: string, path: string): number | undefined {
    const value = schema[name]
    if (value === undefined) return undefined
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > 10000) {
      this.fail(`${path}.${name}`, `expected an integer from 0 to 10000 but received ${show(value)}`)
    }
    return value
  }

  range(schema: JsonSchema, path: string, least: string, most: string): [number, number | undefined] {
    const from = this.count(schema, least, path) ?? 0
    const to = this.count(schema, most, path)
    if (to !== undefined && to < from) this.fail(path, `${most} is less than ${least}`)
    return [from, to]
  }

  type(type: string, schema: JsonSchema, path: string, depth: number): string {
    if (type === 'object') return this.object(schema, path, depth)
    if (type === 'string') return `"${character}${times(...this.range(schema, path, 'minLength', 'maxLength'))}"`
    if (type === 'array') {
      const [least, most] = this.range(schema, path, 'minItems', 'maxItems')
      if (most === 0) return '\\[\\]'
      if (schema.items === undefined) this.fail(path, 'an array needs items, the schema of its elements')
      const item = this.schema(schema.items, `${path}.items`, depth + 1)
      const some = `${item}(?:,${item})${times(Math.max(least - 1, 0), most === undefined ? undefined : most - 1)}`
      return least === 0 ? `\\[(?:${some})?\\]` : `\\[${some}\\]`
    }
    if (type === 'integer' && (schema.minimum !== undefined || schema.maximum !== undefined))
      return this.integers(schema, path)
    return primitives[type]!
  }

  integers(schema: JsonSchema, path: string): string {
    const { minimum, maximum } = schema
    if (
      !Number.isSafeInteger(minimum) ||
      !Number.isSafeInteger(maximum) ||
      (maximum as number) < (minimum as number) ||
      (maximum as number) - (minimum as number) > 1000
    ) {
      this.fail(
        path,
        `expected both minimum and maximum, integers at most 1000 apart, but received ${show(minimum)} and ${show(maximum)}`
      )
    }
    return either(
      Array.from({ length: (maximum as number) - (minimum as number) + 1 }, (_, i) => String((minimum as number) + i))
    )
  }

  object(schema: JsonSchema, path: string, depth: number): string {
    const { properties = {}, required = [], additionalProperties } = schema
    if (typeof properties !== 'object' || properties === null || Array.isArray(properties))
      this.fail(`${path}.properties`, `expected an object but received ${show(properties)}`)
    if (!Array.isArray(required))
      this.fail(`${path}.required`, `expected an array of names but received ${show(required)}`)
    if (additionalProperties !== undefined && typeof additionalProperties !== 'boolean') {
      this.fail(
        `${path}.additionalProperties`,
        'schemas of further properties are not supported; name them in properties'
      )
    }
    const names = Object.keys(properties)
    const missing = (required as unknown[]).find((name) => typeof name !== 'string' || !names.includes(name))
    if (missing !== undefined) this.fail(`${path}.required`, `${show(missing)} is not among the properties`)
    const members = names.map(
      (name) =>
        `${literal(name)}:${this.schema((properties as JsonSchema)[name], `${path}.properties.${name}`, depth + 1)}`
    )
    const optional = names.map((name) => !(required as unknown[]).includes(name))
    // after the first member that is there, the others come with a comma
    const rest = (from: number): string =>
      members
        .slice(from)
        .map((member, i) => (optional[from + i] ? `(?:,${member})?` : `,${member}`))
        .join('')
    const starts: string[] = []
    let last = members.length
    for (let i = 0; i < members.length; i++) {
      starts.push(members[i]! + rest(i + 1))
      if (!optional[i]) {
        last = i
        break
      }
    }
    if (last === members.length) starts.push('')
    return `\\{${either(starts)}\\}`
  }
}

/**
 * The regular expression of all JSON texts that a schema allows, written without spaces (as `JSON.stringify` does) and
 * with properties in the schema's order. Numbers have at most 15 digits before and after the point and exponents two.
 * @throws PaliGemmaError ERR_INVALID_OPTION naming the place in the schema
 */
export function schemaToRegex(schema: JsonSchema): string {
  return new Translator(schema).schema(schema, 'jsonSchema', 0)
}
