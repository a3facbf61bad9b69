/** What becomes of GGUFs: merged into one file, stored in other types, or both. */
import { PaliGemmaError } from '../../base/errors'
import type { GgufSource } from './source'
import { modelLimits } from '../checkpoint/limits'
import type { Metadata, MetadataValue } from '../../formats/gguf-writer'
import {
  expectedTensors,
  type ExpectedTensor,
  ggufRole,
  type ModelShape,
  retrievalTensors,
  type TensorRole
} from '../checkpoint/names'
import { checkTensors, type PlannedTensor, visionFfnMultiple } from '../checkpoint/plan'
import type { SourceTensor } from '../../formats/source'
import { bitsOf, type FileType, holdsWeights, isBlockType, type StorageType } from '../../formats/types'
import { defaultVisionType, type TypeContext, TypeChooser } from '../checkpoint/type-choice'

export interface GgufPlan {
  metadata: Metadata
  tensors: PlannedTensor[]
  notes: string[]
}

export interface GgufPlanOptions {
  /** Missing: every tensor keeps its type. */
  type?: FileType | undefined
  /** Missing: follows `type`. */
  visionType?: StorageType | undefined
}

const textArchitectures = ['gemma', 'gemma2']

/** Which of one or two files is which; errors name what is wrong with them. */
export function pairGgufs(files: GgufSource[]): { text: GgufSource; vision?: GgufSource } {
  const text = files.filter((file) => textArchitectures.includes(file.architecture))
  const vision = files.filter((file) => file.architecture === 'clip')
  const other = files.find((file) => !text.includes(file) && !vision.includes(file))
  if (other) {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${other.path}: architecture "${other.architecture}" is not PaliGemma's (gemma, gemma2, clip)`
    )
  }
  if (text.length !== 1 || vision.length !== files.length - 1) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected one text GGUF and its vision GGUF for source but received ' +
        `${files.map((file) => `${file.path} (${file.architecture})`).join(' and ')}`
    )
  }
  return { text: text[0]!, ...(vision[0] ? { vision: vision[0] } : {}) }
}

export interface GgufTensors {
  tensors: SourceTensor[]
  expected: ExpectedTensor[]
  /** An LM head beside the embedding: it may only be left out if it is a copy. */
  head?: SourceTensor
  /** Factors of the rotary frequencies; they may only be left out if all are 1. */
  ropeFactors?: SourceTensor
}

/**
 * All tensors of a PaliGemma in one or two files, in the order that converted files have; an error lists what is
 * missing, unknown, twice there or of a wrong shape.
 */
