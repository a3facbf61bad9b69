/** A GGUF as a source of weights, under the names that docs/gguf.md lists. */
import { type FileHandle, open } from 'node:fs/promises'
import { nativeCall, PaliGemmaError } from '../base/errors'
import { native, type NativeGguf, type NativeMetadataValue } from '../engine/native'
import { memoryTensor, readFully, type SourceTensor, type WeightSource } from './source'
import type { QuantizeRows } from './stream'

export class GgufSource implements WeightSource {
  private constructor(
    readonly path: string,
    /** In file order. */
    readonly metadata: NativeGguf['metadata'],
    readonly tensors: SourceTensor[],
    private readonly handle: FileHandle
  ) {}

  /** Reads header and metadata; throws ERR_MODEL_NOT_FOUND or ERR_MODEL_INVALID. */
  static async open(path: string): Promise<GgufSource> {
    const file = await nativeCall(() => native().inspect(path))
    const handle = await open(path, 'r')
    const tensors = file.tensors.map(({ name, type, shape, offset, bytes }): SourceTensor => {
      const tensor = { name, file: path, type, shape, bytes }
      return {
        ...tensor,
        read: async (start, target) => {
          await readFully(handle, tensor, offset + start, target)
        }
      }
    })
    return new GgufSource(path, file.metadata, canonicalTensors(tensors), handle)
  }

  async close(): Promise<void> {
    await this.handle.close()
  }

  value(key: string): NativeMetadataValue | undefined {
    return this.metadata.find((entry) => entry.key === key)?.value
  }

  get architecture(): string {
    const value = this.value('general.architecture')
    return typeof value === 'string' ? value : ''
  }

  /** A positive whole number, `fallback` where the key is missing. */
  integer(key: string, fallback?: number): number {
    const value = this.value(key) ?? fallback
    if (value === undefined)
      throw new PaliGemmaError('ERR_MODEL_INVALID', `${this.path}: metadata key ${key} is missing`)
    const number = typeof value === 'bigint' ? Number(value) : value
    if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < 1) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${this.path}: expected an integer >= 1 for metadata key ${key} but found ${String(value)}`
      )
    }
    return number
  }
}

/** Vision files of other tools name the projector differently, and older ones swap ffn_up and ffn_down: shapes tell. */
function canonicalTensors(tensors: SourceTensor[]): SourceTensor[] {
  const width = tensors.find(({ name }) => name === 'v.position_embd.weight')?.shape.at(-1)
  const swapped = new Set<string>()
  for (const { name, shape } of tensors) {
    const layer = /^(v\.blk\.\d+\.)ffn_up\.weight$/.exec(name)?.[1]
    // The input of ffn_up is as wide as the tower.
    if (layer !== undefined && shape[0] === width && shape[1] !== width) swapped.add(layer)
  }
  return tensors.map((tensor) => ({ ...tensor, name: canonicalName(tensor.name, swapped) }))
}

function canonicalName(name: string, swapped: ReadonlySet<string>): string {
  const [, layer, which, part] = /^(v\.blk\.\d+\.)(ffn_up|ffn_down)\.(weight|bias)$/.exec(name) ?? []
  if (layer !== undefined && swapped.has(layer)) return `${layer}${which === 'ffn_up' ? 'ffn_down' : 'ffn_up'}.${part}`
  return name.replace(/^mm\.input_projection\./, 'mm.0.')
}

/** All values of a tensor as float32; for small ones. */
export async function readFloats(tensor: SourceTensor, quantizeRows: QuantizeRows): Promise<Float32Array> {
  const bytes = new Uint8Array(tensor.bytes)
  await tensor.read(0, bytes)
  const values = tensor.type === 'F32' ? bytes : await quantizeRows(bytes, tensor.type, 'F32', tensor.shape.at(-1)!)
  return new Float32Array(Uint8Array.from(values).buffer)
}

/** The tensor times a number, as F32. */
export async function scaledTensor(
  tensor: SourceTensor,
  factor: number,
  quantizeRows: QuantizeRows
): Promise<SourceTensor> {
  const values = (await readFloats(tensor, quantizeRows)).map((value) => value * factor)
  return memoryTensor(tensor.name, tensor.shape, values)
}
