/** Values of every kind for the addon's own functions, and what they answer. */
import { expect } from 'vitest'

/** A value of the wrong type, on purpose. */
export const wrong = (value: unknown) => value as never
export const odd = [
  undefined,
  null,
  true,
  -1,
  0.5,
  NaN,
  Infinity,
  2 ** 53,
  'x',
  '',
  1n,
  Symbol('s'),
  {},
  [],
  [1],
  () => 1,
  new Uint8Array(3),
  new Float32Array(2),
  new Float64Array(2),
  new ArrayBuffer(8),
  new Date(),
  new Proxy({}, {}),
  /x/,
  new Array(4294967295)
]

/** Calls and awaits; the code it fails with, or undefined. Any other failure than an Error with a code is a bug. */
export async function codeOf(call: () => unknown): Promise<string | undefined> {
  try {
    await call()
    return undefined
  } catch (error) {
    expect(error).toBeInstanceOf(Error)
    expect((error as { code?: string }).code).toMatch(/^ERR_[A-Z_]+$/)
    expect((error as { code?: string }).code).not.toBe('ERR_INTERNAL')
    return (error as { code: string }).code
  }
}
