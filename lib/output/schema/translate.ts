/**
 * One JSON Schema as a regular expression in the engine's syntax (native/text/regex.h). A generator: it yields often.
 */
import { show } from '../../base/validate'
import { checkOneOf } from './disjoint'
import { formats, integerFormats, isAnyText, isImplied, isSaidBy, longest, timeBesidePattern } from './formats'
import { merged, parts, Patterns, type Whole } from './merge'
import { type Bound, decimals, integerBounds, integers, maxDivisor, multiples } from './numbers'
import { count, fail, finite, type JsonSchemaObject, list, maxItems, members, names, range } from './read'
import { References } from './references'
import { measure, measureValue, Steps, tooLarge, type Work } from './work'

const keywords: Record<string, string[]> = {
  object: (
    'properties required additionalProperties propertyNames patternProperties minProperties maxProperties ' +
    'unevaluatedProperties'
  ).split(' '),
  array: 'items prefixItems additionalItems minItems maxItems uniqueItems unevaluatedItems'.split(' '),
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'format'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'format'],
  boolean: [],
  null: []
}
const maxDepth = 32
const maxPattern = 1_000_000
const maxLiteral = 100_000
const maxVisits = 5000
const maxProperties = 1000

// A control character has one spelling, other characters stand for themselves: so lengths are those of the text.
const character = '(?:[^"\\\\\\x00-\\x1f]|\\\\["\\\\bfnrt]|\\\\u00[01][0-9a-f])'
const number = '-?(?:0|[1-9][0-9]{0,14})(?:\\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?'
const any = `(?:"${character}*"|${number}|true|false|null)`

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
const either = (options: string[]): string => (options.length === 1 ? options[0]! : `(?:${options.join('|')})`)

function literal(value: unknown, path: string): string {
  if (typeof value === 'string' && value.length > maxLiteral)
    fail(path, `a text of more than ${maxLiteral} characters is too large for a constraint`)
  const text: unknown = JSON.stringify(value, function (this: unknown, _, part: unknown) {
    const becomesNull = typeof part === 'number' ? !Number.isFinite(part) : Array.isArray(this) && isNoJson(part)
    return becomesNull ? fail(path, `${show(part)} cannot be written as JSON`) : part
  })
  return typeof text === 'string' ? escaped(text) : fail(path, `${show(value)} cannot be written as JSON`)
}

const isNoJson = (value: unknown): boolean => ['undefined', 'function', 'symbol'].includes(typeof value)

/** `{least,most}`; most undefined: no limit. */
function times(least: number, most: number | undefined): string {
  return most === undefined ? (least === 0 ? '*' : `{${least},}`) : `{${least},${most}}`
}

const isType = (value: unknown, type: string): boolean =>
  type === 'null'
    ? value === null
    : type === 'array'
      ? Array.isArray(value)
      : type === 'integer'
        ? Number.isInteger(value)
        : type === 'object'
          ? typeof value === 'object' && value !== null && !Array.isArray(value)
          : typeof value === type

type Open = ReadonlySet<unknown>

export class Translator {
  #visited = 0
  #length = 0
  readonly #whole: Whole

  constructor(root: unknown) {
    this.#whole = { references: new References(root), steps: new Steps() }
  }

  /** The whole schema, measured first. */
  *all(): Work<string> {
    const { root } = this.#whole.references
    yield* measure(root, 'jsonSchema')
    return yield* this.schema(root, 'jsonSchema', 0, new Set())
  }

