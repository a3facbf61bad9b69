/**
 * What a conversion writes: every tensor with its source, name, shape and type, or an error that lists what does not
 * fit.
 */
import { PaliGemmaError } from '../../base/errors'
import type { SourceConfig } from './config'
import {
  type AdapterToMerge,
  type MatrixUpdate,
  mergeNote,
  planRows,
  planUpdates,
  replaceTensors
} from '../adapters/merge'
import {
  canonicalName,
  commonPrefix,
  expectedTensors,
  type ExpectedTensor,
  retrievalFlavour,
  retrievalTensors
} from './names'
import { memoryTensor, someOf, type SourceTensor } from '../../formats/source'
import type { RetrievalFlavour } from '../../retrieval/vectors'
import { type FileType, isBlockType, type StorageType } from '../../formats/types'
import { defaultVisionType, TypeChooser } from './type-choice'

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
  const { found, unused } = namedTensors(options.dir, source)
  replaceTensors(found, options.adapters ?? [])
  const vocab = found.get('text.embed_tokens.weight')?.shape[0] ?? 0
  const expected = expectedTensors(config, vocab)
  const retrieval = found.get('retrieval.weight')
  if (retrieval) expected.push(...retrievalTensors(config, retrieval.shape[0] ?? 0))
  checkHead(options.dir, retrieval, options.adapters ?? [])
  checkTensors(options.dir, 'config.json', expected, found, hfName, wrongSizes(config, found))
  checkTypes(options.dir, expected, found)
  const updates = planUpdates(expected, options.adapters ?? [])
  const newRows = planRows([vocab, config.text.hidden], options.adapters ?? [])

  const visionType = options.visionType ?? defaultVisionType(options.type)
  const pad = isBlockType(visionType)
  const visionFfn = pad ? Math.ceil(config.vision.ffn / visionFfnMultiple) * visionFfnMultiple : config.vision.ffn
  const chooser = new TypeChooser({
    type: options.type,
    visionType,
    layers: config.text.layers,
    heads: config.text.heads,
    kvHeads: config.text.kvHeads
  })
  const tensors = expected.map((tensor): PlannedTensor => {
    const shape = storedShape(tensor, visionFfn)
    const type = chooser.choose(tensor.role, tensor.layer, shape.at(-1)!)
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
  const notes = chooser.notes()
  if (visionFfn !== config.vision.ffn)
    notes.push(`SigLIP's feed-forward is padded with zeros from ${config.vision.ffn} to ${visionFfn}`)
  if (unused.length > 0) notes.push(`left out, as PaliGemma does not use them: ${someOf(unused)}`)
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

export interface NamedTensors {
  /** By canonical name. */
  found: Map<string, SourceTensor>
  /** A second copy of the embedding, which some checkpoints carry as LM head. */
  head?: SourceTensor
  /** No PaliGemma uses them. */
  unused: string[]
}

/** The checkpoint's tensors under canonical names, whatever wraps the names. */
export function namedTensors(dir: string, source: readonly SourceTensor[]): NamedTensors {
  const found = new Map<string, SourceTensor>()
  const twice: string[] = []
  const unused: string[] = []
  const prefix = commonPrefix(source.map(({ name }) => name))
  for (const tensor of source) {
    // A few tensors of one kind have a prefix in common that does tell what they are.
    const name = canonicalName(
      canonicalName(tensor.name) === tensor.name ? tensor.name.slice(prefix.length) : tensor.name
    )
    if (name === undefined) {
      unused.push(tensor.name)
      continue
    }
    const other = found.get(name)
    if (other) twice.push(`${other.name} and ${tensor.name}`)
    found.set(name, tensor)
  }
  if (twice.length > 0)
    throw new PaliGemmaError('ERR_MODEL_INVALID', `${dir} holds the same tensor twice: ${someOf(twice)}`)
  // Tied weights are stored once, sometimes under the head's name.
  const head = found.get('lm_head.weight')
  found.delete('lm_head.weight')
  if (!head) return { found, unused }
  if (found.has('text.embed_tokens.weight')) return { found, head, unused }
  found.set('text.embed_tokens.weight', head)
  return { found, unused }
}

/** Lists every missing, unknown and misshapen tensor in one error. */
export function checkTensors(
  where: string,
  config: string,
  expected: ExpectedTensor[],
  found: Map<string, SourceTensor>,
  spelling: (name: string) => string,
  claims: readonly string[] = []
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
  if (problems.length > 0) problems.push(...claims)
  if (problems.length > 0) {
    const unmerged = unknown.some((name) => /\.(?:lora_|modules_to_save\.|ia3_|oft_)/.test(name))
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${where}: the weights do not fit ${config} (${problems.join('; ')}); ` +
        (unmerged
          ? 'an adapter is still wrapped around the model: merge it (PEFT: merge_and_unload) and save that'
          : 'check that all files are of one model')
    )
  }
}

/** Sizes of config.json that the weights do not have, by the fields' names. */
function wrongSizes({ text, vision }: SourceConfig, found: ReadonlyMap<string, SourceTensor>): string[] {
  const layersOf = (tower: string) =>
    [...found.keys()].reduce((most, name) => {
      const index = name.startsWith(tower) ? /^\.(\d+)\./.exec(name.slice(tower.length))?.[1] : undefined
      return index === undefined ? most : Math.max(most, Number(index) + 1)
    }, 0)
  const size = (name: string, axis: number) => found.get(name)?.shape[axis]
  const first = 'text.layers.0'
  const tower = 'vision.encoder.layers'
  const claims: [field: string, claimed: number, stored: number | undefined][] = [
    ['text_config.hidden_size', text.hidden, size('text.embed_tokens.weight', 1)],
    ['text_config.num_hidden_layers', text.layers, layersOf('text.layers')],
    ['text_config.intermediate_size', text.ffn, size(`${first}.mlp.gate_proj.weight`, 0)],
    [
      'text_config.num_attention_heads x head_dim',
      text.heads * text.headDim,
      size(`${first}.self_attn.q_proj.weight`, 0)
    ],
    [
      'text_config.num_key_value_heads x head_dim',
      text.kvHeads * text.headDim,
      size(`${first}.self_attn.k_proj.weight`, 0)
    ],
    ['vision_config.hidden_size', vision.hidden, size('vision.embeddings.patch_embedding.weight', 0)],
    ['vision_config.num_hidden_layers', vision.layers, layersOf(tower)],
    ['vision_config.intermediate_size', vision.ffn, size(`${tower}.0.mlp.fc1.weight`, 0)],
    ['vision_config.patch_size', vision.patchSize, size('vision.embeddings.patch_embedding.weight', 3)],
    ['(vision_config.image_size / patch_size)^2', vision.tokens, size('vision.embeddings.position_embedding.weight', 0)]
  ]
  return claims
    .filter(([, claimed, stored]) => stored && stored !== claimed)
    .map(([field, claimed, stored]) => `${field} is ${claimed}, but the weights have ${stored}`)
}

/** ColPali's published adapters change the head of a base that has one, untrained; a plain PaliGemma has none. */
function checkHead(dir: string, head: SourceTensor | undefined, adapters: readonly AdapterToMerge[]): void {
  const wanting = adapters.find(({ updates }) => updates.some(({ target }) => target === 'retrieval.weight'))
  if (head || !wanting) return
  throw new PaliGemmaError(
    'ERR_MODEL_INVALID',
    `${dir} has no retrieval head (custom_text_proj), which the adapter ${wanting.dir} changes; ` +
      `convert the model that it was trained on${wanting.base === undefined ? '' : `, ${wanting.base}`}, with this ` +
      'adapter'
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
      `${dir}: ${someOf(typed.map((tensor) => `${tensor.name} is ${tensor.type}`))}; only F32, F16 and BF16 weights ` +
        'can be converted'
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
