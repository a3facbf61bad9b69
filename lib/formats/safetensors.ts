/** Safetensors files: headers checked against the file, weights read a range at a time. */
import { type FileHandle, open, readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { isObject, readJson } from './fields'
import { readFully, someOf, type SourceTensor, type WeightSource } from './source'

/** A tensor where it lies in its file. */
interface FileTensor extends Omit<SourceTensor, 'read'> {
  /** Bytes from the start of the file. */
  offset: number
}

// What the format's own library accepts.
const maxHeaderBytes = 100_000_000
const elementBytes: Record<string, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  // Read so that what they belong to can be named: none of them holds weights that could be converted.
  F8_E8M0: 1,
  F8_E4M3FNUZ: 1,
  F8_E5M2FNUZ: 1,
  F4: 0.5,
  F6_E2M3: 0.75,
  F6_E3M2: 0.75,
  C64: 8
}

/** The weights of a model directory, open for reading. */
export class Safetensors implements WeightSource {
  readonly tensors: SourceTensor[] = []
  /** Texts that the headers carry. */
  readonly metadata: Record<string, unknown> = {}
  private readonly handles = new Map<string, FileHandle>()

  private constructor() {}

  /** Opens `model.safetensors`, else the shards that `model.safetensors.index.json` lists, and checks every header. */
  static async open(dir: string): Promise<Safetensors> {
    const files = await weightFiles(dir)
    return await Safetensors.openFiles([...files.keys()], (file, tensors) =>
      checkIndex(dir, file, tensors, files.get(file))
    )
  }

  /** Opens these files and checks every header. */
  static async openFiles(files: string[], check?: (file: string, tensors: FileTensor[]) => void): Promise<Safetensors> {
    const source = new Safetensors()
    try {
      for (const file of files) {
        const tensors = await source.openFile(file)
        check?.(file, tensors)
        const handle = source.handles.get(file)!
        source.tensors.push(
          ...tensors.map((tensor) =>
            single({
              ...tensor,
              read: async (start, target) => {
                await readFully(handle, tensor, tensor.offset + start, target)
              }
            })
          )
        )
      }
    } catch (error) {
      await source.close()
      throw error
    }
    return source
  }

  async close(): Promise<void> {
    await Promise.all([...this.handles.values()].map((handle) => handle.close()))
    this.handles.clear()
  }

  private async openFile(file: string): Promise<FileTensor[]> {
    let handle: FileHandle
    try {
      handle = await open(file, 'r')
    } catch (cause) {
      const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
      throw new PaliGemmaError(
        'ERR_MODEL_NOT_FOUND',
        missing
          ? `${file} does not exist; download all files of the model`
          : `${file} cannot be read: ${(cause as Error).message}`,
        { cause }
      )
    }
    this.handles.set(file, handle)
    const { size } = await handle.stat()
    const start = Buffer.alloc(8)
    if (size < 8 || (await handle.read(start, 0, 8, 0)).bytesRead < 8)
      invalid(file, `has ${size} bytes, too few for a safetensors file`)
    if (start.toString('latin1').startsWith('version ')) {
      invalid(file, 'is a git-lfs pointer, not the weights; run "git lfs pull" or download the file itself')
    }
    const length = start.readBigUInt64LE()
    if (length > BigInt(Math.min(maxHeaderBytes, size - 8))) {
      invalid(
        file,
        `states a header of ${length} bytes at byte 0 but has ${size} bytes; it is truncated or no safetensors file`
      )
    }
    const header = Buffer.alloc(Number(length))
    await handle.read(header, 0, header.length, 8)
    const { tensors, metadata } = parseHeader(file, header, size)
    if (isObject(metadata)) Object.assign(this.metadata, metadata)
    return tensors
  }
}

/** Double precision is read as single, which every model computes in; what is beyond it becomes infinite. */
function single(tensor: SourceTensor): SourceTensor {
  if (tensor.type !== 'F64') return tensor
  return {
    ...tensor,
    type: 'F32',
    bytes: tensor.bytes / 2,
    read: async (start, target) => {
      const doubles = Buffer.alloc(target.length * 2)
      await tensor.read(start * 2, doubles)
      const values = new DataView(target.buffer, target.byteOffset, target.length)
      for (let i = 0; i < target.length; i += 4) values.setFloat32(i, doubles.readDoubleLE(i * 2), true)
    }
  }
}