  /** `open`: the schemas that references led through. */
  *schema(schema: unknown, path: string, depth: number, open: Open): Work<string> {
    if (++this.#visited > maxVisits) tooLarge(path)
    if (depth > maxDepth) fail(path, `schemas nested more than ${maxDepth} deep are not supported`)
    const all = yield* parts(this.#whole, schema, path, open)
    const pattern = yield* this.#translate(yield* merged(all.parts, path), path, depth, all.open)
    // what was written at all: expressions that repeat parts of others count each time
    this.#length += pattern.length
    if (pattern.length > maxPattern || this.#length > 5 * maxPattern) tooLarge(path)
    return pattern
  }

  *#translate(given: JsonSchemaObject, path: string, depth: number, open: Open): Work<string> {
    const name = given['anyOf'] !== undefined ? 'anyOf' : given['oneOf'] !== undefined ? 'oneOf' : undefined
    if (name !== undefined) return yield* this.#alternatives(given, name, path, depth, open)
    const types = typesOf(given, path)
    if ('const' in given || given['enum'] !== undefined) return yield* values(given, types, path)
    if (types === undefined) {
      const other = Object.keys(given)[0]
      if (other !== undefined) fail(path, `the keyword ${show(other)} is not supported here`)
      return depth === 0 ? fail(`${path}.type`, `expected ${typeNames} or a list of them but received undefined`) : any
    }
    only(given, path, 'type', 'nullable', ...types.flatMap((type) => keywords[type]!))
    const options: string[] = []
    for (const type of types) options.push(yield* this.#type(type, given, path, depth, open))
    return either(options)
  }

  *#alternatives(
    given: JsonSchemaObject,
    name: 'anyOf' | 'oneOf',
    path: string,
    depth: number,
    open: Open
  ): Work<string> {
    only(given, path, name)
    const options = list(given[name], `${path}.${name}`, 'alternatives')
    const whole = this.#whole
    function* flat(schema: unknown): Work<JsonSchemaObject> {
      const found = (yield* parts(whole, schema, path, open)).parts
      return found.length === 1 ? found[0]! : yield* merged(found, path)
    }
    if (name === 'oneOf' && options.length > 200)
      fail(`${path}.oneOf`, 'more than 200 alternatives are not supported; use anyOf')
    if (name === 'oneOf' && options.length > 1) {
      const flattened: JsonSchemaObject[] = []
      for (const option of options) flattened.push(yield* flat(option))
      yield* checkOneOf(flattened, `${path}.oneOf`, whole.steps, flat)
    }
    const found = new Set<string>()
    for (const [i, option] of options.entries())
      found.add(yield* this.schema(option, `${path}.${name}[${i}]`, depth + 1, open))
    return either([...found])
  }

  *#type(type: string, given: JsonSchemaObject, path: string, depth: number, open: Open): Work<string> {
    if (type === 'object') return yield* this.#object(given, path, depth, open)
    if (type === 'array') return yield* this.#array(given, path, depth, open)
    if (type === 'string') return string(given, path)
    if (type === 'boolean') return '(?:true|false)'
    return type === 'null' ? 'null' : yield* numeric(given, path, type === 'integer')
  }

  *#array(given: JsonSchemaObject, path: string, depth: number, open: Open): Work<string> {
    const [least, most] = range(given, path, 'minItems', 'maxItems')
    if (given['uniqueItems'] === true && (most === undefined || most > 1))
      fail(path, 'the keyword "uniqueItems" is not supported; leave it out and drop repeated items afterwards')
    const tuple = Array.isArray(given['items']) ? given['items'] : given['prefixItems']
    const first = tuple === undefined ? [] : list(tuple, `${path}.prefixItems`, 'items').slice(0, most)
    const rest = Array.isArray(given['items']) ? given['additionalItems'] : given['items']
    if (most === 0) return '\\[\\]'
    const items: string[] = []
    for (const [i, item] of first.entries())
      items.push(`(?:${yield* this.schema(item, `${path}.prefixItems[${i}]`, depth + 1, open)})`)
    const more = most === undefined ? undefined : most - items.length
    const needed = Math.max(least - items.length, 0)
    if (rest === undefined || rest === false || more === 0) {
      if (needed > 0 || (items.length === 0 && rest === undefined))
        fail(path, 'an array needs items, the schema of its elements')
      return `\\[${items.join(',')}\\]`
    }
    const item = yield* this.schema(rest, `${path}.items`, depth + 1, open)
    if (items.length > 0) return `\\[${items.join(',')}(?:,${item})${times(needed, more)}\\]`
    const some = `${item}(?:,${item})${times(Math.max(needed - 1, 0), more === undefined ? undefined : more - 1)}`
    return needed === 0 ? `\\[(?:${some})?\\]` : `\\[${some}\\]`
  }

