/** Checking options: one table of rules per call, one sentence for every mistake. */
import { PaliGemmaError } from './errors'

/** What an option may be, in words that complete "Expected ... for name", and the test itself. */
export interface Rule {
  expected: string
  accepts: (value: unknown) => boolean
}

/** One rule for every key of an options type: a new option without a rule does not compile. */
export type Rules<T> = { [K in keyof Required<T>]: Rule }

const isInteger = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value)
const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value)

export const rule = {
  text: { expected: 'string', accepts: (v: unknown) => typeof v === 'string' },
  path: { expected: 'non-empty path', accepts: (v: unknown) => typeof v === 'string' && v !== '' },
  flag: { expected: 'boolean', accepts: (v: unknown) => typeof v === 'boolean' },
  callback: { expected: 'function', accepts: (v: unknown) => typeof v === 'function' },
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
  listOf: (what: string, accepts: (v: unknown) => boolean): Rule => ({
    expected: `array of ${what}`,
    accepts: (v) => Array.isArray(v) && v.every(accepts)
  })
}

function isSignal(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as AbortSignal).aborted === 'boolean' &&
    typeof (value as AbortSignal).addEventListener === 'function'
  )
}

/** A value as an error message shows it: short, and recognizable. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) {
    const items = value.slice(0, 4).map((item) => (Array.isArray(item) ? 'an array' : show(item)))
    return `[${items.join(', ')}${value.length > 4 ? `, ... ${value.length} in all` : ''}]`
  }
  if (typeof value === 'object' && value !== null) {
    const name = (Object.getPrototypeOf(value) as object | null)?.constructor?.name
    return name && name !== 'Object' ? `an instance of ${name}` : 'an object'
  }
  return String(value)
}

/** "Expected integer >= 1 for maxTokens but received 0" */
export function wrongOption(name: string, expected: string, received: unknown): PaliGemmaError {
  return new PaliGemmaError('ERR_INVALID_OPTION', `Expected ${expected} for ${name} but received ${show(received)}`)
}

export function check(name: string, value: unknown, wanted: Rule): void {
  if (!wanted.accepts(value)) throw wrongOption(name, wanted.expected, value)
}

/** Throws ERR_INVALID_OPTION for the first unknown or wrong option. `undefined` means "not given". */
export function checkOptions<T extends object>(
  call: string,
  options: unknown,
  rules: Rules<T>,
  required: (keyof T)[] = []
): asserts options is T {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw wrongOption(`the options of ${call}`, 'object', options)
  }
  const table = rules as Record<string, Rule>
  for (const [name, value] of Object.entries(options)) {
    const wanted = Object.hasOwn(table, name) ? table[name] : undefined
    if (!wanted) {
      const known = Object.keys(table)
      const near = nearest(name, known)
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Unknown option ${show(name)} for ${call}${near ? `, did you mean ${near}?` : ''} Known options: ${known.join(', ')}`.replace(
          /([^?]) Known/,
          '$1. Known'
        )
      )
    }
    if (value !== undefined) check(name, value, wanted)
  }
  for (const name of required) {
    if ((options as T)[name] === undefined)
      throw wrongOption(String(name), table[String(name)]?.expected ?? 'a value', undefined)
  }
}

/** The known name at edit distance <= 2, ignoring case. */
function nearest(name: string, known: string[]): string | undefined {
  let best: string | undefined
  let least = 3
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase(), least)
    if (distance < least) [best, least] = [candidate, distance]
  }
  return best
}

function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}
