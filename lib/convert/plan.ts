/** What a conversion writes: every tensor with its source, name, shape and type, or an error that lists what does not fit. */
import { PaliGemmaError } from '../base/errors'
import type { SourceConfig } from './config'
import { type AdapterToMerge, type MatrixUpdate, mergeNote, planRows, planUpdates, replaceTensors } from './merge'
import { canonicalName, expectedTensors, type ExpectedTensor, retrievalFlavour, retrievalTensors } from './names'
import { memoryTensor, someOf, type SourceTensor } from './source'
import type { RetrievalFlavour } from '../retrieval/vectors'
import { defaultVisionType, type FileType, fitType, isBlockType, type StorageType, wantedType } from '../formats/types'

export interface PlannedTensor {
  name: string
  /** As GGUF spells it; a {@link StorageType}, or the source's own where the tensor is copied. */
  type: string
  /** As stored, outermost first; a padded feed-forward is wider than its source. */
  shape: number[]
  source: SourceTensor
  /** Of the source, as a matrix. */
  rows: number
  cols: number
  /** Text norms: the engine multiplies by the stored weight, Gemma by 1 + weight. */
  plusOne: boolean
  /** What merged adapters add. */
  updates?: MatrixUpdate[]
  /** Rows that merged adapters replace, before anything is added. */
  newRows?: ReadonlyMap<number, Float32Array>
}

export interface Plan {
  tensors: PlannedTensor[]
  /** Rows of the embedding. */
  vocab: number
  /** SigLIP's feed-forward width as stored. */
  visionFfn: number
  visionType: StorageType
  /** Of ColPali checkpoints: whose prompts they were published with. */
  flavour?: RetrievalFlavour
  /** What the user should know: types that did not fit and the like. */
  notes: string[]
}

export interface PlanOptions {
  /** For messages. */
  dir: string
  type: FileType
  visionType?: StorageType | undefined
  /** Mask decoder tensors under vae-oid's names. */
  mask?: MaskSource | undefined
  adapters?: readonly AdapterToMerge[] | undefined
}

// Block types want rows in multiples of their block; 256 suits every one of them.
export const visionFfnMultiple = 256

/** Matches the checkpoint's tensors with what its config says it has. */
export function planConversion(config: SourceConfig, source: readonly SourceTensor[], options: PlanOptions): Plan {
  const found = byCanonicalName(options.dir, source)
  replaceTensors(found, options.adapters ?? [])
  const vocab = found.get('text.embed_tokens.weight')?.shape[0] ?? 0
  const expected = expectedTensors(config, vocab)
  const retrieval = found.get('retrieval.weight')
  if (retrieval) expected.push(...retrievalTensors(config, retrieval.shape[0] ?? 0))
  checkHead(options.dir, retrieval, options.adapters ?? [])
  checkTensors(options.dir, 'config.json', expected, found, hfName)
  checkTypes(options.dir, expected, found)
  const updates = planUpdates(expected, options.adapters ?? [])
  const newRows = planRows([vocab, config.text.hidden], options.adapters ?? [])

  const visionType = options.visionType ?? defaultVisionType(options.type)
  const pad = isBlockType(visionType)
  const visionFfn = pad ? Math.ceil(config.vision.ffn / visionFfnMultiple) * visionFfnMultiple : config.vision.ffn
  const context = {
    type: options.type,
    visionType,
    layers: config.text.layers,
    heads: config.text.heads,
    kvHeads: config.text.kvHeads
  }
  const replaced = new Map<string, number>()
  const tensors = expected.map((tensor): PlannedTensor => {
    const shape = storedShape(tensor, visionFfn)
    const wanted = wantedType(tensor.role, tensor.layer, context)
    const type = fitType(wanted, shape.at(-1)!)
    if (type !== wanted) replaced.set(`${wanted} by ${type}`, (replaced.get(`${wanted} by ${type}`) ?? 0) + 1)
    const cols = tensor.shape.at(-1)!
    const rows = tensor.shape.reduce((product, n) => product * n, 1) / cols
    const added = updates.get(tensor.source)
    return {
      name: tensor.gguf,
      type,
      shape,
      source: found.get(tensor.source)!,
      rows,
      cols,
      plusOne: tensor.role === 'textNorm',
      ...(added && { updates: added }),
      ...(newRows && tensor.role === 'embedding' && { newRows })
    }
  })
  tensors.push(
    ...maskTensors(options.mask, isBlockType(options.type.base) || options.type.base === 'F16' ? 'F16' : 'F32')
  )
  const notes = [...replaced].map(
    ([what, count]) => `${count} tensor${count > 1 ? 's' : ''} of a width that the type's blocks do not divide: ${what}`
  )
  if (visionFfn !== config.vision.ffn)
    notes.push(`SigLIP's feed-forward is padded with zeros from ${config.vision.ffn} to ${visionFfn}`)
  notes.push(...(options.adapters ?? []).map(mergeNote))
  return {
    tensors,
    vocab,
    visionFfn,
    visionType,
    notes,
    ...(retrieval && { flavour: retrievalFlavour(retrieval.name) })
  }
}

export type MaskSource = Record<string, { shape: number[]; data: Float32Array }>

