/**
 * A table of calls, attacked: every argument and option of each replaced by every value that it does not expect. The
 * call works or fails with a code; nothing else comes out, and the event loop goes on.
 */
import { expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { hostile, leastStandstill, longest, longTexts, pathsOf, replaced, valueAt } from './hostile'

/** A call with arguments that work, every option given. */
export interface Row {
  sync?: true
  call: (...args: never[]) => unknown
  args: () => unknown[]
  /** Errors of user callbacks and of signals pass unchanged. */
  passes?: (error: unknown) => boolean
}

export const sync = (call: (...args: never[]) => unknown, ...args: unknown[]): Row => ({
  sync: true,
  call,
  args: () => args
})

export const made = (kind: unknown, ...args: unknown[]): Row =>
  sync((...given) => new (kind as new (...args: never[]) => unknown)(...given), ...args)

/** A loop; some sources never end. */
export const looped = (call: (...args: never[]) => AsyncIterable<unknown>, ...args: unknown[]): Row => ({
  call: async (...given: never[]) => {
    let rounds = 0
    for await (const _ of call(...given)) if (++rounds === 3) break
  },
  args: () => args
})

export function without(object: object, ...names: string[]): object {
  return Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name)))
}

/** What hostile callbacks throw. */
export function isTheirs(error: unknown): boolean {
  return (error instanceof RangeError && error.message === 'boom') || error === 1
}

/** Names of all functions, constructors and methods among a module's exports. */
export function exportedCalls(module: object): string[] {
  return Object.entries(module).flatMap(([name, value]: [string, unknown]) => {
    if (typeof value !== 'function') return []
    if (!/^class\b/.test(String(value))) return [name]
    const methods = Object.entries(Object.getOwnPropertyDescriptors(value.prototype as object))
    return [
      `new ${name}`,
      ...methods.flatMap(([method, { value: own }]) =>
        typeof own === 'function' && method !== 'constructor' ? [`${name}.${method}`] : []
      )
    ]
  })
}

/** The tests of all rows. */
export function attackRows(rows: Record<string, Row>): void {
  it.each(Object.keys(rows))('%s has every option in its row', async (name) => {
    const row = rows[name]!
    for (const [i, options] of row.args().entries()) {
      if (typeof options !== 'object' || options === null) continue
      const call = async (): Promise<unknown> =>
        await row.call(...(replaced(row.args(), [i, 'no such option'], 1) as never[]))
      const { message = '' } = ((await call().catch((error: unknown) => error)) ?? {}) as { message?: string }
      const known = /^Unknown option.*Known options: (.*)$/.exec(message)?.[1]?.split(', ') ?? []
      expect(known.filter((option) => !(option in options))).toEqual([])
    }
  })

  it.each(Object.keys(rows))(
    '%s works, or fails with a code',
    async (name) => {
      const row = rows[name]!
      const wrong = new Set<string>()
      for (const path of pathsOf(row.args()).slice(1)) {
        const isText = typeof valueAt(row.args(), path) === 'string'
        for (const [kind, make] of Object.entries(isText ? { ...hostile, ...longTexts } : hostile)) {
          const where = `${name}(${path.join('.')} = ${kind})`
          const attempt = async (): Promise<void> => {
            const end = await settled(row, replaced(row.args(), path, make()) as never[])
            if (end !== 'coded') wrong.add(`${where}: ${end}`)
          }
          const worst = await leastStandstill(attempt)
          if (worst > longest) wrong.add(`${where}: ${worst.toFixed(0)} ms`)
        }
      }
      expect([...wrong]).toEqual([])
    },
    600_000
  )
}

const mostShown = 2000

/** Makes the call; nothing but results and coded errors may come out, and of asynchronous calls no exception. */
async function settled(row: Row, args: never[]): Promise<string> {
  let returned: unknown
  try {
    returned = row.call(...args)
  } catch (error) {
    return row.sync ? reasonOf(row, error) : 'thrown by an asynchronous call'
  }
  if (row.sync) return 'coded'
  return await Promise.resolve(returned).then(
    () => 'coded',
    (error: unknown) => reasonOf(row, error)
  )
}

function reasonOf(row: Row, error: unknown): string {
  if (error instanceof PaliGemmaError) {
    if (error.code === 'ERR_INTERNAL') return `internal: ${error.message}`
    return error.message.length > mostShown ? `a message of ${error.message.length} characters` : 'coded'
  }
  if (row.passes?.(error) || isTheirs(error)) return 'coded'
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
