/** Typed arrays inside results, as JSON takes them: base64 instead of a number a line. */
import { PaliGemmaError } from './errors'
import { isFloat32Array, isInt8Array, isUint8Array } from './realms'

/** Little-endian bytes in base64, under the name of their type. */
export type ArrayJson = { float32: string } | { int8: string } | { uint8: string }

const kinds = { float32: Float32Array, int8: Int8Array, uint8: Uint8Array } as const
const isKind = { float32: isFloat32Array, int8: isInt8Array, uint8: isUint8Array }
type Kind = keyof typeof kinds
type Values = Float32Array | Int8Array | Uint8Array

function kindOf(value: unknown): Kind | undefined {
  return (Object.keys(kinds) as Kind[]).find((kind) => isKind[kind](value))
}

/**
 * The object, whose `toJSON` writes its typed arrays as base64. It is not enumerable: in loops, copies and comparisons
 * the object is a plain one.
 */
export function compactInJson<T extends object>(object: T): T {
  return Object.defineProperty(object, 'toJSON', { value: compactJson })
}

function compactJson(this: object): object {
  return Object.fromEntries(Object.entries(this).map(([name, value]) => [name, arrayJson(value)]))
}

/** A typed array as {@link ArrayJson}, anything else as it is. */
export function arrayJson(value: unknown): unknown {
  const kind = kindOf(value)
  if (!kind) return value
  const { buffer, byteOffset, byteLength } = value as Values
  return { [kind]: Buffer.from(buffer, byteOffset, byteLength).toString('base64') }
}

/** The array of an {@link ArrayJson}; undefined for anything else. */
export function reviveArray(value: object): Values | undefined {
  const [kind, ...others] = Object.keys(value)
  if (others.length > 0 || kind === undefined || !Object.hasOwn(kinds, kind)) return undefined
  const text = (value as Record<string, unknown>)[kind]
  if (typeof text !== 'string') return undefined
  const bytes = Buffer.from(text, 'base64')
  const Values = kinds[kind as Kind]
  if (bytes.length % Values.BYTES_PER_ELEMENT !== 0)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected whole ${kind} values in base64 but received ${bytes.length} bytes; the JSON was cut or changed`
    )
  // a copy: what Buffer gives may lie in a shared pool, at an odd address
  return new Values(new Uint8Array(bytes).buffer)
}
