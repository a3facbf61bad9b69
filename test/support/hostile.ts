/** Values that no call expects, each made anew, and a stopwatch for the event loop. */
import { existsSync, readFileSync } from 'node:fs'
import { runInNewContext } from 'node:vm'

const boom = (): never => {
  throw new RangeError('boom')
}

/** Every access throws: what a getter does that throws, for any property. */
const thrower = (target: object): object => new Proxy(target, { get: boom, has: boom, ownKeys: boom })

function revoked<T extends object>(target: T): T {
  const { proxy, revoke } = Proxy.revocable(target, {})
  revoke()
  return proxy
}

function detached<T extends ArrayBufferView>(array: T): T {
  structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] })
  return array
}

function holes(): unknown[] {
  const list: unknown[] = []
  list.length = 4e9
  return list
}

function circular(): object {
  const value: Record<string, unknown> = {}
  value['self'] = value
  return value
}

const resizable = (): ArrayBuffer => {
  const Resizable = ArrayBuffer as unknown as new (bytes: number, options: { maxByteLength: number }) => ArrayBuffer
  return new Resizable(16, { maxByteLength: 64 })
}

/** Shorter than what JSON of the server's largest body may hold, longer than anything that anybody means. */
const millions = 16_000_000
const made = new Map<string, string>()

/** As it comes out of JSON: in one piece. */
const long =
  (text: string, before = '') =>
  (): string => {
    const known = made.get(text)
    if (known !== undefined) return known
    const whole = Buffer.from(before + text.repeat(Math.ceil(millions / text.length))).toString()
    made.set(text, whole)
    return whole
  }

/** A picture that came in the place of the options: each of its bytes is a property. */
const manyBytes = Buffer.alloc(3_000_000, 1)
const manyFloats = new Float32Array(1_000_000).fill(1)

export const hostile: Record<string, () => unknown> = {
  null: () => null,
  true: () => true,
  0: () => 0,
  '-1': () => -1,
  1.5: () => 1.5,
  NaN: () => NaN,
  Infinity: () => Infinity,
  '-Infinity': () => -Infinity,
  '2^53': () => 2 ** 53,
  1e300: () => 1e300,
  bigint: () => 10n,
  'empty string': () => '',
  string: () => 'x',
  'string with NUL': () => 'a\0b',
  'lone surrogate': () => '\ud800',
  'long string': () => 'y'.repeat(50_000),
  symbol: () => Symbol('s'),
  function: () => () => 1,
  'function that throws': () => boom,
  class: () => class Some {},
  'empty array': () => [],
  'array of null': () => [null],
  'array with a hole': () => new Array<unknown>(1),
  '4 billion holes': holes,
  'array whose items throw': () => [thrower({})],
  'array that throws': () => thrower([]),
  'revoked array': () => revoked([]),
  'empty object': () => ({}),
  'null prototype': () => Object.create(null) as object,
  'object that throws': () => thrower({}),
  'revoked proxy': () => revoked({}),
  'revoked function': () => revoked(() => 1),
  'getter that throws': () => Object.defineProperty({}, 'data', { get: boom, enumerable: true }),
  circular,
  'unreadable as text': () => ({ toString: boom, valueOf: boom, toJSON: boom }),
  // biome-ignore lint/suspicious/noThenProperty: that is the point
  thenable: () => ({ then: boom }),
  date: () => new Date(NaN),
  regexp: () => /(?:a*)*b/,
  map: () => new Map([[1, 2]]),
  'no bytes': () => new Uint8Array(0),
  'detached bytes': () => detached(new Uint8Array(16)),
  'detached floats': () => detached(new Float32Array(4)),
  'detached buffer': () => detached(new Uint8Array(16)).buffer,
  'shared bytes': () => new Uint8Array(new SharedArrayBuffer(16)),
  'shared floats': () => new Float32Array(new SharedArrayBuffer(16)),
  'resizable bytes': () => new Uint8Array(resizable()),
  'resizable floats': () => new Float32Array(resizable()),
  'many bytes': () => manyBytes,
  'many floats': () => manyFloats,
  'view of data': () => new DataView(new ArrayBuffer(8)),
  'foreign array': () => runInNewContext('[1, 2]') as unknown,
  'foreign object': () => runInNewContext('({ a: 1 })') as unknown,
  'foreign bytes': () => runInNewContext('new Uint8Array(16)') as unknown,
  'foreign error': () => runInNewContext('new TypeError("theirs")') as unknown,
  'foreign function': () => runInNewContext('() => { throw 1 }') as unknown,
  'foreign signal': () =>
    runInNewContext('({ aborted: false, addEventListener() {}, removeEventListener() {} })') as unknown,
  signal: () => new AbortController().signal,
  URL: () => new URL('http://127.0.0.1:1/a'),
  'file URL elsewhere': () => new URL('file://elsewhere/a')
}

