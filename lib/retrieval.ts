/** Multi-vector retrieval as ColPali does it: one vector per token, compared by late interaction. */
import type { NativeRequest } from './native'
import { PaliGemmaError } from './errors'

/** The vectors of a page or a query: [tokens, dims], row-major, every row of length 1. */
export interface MultiVector {
  data: Float32Array
  tokens: number
  dims: number
}

/** Whose prompts the checkpoint was trained or published with. */
export type RetrievalFlavour = 'colpali-engine' | 'transformers'

/**
 * The prompt of a page; undefined `query` asks for it. colpali-engine writes two `<bos>` before a page's text and no
 * newline after a query; transformers' port one, and "Question: " before the query.
 */
export function embedRequest (flavour: RetrievalFlavour, query?: string): Required<Pick<NativeRequest, 'prompt' | 'embed'>> {
  const theirs = flavour === 'transformers'
  if (query === undefined) return { prompt: 'Describe the image.', embed: { bosTokens: theirs ? 1 : 2, padTokens: 0, newline: true } }
  return { prompt: theirs ? `Question: ${query}` : query, embed: { bosTokens: 1, padTokens: 10, newline: theirs } }
}

/**
 * Late interaction: for every query vector the largest dot product with a page's vectors, summed. One score per page.
 * @throws PaliGemmaError ERR_INVALID_OPTION where the vectors' widths differ
 */
export function maxSim (query: MultiVector, pages: readonly MultiVector[]): Float64Array {
  const { dims } = query
  return Float64Array.from(pages, (page, n) => {
    if (page.dims !== dims) throw new PaliGemmaError('ERR_INVALID_OPTION', `Expected vectors of ${dims} values for pages[${n}] but received ${page.dims}`)
    if (page.tokens === 0) return 0
    let sum = 0
    for (let q = 0; q < query.tokens * dims; q += dims) {
      let best = -Infinity
      for (let p = 0; p < page.tokens * dims; p += dims) {
        let dot = 0
        for (let i = 0; i < dims; i++) dot += query.data[q + i]! * page.data[p + i]!
        if (dot > best) best = dot
      }
      sum += best
    }
    return sum
  })
}
