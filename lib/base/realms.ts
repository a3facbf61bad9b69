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