/** The mask decoder's tensors; one-dimensional ones are biases and stay F32. */
export function maskTensors(mask: MaskSource | undefined, type: StorageType): PlannedTensor[] {
  return Object.entries(mask ?? {}).map(([name, { shape, data }]) => {
    const cols = shape.at(-1)!
    return {
      name: `mask.${name}`,
      type: shape.length > 1 ? type : 'F32',
      shape,
      source: memoryTensor(name, shape, data),
      rows: data.length / cols,
      cols,
      plusOne: false
    }
  })
}

/** The duplicate of the embedding that some checkpoints carry as LM head, with the embedding itself, if both are there. */
export function tiedHead(source: readonly SourceTensor[]): { head: SourceTensor; embedding: SourceTensor } | undefined {
  const head = source.find((tensor) => canonicalName(tensor.name) === 'lm_head.weight')
  const embedding = source.find((tensor) => canonicalName(tensor.name) === 'text.embed_tokens.weight')
  return head && embedding ? { head, embedding } : undefined
}

function byCanonicalName(dir: string, source: readonly SourceTensor[]): Map<string, SourceTensor> {
  const found = new Map<string, SourceTensor>()
  const twice: string[] = []
  for (const tensor of source) {
    const name = canonicalName(tensor.name)
    if (name === undefined) continue
    const other = found.get(name)
    if (other) twice.push(`${other.name} and ${tensor.name}`)
    found.set(name, tensor)
  }
  if (twice.length > 0)
    throw new PaliGemmaError('ERR_MODEL_INVALID', `${dir} holds the same tensor twice: ${someOf(twice)}`)
  // Tied weights are stored once, sometimes under the head's name.
  const head = found.get('lm_head.weight')
  found.delete('lm_head.weight')
  if (head && !found.has('text.embed_tokens.weight')) found.set('text.embed_tokens.weight', head)
  return found
}

/** Lists every missing, unknown and misshapen tensor in one error. */
export function checkTensors(
  where: string,
  config: string,
  expected: ExpectedTensor[],
  found: Map<string, SourceTensor>,
  spelling: (name: string) => string
): void {
  const problems: string[] = []
  const known = new Set(expected.map((tensor) => tensor.source))
  const missing = expected.filter((tensor) => !found.has(tensor.source)).map((tensor) => spelling(tensor.source))
  const unknown = [...found].filter(([name]) => !known.has(name)).map(([, tensor]) => tensor.name)
  const misshapen = expected.flatMap((tensor) => {
    const have = found.get(tensor.source)
    if (!have || (have.shape.length === tensor.shape.length && have.shape.every((n, i) => n === tensor.shape[i])))
      return []
    return [`${have.name} is [${have.shape.join(', ')}] instead of [${tensor.shape.join(', ')}]`]
  })
  if (missing.length > 0) problems.push(`missing: ${someOf(missing)}`)
  if (unknown.length > 0) problems.push(`unknown: ${someOf(unknown)}`)
  if (misshapen.length > 0) problems.push(`wrong shape: ${someOf(misshapen)}`)
  if (problems.length > 0) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${where}: the weights do not fit ${config} (${problems.join('; ')}); check that all files are of one model`
    )
  }
}

/** ColPali's published adapters change the head of a base that has one, untrained; a plain PaliGemma has none. */
function checkHead(dir: string, head: SourceTensor | undefined, adapters: readonly AdapterToMerge[]): void {
  const wanting = adapters.find(({ updates }) => updates.some(({ target }) => target === 'retrieval.weight'))
  if (head || !wanting) return
  throw new PaliGemmaError(
    'ERR_MODEL_INVALID',
    `${dir} has no retrieval head (custom_text_proj), which the adapter ${wanting.dir} changes; ` +
      `convert the model that it was trained on${wanting.base === undefined ? '' : `, ${wanting.base}`}, with this adapter`
  )
}

/** Checkpoints hold plain numbers. */
function checkTypes(dir: string, expected: ExpectedTensor[], found: Map<string, SourceTensor>): void {
  const typed = expected
    .map((tensor) => found.get(tensor.source)!)
    .filter((tensor) => !['F32', 'F16', 'BF16'].includes(tensor.type))
  if (typed.length > 0) {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${dir}: ${someOf(typed.map((tensor) => `${tensor.name} is ${tensor.type}`))}; only F32, F16 and BF16 weights can be converted`
    )
  }
}

/** A canonical name as the published checkpoints spell it, for messages. */
function hfName(name: string): string {
  return name
    .replace(/^text\./, 'language_model.model.')
    .replace(/^vision\./, 'vision_tower.vision_model.')
    .replace(/^projector\./, 'multi_modal_projector.linear.')
    .replace(/^retrieval\./, 'custom_text_proj.')
}

function storedShape(tensor: ExpectedTensor, visionFfn: number): number[] {
  switch (tensor.role) {
    case 'visionFfnUp':
      return [visionFfn, tensor.shape[1]!]
    case 'visionFfnBias':
      return [visionFfn]
    case 'visionFfnDown':
      return [tensor.shape[0]!, visionFfn]
    default:
      return tensor.shape
  }
}
