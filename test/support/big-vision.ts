/** npz checkpoints as big_vision writes them: the inverse of what convert does, from the reference checkpoints. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { copyCheckpoint, readSafetensors, tempDir, writeSafetensors, type TestCheckpoint } from './convert-helpers'
import { golden } from './golden'
import { npy, zip } from './npz-writer'

export const hf = (name: string) => golden('hf', name)

export interface NdArray {
  shape: number[]
  data: Float32Array
}
export type Arrays = Map<string, NdArray>

/** shape and value(index...) to an array; written as slowly and plainly as can be. */
export function build(shape: number[], value: (...index: number[]) => number): NdArray {
  const data = new Float32Array(shape.reduce((product, n) => product * n, 1))
  const index = shape.map(() => 0)
  for (let i = 0; i < data.length; i++) {
    data[i] = value(...index)
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]!; axis--) index[axis] = 0
  }
  return { shape, data }
}

export interface Sizes {
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  visionLayers: number
  visionHeads: number
  patch: number
  vocab: number
}

export const sizes: Record<string, Sizes> = {
  'pg1-tiny': { layers: 3, heads: 4, kvHeads: 1, headDim: 32, visionLayers: 3, visionHeads: 4, patch: 14, vocab: 0 },
  'pg2-tiny': { layers: 4, heads: 4, kvHeads: 2, headDim: 32, visionLayers: 2, visionHeads: 4, patch: 14, vocab: 0 }
}

/** big_vision's arrays of a Hugging Face checkpoint: facts of models/ppp/gemma.py and models/vit.py. */
export function bigVision(
  weights: Map<string, NdArray>,
  { layers, heads, kvHeads, headDim, visionLayers, visionHeads, patch, vocab }: Sizes
): Arrays {
  const get = (name: string): NdArray => {
    const tensor = weights.get(name)
    if (!tensor) throw new Error(`no tensor ${name}`)
    return tensor
  }
  const at = (name: string, ...index: number[]): number => {
    const { shape, data } = get(name)
    return data[index.reduce((offset, i, axis) => offset * shape[axis]! + i, 0)]!
  }
  const llm = (layer: number, name: string) => `language_model.model.layers.${layer}.${name}.weight`
  const vit = (layer: number, name: string, part: string) =>
    `vision_tower.vision_model.encoder.layers.${layer}.${name}.${part}`
  const [, hidden] = get('language_model.model.embed_tokens.weight').shape as [number, number]
  const [ffn] = get(llm(0, 'mlp.up_proj')).shape as [number]
  const [tokens, width] = get('vision_tower.vision_model.embeddings.position_embedding.weight').shape as [
    number,
    number
  ]
  const [visionFfn] = get(vit(0, 'mlp.fc1', 'weight')).shape as [number]
  const second = weights.has(llm(0, 'pre_feedforward_layernorm'))
  const arrays: Arrays = new Map()
  const add = (name: string, shape: number[], value: (...index: number[]) => number) => {
    arrays.set(name, build(shape, value))
  }

  add('llm/embedder/input_embedding', [vocab, hidden], (id, d) => at('language_model.model.embed_tokens.weight', id, d))
  add('llm/final_norm/scale', [hidden], (d) => at('language_model.model.norm.weight', d))
  const norms = second
    ? {
        pre_attention_norm: 'input_layernorm',
        post_attention_norm: 'post_attention_layernorm',
        pre_ffw_norm: 'pre_feedforward_layernorm',
        post_ffw_norm: 'post_feedforward_layernorm'
      }
    : { pre_attention_norm: 'input_layernorm', pre_ffw_norm: 'post_attention_layernorm' }
  for (const [name, from] of Object.entries(norms))
    add(`llm/layers/${name}/scale`, [layers, hidden], (l, d) => at(llm(l, from), d))
  add('llm/layers/attn/q_einsum/w', [layers, heads, hidden, headDim], (l, n, d, h) =>
    at(llm(l, 'self_attn.q_proj'), n * headDim + h, d)
  )
  add('llm/layers/attn/kv_einsum/w', [layers, 2, kvHeads, hidden, headDim], (l, c, k, d, h) =>
    at(llm(l, c === 0 ? 'self_attn.k_proj' : 'self_attn.v_proj'), k * headDim + h, d)
  )
  add('llm/layers/attn/attn_vec_einsum/w', [layers, heads, headDim, hidden], (l, n, h, d) =>
    at(llm(l, 'self_attn.o_proj'), d, n * headDim + h)
  )
  add('llm/layers/mlp/gating_einsum', [layers, 2, hidden, ffn], (l, c, d, f) =>
    at(llm(l, c === 0 ? 'mlp.gate_proj' : 'mlp.up_proj'), f, d)
  )
  add('llm/layers/mlp/linear', [layers, ffn, hidden], (l, f, d) => at(llm(l, 'mlp.down_proj'), d, f))

  const embeddings = 'vision_tower.vision_model.embeddings'
  add('img/embedding/kernel', [patch, patch, 3, width], (y, x, c, w) =>
    at(`${embeddings}.patch_embedding.weight`, w, c, y, x)
  )
  add('img/embedding/bias', [width], (w) => at(`${embeddings}.patch_embedding.bias`, w))
  add('img/pos_embedding', [1, tokens, width], (_, n, w) => at(`${embeddings}.position_embedding.weight`, n, w))
  const block = 'img/Transformer/encoderblock'
  for (const norm of [0, 1]) {
    add(`${block}/LayerNorm_${norm}/scale`, [visionLayers, width], (l, w) =>
      at(vit(l, `layer_norm${norm + 1}`, 'weight'), w)
    )
    add(`${block}/LayerNorm_${norm}/bias`, [visionLayers, width], (l, w) =>
      at(vit(l, `layer_norm${norm + 1}`, 'bias'), w)
    )
  }
  const visionDim = width / visionHeads
  const attention = `${block}/MultiHeadDotProductAttention_0`
  for (const [name, from] of [
    ['query', 'q_proj'],
    ['key', 'k_proj'],
    ['value', 'v_proj']
  ]) {
    add(`${attention}/${name}/kernel`, [visionLayers, width, visionHeads, visionDim], (l, w, n, h) =>
      at(vit(l, `self_attn.${from}`, 'weight'), n * visionDim + h, w)
    )
    add(`${attention}/${name}/bias`, [visionLayers, visionHeads, visionDim], (l, n, h) =>
      at(vit(l, `self_attn.${from}`, 'bias'), n * visionDim + h)
    )
  }
  add(`${attention}/out/kernel`, [visionLayers, visionHeads, visionDim, width], (l, n, h, w) =>
    at(vit(l, 'self_attn.out_proj', 'weight'), w, n * visionDim + h)
  )
  add(`${attention}/out/bias`, [visionLayers, width], (l, w) => at(vit(l, 'self_attn.out_proj', 'bias'), w))
  add(`${block}/MlpBlock_0/Dense_0/kernel`, [visionLayers, width, visionFfn], (l, w, f) =>
    at(vit(l, 'mlp.fc1', 'weight'), f, w)
  )
  add(`${block}/MlpBlock_0/Dense_0/bias`, [visionLayers, visionFfn], (l, f) => at(vit(l, 'mlp.fc1', 'bias'), f))
  add(`${block}/MlpBlock_0/Dense_1/kernel`, [visionLayers, visionFfn, width], (l, f, w) =>
    at(vit(l, 'mlp.fc2', 'weight'), w, f)
  )
  add(`${block}/MlpBlock_0/Dense_1/bias`, [visionLayers, width], (l, w) => at(vit(l, 'mlp.fc2', 'bias'), w))
  for (const [part, from] of [
    ['scale', 'weight'],
    ['bias', 'bias']
  ]) {
    add(`img/Transformer/encoder_norm/${part}`, [width], (w) =>
      at(`vision_tower.vision_model.post_layernorm.${from}`, w)
    )
  }
  add('img/head/kernel', [width, hidden], (w, d) => at('multi_modal_projector.linear.weight', d, w))
  add('img/head/bias', [hidden], (d) => at('multi_modal_projector.linear.bias', d))
  return arrays
}