/** Which files hold the weights; with an index, the names each of them must hold. */
async function weightFiles(dir: string): Promise<Map<string, Set<string> | undefined>> {
  // As transformers chooses: an index beside a whole file is what an earlier, sharded save left.
  const single = join(dir, 'model.safetensors')
  if (await exists(single)) return new Map([[single, undefined]])
  const indexFile = join(dir, 'model.safetensors.index.json')
  const index = await readJson(indexFile, true)
  if (index) {
    const files = new Map<string, Set<string>>()
    for (const [name, file] of Object.entries(index.object('weight_map').values)) {
      if (typeof file !== 'string' || file === '' || basename(file) !== file || file.includes('\\')) {
        invalid(indexFile, `weight_map names ${JSON.stringify(file)} for ${name}, which is no file name`)
      }
      const path = join(dir, file)
      files.set(path, (files.get(path) ?? new Set()).add(name))
    }
    if (files.size === 0) invalid(indexFile, 'has an empty weight_map')
    return files
  }
  const names = await readdir(dir)
  const help = names.includes('adapter_model.safetensors')
    ? 'it is a LoRA adapter; convert the base model with --adapter'
    : names.some((name) => name.endsWith('.npz'))
      ? `to convert an npz checkpoint, name the file itself: ${names.find((name) => name.endsWith('.npz'))}`
      : names.some((name) => /^pytorch_model.*\.bin$/.test(name))
        ? 'pickled weights are not read; save the model with safe_serialization'
        : 'download all files of the model'
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${dir} has neither model.safetensors nor model.safetensors.index.json; ${help}`
  )
}

function checkIndex(dir: string, file: string, tensors: FileTensor[], listed: Set<string> | undefined): void {
  if (!listed) return
  const present = new Set(tensors.map((tensor) => tensor.name))
  const lacking = [...listed].filter((name) => !present.has(name))
  if (lacking.length > 0) {
    invalid(file, `lacks ${someOf(lacking)}, which ${join(dir, 'model.safetensors.index.json')} places there`)
  }
}

function parseHeader(file: string, header: Buffer, size: number): { tensors: FileTensor[]; metadata: unknown } {
  let json: unknown
  try {
    json = JSON.parse(header.toString('utf8'))
  } catch (cause) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${file}: the header at byte 8 is not valid JSON: ${(cause as Error).message}`,
      { cause }
    )
  }
  if (!isObject(json)) invalid(file, 'the header at byte 8 is not a JSON object')
  const dataStart = 8 + header.length
  const tensors: FileTensor[] = []
  for (const [name, entry] of Object.entries(json)) {
    if (name !== '__metadata__') tensors.push(parseEntry(file, name, entry, dataStart, size))
  }
  const ordered = [...tensors].sort((a, b) => a.offset - b.offset)
  for (const [i, tensor] of ordered.entries()) {
    const next = ordered[i + 1]
    if (next && next.offset < tensor.offset + tensor.bytes)
      invalid(file, `tensors ${tensor.name} and ${next.name} overlap at byte ${next.offset}`)
  }
  return { tensors, metadata: json['__metadata__'] }
}

function parseEntry(file: string, name: string, entry: unknown, dataStart: number, size: number): FileTensor {
  const wrong = (what: string): never => invalid(file, `tensor ${name}: ${what}`)
  if (!isObject(entry)) return wrong('its header entry is not an object')
  const { dtype, shape, data_offsets: offsets } = entry
  const width = typeof dtype === 'string' ? elementBytes[dtype] : undefined
  if (width === undefined) return wrong(`has the unknown type ${JSON.stringify(dtype)}`)
  if (!isCounts(shape)) return wrong(`has the shape ${JSON.stringify(shape)}`)
  if (!isCounts(offsets) || offsets.length !== 2) return wrong(`has the data_offsets ${JSON.stringify(offsets)}`)
  const [begin, end] = offsets as [number, number]
  const bytes = shape.reduce((product, n) => product * n, width)
  if (end - begin !== bytes)
    return wrong(`takes ${end - begin} bytes, but ${String(dtype)} [${shape.join(', ')}] needs ${bytes}`)
  if (dataStart + end > size) {
    return wrong(`ends at byte ${dataStart + end} of ${size}; the file is truncated, download it again`)
  }
  return { name, file, type: dtype as string, shape, offset: dataStart + begin, bytes }
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => typeof n === 'number' && Number.isSafeInteger(n) && n >= 0)
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false
  )
}

function invalid(file: string, what: string): never {
  throw new PaliGemmaError('ERR_MODEL_INVALID', `${file}: ${what}`)
}
