/** Full-size models of random weights, for measuring speed and memory without a download. */
import { lstat, mkdir, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { OutputFile, removeStaleParts } from '../base/output-file'
import { layoutGguf, tensorBytes } from '../formats/gguf-writer'
import { modelMetadata } from '../convert/checkpoint/metadata'
import { expectedTensors } from '../convert/checkpoint/names'
import { planConversion, type PlannedTensor } from '../convert/checkpoint/plan'
import { parseFileType, storage, type StorageType } from '../formats/types'
import { nativeCall, PaliGemmaError } from '../base/errors'
import { native } from '../engine/native'
import { parseSize } from './sizes'
import { syntheticVocabulary } from './vocabulary'

export interface SyntheticOptions {
  /** One of {@link syntheticSizes}. */
  size: string
  /** As `convert --type`; decides every tensor's type by the same rules. */
  type: string
  /** Without tower and projector, as programs that know only text read it. */
  textOnly?: boolean | undefined
  /** Default: a folder of this user's in the system's temporary folder. */
  dir?: string | undefined
  /** 0..1 */
  onProgress?: ((fraction: number) => void) | undefined
  signal?: AbortSignal | undefined
}

export interface SyntheticModel {
  path: string
  bytes: number
  /** It was there already. */
  reused: boolean
}

// Part of the name: a file that an older version of the package wrote differently must not be taken for the same.
const revision = 1

/** Deviation of the weights: activations of Gemma's widths keep their size. */
const deviation = 0.02
const chunkValues = 1 << 20
const chunkCols = 4096
const writeBytes = 8 << 20

/**
 * Writes the model unless it is there. Its weights are random but every block is valid, so that it runs as a real one
 * does and says nonsense; the same options give the same bytes.
 *
 * @throws PaliGemmaError ERR_INVALID_OPTION, ERR_DISK_FULL, ERR_ACCESS_DENIED, ERR_WRITE_FAILED
 */
export async function syntheticModel(options: SyntheticOptions): Promise<SyntheticModel> {
  const size = parseSize(options.size)
  const type = parseFileType(options.type)
  const name = options.size.toLowerCase()
  const config = { ...size.config, name: `synthetic ${name}` }
  const dir = options.dir ?? (await ownFolder())
  const vocabulary = syntheticVocabulary(size.basePieces)
  // The converter plans the file as if a checkpoint of these sizes lay there.
  const source = expectedTensors(config, vocabulary.tokens.length).map(({ source, shape }) => ({
    name: source,
    file: '',
    type: 'F32',
    shape,
    bytes: 0,
    read: async () => {}
  }))
  const plan = planConversion(config, source, { dir: 'synthetic', type })
  const tensors = options.textOnly ? plan.tensors.filter(({ name }) => !/^(?:v|mm)\./.test(name)) : plan.tensors
  const layout = await layoutGguf(modelMetadata(config, plan, vocabulary, type), tensors)
  const path = join(dir, `${name}-${type.name}${options.textOnly ? '-text' : ''}-r${revision}.gguf`)
  if ((await sizeOf(path)) === layout.bytes) return { path, bytes: layout.bytes, reused: true }

  // Two processes may do this at the same time: each writes its own file, and the last one's stays.
  await removeStaleParts(path)
  const file = await OutputFile.create(path, { option: 'dir' })
  try {
    await file.truncate(layout.bytes)
    const noise = new Noise()
    await file.write(layout.header, 0)
    for (const [i, tensor] of tensors.entries()) {
      await writeTensor(file, tensor, layout.offsets[i]!, noise, options.signal)
      options.onProgress?.((layout.offsets[i]! + tensorBytes(tensor)) / layout.bytes)
    }
    await file.flush()
    options.signal?.throwIfAborted()
    await file.commit()
  } catch (error) {
    await file.discard()
    throw error
  }
  return { path, bytes: layout.bytes, reused: false }
}

async function sizeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size
}

/** In a temporary folder that all users share, nobody else may put files where we look for ours. */
async function ownFolder(): Promise<string> {
  const user = process.getuid?.()
  const dir = join(tmpdir(), `paligemma-synthetic${user === undefined ? '' : `-${user}`}`)
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const info = await lstat(dir)
  if (!info.isDirectory() || (user !== undefined && info.uid !== user)) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `${dir} belongs to somebody else; set TMPDIR to a folder of yours with some GB of space`
    )
  }
  return dir
}

async function writeTensor(
  file: OutputFile,
  tensor: PlannedTensor,
  offset: number,
  noise: Noise,
  signal?: AbortSignal
): Promise<void> {
  const bytes = tensorBytes(tensor)
  // Norms multiply by what is stored.
  const scales = tensor.plusOne || /\.(?:ln\d|post_ln)\.weight$/.test(`.${tensor.name}`)
  for (let done = 0; done < bytes; ) {
    signal?.throwIfAborted()
    const part = scales ? ones(bytes) : await noise.take(tensor.type as StorageType, Math.min(bytes - done, writeBytes))
    await file.write(part, offset + done)
    done += part.length
  }
}

function ones(bytes: number): Uint8Array {
  return new Uint8Array(new Float32Array(bytes / 4).fill(1).buffer)
}

/** One quantized chunk of normal noise per type, given out again and again from changing places. */
class Noise {
  private readonly random = randomNumbers(1)
  private readonly chunks = new Map<StorageType, { bytes: Buffer; period: number }>()

  /** `bytes` is a whole number of blocks, at most {@link writeBytes}. */
  async take(type: StorageType, bytes: number): Promise<Uint8Array> {
    let chunk = this.chunks.get(type)
    if (!chunk) {
      chunk = await this.make(type)
      this.chunks.set(type, chunk)
    }
    const block = storage[type].bytes
    const start = Math.floor(this.random() * (chunk.period / block)) * block
    return chunk.bytes.subarray(start, start + bytes - (bytes % block))
  }

  private async make(type: StorageType): Promise<{ bytes: Buffer; period: number }> {
    const values = new Float32Array(chunkValues)
    for (let i = 0; i < chunkValues; i += 2) {
      // Box and Muller
      const radius = deviation * Math.sqrt(-2 * Math.log(1 - this.random()))
      const angle = 2 * Math.PI * this.random()
      values[i] = radius * Math.cos(angle)
      values[i + 1] = radius * Math.sin(angle)
    }
    const plain = new Uint8Array(values.buffer)
    const once = type === 'F32' ? plain : await nativeCall(() => native().quantizeRows(plain, 'F32', type, chunkCols))
    const bytes = Buffer.alloc(writeBytes + once.length)
    for (let at = 0; at < bytes.length; at += once.length) bytes.set(once.subarray(0, bytes.length - at), at)
    return { bytes, period: once.length }
  }
}

/** Mulberry32: 0 <= x < 1, the same on every machine. */
function randomNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
