/** A Hugging Face PaliGemma directory to one GGUF. */
import { stat } from 'node:fs/promises'
import { PaliGemmaError, nativeCall } from '../errors'
import { readMaskTensors } from '../mask-decoder'
import { native } from '../native'
import { readConfig } from './config'
import { layoutGguf, PartFile, tensorBytes } from './gguf-writer'
import { modelMetadata } from './metadata'
import { type Plan, planConversion, tiedHead } from './plan'
import { Safetensors } from './safetensors'
import type { SourceTensor } from './source'
import { readVocabulary } from './sentencepiece'
import { type QuantizeRows, streamTensors } from './stream'
import { fileTypeNames, parseFileType, parseVisionType } from './types'

export { fileTypeNames }

export interface ConvertOptions {
  /** A Hugging Face model directory: config.json, tokenizer.model and safetensors weights, in one file or in shards. */
  source: string
  /** The GGUF to write; replaced if it exists. It appears only when it is complete. */
  out: string
  /** See {@link fileTypeNames}, in any case; default Q8_0. */
  type?: string | undefined
  /** Type of SigLIP's matrices and the projector; default Q8_0 in quantized files, else `type`. */
  visionType?: string | undefined
  /** `vae-oid.npz`: its decoder goes into the file, so that `segment` works without it. */
  maskDecoder?: string | undefined
  /** 0..1 */
  onProgress?: ((fraction: number) => void) | undefined
  /** Rejects with the signal's reason; nothing is left on the disk. */
  signal?: AbortSignal | undefined
}

export interface ConvertResult {
  path: string
  /** Of the file. */
  bytes: number
  type: string
  tensors: number
  parameters: number
  /** What is worth knowing: types that had to be replaced, padding. */
  notes: string[]
}

/** What tests replace: the addon's row conversion and its reader. */
export interface ConvertHooks {
  quantizeRows?: QuantizeRows
  verify?: boolean
}

/**
 * Converts a checkpoint. Memory stays under 400 MB whatever the model's size.
 *
 * @throws {PaliGemmaError} `ERR_INVALID_OPTION`, `ERR_MODEL_NOT_FOUND` (a file is missing), `ERR_MODEL_INVALID` (a file
 * is damaged, or weights and config do not fit), `ERR_MODEL_UNSUPPORTED` (no PaliGemma); system errors of the disk as they are.
 */
export async function convert (options: ConvertOptions, hooks: ConvertHooks = {}): Promise<ConvertResult> {
  const type = parseFileType(options.type ?? 'Q8_0')
  const visionType = options.visionType === undefined ? undefined : parseVisionType(options.visionType)
  for (const name of ['source', 'out'] as const) {
    if (typeof options[name] !== 'string' || options[name] === '') {
      throw new PaliGemmaError('ERR_INVALID_OPTION', `Expected a path for ${name} but received ${String(options[name])}`)
    }
  }
  options.signal?.throwIfAborted()
  await checkSource(options.source)

  const config = await readConfig(options.source)
  const mask = options.maskDecoder === undefined ? undefined : await readMaskTensors(options.maskDecoder)
  const source = await Safetensors.open(options.source)
  try {
    const plan = planConversion(config, source.tensors, { dir: options.source, type, visionType, mask })
    await checkTiedHead(source.tensors, options.source)
    const vocabulary = await readVocabulary(options.source, plan.vocab, config.imageTokenId)
    const layout = layoutGguf(modelMetadata(config, plan, vocabulary, type),
      plan.tensors.map(({ name, type, shape }) => ({ name, type, shape })))
    const file = await PartFile.create(options.out, layout.bytes)
    try {
      await file.write(layout.header, 0)
      await streamTensors(plan.tensors, layout.offsets, file, { ...options, ...hooks })
      await file.flush()
      if (hooks.verify !== false) await verify(file.part, plan, layout.offsets, mask !== undefined)
      options.signal?.throwIfAborted()
      await file.commit()
    } catch (error) {
      await file.discard()
      throw error
    }
    return { path: options.out, bytes: layout.bytes, type: type.name, tensors: plan.tensors.length, parameters: countParameters(plan), notes: plan.notes }
  } finally {
    await source.close()
  }
}

async function checkSource (source: string): Promise<void> {
  const info = await stat(source).catch((cause: NodeJS.ErrnoException) => {
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${source} cannot be read: ${cause.message}`, { cause })
  })
  if (!info.isDirectory()) {
    throw new PaliGemmaError('ERR_MODEL_UNSUPPORTED',
      `${source} is a file; convert reads a Hugging Face model directory (config.json, tokenizer.model, *.safetensors)`)
  }
}

/** An LM head that is not the embedding would be lost: compare the two at 64 places before leaving it out. */
async function checkTiedHead (tensors: readonly SourceTensor[], dir: string): Promise<void> {
  const pair = tiedHead(tensors)
  if (!pair) return
  const { head, embedding } = pair
  const untied = (why: string) => new PaliGemmaError('ERR_MODEL_UNSUPPORTED',
    `${dir}: ${head.name} ${why} ${embedding.name}, but PaliGemma's LM head is its embedding`)
  if (head.type !== embedding.type || head.bytes !== embedding.bytes) throw untied('has another type or shape than')
  const places = 64
  const size = Math.min(1 << 16, head.bytes)
  const [a, b] = [Buffer.alloc(size), Buffer.alloc(size)]
  for (let i = 0; i < places; i++) {
    const start = Math.floor((head.bytes - size) * i / (places - 1))
    await Promise.all([head.read(start, a), embedding.read(start, b)])
    if (!a.equals(b)) throw untied('differs from')
    if (size === head.bytes) break
  }
}

/** The engine's own reader must see what was planned. */
async function verify (path: string, plan: Plan, offsets: number[], withMask: boolean): Promise<void> {
  const seen = await nativeCall(() => native().inspect(path, 0))
  const same = seen.tensors.length === plan.tensors.length && plan.tensors.every((tensor, i) => {
    const other = seen.tensors[i]!
    return other.name === tensor.name && other.type === tensor.type && other.offset === offsets[i] && other.bytes === tensorBytes(tensor)
  })
  if (!same) throw new PaliGemmaError('ERR_INTERNAL', `${path}: the file does not read back as it was written; please report this`)
  if (withMask) await nativeCall(() => native().openMaskDecoder(path))
}

/** Weights of the model as published: without padding. */
function countParameters (plan: Plan): number {
  return plan.tensors.reduce((sum, tensor) => sum + tensor.rows * tensor.cols, 0)
}
