/** GGUF v3: the header's bytes, and a file that appears under its name only when it is complete. */
import type { NativeMetadataArray, NativeMetadataValue } from '../engine/native-gguf'
import { Turns } from '../base/turns'
import { bytesOf, layoutOf } from './types'

export type MetadataValue =
  | { type: 'u32' | 'f32'; value: number }
  | { type: 'bool'; value: boolean }
  | { type: 'string'; value: string }
  | { type: 'strings'; value: string[] }
  | { type: 'f32s' | 'i32s'; value: number[] }
  /** As the engine's reader gave it, to be written as it was; `of` is GGUF's name of the type. */
  | { type: 'copy'; of: string; value: NativeMetadataValue }

export type Metadata = [key: string, value: MetadataValue][]

export interface GgufTensorInfo {
  name: string
  type: string /** Outermost first. */
  shape: number[]
}

export interface GgufLayout {
  /** Everything up to the first tensor, padded. */
  header: Buffer
  /** Bytes from the start of the file, one per tensor. */
  offsets: number[]
  /** Of the whole file. */
  bytes: number
}

const alignment = 32
const align = (n: number) => Math.ceil(n / alignment) * alignment
const typeIds = { u32: 4, f32: 6, bool: 7, string: 8, i32: 5, array: 9 }
/** GGUF's value types in the order of their ids. */
const valueTypes = [
  'uint8',
  'int8',
  'uint16',
  'int16',
  'uint32',
  'int32',
  'float32',
  'bool',
  'string',
  'array',
  'uint64',
  'int64',
  'float64'
]

export function tensorBytes(tensor: GgufTensorInfo): number {
  return bytesOf(
    tensor.type,
    tensor.shape.reduce((product, n) => product * n, 1)
  )
}

/**
 * Header and offsets of a file with these keys and tensors, in this order. In slices: vocabularies have 257 thousand
 * pieces.
 */
export async function layoutGguf(metadata: Metadata, tensors: GgufTensorInfo[]): Promise<GgufLayout> {
  const writer = new ByteWriter()
  writer.raw(Buffer.from('GGUF', 'latin1'))
  writer.u32(3)
  writer.u64(tensors.length)
  writer.u64(metadata.length)
  for (const [key, value] of metadata) {
    writer.string(key)
    await writeValue(writer, value)
  }
  const relative: number[] = []
  let next = 0
  for (const tensor of tensors) {
    writer.string(tensor.name)
    writer.u32(tensor.shape.length)
    for (const n of [...tensor.shape].reverse()) writer.u64(n)
    writer.u32(layoutOf(tensor.type).id)
    writer.u64(next)
    relative.push(next)
    next = align(next + tensorBytes(tensor))
  }
  const header = writer.finish(alignment)
  return { header, offsets: relative.map((offset) => header.length + offset), bytes: header.length + next }
}

async function writeValue(writer: ByteWriter, value: MetadataValue): Promise<void> {
  switch (value.type) {
    case 'u32':
      writer.u32(typeIds.u32)
      writer.u32(value.value)
      break
    case 'f32':
      writer.u32(typeIds.f32)
      writer.f32(value.value)
      break
    case 'bool':
      writer.u32(typeIds.bool)
      writer.u8(value.value ? 1 : 0)
      break
    case 'string':
      writer.u32(typeIds.string)
      writer.string(value.value)
      break
    case 'strings':
      writer.array(typeIds.string, value.value.length)
      await forEach(value.value, (text) => writer.string(text))
      break
    case 'f32s':
      writer.array(typeIds.f32, value.value.length)
      await forEach(value.value, (n) => writer.f32(n))
      break
    case 'i32s':
      writer.array(typeIds.i32, value.value.length)
      await forEach(value.value, (n) => writer.u32(n))
      break
    case 'copy':
      writer.u32(valueTypes.indexOf(value.of))
      await writeCopy(writer, value.of, value.value)
      break
  }
}

const sliceItems = 4096 // under 3 ms

async function forEach<T>(items: Iterable<T>, write: (item: T) => void): Promise<void> {
  const turns = new Turns()
  let n = 0
  for (const item of items) {
    write(item)
    if (++n % sliceItems === 0 && turns.due) await turns.next()
  }
}

async function writeCopy(writer: ByteWriter, type: string, value: NativeMetadataValue): Promise<void> {
  if (type !== 'array') return writeItem(writer, type, value)
  const { arrayOf, count, values } = value as NativeMetadataArray
  writer.u32(valueTypes.indexOf(arrayOf))
  writer.u64(count)
  if (arrayOf === 'array') for (const item of values) await writeCopy(writer, arrayOf, item)
  else await forEach(values, (item) => writeItem(writer, arrayOf, item))
}

function writeItem(writer: ByteWriter, type: string, value: NativeMetadataValue): void {
  if (type === 'string') writer.string(value as string)
  else if (type === 'bool') writer.u8(value ? 1 : 0)
  else writer.number(type, value as number | bigint)
}

/** Little-endian bytes, growing. */
class ByteWriter {
  private buffer = Buffer.alloc(1 << 16)
  private length = 0

  private reserve(bytes: number): number {
    const at = this.length
    this.length += bytes
    if (this.length > this.buffer.length) {
      const larger = Buffer.alloc(Math.max(this.length, this.buffer.length * 2))
      this.buffer.copy(larger, 0, 0, at)
      this.buffer = larger
    }
    return at
  }

  raw(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length)
    this.buffer.set(bytes, at)
  }
  u8(value: number): void {
    const at = this.reserve(1)
    this.buffer.writeUInt8(value, at)
  }
  u32(value: number): void {
    const at = this.reserve(4)
    this.buffer.writeUInt32LE(value, at)
  }
  u64(value: number): void {
    const at = this.reserve(8)
    this.buffer.writeUInt32LE(value % 2 ** 32, at)
    this.buffer.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4)
  }
  f32(value: number): void {
    const at = this.reserve(4)
    this.buffer.writeFloatLE(value, at)
  }
  number(type: string, value: number | bigint): void {
    switch (type) {
      case 'uint8':
        return this.u8(Number(value))
      case 'int8':
        return this.u8(Number(value) & 0xff)
      case 'uint16': {
        const at = this.reserve(2)
        this.buffer.writeUInt16LE(Number(value), at)
        return
      }
      case 'int16': {
        const at = this.reserve(2)
        this.buffer.writeInt16LE(Number(value), at)
        return
      }
      case 'uint32':
        return this.u32(Number(value))
      case 'int32': {
        const at = this.reserve(4)
        this.buffer.writeInt32LE(Number(value), at)
        return
      }
      case 'float32':
        return this.f32(Number(value))
      case 'uint64': {
        const at = this.reserve(8)
        this.buffer.writeBigUInt64LE(BigInt(value), at)
        return
      }
      case 'int64': {
        const at = this.reserve(8)
        this.buffer.writeBigInt64LE(BigInt(value), at)
        return
      }
      case 'float64': {
        const at = this.reserve(8)
        this.buffer.writeDoubleLE(Number(value), at)
        return
      }
      default:
        throw new Error(`no number type: ${type}`)
    }
  }

  string(text: string): void {
    const bytes = Buffer.byteLength(text)
    this.u64(bytes)
    const at = this.reserve(bytes)
    this.buffer.write(text, at, 'utf8')
  }

  array(elementType: number, count: number): void {
    this.u32(typeIds.array)
    this.u32(elementType)
    this.u64(count)
  }

  finish(multiple: number): Buffer {
    this.reserve((multiple - (this.length % multiple)) % multiple)
    return this.buffer.subarray(0, this.length)
  }
}
