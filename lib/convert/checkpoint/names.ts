/** The one table of tensor names: Hugging Face's to GGUF's, for both generations of names and both Gemmas. */
import type { RetrievalFlavour } from '../../retrieval/vectors'
import type { TextConfig, VisionConfig } from './config'

/** The sizes that decide which tensors there are, and their shapes. */
export interface ModelShape {
  text: Pick<TextConfig, 'architecture' | 'hidden' | 'ffn' | 'layers' | 'heads' | 'kvHeads' | 'headDim'>
  vision: Pick<VisionConfig, 'hidden' | 'ffn' | 'layers' | 'patchSize' | 'tokens'>
}

/** What a tensor is; decides its type and whether its values change. */
export type TensorRole =
  | 'embedding' // token embedding, also the LM head
  | 'attnQ'
  | 'attnK'
  | 'attnV'
  | 'attnOutput'
  | 'ffnUp'
  | 'ffnDown' // text matrices
  | 'textNorm' // stored + 1
  | 'visionMatrix'
  | 'visionFfnUp'
  | 'visionFfnDown'
  | 'patch'
  | 'vector' // biases, vision norms
  | 'visionFfnBias'
  | 'position'
  | 'projector'
  | 'retrieval' // ColPali's head, optional

export interface ExpectedTensor {
  /** As {@link canonicalName} spells it. */
  source: string
  gguf: string
  /** Of the source, outermost first. */
  shape: number[]
  role: TensorRole
  /** Index of the block it belongs to. */
  layer?: number
}

/** Buffers that some checkpoints carry beside the weights, and SigLIP's pooling head, which PaliGemma does not use. */
const unused = [
  /(?:^|\.)(?:position_ids|embed_scale|normalizer|logit_scale|logit_bias)$/,
  /(?:^|\.)rotary_emb\.(?:inv_freq|original_inv_freq|cos_cached|sin_cached)$/,
  /(?:^|\.)vision_(?:tower|model)\.(?:vision_model\.)?head\./
]

/** What wrappers put into names: DistributedDataParallel, torch.compile, FSDP, activation checkpoints, PEFT. */
const wrapper =
  /(^|\.)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module|base_layer)(?=\.)/g
const parts = 'vision_tower|multi_modal_projector|language_model|lm_head|custom_text_proj|embedding_proj_layer'
const outer = new RegExp(`^(?:(?:base_model|model|vlm)\\.)+(?=(?:${parts})\\.)`)

/**
 * One spelling for all generations of names: `text.…`, `vision.…`, `projector.…`, `retrieval.…`, `lm_head.weight`;
 * undefined for what is no weight of a PaliGemma. Unknown names come back as they are.
 */
export function canonicalName(name: string): string | undefined {
  const bare = name.replace(wrapper, '').replace(/^\./, '').replace(outer, '')
  if (unused.some((pattern) => pattern.test(bare))) return undefined
  const rules: [RegExp, string][] = [
    [/^language_model\.lm_head\./, 'lm_head.'],
    [/^language_model\.(?:model\.)?/, 'text.'],
    [/^vision_tower\.(?:vision_model\.)?/, 'vision.'],
    [/^multi_modal_projector\.linear\./, 'projector.'],
    [/^(?:custom_text_proj|embedding_proj_layer)\./, 'retrieval.']
  ]
  for (const [pattern, prefix] of rules) if (pattern.test(bare)) return bare.replace(pattern, prefix)
  return bare
}

/**
 * What stands in front of every name of a checkpoint, up to its last dot: whatever a trainer calls the model that it
 * holds ("student."), it says nothing about the weights.
 */
export function commonPrefix(names: readonly string[]): string {
  const [first = '', ...others] = names
  let length = first.lastIndexOf('.') + 1
  for (const name of others) {
    while (length > 0 && !name.startsWith(first.slice(0, length))) length = first.lastIndexOf('.', length - 2) + 1
  }
  return first.slice(0, length)
}

