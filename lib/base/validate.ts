/** Checking options: one table of rules per call, one sentence for every mistake. */
import { editDistance } from './edit-distance'
import { PaliGemmaError } from './errors'
import { absolute, toPath } from './paths'
import { isRecord, isUrl } from './realms'

/** What an option may be, in words that complete "Expected ... for name", and the test itself. */
export interface Rule {
  expected: string
  /** May throw, as foreign objects do: then the value is refused. */
  accepts: (value: unknown) => boolean
  /**
   * The value as it is used: a copy of what its owner may still change, or that is read by code of its own (getters,
   * proxies). Called before `accepts`, which then sees the copy. `folder`: where relative paths begin; '': in
   * the working folder.
   */
  take?: (value: unknown, folder: string) => unknown
  /** The longest text that may be meant, in characters; default: {@link longestName}. Longer ones are not read. */
  longest?: number
  /** callback: called for its effect, in the context of the call. function: its result is used. */
  kind?: 'callback' | 'function'
}

/** One rule for every key of an options type: a new option without a rule does not compile. */
export type Rules<T> = { [K in keyof Required<T>]: Rule }

type WithoutUrl<V> = V extends URL ? never : V extends (string | URL)[] ? string[] : V
/** Options as rules of files leave them: what may be a path or a `file:` URL is a path. */
export type WithPaths<T> = { [K in keyof T]: WithoutUrl<T[K]> }

/** Of a path or an address: the longest of any system, Windows'. No name of anything else is as long. */
export const longestName = 32_768
/** Of a text for a model: more than any context holds, and little enough to look through at once. */
export const longestText = 1 << 20
/** Of the texts of a list together. */
const longestTexts = 1 << 22

const isInteger = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value)
const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value)
// Classes cannot be called, and asking a revoked proxy for its length throws.
const isFunction = (value: unknown): boolean =>
  typeof value === 'function' &&
  typeof value.length === 'number' &&
  !/^class\b/.test(Function.prototype.toString.call(value))
const isPath = (value: unknown): boolean => isName(value) && value !== '' && !value.includes('\0')

/** A text that is short enough to be the name of something. */
export function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length <= longestName
}

/** A text, and short enough to be read at once. */
export function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= longestText
}

// What a list may hold unless its rule says so: an array of 4 billion holes costs 16 bytes to make.
const mostItems = 65_536

/**
 * A dense copy of a list of at most so many items, with texts of at most so many characters together; anything else
 * comes back as it is, to be refused.
 */
export function takeList(value: unknown, most = mostItems, longest = longestTexts): unknown {
  if (!Array.isArray(value)) return value
  const { length } = value
  if (length > most) return new TooLong('an array', `${length}, more than ${most}`)
  // not slice or map, which a subclass may have made its own
  const copy = new Array<unknown>(length)
  for (let i = 0; i < length; i++) copy[i] = value[i]
  const characters = charactersIn(copy)
  return characters > longest ? new TooLong('an array of texts', charactersOf(characters, longest)) : copy
}

function charactersIn(list: readonly unknown[]): number {
  let sum = 0
  for (let i = 0; i < list.length; i++) {
    const item = list[i]
    if (typeof item === 'string') sum += item.length
  }
  return sum
}

const charactersOf = (length: number, most: number): string => `${length} characters, more than ${most}`

/** Stands for a text or a list that is not looked at. */
class TooLong {
  constructor(
    readonly what: string,
    readonly size: string
  ) {}
}

/** A text or URL of more characters than a value of this kind may have. */
function tooLong(value: unknown, { longest = longestName }: Rule): TooLong | undefined {
  const text = isUrl(value) ? value.href : value
  if (typeof text !== 'string' || text.length <= longest) return undefined
  return new TooLong('a text', charactersOf(text.length, longest))
}

