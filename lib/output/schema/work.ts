/** The work on a schema in steps that may pause, and its bounds. */
import { isDeepStrictEqual } from 'node:util'
import { keysOf } from '../../formats/long-json'
import { fail } from './read'

/** Yields where the event loop may go on. */
export type Work<T> = Generator<undefined, T>

const mostValues = 30_000
const mostCharacters = 2_000_000
const mostSteps = 300_000
// of one value that a text may be: no model writes more, and JSON.stringify does not pause
const mostMembers = 5000

export function tooLarge(path: string): never {
  fail(path, 'the schema is too large: nest less, have fewer properties and values or repeat fewer $refs')
}

/** Counts what is done for one schema: references that double at each level never end otherwise. */
export class Steps {
  #done = 0

  take(path: string, count = 1): void {
    this.#done += count
    if (this.#done > mostSteps) tooLarge(path)
  }
}

/** A value of a schema, and where it is: the path is only written where something is wrong. */
interface Place {
  value: unknown
  key: string | number
  within: Place | undefined
}

function pathOf(place: Place): string {
  const keys: string[] = []
  for (let at: Place | undefined = place; at; at = at.within)
    keys.push(typeof at.key === 'number' ? `[${at.key}]` : at.within ? `.${at.key}` : at.key)
  return keys.reverse().join('')
}

/** Refuses a value of `const` or `enum` by its size alone, before it is written in one go. */
export function* measureValue(value: unknown, path: string): Work<void> {
  if (typeof value === 'object' && value !== null) yield* measure(value, path, mostMembers)
}

/** Refuses a schema by its size alone, before anything of it is compared or written. */
export function* measure(root: unknown, path: string, most = mostValues): Work<void> {
  let values = 0
  let characters = 0
  const seen = new Set<unknown>()
  const left: Place[] = [{ value: root, key: path, within: undefined }]
  for (let place = left.pop(); place; place = left.pop()) {
    const { value } = place
    if (typeof value === 'string') characters += value.length
    if (characters > mostCharacters)
      fail(pathOf(place), `more than ${mostCharacters} characters in all are too large for a constraint`)
    if (typeof value !== 'object' || value === null || seen.has(value) || ArrayBuffer.isView(value)) continue
    seen.add(value)
    yield
    const names = Array.isArray(value) ? undefined : keysOf(value)
    const count = names?.length ?? (value as unknown[]).length
    values += count
    if (values > most) fail(pathOf(place), `more than ${most} values in all are too large for a constraint`)
    for (let i = 0; i < count; i++) {
      if (i % 500 === 499) yield
      const key = names?.[i] ?? i
      if (typeof key === 'string') characters += key.length
      left.push({ value: (value as Record<string | number, unknown>)[key], key, within: place })
    }
  }
}

/** JSON values as text, the same for equal ones whatever the order of their properties. */
export function* canonical(value: unknown, path: string, depth = 0): Work<string> {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'undefined'
  if (depth > 200) fail(path, 'values nested more than 200 deep are not supported')
  const parts: string[] = []
  const list = Array.isArray(value)
  if (!list && keysOf(value).length > mostMembers) tooLarge(path)
  const entries = list ? value.entries() : Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [key, item] of entries) {
    if (parts.length % 100 === 99) yield
    const text = yield* canonical(item, path, depth + 1)
    parts.push(list ? text : `${JSON.stringify(key)}:${text}`)
  }
  return list ? `[${parts.join(',')}]` : `{${parts.join(',')}}`
}

/** Whether two values are equal as JSON. */
export function* same(a: unknown, b: unknown, path: string): Work<boolean> {
  if (typeof a !== 'object' || a === null || typeof b !== 'object' || b === null) return isDeepStrictEqual(a, b)
  return a === b || (yield* canonical(a, path)) === (yield* canonical(b, path))
}
