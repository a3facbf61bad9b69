/** Where big_vision keeps each tensor of a PaliGemma: array, index in the stack, and how its axes lie. */
import type { ArrayPlace } from '../../formats/npz-reader'
import type { ModelShape } from './names'

export interface NpzShape extends ModelShape {
  vision: ModelShape['vision'] & { heads: number }
  /** One array for query, key and value, where they have as many heads. */
  fusedQkv: boolean
  vocab: number
}

const block = 'img/Transformer/encoderblock'
const textNorms: Record<string, Record<string, string>> = {
  gemma: { input_layernorm: 'pre_attention_norm', post_attention_layernorm: 'pre_ffw_norm' },
  gemma2: {
    input_layernorm: 'pre_attention_norm',
    post_attention_layernorm: 'post_attention_norm',
    pre_feedforward_layernorm: 'pre_ffw_norm',
    post_feedforward_layernorm: 'post_ffw_norm'
  }
}

/**
 * The place of a tensor under its canonical name. Layouts: big_vision models/ppp/gemma.py and models/vit.py, scanned.
 */
export function placeOf(name: string, size: NpzShape): ArrayPlace {
  const [, tower, layer, rest] = /^(text\.layers|vision\.encoder\.layers)\.(\d+)\.(.+)$/.exec(name) ?? []
  if (layer === undefined) return singlePlace(name, size)
  return tower === 'text.layers'
    ? textPlace(rest!.replace(/\.weight$/, ''), Number(layer), size)
    : visionPlace(rest!, Number(layer), size)
}

function singlePlace(name: string, { text, vision, vocab }: NpzShape): ArrayPlace {
  const whole = (array: string, shape: number[]): ArrayPlace => ({ array, shape, part: 0, parts: 1 })
  const { patchSize, hidden: width, tokens } = vision
  switch (name) {
    case 'text.embed_tokens.weight':
      return whole('llm/embedder/input_embedding', [vocab, text.hidden])
    case 'text.norm.weight':
      return whole('llm/final_norm/scale', [text.hidden])
    case 'vision.embeddings.patch_embedding.weight':
      return {
        ...whole('img/embedding/kernel', [patchSize, patchSize, 3, width]),
        transposed: { groups: 1, inputs: patchSize * patchSize * 3, outputs: width },
        patch: true
      }
    case 'vision.embeddings.patch_embedding.bias':
      return whole('img/embedding/bias', [width])
    case 'vision.embeddings.position_embedding.weight':
      return whole('img/pos_embedding', [1, tokens, width])
    case 'vision.post_layernorm.weight':
      return whole('img/Transformer/encoder_norm/scale', [width])
    case 'vision.post_layernorm.bias':
      return whole('img/Transformer/encoder_norm/bias', [width])
    case 'projector.weight':
      return {
        ...whole('img/head/kernel', [width, text.hidden]),
        transposed: { groups: 1, inputs: width, outputs: text.hidden }
      }
    case 'projector.bias':
      return whole('img/head/bias', [text.hidden])
    default:
      throw new Error(`no place for ${name}`)
  }
}

function textPlace(name: string, layer: number, { text, fusedQkv }: NpzShape): ArrayPlace {
  const { hidden, ffn, layers, heads, kvHeads, headDim } = text
  const norm = textNorms[text.architecture]![name]
  if (norm !== undefined)
    return { array: `llm/layers/${norm}/scale`, shape: [layers, hidden], part: layer, parts: layers }
  /** The `index`-th of `count` matrices that a layer keeps in one array. */
  const place = (
    array: string,
    shape: number[],
    index: number,
    count: number,
    groups: number,
    inputs: number,
    outputs: number
  ): ArrayPlace => ({
    array: `llm/layers/${array}`,
    shape: [layers, ...shape],
    part: layer * count + index,
    parts: layers * count,
    transposed: { groups, inputs, outputs }
  })
  const projection = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'].indexOf(name)
  if (projection >= 0 && fusedQkv)
    return place('attn/qkv_einsum/w', [3, heads, hidden, headDim], projection, 3, heads, hidden, headDim)
  switch (name) {
    case 'self_attn.q_proj':
      return place('attn/q_einsum/w', [heads, hidden, headDim], 0, 1, heads, hidden, headDim)
    case 'self_attn.k_proj':
      return place('attn/kv_einsum/w', [2, kvHeads, hidden, headDim], 0, 2, kvHeads, hidden, headDim)
    case 'self_attn.v_proj':
      return place('attn/kv_einsum/w', [2, kvHeads, hidden, headDim], 1, 2, kvHeads, hidden, headDim)
    case 'self_attn.o_proj':
      return place('attn/attn_vec_einsum/w', [heads, headDim, hidden], 0, 1, 1, heads * headDim, hidden)
    case 'mlp.gate_proj':
      return place('mlp/gating_einsum', [2, hidden, ffn], 0, 2, 1, hidden, ffn)
    case 'mlp.up_proj':
      return place('mlp/gating_einsum', [2, hidden, ffn], 1, 2, 1, hidden, ffn)
    case 'mlp.down_proj':
      return place('mlp/linear', [ffn, hidden], 0, 1, 1, ffn, hidden)
    default:
      throw new Error(`no place for ${name}`)
  }
}

const attentionNames: Record<string, string> = { q_proj: 'query', k_proj: 'key', v_proj: 'value' }

function visionPlace(name: string, layer: number, { vision }: NpzShape): ArrayPlace {
  const { hidden: width, ffn, layers, heads } = vision
  const headDim = width / heads
  const dot = name.lastIndexOf('.')
  const [module, isBias] = [name.slice(0, dot), name.endsWith('.bias')]
  const place = (array: string, kernel: number[], bias: number[], inputs: number, outputs: number): ArrayPlace => {
    const at = { part: layer, parts: layers }
    return isBias
      ? { array: `${block}/${array}/bias`, shape: [layers, ...bias], ...at }
      : {
          array: `${block}/${array}/kernel`,
          shape: [layers, ...kernel],
          ...at,
          transposed: { groups: 1, inputs, outputs }
        }
  }
  const norm = /^layer_norm([12])$/.exec(module)?.[1]
  if (norm !== undefined) {
    return {
      array: `${block}/LayerNorm_${Number(norm) - 1}/${isBias ? 'bias' : 'scale'}`,
      shape: [layers, width],
      part: layer,
      parts: layers
    }
  }
  const attention = 'MultiHeadDotProductAttention_0'
  if (module === 'mlp.fc1') return place('MlpBlock_0/Dense_0', [width, ffn], [ffn], width, ffn)
  if (module === 'mlp.fc2') return place('MlpBlock_0/Dense_1', [ffn, width], [width], ffn, width)
  if (module === 'self_attn.out_proj') return place(`${attention}/out`, [heads, headDim, width], [width], width, width)
  return place(
    `${attention}/${attentionNames[module.slice('self_attn.'.length)]}`,
    [width, heads, headDim],
    [heads, headDim],
    width,
    width
  )
}