  *#object(given: JsonSchemaObject, path: string, depth: number, open: Open): Work<string> {
    const properties = members(given['properties'], `${path}.properties`)
    const required = new Set(names(given['required'], `${path}.required`))
    const further = yield* this.#further(given, path)
    const keys = Object.keys(properties)
    if (keys.length > maxProperties || required.size > maxProperties)
      fail(`${path}.properties`, `more than ${maxProperties} properties are too large for a constraint`)
    const listed = further === undefined ? undefined : yield* this.#listedNames(given, path)
    const extra = [...new Set([...(listed ?? []), ...required])].filter((name) => !Object.hasOwn(properties, name))
    if (extra.length > 0 && further === undefined)
      fail(`${path}.required`, `${show(extra[0])} is not among the properties`)
    if (extra.length > maxProperties) tooLarge(path)
    const items: string[] = []
    for (const name of [...keys, ...extra]) {
      const own = Object.hasOwn(properties, name)
      const at = own ? `${path}.properties.${name}` : `${path}.additionalProperties`
      if (properties[name] === false && own && !required.has(name)) continue
      const value = yield* this.schema(own ? properties[name] : further, at, depth + 1, open)
      items.push(`(?:${literal(name, at)}:${value})${required.has(name) ? '' : '?'}`)
    }
    if (further !== undefined && listed === undefined) {
      const value = yield* this.schema(further, `${path}.additionalProperties`, depth + 1, open)
      const key = keyPattern(given['propertyNames'], [...keys, ...extra], path)
      items.push(`(?:${key}:${value})*`)
    }
    checkCounts(given, path, required.size, further === undefined || listed !== undefined ? items.length : undefined)
    return items.length === 0 ? '\\{\\}' : `\\{(?,${items.join('')})\\}`
  }

  /** The schema of further properties; undefined: none come. */
  *#further(given: JsonSchemaObject, path: string): Work<unknown> {
    const { additionalProperties: further, patternProperties } = given
    if (patternProperties !== undefined) {
      const table = members(patternProperties, `${path}.patternProperties`)
      const [pattern, ...more] = Object.keys(table)
      if (more.length > 0 || (pattern !== '^(.*)$' && pattern !== '^.*$') || given['propertyNames'] !== undefined)
        fail(path, 'the keyword "patternProperties" is not supported but for any name ("^.*$")')
      return table[pattern!]
    }
    if (further !== undefined && typeof further !== 'boolean') return further
    if (given['propertyNames'] !== undefined && (yield* this.#listedNames(given, path)))
      return further === false ? undefined : true
    return undefined
  }

  /** Where `propertyNames` lists them. */
  *#listedNames(given: JsonSchemaObject, path: string): Work<string[] | undefined> {
    if (given['propertyNames'] === undefined) return undefined
    const at = `${path}.propertyNames`
    const schema = yield* merged((yield* parts(this.#whole, given['propertyNames'], at, new Set())).parts, at)
    if ('const' in schema) return names([schema['const']], at)
    return schema['enum'] === undefined ? undefined : names(list(schema['enum'], at, 'names'), at)
  }
}

const typeNames = Object.keys(keywords).map(show).join(', ')

function only(given: JsonSchemaObject, path: string, ...allowed: string[]): void {
  const other = Object.keys(given).find((name) => !allowed.includes(name))
  if (other !== undefined) fail(path, `the keyword ${show(other)} is not supported here`)
}

/** The types of a schema, told by its keywords where it does not say; undefined: any. */
function typesOf(given: JsonSchemaObject, path: string): string[] | undefined {
  const told = given['type'] ?? Object.keys(keywords).find((type) => keywords[type]!.some((name) => name in given))
  if (told === undefined) return undefined
  const types: unknown[] = Array.isArray(told) ? told.slice(0, 20) : [told]
  if (types.length === 0) fail(`${path}.type`, 'expected at least one type but received []')
  for (const type of types)
    if (typeof type !== 'string' || !Object.hasOwn(keywords, type))
      fail(`${path}.type`, `expected ${typeNames} or a list of them but received ${show(type)}`)
  return [...(types as string[]), ...(given['nullable'] === true && !types.includes('null') ? ['null'] : [])]
}

/** `const` or `enum`: of its values those of the types. */
function* values(given: JsonSchemaObject, types: string[] | undefined, path: string): Work<string> {
  only(given, path, 'const', 'enum', 'type', 'nullable')
  let all = 'const' in given ? [given['const']] : list(given['enum'], `${path}.enum`, 'values')
  if ('const' in given && given['enum'] !== undefined) only(given, path, 'const', 'type', 'nullable')
  if (given['nullable'] === true && !all.includes(null)) all = [...all, null]
  const allowed = all.filter((value) => given['type'] === undefined || types!.some((type) => isType(value, type)))
  if (allowed.length === 0) fail(path, `no value of ${'const' in given ? 'const' : 'enum'} is of the type`)
  const found = new Set<string>()
  for (const value of allowed) {
    yield* measureValue(value, path)
    found.add(literal(value, path))
    yield
  }
  return either([...found])
}

function string({ ...given }: JsonSchemaObject, path: string): string {
  if (isAnyText(given['format'])) delete given['format']
  const [least, most] = range(given, path, 'minLength', 'maxLength')
  const { pattern, format } = given
  const stated = pattern !== undefined || (format !== undefined && !Object.hasOwn(integerFormats, String(format)))
  if (stated) return named(path, jsonString(stringParts(given, path)))
  const text = `"${character}${times(least, most)}"`
  return most === undefined && least < 2 ? text : named(path, text)
}

/** The place is named where the expression turns out to be too large. */
const named = (path: string, part: string): string => `(?#${characters(path)}:${path}(?:${part}))`

/** A JSON string of a text that matches all of these. */
function jsonString(all: string[]): string {
  return `"(?"${all.length === 1 ? all[0]! : `(?&${all.join('')})`})"`
}

/** What the text of a string matches, each a group. */
function stringParts(given: JsonSchemaObject, path: string): string[] {
  let [least, most] = range(given, path, 'minLength', 'maxLength')
  const { pattern, format } = given
  const all: string[] = []
  for (const one of pattern instanceof Patterns ? pattern.all : pattern === undefined ? [] : [pattern]) {
    if (typeof one !== 'string') fail(`${path}.pattern`, `expected a string but received ${show(one)}`)
    if (one.length > maxPattern) fail(`${path}.pattern`, `more than ${maxPattern} characters are too large`)
    const name = `${path}.pattern: `
    all.push(`(?@${characters(name)}:${characters(one)}:${name}${one})`)
  }
  if (pattern !== undefined && isImplied(pattern, format)) all.length = 0
  if (format !== undefined && !(pattern !== undefined && isSaidBy(format))) {
    const known = typeof format === 'string' && Object.hasOwn(formats, format) ? formats[format] : undefined
    if (known === undefined)
      fail(`${path}.format`, `the format ${show(format)} is not supported; state it as a pattern`)
    all.push(`(?:${format === 'time' && pattern !== undefined ? timeBesidePattern : known})`)
    if (most !== undefined && most >= (longest[String(format)] ?? Infinity)) most = undefined
    if (least === 1) least = 0 // no text of a format is empty
  }
  if (least > 0 || most !== undefined) all.push(`(?:[^]${times(least, most)})`)
  return all
}

/** Surrogate pairs count once. */
function characters(text: string): number {
  if (!/[\ud800-\udfff]/.test(text)) return text.length
  let count = text.length
  for (let i = 1; i < text.length; i++)
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00 && (text.charCodeAt(i - 1) & 0xfc00) === 0xd800) count--
  return count
}

/** Lower and upper bound; draft 4 has `exclusiveMinimum: true` beside `minimum`. */
function bound(given: JsonSchemaObject, path: string, closed: string, opened: string, sign: 1 | -1): Bound | undefined {
  const value = finite(given, closed, path)
  if (typeof given[opened] === 'boolean') return value === undefined ? undefined : { value, open: given[opened] }
  const open = finite(given, opened, path)
  if (open !== undefined && (value === undefined || open * sign >= value * sign)) return { value: open, open: true }
  return value === undefined ? undefined : { value, open: false }
}

function* numeric(given: JsonSchemaObject, path: string, whole: boolean): Work<string> {
  const format = given['format']
  let low = bound(given, path, 'minimum', 'exclusiveMinimum', 1)
  let high = bound(given, path, 'maximum', 'exclusiveMaximum', -1)
  if (typeof format === 'string' && Object.hasOwn(integerFormats, format)) {
    const [least, most] = integerFormats[format]!
    if (!low || low.value < least) low = { value: least, open: false }
    if (!high || high.value > most) high = { value: most, open: false }
    whole = true
  } else if (
    format !== undefined &&
    !['float', 'double', 'decimal', 'number'].includes(String(format)) &&
    given['type'] !== undefined &&
    ![given['type']].flat().includes('string')
  ) {
    fail(`${path}.format`, `the format ${show(format)} of numbers is not supported`)
  }
  const step = finite(given, 'multipleOf', path)
  if (step !== undefined && step <= 0) fail(`${path}.multipleOf`, `expected a number > 0 but received ${show(step)}`)
  const none = (): never =>
    fail(
      path,
      'no number that JavaScript holds exactly lies within minimum and ' +
        `maximum${step === undefined ? '' : ' as a multiple of multipleOf'}`
    )
  if (step !== undefined && !Number.isSafeInteger(step))
    return (yield* fractions(low, high, step, path, whole)) ?? none()
  if (!whole && step === undefined) return low || high ? (decimals(low, high) ?? none()) : number
  // without bounds at most 15 digits
  const [least, most] =
    low || high || step !== undefined ? integerBounds(low, high) : [-(10n ** 15n) + 1n, 10n ** 15n - 1n]
  if (least > most) none()
  if (step === undefined) return low || high ? integers(least, most) : '(?:0|-?[1-9][0-9]{0,14})'
  const found = multiples(least, most, BigInt(step))
  return found === 'too large'
    ? fail(
        `${path}.multipleOf`,
        `${step} is not supported: at most ${maxDivisor} but for zeros at the end, or at most 100 values within ` +
          'minimum and maximum'
      )
    : (found ?? none())
}

/** Multiples of a fraction that is exact in binary, such as 0.25, listed. */
function* fractions(
  low: Bound | undefined,
  high: Bound | undefined,
  step: number,
  path: string,
  whole: boolean
): Work<string | undefined> {
  const name = `${path}.multipleOf`
  if (step * 1024 !== Math.round(step * 1024) || step > 1e6)
    fail(
      name,
      `${step} has no exact value in JavaScript, so that validators disagree about its multiples; use whole units, ` +
        'such as cents'
    )
  if (!low || !high) fail(name, `${step} needs a minimum and a maximum, as its multiples are listed`)
  const first = Math.ceil(low.value / step)
  const last = Math.floor(high.value / step)
  if (last - first > maxItems) fail(name, `more than ${maxItems} multiples of ${step} are too many to list`)
  const found: string[] = []
  for (let i = first; i <= last; i++) {
    if (i % 100 === 0) yield
    const value = i * step
    if ((low.open && value === low.value) || (high.open && value === high.value)) continue
    if (!whole || Number.isSafeInteger(value)) found.push(escaped(String(value)))
  }
  return found.length === 0 ? undefined : either(found)
}

/** The name of a further property: none of the known ones. */
function keyPattern(schema: unknown, known: string[], path: string): string {
  const at = `${path}.propertyNames`
  const given = schema === true ? {} : members(schema, at)
  only(given, at, 'type', ...keywords['string']!)
  const all = stringParts({ maxLength: 40, ...given }, at)
  return named(at, jsonString(known.length === 0 ? all : [...all, `(?:(?!${either(known.map(escaped))}$)[^]*)`]))
}

/** `minProperties`, `maxProperties`: where they hold anyway. */
function checkCounts(given: JsonSchemaObject, path: string, least: number, most: number | undefined): void {
  if ((count(given, 'minProperties', path) ?? 0) > least)
    fail(path, 'the keyword "minProperties" is not supported; name required properties')
  const limit = count(given, 'maxProperties', path)
  if (limit !== undefined && (most === undefined || most > limit))
    fail(path, 'the keyword "maxProperties" is not supported')
}