export const rule = {
  text: { expected: 'string', accepts: isText, longest: longestText } as Rule,
  /** Of something, and as short as names are. */
  name: { expected: 'string', accepts: isName } as Rule,
  path: { expected: 'non-empty path', accepts: isPath },
  /** A path or file: URL of this machine, made absolute: later changes of the working folder do not matter. */
  file: {
    expected: 'non-empty path',
    accepts: isPath,
    take: (v: unknown, folder: string) => (isPath(v) || isUrl(v) ? absolute(folder, toPath(v as string | URL)) : v)
  },
  object: { expected: 'object', accepts: (v: unknown) => typeof v === 'object' && v !== null },
  flag: { expected: 'boolean', accepts: (v: unknown) => typeof v === 'boolean' },
  callback: { expected: 'function', accepts: isFunction, kind: 'callback' } as Rule,
  function: { expected: 'function', accepts: isFunction, kind: 'function' } as Rule,
  signal: { expected: 'AbortSignal', accepts: isSignal },
  anything: { expected: 'value', accepts: () => true },
  integer: (min: number, max = Number.MAX_SAFE_INTEGER): Rule => ({
    expected: max === Number.MAX_SAFE_INTEGER ? `integer >= ${min}` : `integer from ${min} to ${max}`,
    accepts: (v) => isInteger(v) && v >= min && v <= max
  }),
  number: (min: number, max = Infinity): Rule => ({
    expected: max === Infinity ? `number >= ${min}` : `number from ${min} to ${max}`,
    accepts: (v) => isNumber(v) && v >= min && v <= max
  }),
  /** min excluded */
  above: (min: number, max = Infinity): Rule => ({
    expected: max === Infinity ? `number > ${min}` : `number > ${min} and <= ${max}`,
    accepts: (v) => isNumber(v) && v > min && v <= max
  }),
  oneOf: (...values: (string | number)[]): Rule => ({
    expected: values.map((v) => JSON.stringify(v)).join(' or '),
    accepts: (v) => (typeof v === 'string' || typeof v === 'number') && values.includes(v)
  }),
  listOf: (what: string, accepts: (v: unknown) => boolean, { least = 0, most = mostItems } = {}): Rule => ({
    expected: `${least > 0 ? 'non-empty ' : ''}array of ${what}`,
    accepts: (v) =>
      Array.isArray(v) &&
      v.length >= least &&
      v.length <= most &&
      charactersIn(v) <= longestTexts &&
      everyItem(v, accepts),
    take: (v) => takeList(v, most)
  })
}

/** Array.every passes over holes, of which there may be 4 billion. */
export function everyItem(list: readonly unknown[], accepts: (v: unknown) => boolean): boolean {
  for (let i = 0; i < list.length; i++) if (!accepts(list[i])) return false
  return true
}

/** What `follow` needs; signals of other realms and of polyfills have no more in common. */
function isSignal(value: unknown): boolean {
  const { aborted, addEventListener, removeEventListener } = value as AbortSignal
  return typeof aborted === 'boolean' && isFunction(addEventListener) && isFunction(removeEventListener)
}

/** A value as an error message shows it: short, and recognizable. */
export function show(value: unknown): string {
  try {
    return showReadable(value)
  } catch {
    return 'an object that cannot be read'
  }
}

function showText(text: string): string {
  if (text.length > longestName) return `a text of ${text.length} characters` // even its beginning may be in pieces
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text)
}

function showReadable(value: unknown): string {
  if (typeof value === 'string') return showText(value)
  if (typeof value === 'bigint') return value > -(10n ** 30n) && value < 10n ** 30n ? `${value}n` : 'a large bigint'
  if (typeof value === 'function') return 'a function'
  if (value instanceof TooLong) return `${value.what} of ${value.size}`
  if (Array.isArray(value)) {
    const { length } = value
    const items = Array.from({ length: Math.min(length, 4) }, (_, i) => value[i] as unknown)
    const shown = items.map((item) => (Array.isArray(item) ? 'an array' : show(item))).join(', ')
    return `[${shown}${length > 4 ? `, ... ${length} in all` : ''}]`
  }
  if (typeof value === 'object' && value !== null) {
    const name: unknown = (Object.getPrototypeOf(value) as object | null)?.constructor?.name
    return typeof name === 'string' && name !== '' && name !== 'Object' ? `an instance of ${name}` : 'an object'
  }
  return String(value)
}

/** "Expected integer >= 1 for maxTokens but received 0" */
export function wrongOption(name: string, expected: string, received: unknown, cause?: unknown): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `Expected ${expected} for ${name} but received ${show(received)}`,
    cause === undefined ? undefined : { cause }
  )
}

/** The value as it is to be used, see {@link Rule.take}; throws ERR_INVALID_OPTION if it may not be. */
export function take<T>(name: string, value: T, wanted: Rule, folder = ''): T {
  let taken: unknown = value
  let accepted = false
  let cause: unknown
  try {
    taken = tooLong(value, wanted) ?? (wanted.take ? wanted.take(value, folder) : value)
    accepted = !(taken instanceof TooLong) && wanted.accepts(taken)
  } catch (error) {
    // a mistake that has its own words
    if (error instanceof PaliGemmaError) throw error
    cause = error
  }
  if (!accepted) throw wrongOption(name, wanted.expected, taken, cause)
  return taken as T
}

