/** A second, independent reader of what convert writes, and checkpoints to break. */
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface TestTensor {
  name: string
  type: number
  shape: number[]
  offset: number
  bytes: Buffer
}
export interface TestGguf {
  metadata: Map<string, unknown>
  tensors: Map<string, TestTensor>
  order: string[]
}

const typeBytes: Record<number, [block: number, bytes: number]> = {
  0: [1, 4],
  1: [1, 2],
  30: [1, 2],
  2: [32, 18],
  3: [32, 20],
  6: [32, 22],
  7: [32, 24],
  8: [32, 34],
  20: [32, 18],
  10: [256, 84],
  11: [256, 110],
  12: [256, 144],
  13: [256, 176],
  14: [256, 210],
  23: [256, 136]
}

export function readGguf(path: string): TestGguf {
  const data = readFileSync(path)
  let at = 0
  const u32 = () => {
    at += 4
    return data.readUInt32LE(at - 4)
  }
  const u64 = () => {
    at += 8
    return Number(data.readBigUInt64LE(at - 8))
  }
  const text = () => {
    const n = u64()
    at += n
    return data.toString('utf8', at - n, at)
  }
  const value = (type: number): unknown => {
    if (type === 4) return u32()
    if (type === 5) {
      at += 4
      return data.readInt32LE(at - 4)
    }
    if (type === 6) {
      at += 4
      return data.readFloatLE(at - 4)
    }
    if (type === 7) {
      at += 1
      return data[at - 1] === 1
    }
    if (type === 8) return text()
    if (type === 9) {
      const of = u32()
      const n = u64()
      return Array.from({ length: n }, () => value(of))
    }
    throw new Error(`unexpected metadata type ${type}`)
  }
  if (data.toString('latin1', 0, 4) !== 'GGUF') throw new Error('no GGUF')
  at = 4
  if (u32() !== 3) throw new Error('not version 3')
  const tensorCount = u64()
  const keyCount = u64()
  const metadata = new Map<string, unknown>()
  for (let i = 0; i < keyCount; i++) {
    const key = text()
    metadata.set(key, value(u32()))
  }
  const infos = Array.from({ length: tensorCount }, () => {
    const name = text()
    const shape = Array.from({ length: u32() }, u64).reverse()
    return { name, shape, type: u32(), offset: u64() }
  })
  const start = Math.ceil(at / 32) * 32
  const tensors = new Map<string, TestTensor>()
  for (const info of infos) {
    const [block, bytes] = typeBytes[info.type]!
    const size = (info.shape.reduce((a, b) => a * b, 1) / block) * bytes
    tensors.set(info.name, { ...info, bytes: data.subarray(start + info.offset, start + info.offset + size) })
  }
  return { metadata, tensors, order: infos.map((info) => info.name) }
}

function floats(bytes: Buffer): Float32Array {
  return new Float32Array(new Uint8Array(bytes).buffer)
}

export interface TestCheckpoint {
  header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>
  data: Buffer
}

export function readSafetensors(path: string): TestCheckpoint {
  const file = readFileSync(path)
  const length = Number(file.readBigUInt64LE())
  return { header: JSON.parse(file.toString('utf8', 8, 8 + length)), data: file.subarray(8 + length) }
}

export function writeSafetensors(path: string, { header, data }: TestCheckpoint): void {
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  writeFileSync(path, Buffer.concat([length, json, data]))
}

/** The values of a tensor of a model directory, widened to float32. */
export function sourceFloats(dir: string, name: string): Float32Array {
  for (const file of readdirSync(dir).filter((entry) => /^model.*\.safetensors$/.test(entry))) {
    const { header, data } = readSafetensors(join(dir, file))
    const entry = header[name]
    if (!entry) continue
    const bytes = data.subarray(entry.data_offsets[0], entry.data_offsets[1])
    return entry.dtype === 'F32' ? floats(bytes) : widenBf16(bytes)
  }
  throw new Error(`${dir} has no tensor ${name}`)
}

export function widenBf16(bytes: Uint8Array): Float32Array {
  const half = new Uint16Array(new Uint8Array(bytes).buffer)
  return new Float32Array(Uint32Array.from(half, (bits) => bits << 16).buffer)
}

const folders: string[] = []

export function tempDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'paligemma-convert-'))
  folders.push(dir)
  return dir
}

export function removeTempDirs(): void {
  for (const dir of folders.splice(0)) rmSync(dir, { recursive: true, force: true })
}

/** A writable copy of a checkpoint's files (not of its expected values). */
export function copyCheckpoint(from: string): string {
  const to = join(tempDir(), 'model')
  mkdirSync(to)
  for (const name of readdirSync(from)) {
    if (name.startsWith('expected') || !statSync(join(from, name)).isFile()) continue
    writeFileSync(join(to, name), readFileSync(join(from, name)))
  }
  return to
}

/** A change to the single weights file of a copied checkpoint. */
export function edit(dir: string, change: (checkpoint: TestCheckpoint) => void): void {
  const path = join(dir, 'model.safetensors')
  const checkpoint = readSafetensors(path)
  change(checkpoint)
  writeSafetensors(path, checkpoint)
}

export function editJson(dir: string, name: string, change: (json: any) => void): void {
  const path = join(dir, name)
  const json = JSON.parse(readFileSync(path, 'utf8'))
  change(json)
  writeFileSync(path, JSON.stringify(json))
}