/** Where a text is expected, as well. */
export const longTexts: Record<string, () => unknown> = {
  'millions of letters': long('y'),
  'millions of words': long('cow ; '),
  'millions of spaces': long(' '),
  'millions of folders': long('../a/'),
  'millions of wide letters': long('\u00fc\u4e00'),
  'a very long address': long('%C3', 'https://127.0.0.1:1/'),
  'a very long file URL': long('%61/', 'file:///'),
  'a very long data URL': long('iVBO', 'data:image/png;base64,')
}

/** A copy of plain objects and lists with the value at a path replaced. */
export function replaced(value: unknown, path: readonly (string | number)[], by: unknown): unknown {
  const [key, ...rest] = path
  if (key === undefined) return by
  const copy = (Array.isArray(value) ? [...(value as unknown[])] : { ...(value as object) }) as Record<string, unknown>
  copy[key] = replaced(copy[key], rest, by)
  return copy
}

/** The value at a path. */
export const valueAt = (value: unknown, path: readonly (string | number)[]): unknown =>
  path.reduce<unknown>((part, key) => (part as Record<string | number, unknown>)[key], value)

/** The paths to all values inside arguments, plain objects and lists entered. */
export function pathsOf(value: unknown, depth = 4): (string | number)[][] {
  const enter = Array.isArray(value) || (typeof value === 'object' && value !== null && isPlain(value))
  if (!enter || depth === 0) return [[]]
  const keys = Array.isArray(value) ? value.map((_, i) => i) : Object.keys(value as object)
  const below = keys.flatMap((key) =>
    pathsOf((value as Record<string | number, unknown>)[key], depth - 1).map((path) => [key, ...path])
  )
  return [[], ...below]
}

const isPlain = (value: object): boolean => Object.getPrototypeOf(value) === Object.prototype

/** Milliseconds that the event loop may stand still. */
export const longest = 200

const spent = '/proc/thread-self/schedstat'
const hasSpent = existsSync(spent)

/** Milliseconds that this thread computed, whatever others did; where the system does not say, those of the clock. */
export const threadMs = (): number =>
  hasSpent ? Number(readFileSync(spent, 'latin1').split(' ')[0]) / 1e6 : performance.now()

/** The longest that the event loop stood still while `work` ran, in milliseconds. */
export async function standstill(work: () => unknown): Promise<number> {
  let last = threadMs()
  let worst = 0
  const note = (): void => {
    const now = threadMs()
    worst = Math.max(worst, now - last)
    last = now
  }
  const timer = setInterval(note, 5)
  try {
    await work()
    note()
  } finally {
    clearInterval(timer)
  }
  return worst
}

/** The same, the least of up to ten tries: a collection of garbage or a first compilation is nobody's fault. */
export async function leastStandstill(work: () => unknown): Promise<number> {
  let least = Infinity
  for (let tries = 0; tries < 10 && least > longest; tries++) least = Math.min(least, await standstill(work))
  return least
}
