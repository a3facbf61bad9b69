/** A small reader for the reference data. */
import { readFileSync } from 'node:fs'

export interface FloatTensor {
  shape: number[]
  data: Float32Array
}

/** F32 tensors of a safetensors file by name; others are left out. */
export function readSafetensors(path: string): Map<string, FloatTensor> {
  const file = readFileSync(path)
  const headerBytes = Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  const tensors = new Map<string, FloatTensor>()
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (dtype !== 'F32') continue
    const [begin, end] = data_offsets
    // copied: the data need not be aligned in the file
    const bytes = file.subarray(8 + headerBytes + begin, 8 + headerBytes + end)
    tensors.set(name, { shape, data: new Float32Array(Uint8Array.from(bytes).buffer) })
  }
  return tensors
}