/** {@link take}, where the value itself can be used. */
export function check(name: string, value: unknown, wanted: Rule): void {
  take(name, value, wanted)
}

/** Throws ERR_INVALID_OPTION for the first unknown or wrong option. `undefined` means "not given". */
export function checkOptions<T extends object>(
  call: string,
  options: unknown,
  rules: Rules<T>,
  required: (keyof T)[] = []
): asserts options is T {
  readOptions(call, options, rules, required)
}

/**
 * The options as they are now: one plain object with all of them that are given, each read once. Throws
 * ERR_INVALID_OPTION for the first unknown or wrong one.
 */
export function readOptions<T extends object>(
  call: string,
  options: unknown,
  rules: Rules<T>,
  required: (keyof T)[] = [],
  folder = ''
): T {
  const table = rules as Record<string, Rule>
  const { given, names } = readObject(call, options, table)
  for (const name of names) if (!Object.hasOwn(table, name)) throw unknownOption(call, name, Object.keys(table))
  const taken: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(given)) taken[name] = take(name, value, table[name]!, folder)
  for (const name of required as string[])
    if (taken[name] === undefined) throw wrongOption(name, table[name]?.expected ?? 'a value', undefined)
  return taken as T
}

/** Known properties with values, inherited ones too (defaults), and the names of all of its own. */
function readObject(
  call: string,
  options: unknown,
  table: Record<string, Rule>
): { given: Record<string, unknown>; names: string[] } {
  let reading = `the options of ${call}`
  try {
    if (!isRecord(options)) throw wrongOption(reading, 'object', options)
    const names = Object.keys(options)
    const given: Record<string, unknown> = {}
    for (const name of Object.keys(table)) {
      reading = name
      const value = options[name]
      if (value !== undefined) given[name] = value
    }
    return { given, names }
  } catch (error) {
    if (error instanceof PaliGemmaError) throw error
    throw new PaliGemmaError('ERR_INVALID_OPTION', `Expected ${reading} to be readable but reading it throws`, {
      cause: error
    })
  }
}

/** Options with one more, which was an argument of its own and so may not be among them. For {@link readOptions}. */
export function addOption<T extends object>(
  call: string,
  options: unknown,
  rules: Rules<T>,
  name: string,
  value: unknown
): Record<string, unknown> {
  const given = givenOptions(call, options, rules) as Record<string, unknown>
  if (given[name] !== undefined)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected ${name} once for ${call} but received it as an argument of its own and among the options`
    )
  return { ...given, [name]: value }
}

/** A copy to add to, with each option read once and unknown ones by their names: {@link readOptions} checks it. */
export function givenOptions<T extends object>(call: string, options: unknown, rules: Rules<T>): T {
  const { given, names } = readObject(call, options, rules as Record<string, Rule>)
  return { ...Object.fromEntries(names.map((own) => [own, undefined])), ...given } as T
}

/**
 * Properties of an object among the arguments, each read once; those that are `undefined` are left out. Throws
 * ERR_INVALID_OPTION for what is no object or cannot be read; what the values are is the caller's to check.
 */
export function readFields(
  name: string,
  value: unknown,
  keys: readonly string[],
  expected = 'object'
): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) throw wrongOption(name, expected, value)
  try {
    const fields: Record<string, unknown> = {}
    for (const key of keys) {
      const field = (value as Record<string, unknown>)[key]
      if (field !== undefined) fields[key] = field
    }
    return fields
  } catch (error) {
    throw wrongOption(name, expected, value, error)
  }
}

function unknownOption(call: string, name: string, known: string[]): PaliGemmaError {
  const near = nearest(name, known)
  return new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `Unknown option ${show(name)} for ${call}${near ? `, did you mean ${near}?` : '.'} Known options: ` +
      `${known.join(', ')}`
  )
}

/** The known name at edit distance <= 2 and with a letter in common, ignoring case. */
function nearest(name: string, known: string[]): string | undefined {
  if (name.length > 100) return undefined
  let best: string | undefined
  let least = Math.min(3, name.length) // of one letter, any name is near
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase(), least)
    if (distance < least) [best, least] = [candidate, distance]
  }
  return best
}
