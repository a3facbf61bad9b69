/**
 * What a value is, whoever's constructor made it: test runners, plugins and Electron contexts bring typed arrays, URLs
 * and errors of other realms, which are no `instanceof` ours.
 */
import { types } from 'node:util'

export const {
  isUint8Array,
  isUint8ClampedArray,
  isInt8Array,
  isFloat32Array,
  isDataView,
  isAnyArrayBuffer,
  isRegExp
} = types

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

const valuesElsewhere: ((value: unknown) => boolean)[] = [
  Array.isArray,
  ArrayBuffer.isView,
  isAnyArrayBuffer,
  types.isMap,
  types.isSet,
  types.isPromise,
  types.isDate,
  isRegExp
]

/**
 * An object whose own properties are what it says. Those of bytes are millions of numbers, and a Map or a promise has
 * none: what it holds would be ignored.
 */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return isObject(value) && !valuesElsewhere.some((is) => is(value))
}

/** A copy of such an object; anything else comes back as it is, to be refused. */
export function copyRecord(value: unknown): unknown {
  return isRecord(value) ? { ...value } : value
}

export function isError(value: unknown): value is Error {
  return value instanceof Error || types.isNativeError(value)
}

export function isUrl(value: unknown): value is URL {
  try {
    return isObject(value) && typeof value.href === 'string' && typeof value.protocol === 'string'
  } catch {
    return false // it cannot be read
  }
}