/** The GGUF name of a matrix that adapters may change, of its canonical name; undefined for everything else. */
export function matrixName(canonical: string): string | undefined {
  const rules: [RegExp, Record<string, string>, string][] = [
    [
      /^text\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.weight$/,
      {
        q_proj: 'attn_q',
        k_proj: 'attn_k',
        v_proj: 'attn_v',
        o_proj: 'attn_output',
        gate_proj: 'ffn_gate',
        up_proj: 'ffn_up',
        down_proj: 'ffn_down'
      },
      'blk'
    ],
    [
      /^vision\.encoder\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.weight$/,
      { q_proj: 'attn_q', k_proj: 'attn_k', v_proj: 'attn_v', out_proj: 'attn_out', fc1: 'ffn_up', fc2: 'ffn_down' },
      'v.blk'
    ]
  ]
  for (const [pattern, names, prefix] of rules) {
    const [, layer, name] = pattern.exec(canonical) ?? []
    if (name !== undefined && Object.hasOwn(names, name)) return `${prefix}.${layer}.${names[name]}.weight`
  }
  const others: Record<string, string> = {
    'vision.embeddings.patch_embedding.weight': 'v.patch_embd.weight',
    'projector.weight': 'mm.0.weight',
    'retrieval.weight': 'retrieval.proj.weight'
  }
  return Object.hasOwn(others, canonical) ? others[canonical] : undefined
}

/** Every tensor a checkpoint with this config has, in the order in which the GGUF stores them. */
export function expectedTensors(config: ModelShape, vocab: number): ExpectedTensor[] {
  return [...textTensors(config, vocab), ...visionTensors(config)]
}

type Add = (source: string, gguf: string, shape: number[], role: TensorRole, layer?: number) => void

function adder(list: ExpectedTensor[]): Add {
  return (source, gguf, shape, role, layer) => {
    list.push({ source, gguf, shape, role, ...(layer === undefined ? {} : { layer }) })
  }
}

function textTensors({ text }: ModelShape, vocab: number): ExpectedTensor[] {
  const list: ExpectedTensor[] = []
  const add = adder(list)
  add('text.embed_tokens.weight', 'token_embd.weight', [vocab, text.hidden], 'embedding')
  const q = text.heads * text.headDim
  const kv = text.kvHeads * text.headDim
  for (let n = 0; n < text.layers; n++) {
    const matrix = (source: string, gguf: string, shape: number[], role: TensorRole) =>
      add(`text.layers.${n}.${source}.weight`, `blk.${n}.${gguf}.weight`, shape, role, n)
    matrix('input_layernorm', 'attn_norm', [text.hidden], 'textNorm')
    matrix('self_attn.q_proj', 'attn_q', [q, text.hidden], 'attnQ')
    matrix('self_attn.k_proj', 'attn_k', [kv, text.hidden], 'attnK')
    matrix('self_attn.v_proj', 'attn_v', [kv, text.hidden], 'attnV')
    matrix('self_attn.o_proj', 'attn_output', [text.hidden, q], 'attnOutput')
    if (text.architecture === 'gemma') {
      // Gemma 1's "post attention" norm stands before the feed-forward; Gemma 2's really follows attention.
      matrix('post_attention_layernorm', 'ffn_norm', [text.hidden], 'textNorm')
    } else {
      matrix('post_attention_layernorm', 'post_attention_norm', [text.hidden], 'textNorm')
      matrix('pre_feedforward_layernorm', 'ffn_norm', [text.hidden], 'textNorm')
    }
    matrix('mlp.gate_proj', 'ffn_gate', [text.ffn, text.hidden], 'ffnUp')
    matrix('mlp.up_proj', 'ffn_up', [text.ffn, text.hidden], 'ffnUp')
    matrix('mlp.down_proj', 'ffn_down', [text.hidden, text.ffn], 'ffnDown')
    if (text.architecture === 'gemma2') matrix('post_feedforward_layernorm', 'post_ffw_norm', [text.hidden], 'textNorm')
  }
  add('text.norm.weight', 'output_norm.weight', [text.hidden], 'textNorm')
  return list
}