export function modelTensors(text: GgufSource, vision: GgufSource | undefined): GgufTensors {
  const where = vision ? `${text.path} and ${vision.path}` : text.path
  const found = new Map<string, SourceTensor>()
  const twice: string[] = []
  const extra: SourceTensor[] = []
  for (const tensor of [...text.tensors, ...(vision?.tensors ?? [])]) {
    if (found.has(tensor.name)) twice.push(tensor.name)
    found.set(tensor.name, tensor)
    if (tensor.name.startsWith('mask.')) extra.push(tensor)
  }
  if (twice.length > 0)
    throw new PaliGemmaError('ERR_MODEL_INVALID', `${where}: the same tensor is there twice: ${twice.join(', ')}`)
  if (!found.has('v.patch_embd.weight')) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${where} has no vision tensors; give the vision GGUF ("mmproj") as well`
    )
  }
  for (const { name } of extra) found.delete(name)
  const [head, ropeFactors] = ['output.weight', 'rope_freqs.weight'].map((name) => found.get(name))
  for (const name of [...found.keys()])
    if (/^(?:output\.weight|rope_freqs\.weight|v\.position_ids)$|^v\.head\./.test(name)) found.delete(name)
  const shape = shapeOf(text, vision ?? text)
  const expected = expectedTensors(shape, found.get('token_embd.weight')?.shape[0] ?? 0)
  const retrieval = found.get('retrieval.proj.weight')
  if (retrieval) expected.push(...retrievalTensors(shape, retrieval.shape[0] ?? 0))
  const named = expected.map((tensor) => ({ ...tensor, source: tensor.gguf }))
  checkTensors(where, 'the metadata', named, found, (name) => name)
  return {
    tensors: [...named.map(({ source }) => found.get(source)!), ...extra],
    expected,
    ...(head && { head }),
    ...(ropeFactors && { ropeFactors })
  }
}

function shapeOf(text: GgufSource, vision: GgufSource): ModelShape {
  const arch = text.architecture
  const key = (name: string, most: number, fallback?: number) => text.integer(`${arch}.${name}`, fallback, most)
  const clip = (name: string, most: number) => vision.integer(`clip.vision.${name}`, undefined, most)
  const heads = key('attention.head_count', modelLimits.heads)
  return {
    text: {
      architecture: arch as 'gemma' | 'gemma2',
      hidden: key('embedding_length', modelLimits.width),
      ffn: key('feed_forward_length', modelLimits.width),
      layers: key('block_count', modelLimits.layers),
      heads,
      kvHeads: key('attention.head_count_kv', modelLimits.heads, heads),
      headDim: key('attention.key_length', modelLimits.headDim, 256)
    },
    vision: {
      hidden: clip('embedding_length', modelLimits.width),
      ffn: clip('feed_forward_length', modelLimits.width),
      layers: clip('block_count', modelLimits.layers),
      patchSize: clip('patch_size', modelLimits.patch),
      tokens: Math.floor(clip('image_size', modelLimits.imageSize) / clip('patch_size', modelLimits.patch)) ** 2
    }
  }
}

/** What decides the tensors' types; undefined where they stay as they are. */
function typeContext(main: GgufSource, options: GgufPlanOptions): TypeContext | undefined {
  const { type } = options
  const arch = main.architecture
  const clip = arch === 'clip'
  const layers = clip ? 0 : main.integer(`${arch}.block_count`, 1, modelLimits.layers)
  const heads = clip ? 1 : main.integer(`${arch}.attention.head_count`, 1, modelLimits.heads)
  if (!type) return undefined
  const kvHeads = clip ? 1 : main.integer(`${arch}.attention.head_count_kv`, heads, modelLimits.heads)
  return { type, visionType: options.visionType ?? defaultVisionType(type), layers, heads, kvHeads }
}

/** SigLIP's feed-forward as wide as blocks want it; undefined: as it is. */
function paddedShape(shape: number[], role: TensorRole, visionFfn: number | undefined): number[] {
  if (visionFfn === undefined) return shape
  const cols = shape.at(-1)!
  if (role === 'visionFfnUp') return [visionFfn, cols]
  if (role === 'visionFfnDown') return [shape.reduce((product, n) => product * n, 1) / cols, visionFfn]
  return role === 'visionFfnBias' ? [visionFfn] : shape
}

/**
 * Types and shapes of tensors that come from a GGUF, and their metadata. `vision`: its clip keys join those of `main`.
 */
export function planGguf(
  main: GgufSource,
  vision: GgufSource | undefined,
  tensors: SourceTensor[],
  options: GgufPlanOptions
): GgufPlan {
  const { type } = options
  const context = typeContext(main, options)
  const chooser = context && new TypeChooser(context)
  const visionFfn = context && paddedFfn(tensors, context.visionType)
  const again = new Set<string>()
  const planned = tensors.map((source): PlannedTensor => {
    const cols = source.shape.at(-1)!
    const rows = source.shape.reduce((product, n) => product * n, 1) / cols
    const keep: PlannedTensor = {
      name: source.name,
      type: source.type,
      shape: source.shape,
      source,
      rows,
      cols,
      plusOne: false
    }
    const known = ggufRole(source.name)
    if (!chooser || !known || !holdsWeights(source.type)) return keep
    const { role, layer } = known
    const shape = paddedShape(source.shape, role, visionFfn)
    if (role === 'visionFfnBias') return { ...keep, shape }
    const fitting = chooser.choose(role, layer, shape.at(-1)!)
    if (isBlockType(source.type) && fitting !== source.type && bitsOf(source.type) < 8) again.add(source.type)
    return { ...keep, type: fitting, shape }
  })
  const notes = chooser?.notes() ?? []
  if (visionFfn !== undefined) notes.push(`SigLIP's feed-forward is padded with zeros to ${visionFfn}`)
  if (again.size > 0)
    notes.push(
      `the weights were quantized before (${[...again].join(', ')}); errors add up, start from the original where ` +
        'you can'
    )
  return { metadata: mergedMetadata(main, vision, type, visionFfn), tensors: planned, notes }
}

/** The width SigLIP's feed-forward gets, where block types need another one than it has. */
function paddedFfn(tensors: SourceTensor[], visionType: StorageType): number | undefined {
  if (!isBlockType(visionType)) return undefined
  const ffn = tensors.filter(({ name }) =>
    ['visionFfnUp', 'visionFfnDown', 'visionFfnBias'].includes(ggufRole(name)?.role ?? '')
  )
  const width = ffn.find(({ name }) => name.endsWith('ffn_down.weight'))?.shape[1]
  if (width === undefined || width % visionFfnMultiple === 0 || ffn.some(({ type }) => isBlockType(type)))
    return undefined
  return Math.ceil(width / visionFfnMultiple) * visionFfnMultiple
}

function mergedMetadata(
  main: GgufSource,
  vision: GgufSource | undefined,
  type: FileType | undefined,
  visionFfn: number | undefined
): Metadata {
  const result = new Map<string, MetadataValue>()
  const copy = ({ key, type: of, value }: GgufSource['metadata'][number]) => {
    result.set(key, { type: 'copy', of, value })
  }
  for (const entry of main.metadata) copy(entry)
  for (const entry of vision?.metadata ?? []) if (/^(?:clip|paligemma)\./.test(entry.key)) copy(entry)
  if (vision) result.set('clip.has_vision_encoder', { type: 'bool', value: true })
  if (type) {
    result.set('general.file_type', { type: 'u32', value: type.fileType })
    result.set('general.quantization_version', { type: 'u32', value: 2 })
  }
  if (visionFfn !== undefined) result.set('clip.vision.feed_forward_length', { type: 'u32', value: visionFfn })
  // The writer aligns to 32 whatever the source did.
  result.set('general.alignment', { type: 'u32', value: 32 })
  return [...result]
}
