/**
 * What a checkpoint may claim of itself. Files come from strangers: a number is refused before it allocates or loops,
 * and the same bounds hold where the engine reads the converted model (native/model/config.cpp).
 */
export const modelLimits = {
  layers: 1024,
  heads: 4096,
  headDim: 4096,
  /** hidden and feed-forward */
  width: 1 << 20,
  /** tokens */
  context: 1 << 24,
  /** px */
  imageSize: 1 << 14,
  /** px */
  patch: 1024,
  imageTokens: 1 << 16,
  tokenId: (1 << 24) - 1,
  // Constants that float32 holds and whose products with activations stay finite.
  eps: [1e-12, 1],
  theta: [1, 1e12],
  attentionScalar: [1e-3, 1e9],
  softcap: [1e-3, 1e9]
} as const
