/** Looking into GGUF files. */
import type { PlainFloats } from '../base/plain-memory'
import { nativeCall } from '../base/errors'
import { checkReadable } from '../base/permission'
import { Turns } from '../base/turns'
import { resolveModel } from '../hub/resolve'
import { native } from '../engine/native'
import type { NativeMetadataArray, NativeMetadataValue } from '../engine/native-gguf'
import { readStructure } from '../engine/structure'
import { modelRule } from './options/options'
import { check, readOptions, rule, take, type Rules } from '../base/validate'

/** A metadata value; 64-bit integers beyond 2^53 are bigint. */
export type MetadataValue = number | bigint | boolean | string | MetadataValue[]

/** A key of a GGUF and what it says. */
export interface MetadataEntry {
  /** Its name, such as "general.architecture". */
  key: string
  /** GGUF's name: "uint32", "string", "array<string>", ... */
  type: string
  /** Of arrays an array, nested where the file's are. */
  value: MetadataValue
  /** Of arrays: how many there are; `value` may hold fewer (`maxArray`). */
  count?: number | undefined
}

/** A tensor of a GGUF. */
export interface TensorInfo {
  /** As the file has it: "blk.0.attn_q.weight". */
  name: string
  /** "F32", "Q4_K", ... */
  type: string
  /** Outermost dimension first. */
  shape: number[]
  /** In bytes from the start of the file. */
  offset: number
  /** Its size in the file. */
  bytes: number
}

function countParameters(tensors: readonly { name: string; shape: readonly number[] }[]): number {
  const own = tensors.filter(({ name }) => !name.startsWith('mask.'))
  return (own.length > 0 ? own : tensors)
    .map(({ shape }) => shape.reduce((product, size) => product * size, 1))
    .reduce((sum, count) => sum + count, 0)
}

/** What {@link inspectModel} finds. */
export interface ModelInfo {
  /** Of the file; of a pulled model, in the cache. */
  path: string
  /** Of the format: 2 or 3. */
  version: number
  /** Tensors begin at multiples of so many bytes. */
  alignment: number
  /** Size of the file. */
  bytes: number
  /** "gemma", "gemma2", "clip", ...; '' where the file does not say. */
  architecture: string
  /** Weights of the model; a mask decoder beside them is not counted, one alone is. */
  parameters: number
  /** The type that holds most bytes of weights; '' without tensors. */
  quantization: string
  /** In file order. */
  metadata: MetadataEntry[]
  /** In file order. */
  tensors: TensorInfo[]
}

/** Options of {@link inspectModel}. */
export interface InspectOptions {
  /** Values kept of each metadata array; default all. */
  maxArray?: number | undefined
}

const inspectRules: Rules<InspectOptions> = { maxArray: rule.integer(0) }

function single(value: NativeMetadataValue): MetadataValue {
  if (typeof value === 'bigint')
    return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
  return typeof value === 'object' ? value.values.map(single) : value
}

/** Long arrays in slices, and in place: they are nobody else's. */
async function toValue(value: NativeMetadataValue, turns: Turns): Promise<MetadataValue> {
  if (typeof value !== 'object') return single(value)
  const all = value.values as MetadataValue[]
  if (!['uint64', 'int64', 'array'].includes(value.arrayOf)) return all
  for (const [i, one] of value.values.entries()) {
    all[i] = single(one)
    if (i % 4096 === 0 && turns.due) await turns.next()
  }
  return all
}

function typeName(value: NativeMetadataArray): string {
  const first = value.values[0]
  return `array<${typeof first === 'object' ? typeName(first) : value.arrayOf}>`
}

/**
 * Metadata and tensors of a GGUF, or of a hub model that {@link pull} fetched; no weight is read.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID (field and byte offset), ERR_NATIVE_MISSING
 */
export async function inspectModel(path: string | URL, options: InspectOptions = {}): Promise<ModelInfo> {
  const source = take('path', path, modelRule)
  const { maxArray } = readOptions<InspectOptions>('inspectModel', options, inspectRules)
  const { path: resolved } = await resolveModel(source)
  const file = await readStructure(resolved, maxArray)
  const bytesOf = new Map<string, number>()
  for (const tensor of file.tensors) bytesOf.set(tensor.type, (bytesOf.get(tensor.type) ?? 0) + tensor.bytes)
  const turns = new Turns()
  const metadata: MetadataEntry[] = []
  for (const { key, type, value } of file.metadata) {
    const shown = { key, type: typeof value === 'object' ? typeName(value) : type, value: await toValue(value, turns) }
    metadata.push(typeof value === 'object' ? { ...shown, count: value.count } : shown)
  }
  const architecture = file.metadata.find((entry) => entry.key === 'general.architecture')?.value
  return {
    path: resolved,
    version: file.version,
    alignment: file.alignment,
    bytes: file.bytes,
    architecture: typeof architecture === 'string' ? architecture : '',
    parameters: countParameters(file.tensors),
    quantization: [...bytesOf].sort((a, b) => b[1] - a[1])[0]?.[0] ?? '',
    metadata,
    tensors: file.tensors.map(({ name, type, shape, offset, bytes }) => ({ name, type, shape, offset, bytes }))
  }
}

/**
 * One tensor as float32, row-major, its shape outermost dimension first; for tools and tests.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_INVALID_OPTION (no such tensor),
 * ERR_NATIVE_MISSING
 */
export async function dequantizeTensor(
  path: string | URL,
  name: string
): Promise<{ shape: number[]; data: PlainFloats }> {
  const file = take('path', path, rule.file) as string
  check('name', name, rule.name)
  await checkReadable(file)
  return await nativeCall(() => native().dequantizeTensor(file, name))
}
