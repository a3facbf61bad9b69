/**
 * What a model's parts must compute and read, from the shapes in its files: the numerators of every share of a limit.
 */
import type { ModelInfo, TensorInfo } from '../api/inspect'

export interface Costs {
  /** Multiplications and additions of one picture's encoding: matrices and attention. 0 without vision. */
  visionOps: number
  /**
   * The same of a prefill of so many tokens, with the logits of its last one, as the engine computes it: of the last
   * layer keys and values of all tokens, everything else of {@link lastRows}.
   */
  prefillOps: (tokens: number) => number
  /** The same with all of the last layer, as engines compute it that do not know which rows are asked for. */
  wholePrefillOps: (tokens: number) => number
  /** Bytes that one decode step reads at least: the text weights once, and keys and values of `depth` tokens. */
  decodeBytes: (depth: number) => number
}

/** Tokens of a prefill that go all the way through its last layer: one more than the CPU decodes in a step. */
export const lastRows = 9

const kvBytes = { f32: 4, f16: 2, q8_0: 34 / 32 }

/** `files`: the model, and the separate vision file where there is one. */
export function costsOf(files: readonly ModelInfo[], kvCacheType: keyof typeof kvBytes = 'f16'): Costs {
  const tensors = files.flatMap((file) => file.tensors)
  const number = (key: string): number => {
    for (const { metadata } of files) {
      const value = metadata.find((entry) => entry.key === key)?.value
      if (typeof value === 'number') return value
    }
    return 0
  }
  const arch = files[0]?.architecture ?? ''
  const layers = number(`${arch}.block_count`)
  const heads = number(`${arch}.attention.head_count`)
  const kvHeads = number(`${arch}.attention.head_count_kv`) || heads
  const headDim = number(`${arch}.attention.key_length`)
  const visionWidth = number('clip.vision.embedding_length')
  const visionLayers = number('clip.vision.block_count')
  const patch = number('clip.vision.patch_size')
  const imageTokens = patch > 0 ? (number('clip.vision.image_size') / patch) ** 2 : 0

  const text = tensors.filter(({ name }) => name.startsWith('blk.'))
  const vision = tensors.filter(({ name }) => /^(?:v\.(?:blk\.|patch_embd)|mm\.)/.test(name))
  const head = tensors.filter(({ name }) => name === 'token_embd.weight')
  const textElements = matrixElements(text)
  const skipped = matrixElements(
    text.filter(({ name }) => name.startsWith(`blk.${layers - 1}.`) && !/\.attn_[kv]\./.test(name))
  )
  const weightBytes = [...text, ...head].reduce((sum, tensor) => sum + tensor.bytes, 0)
  const attentionOps = (tokens: number): number => 4 * tokens * heads * headDim // of a token and a layer
  const lastLayerOps = (tokens: number): number => 2 * skipped + attentionOps(tokens) // of a token that leaves it
  const wholePrefillOps = (tokens: number): number =>
    2 * tokens * textElements + 2 * matrixElements(head) + tokens * attentionOps(tokens) * layers
  return {
    // scores and their sum over the values: 2 multiply-adds per pair of tokens and channel
    visionOps:
      imageTokens === 0
        ? 0
        : 2 * imageTokens * matrixElements(vision) + 4 * imageTokens ** 2 * visionWidth * visionLayers,
    prefillOps: (tokens) => wholePrefillOps(tokens) - Math.max(0, tokens - lastRows) * lastLayerOps(tokens),
    wholePrefillOps,
    decodeBytes: (depth) => weightBytes + 2 * layers * kvHeads * headDim * kvBytes[kvCacheType] * depth
  }
}

function matrixElements(tensors: readonly TensorInfo[]): number {
  return tensors
    .filter(({ shape }) => shape.length > 1)
    .reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0)
}