export function weightsOf(checkpoint: TestCheckpoint): Map<string, NdArray> {
  return new Map(
    Object.entries(checkpoint.header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            shape,
            data_offsets: [begin, end]
          }
        ]) => [name, { shape, data: new Float32Array(Uint8Array.from(checkpoint.data.subarray(begin, end)).buffer) }]
      )
  )
}

/** float32 with the low half of every value zero: bfloat16 without rounding. */
export function truncate(checkpoint: TestCheckpoint): void {
  const data = Buffer.from(checkpoint.data)
  for (let i = 0; i < data.length; i += 4) data.writeUInt16LE(0, i)
  checkpoint.data = data
}

export interface ArchiveOptions {
  dtype?: 'f4' | 'V2' | 'f2'
  prefix?: string
  deflate?: boolean
  zip64?: boolean
}

export function archive(
  arrays: Arrays,
  { dtype = 'f4', prefix = '', deflate = false, zip64 = false }: ArchiveOptions = {}
): Buffer {
  const encode = (data: Float32Array): Buffer => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    if (dtype === 'f4') return bytes
    return Buffer.concat(Array.from({ length: data.length }, (_, i) => bytes.subarray(4 * i + 2, 4 * i + 4)))
  }
  return zip(
    [...arrays].map(([name, { shape, data }]) => ({
      name: `${prefix}${name}.npy`,
      data: npy(dtype === 'V2' ? '|V2' : `<${dtype}`, `(${shape.join(', ')},)`, encode(data)),
      deflate
    })),
    zip64
  )
}

/** A checkpoint as Hugging Face directory and as npz, of the same values. */
export function twins(
  name: string,
  options: ArchiveOptions & { rows?: 'trained' | 'all' } = {}
): { dir: string; npz: string; trained: number } {
  const dir = copyCheckpoint(hf(name))
  const path = join(dir, 'model.safetensors')
  const checkpoint = readSafetensors(path)
  if (options.dtype === 'V2') truncate(checkpoint)
  writeSafetensors(path, checkpoint)
  const weights = weightsOf(checkpoint)
  const all = weights.get('language_model.model.embed_tokens.weight')!.shape[0]!
  // big_vision's table ends where the tokenizer does: before <image>
  const trained = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')).image_token_index as number
  const arrays = bigVision(weights, { ...sizes[name]!, vocab: options.rows === 'all' ? all : trained })
  const npz = join(tempDir(), `${name}.npz`)
  writeFileSync(npz, archive(arrays, options))
  return { dir, npz, trained }
}
