/** A safetensors file of float32 tensors in memory. */

export interface FloatTensor {
  /** Outermost first. */
  shape: number[]
  /** Row-major. */
  data: Float32Array
}

/** `metadata`: texts that the header carries. */
export function safetensorsBytes(
  tensors: ReadonlyMap<string, FloatTensor>,
  metadata: Readonly<Record<string, string>> = {}
): Buffer {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt', ...metadata } }
  let end = 0
  for (const [name, { shape, data }] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [end, (end += data.byteLength)] }
  }
  const text = Buffer.from(JSON.stringify(header))
  // padded so that the values are aligned
  const start = 8 + Math.ceil(text.length / 8) * 8
  const bytes = Buffer.alloc(start + end, ' ')
  bytes.writeBigUInt64LE(BigInt(start - 8))
  text.copy(bytes, 8)
  let at = start
  for (const { data } of tensors.values()) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at)
    at += data.byteLength
  }
  return bytes
}
