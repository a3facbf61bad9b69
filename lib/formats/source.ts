/** Where weights come from: what safetensors, npz archives and GGUFs have in common for the rest of the converter. */
import type { FileHandle } from 'node:fs/promises'
import { PaliGemmaError } from '../base/errors'

export interface SourceTensor {
  name: string
  file: string
  /** As GGUF spells it: "F32", "BF16", "Q4_K", ...; safetensors may hold others, which the plan refuses. */
  type: string
  /** Outermost first. */
  shape: number[]
  bytes: number
  /** Fills `target` with the tensor's bytes from `start` on. Both are whole rows (of the last dimension). */
  read(start: number, target: Uint8Array): Promise<void>
}

/** An open checkpoint. */
export interface WeightSource {
  readonly tensors: SourceTensor[]
  close(): Promise<void>
}

/** Values at hand as a tensor. */
export function memoryTensor(name: string, shape: number[], data: Float32Array): SourceTensor {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  return {
    name,
    file: '',
    type: 'F32',
    shape,
    bytes: bytes.length,
    async read(start, target) {
      target.set(bytes.subarray(start, start + target.length))
    }
  }
}

/** Plain values as float32, exactly; `type`: F32, F16 or BF16. */
export function toFloat32(bytes: Uint8Array, type: string): Float32Array {
  const source = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const result = new Float32Array(bytes.length / (type === 'F32' ? 4 : 2))
  const bits = new Uint32Array(result.buffer)
  for (let i = 0; i < result.length; i++) {
    if (type === 'F32') result[i] = source.getFloat32(i * 4, true)
    else if (type === 'BF16') bits[i] = source.getUint16(i * 2, true) << 16
    else result[i] = fromHalf(source.getUint16(i * 2, true))
  }
  return result
}

function fromHalf(half: number): number {
  const exponent = (half >> 10) & 31
  const fraction = half & 1023
  const sign = half >> 15 ? -1 : 1
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
}

/** Fills `target` from `position` of a file; `tensor` for the error where the file ends first. */
export async function readFully(
  handle: FileHandle,
  tensor: { name: string; file: string },
  position: number,
  target: Uint8Array
): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await handle.read(target, done, target.length - done, position + done)
    if (bytesRead === 0) {
      throw new PaliGemmaError(
        'ERR_MODEL_CHANGED',
        `${tensor.file}: ends inside tensor ${tensor.name}; it changed while it was read, or it is damaged`
      )
    }
    done += bytesRead
  }
}

/** A list for a message: the first few, and how many more. */
export function someOf(names: string[], most = 8): string {
  const shown = names.slice(0, most).join(', ')
  return names.length > most ? `${shown} and ${names.length - most} more` : shown
}