/** The tower and the projector. */
function visionTensors({ text, vision }: ModelShape): ExpectedTensor[] {
  const list: ExpectedTensor[] = []
  const add = adder(list)
  const pair = (
    source: string,
    gguf: string,
    shape: number[],
    role: TensorRole,
    bias: TensorRole = 'vector',
    layer?: number
  ) => {
    add(`${source}.weight`, `${gguf}.weight`, shape, role, layer)
    add(`${source}.bias`, `${gguf}.bias`, [shape[0]!], bias, layer)
  }
  const wide = vision.hidden
  pair('vision.embeddings.patch_embedding', 'v.patch_embd', [wide, 3, vision.patchSize, vision.patchSize], 'patch')
  add('vision.embeddings.position_embedding.weight', 'v.position_embd.weight', [vision.tokens, wide], 'position')
  for (let n = 0; n < vision.layers; n++) {
    const from = `vision.encoder.layers.${n}`
    const to = `v.blk.${n}`
    pair(`${from}.layer_norm1`, `${to}.ln1`, [wide], 'vector', 'vector', n)
    for (const [name, gguf] of [
      ['q_proj', 'attn_q'],
      ['k_proj', 'attn_k'],
      ['v_proj', 'attn_v'],
      ['out_proj', 'attn_out']
    ]) {
      pair(`${from}.self_attn.${name}`, `${to}.${gguf}`, [wide, wide], 'visionMatrix', 'vector', n)
    }
    pair(`${from}.layer_norm2`, `${to}.ln2`, [wide], 'vector', 'vector', n)
    pair(`${from}.mlp.fc1`, `${to}.ffn_up`, [vision.ffn, wide], 'visionFfnUp', 'visionFfnBias', n)
    pair(`${from}.mlp.fc2`, `${to}.ffn_down`, [wide, vision.ffn], 'visionFfnDown', 'vector', n)
  }
  pair('vision.post_layernorm', 'v.post_ln', [wide], 'vector')
  pair('projector', 'mm.0', [text.hidden, wide], 'projector')
  return list
}

/** Who published a ColPali checkpoint whose head has this name. */
export function retrievalFlavour(name: string): RetrievalFlavour {
  return name.includes('embedding_proj_layer') ? 'transformers' : 'colpali-engine'
}

/** ColPali's extra head; its output width is the checkpoint's. */
export function retrievalTensors(config: ModelShape, width: number): ExpectedTensor[] {
  return [
    {
      source: 'retrieval.weight',
      gguf: 'retrieval.proj.weight',
      shape: [width, config.text.hidden],
      role: 'retrieval'
    },
    { source: 'retrieval.bias', gguf: 'retrieval.proj.bias', shape: [width], role: 'vector' }
  ]
}

const textRoles: Record<string, TensorRole> = {
  attn_q: 'attnQ',
  attn_k: 'attnK',
  attn_v: 'attnV',
  attn_output: 'attnOutput',
  ffn_gate: 'ffnUp',
  ffn_up: 'ffnUp',
  ffn_down: 'ffnDown'
}
const visionRoles: Record<string, TensorRole> = {
  'attn_q.weight': 'visionMatrix',
  'attn_k.weight': 'visionMatrix',
  'attn_v.weight': 'visionMatrix',
  'attn_out.weight': 'visionMatrix',
  'ffn_up.weight': 'visionFfnUp',
  'ffn_up.bias': 'visionFfnBias',
  'ffn_down.weight': 'visionFfnDown'
}
const singleRoles: Record<string, TensorRole> = {
  'token_embd.weight': 'embedding',
  'output.weight': 'embedding',
  'v.patch_embd.weight': 'patch',
  'mm.0.weight': 'projector'
}

/**
 * What a tensor of a GGUF is, if its type may be chosen; undefined for all that stays as it is: norms, biases, unknown
 * ones.
 */
export function ggufRole(name: string): { role: TensorRole; layer?: number } | undefined {
  const single = singleRoles[name]
  if (single) return { role: single }
  const [, vision, layer, rest] = /^(v\.)?blk\.(\d+)\.(.+)$/.exec(name) ?? []
  const role =
    rest === undefined
      ? undefined
      : vision
        ? visionRoles[rest]
        : rest.endsWith('.weight')
          ? textRoles[rest.slice(0, -7)]
          : undefined
  return role && { role, layer: Number(layer) }
}
