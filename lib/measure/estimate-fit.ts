/** What training takes beside a loaded model: the engine's native/train, in numbers. */

/** Of {@link EstimateOptions}: an adapter to train, and its longest example. */
export interface FitEstimateOptions {
  /** As for `fit`; default 8. */
  rank?: number | undefined
  /** As for `fit`; default `['text']`. Single kinds count as the whole text model, or as tower and projector. */
  targets?: string[] | undefined
  /** As for `fit`; default 0. */
  dropout?: number | undefined
  /** Tokens of the response; default 32. */
  responseTokens?: number | undefined
}

export interface FitShape {
  hidden: number
  ffn: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  vocab: number
  vision: { hidden: number; ffn: number; tokens: number; layers: number } | undefined
}

// native/train/trainer.h: kTapeBytes; suffix_loss.cpp: kRows; cpu/products.cpp: kRows
const tapeBytes = 600 * 2 ** 20
const lossRows = 32
const packedRows = 528
// A and B, the device's copy, gradients, both moments
const bytesPerValue = 20

/** Bytes of training on examples of `prefix` tokens before the response. */
export function fitBytes(shape: FitShape, prefix: number, options: FitEstimateOptions): number {
  const { rank = 8, targets = ['text'], responseTokens = 32, dropout = 0 } = options
  const tokens = prefix + responseTokens
  const { hidden, ffn, layers, heads, kvHeads, headDim, vocab, vision } = shape
  const [queries, keys] = [heads * headDim, kvHeads * headDim]
  const sees = targets.some((target) => /^(?:all$|projector|vision|fc|out_proj)/.test(target)) ? vision : undefined
  const text = targets.some((target) => !/^(?:projector|vision|fc|out_proj)/.test(target))
  const values =
    rank *
    ((text ? layers * (2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + ffn)) : 0) +
      (sees ? sees.layers * (8 * sees.hidden + 2 * (sees.hidden + sees.ffn)) + sees.hidden + hidden : 0))
  const whole = 4 * tokens * (3 * hidden + 2 * queries + 2 * keys + 2 * ffn)
  const kept = Math.min(layers, Math.floor(tapeBytes / whole))
  const tapes = (kept < layers ? kept + 1 : kept) * whole + 4 * tokens * hidden * (layers + 1)
  const scratch = 4 * tokens * Math.max(3 * hidden + 2 * ffn, 3 * hidden + 2 * queries + 2 * keys)
  const loss = 4 * Math.min(lossRows, responseTokens) * (vocab + 2 * hidden)
  const products = 4 * Math.min(tokens, packedRows) * Math.max(ffn, hidden) + 4 * lossRows * vocab
  const cache = 4 * Math.ceil(tokens / 64) * 64 * layers * 2 * keys
  // what is left of an input, on the way forward and back
  const dropped = dropout > 0 ? 2 * 4 * tokens * Math.max(ffn, hidden, queries) : 0
  const tower = sees ? 4 * sees.tokens * ((sees.layers + 9) * sees.hidden + 3 * sees.ffn) : 0
  return Math.round(values * bytesPerValue + tapes + Math.max(scratch, loss) + products + cache + dropped + tower)
}
