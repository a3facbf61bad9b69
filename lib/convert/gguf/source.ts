/** A GGUF as a source of weights, under the names that docs/gguf.md lists. */
import { type FileHandle, open } from 'node:fs/promises'
import { PaliGemmaError } from '../../base/errors'
import type { NativeMetadataValue } from '../../engine/native-gguf'
import { readStructure, type Structure } from '../../engine/structure'
import { memoryTensor, readFully, type SourceTensor, type WeightSource } from '../../formats/source'
import type { QuantizeRows } from '../stream'

export class GgufSource implements WeightSource {
  private constructor(
    readonly path: string,
    /** In file order. */
    readonly metadata: Structure['metadata'],
    readonly tensors: SourceTensor[],
    private readonly handles: ReadonlyMap<string, FileHandle>
  ) {}

  /** Reads header and metadata, of a split model of all parts; throws ERR_MODEL_NOT_FOUND or ERR_MODEL_INVALID. */
  static async open(path: string): Promise<GgufSource> {
    const gguf = await readStructure(path)
    const handles = new Map<string, FileHandle>()
    try {
      for (const { file } of gguf.tensors) if (!handles.has(file)) handles.set(file, await open(file, 'r'))
    } catch (error) {
      await closeAll(handles)
      throw error
    }
    const tensors = gguf.tensors.map(({ name, type, shape, offset, bytes, file }): SourceTensor => {
      const tensor = { name, file, type, shape, bytes }
      const handle = handles.get(file)!
      return {
        ...tensor,
        read: async (start, target) => {
          await readFully(handle, tensor, offset + start, target)
        }
      }
    })
    // Which parts there were says nothing about the whole.
    const metadata = gguf.metadata.filter(({ key }) => !key.startsWith('split.'))
    return new GgufSource(path, metadata, canonicalTensors(tensors), handles)
  }

  /** Every file that is read. */
  get files(): string[] {
    return [this.path, ...this.handles.keys()]
  }

  async close(): Promise<void> {
    await closeAll(this.handles)
  }

  value(key: string): NativeMetadataValue | undefined {
    return this.metadata.find((entry) => entry.key === key)?.value
  }

  get architecture(): string {
    const value = this.value('general.architecture')
    return typeof value === 'string' ? value : ''
  }

  /** A whole number from 1 to `most`; `fallback` where the key is missing. */
  integer(key: string, fallback?: number, most = Number.MAX_SAFE_INTEGER): number {
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
    if (number > most) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${this.path}: metadata key ${key} is ${number}, expected 1..${most}`
      )
    }
    return number
  }
}

async function closeAll(handles: ReadonlyMap<string, FileHandle>): Promise<void> {
  await Promise.all([...handles.values()].map(async (handle) => await handle.close()))
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
