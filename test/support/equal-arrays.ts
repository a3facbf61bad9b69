/** vitest walks typed arrays value by value, a second for a small embedding: equal bytes need no such walk. */
import { isDeepStrictEqual } from 'node:util'
import { expect } from 'vitest'

function sameTypedArray(one: unknown, other: unknown): true | undefined {
  const typed = ArrayBuffer.isView(one) && ArrayBuffer.isView(other) && one.byteLength > 4096
  // not equal: vitest finds where, and says it better
  return typed && isDeepStrictEqual(one, other) ? true : undefined
}

expect.addEqualityTesters([sameTypedArray])
