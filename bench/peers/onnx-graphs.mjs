// PaliGemma's two parts as ONNX, as an exporter that knows onnxruntime's fused operators writes them, with weights of
// noise.
//
// 'int8': dynamic quantization as onnxruntime's own quantizer emits it (one scale per matrix of activations and of
// weights, signed weights). 'int4': MatMulNBits, blocks of 32, 8-bit activations (accuracy level 4). 'float': plain.
import { existsSync } from 'node:fs'
import { OnnxFile } from './onnx-file.mjs'

const microsoft = 'com.microsoft'
/** Standard deviation of the weights, as in our own random models: activations keep their size. */
const deviation = 0.02
const int8Deviation = 74 // of uniform bytes
const int4Deviation = 4.6
const blockSize = 32

class Graph extends OnnxFile {
  quantized = new Map()

  constructor(path, weights) {
    super(path)
    this.weights = weights
    if (weights !== 'int8') return
    this.int8Scale = this.scalar(deviation / int8Deviation)
    this.int8Zero = this.constant('int8', [], new Int8Array([0]))
  }

  scalar(value) {
    return this.constant('float', [], new Float32Array([value]))
  }

  ones(n, value = 1) {
    return this.constant('float', [n], new Float32Array(n).fill(value))
  }

  /** x[..., columns] times a matrix of `rows` outputs. */
  linear(x, columns, rows, { bias = false } = {}) {
    const product = this[this.weights](x, columns, rows)
    return bias ? this.node('Add', [product, this.ones(rows, 0.01)]) : product
  }

  int8(x, columns, rows) {
    // matrices that read the same activations share their quantization, as the quantizer has it
    if (!this.quantized.has(x)) this.quantized.set(x, this.node('DynamicQuantizeLinear', [x], { outputs: 3 }))
    const [bytes, scale, zero] = this.quantized.get(x)
    const sums = this.node('MatMulInteger', [bytes, this.weight('int8', [columns, rows]), zero, this.int8Zero])
    return this.node('Mul', [
      this.node('Cast', [sums], { attributes: { to: 1 } }),
      this.node('Mul', [scale, this.int8Scale])
    ])
  }

  int4(x, columns, rows) {
    const blocks = columns / blockSize
    if (!Number.isInteger(blocks)) throw new Error(`${columns} columns are no whole number of blocks`)
    const levels = this.weight('uint8', [rows, blocks, blockSize / 2])
    const scales = this.weight('float', [rows * blocks], deviation / int4Deviation)
    const attributes = { K: columns, N: rows, bits: 4, block_size: blockSize, accuracy_level: 4 }
    return this.node('MatMulNBits', [x, levels, scales], { domain: microsoft, attributes })
  }

  float(x, columns, rows) {
    return this.node('MatMul', [x, this.weight('float', [columns, rows], deviation)])
  }

  gelu(x) {
    return this.node('Gelu', [x], { attributes: { approximate: 'tanh' } })
  }
}

/** Writes a graph unless it is there. */
function written(path, weights, build) {
  if (existsSync(path)) return path
  const graph = new Graph(path, weights)
  try {
    build(graph)
    graph.save()
  } catch (error) {
    graph.discard()
    throw error
  }
  return path
}

/** patches[1, tokens, 3 * patch * patch] to features[1, tokens, width]: SigLIP and the projector. */
export function visionModel(path, { vision, text }, weights) {
  const { hidden, ffn, layers, heads, patchSize, normEps, tokens } = vision
  const inputs = 3 * patchSize ** 2
  return written(path, weights, (g) => {
    const layerNorm = (x) =>
      g.node('LayerNormalization', [x, g.ones(hidden), g.ones(hidden, 0)], {
        attributes: { axis: -1, epsilon: { float: normEps } }
      })
    const patches = g.input('patches', 'float', [1, tokens, inputs])
    const positions = g.constant('float', [1, tokens, hidden], new Float32Array(tokens * hidden).fill(0.02))
    let x = g.node('Add', [g.linear(patches, inputs, hidden, { bias: true }), positions])
    for (let layer = 0; layer < layers; layer++) {
      const h = layerNorm(x)
      const [q, k, v] = [0, 1, 2].map(() => g.linear(h, hidden, hidden, { bias: true }))
      const attended = g.node('MultiHeadAttention', [q, k, v], { domain: microsoft, attributes: { num_heads: heads } })
      x = g.node('Add', [x, g.linear(attended, hidden, hidden, { bias: true })])
      const up = g.gelu(g.linear(layerNorm(x), hidden, ffn, { bias: true }))
      x = g.node('Add', [x, g.linear(up, ffn, hidden, { bias: true })])
    }
    const projected = g.linear(layerNorm(x), hidden, text.hidden, { bias: true })
    g.node('Identity', [projected], { named: ['features'] })
    g.output('features', 'float', [1, tokens, text.hidden])
  })
}

/** Angles of every position: what Gemma's queries and keys are rotated by. */
function rotation(g, { headDim, ropeTheta }, positions) {
  const half = headDim / 2
  const angle = (i) => Math.floor(i / half) / ropeTheta ** ((i % half) / half)
  return [Math.cos, Math.sin].map((of) =>
    g.constant(
      'float',
      [positions, half],
      Float32Array.from({ length: positions * half }, (_, i) => of(angle(i)))
    )
  )
}

/** One layer of Gemma 2; `x` already has its input added. Gives what is added next and the layer's sum. */
function textLayer(g, layer, text, inputs, state) {
  const { hidden, ffn, heads, kvHeads, headDim, queryPreAttnScalar, attnSoftcap } = text
  const { norm, skipNorm } = state
  const [sum, h] = state.branch ? skipNorm(state.sum, state.branch) : [state.sum, norm(state.sum)]
  const packed = g.linear(h, hidden, (heads + 2 * kvHeads) * headDim)
  const cache = ['key', 'value'].map((part) => inputs.past(layer, part))
  const attention = [packed, '', '', ...cache, inputs.lengths, inputs.total, ...inputs.rotation]
  const attributes = {
    num_heads: heads,
    kv_num_heads: kvHeads,
    scale: { float: queryPreAttnScalar ** -0.5 },
    softcap: { float: attnSoftcap },
    do_rotary: 1
  }
  const attended = `attended${layer}`
  const named = [attended, `present.${layer}.key`, `present.${layer}.value`]
  g.node('GroupQueryAttention', attention, { domain: microsoft, attributes, named })
  const [middle, h2] = skipNorm(sum, norm(g.linear(attended, heads * headDim, hidden)))
  const gated = g.node('Mul', [g.gelu(g.linear(h2, hidden, ffn)), g.linear(h2, hidden, ffn)])
  return { ...state, sum: middle, branch: norm(g.linear(gated, ffn, hidden)) }
}

/**
 * Gemma 2 over a cache of `positions` tokens. With `ids` it takes token ids and a mask and gives every row's logits, as
 * transformers.js wants it; else embeddings and lengths, and it gives the last row's.
 */
export function textModel(path, { text, vocab }, weights, { positions, ids = false }) {
  const { hidden, layers, kvHeads, headDim, normEps, finalSoftcap } = text
  const epsilon = { epsilon: { float: normEps } }
  return written(path, weights, (g) => {
    const norm = (x) => g.node('SimplifiedLayerNormalization', [x, g.ones(hidden)], { attributes: epsilon })
    const skipNorm = (x, y) => {
      const named = [`n${g.names++}`, '', '', `s${g.names++}`]
      const options = { domain: microsoft, attributes: epsilon, named }
      const [normed, , , sum] = g.node('SkipSimplifiedLayerNormalization', [x, y, g.ones(hidden)], options)
      return [sum, normed]
    }
    const past = (layer, part) => g.input(`past_key_values.${layer}.${part}`, 'float', [1, kvHeads, 'past', headDim])
    const { x, lengths, total } = ids ? fromIds(g, vocab, hidden) : fromEmbeddings(g, hidden)
    const inputs = { past, lengths, total, rotation: rotation(g, text, positions) }
    let state = { sum: x, branch: undefined, norm, skipNorm }
    for (let layer = 0; layer < layers; layer++) {
      state = textLayer(g, layer, text, inputs, state)
      for (const part of ['key', 'value']) g.output(`present.${layer}.${part}`, 'float', [1, kvHeads, 'total', headDim])
    }
    let [, rows] = skipNorm(state.sum, state.branch)
    if (!ids)
      rows = g.node('Gather', [rows, g.constant('int64', [1], new BigInt64Array([-1n]))], { attributes: { axis: 1 } })
    const logits = g.linear(rows, hidden, vocab)
    const cap = g.scalar(finalSoftcap)
    g.node('Mul', [g.node('Tanh', [g.node('Div', [logits, cap])]), cap], { named: ['logits'] })
    g.output('logits', 'float', [1, ids ? 'tokens' : 1, vocab])
  })
}

function fromEmbeddings(g, hidden) {
  return {
    x: g.input('inputs_embeds', 'float', [1, 'tokens', hidden]),
    lengths: g.input('seqlens_k', 'int32', [1]),
    total: g.input('total_sequence_length', 'int32', [])
  }
}

function fromIds(g, vocab, hidden) {
  const ids = g.input('input_ids', 'int64', [1, 'tokens'])
  const mask = g.input('attention_mask', 'int64', [1, 'total'])
  const int = (x) => g.node('Cast', [x], { attributes: { to: 6 } })
  const axis = g.constant('int64', [1], new BigInt64Array([1n]))
  const counted = int(g.node('ReduceSum', [mask, axis], { attributes: { keepdims: 0 } }))
  const table = g.weight('float', [vocab, hidden], deviation)
  return {
    x: g.node('Gather', [table, ids]),
    lengths: g.node('Sub', [counted, g.constant('int32', [1], new Int32Array([1]))]),
    total: int(g.node('Gather', [g.node('Shape', [mask]), g.constant('int64', [], new BigInt64Array([1n]))]))
  }
}
