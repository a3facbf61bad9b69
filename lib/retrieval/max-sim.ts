/** Late interaction on the calling thread, and a second look at the best pages. */
import type { PlainDoubles } from '../base/plain-memory'
import { nativeSync, PaliGemmaError } from '../base/errors'
import { native } from '../engine/native'
import { check, readFields, rule, take } from '../base/validate'
import { nativeRows, type PageVectors, queryAs, takeVectors, typeOf, type VectorType } from './vectors'

/** A page and how well it fits. */
export interface SearchHit {
  /** The number that {@link PageIndex.add} gave. */
  page: number
  /** As {@link maxSim} defines it. */
  score: number
}

// A million pages' vectors take 100 GB.
const mostPages = 1 << 20
const pagesRule = rule.listOf('vectors', (page) => typeof page === 'object' && page !== null, { most: mostPages })
const hitsRule = rule.listOf('{ page, score }', (hit) => typeof hit === 'object' && hit !== null)

/**
 * Late interaction: for every query vector the largest dot product with a page's vectors, summed over the query. For
 * vectors of length 1 between -q and q, q being the query's number of tokens. One score per page; 0 for pages of no
 * tokens.
 *
 * Pages may be of any type, also mixed; an f32 query is quantized as they are. int8: the dot product of the quantized
 * vectors. binary: 1 - 2 * differing bits / dims, the cosine of the signs; its sums compare with each other only.
 *
 * Runs on the calling thread with the best instructions of the machine, some microseconds to tens of microseconds a
 * page; for large collections see {@link PageIndex}.
 * @throws PaliGemmaError ERR_INVALID_OPTION where widths or types do not fit, ERR_NATIVE_MISSING
 */
export function maxSim(query: PageVectors, pages: readonly PageVectors[]): PlainDoubles {
  const taken = takeVectors('query', query)
  const list = take('pages', pages, pagesRule)
  return scoresOf(
    taken,
    list.map((page, n) => takeVectors(`pages[${n}]`, page))
  )
}

function scoresOf(query: PageVectors, pages: readonly PageVectors[]): PlainDoubles {
  const byType = new Map<VectorType, number[]>()
  for (const [n, page] of pages.entries()) {
    if (page.dims !== query.dims)
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected vectors of ${query.dims} values for pages[${n}] but received ${page.dims}`
      )
    const type = typeOf(page)
    const list = byType.get(type)
    if (list) list.push(n)
    else byType.set(type, [n])
  }
  const scores = new Float64Array(pages.length)
  for (const [type, numbers] of byType) {
    const packed = queryAs(query, type)
    const chosen = numbers.map((n) => pages[n]!)
    const scales = (vectors: PageVectors): Float32Array | undefined =>
      vectors.type === 'int8' ? vectors.scales : undefined
    nativeSync(() =>
      native().maxSim(
        type,
        query.dims,
        nativeRows(packed),
        scales(packed),
        chosen.map(nativeRows),
        type === 'int8' ? chosen.map((page) => scales(page)!) : undefined
      )
    ).forEach((score, i) => {
      scores[numbers[i]!] = score
    })
  }
  return scores
}

/**
 * Orders hits of a quick search anew by better vectors of the same pages: search binary vectors for some hundred
 * candidates, then score those with int8 or f32 vectors from a database.
 * @param vectorsOf gives a page's vectors; all are asked for at once
 * @throws as {@link maxSim}, and what `vectorsOf` throws
 */
export async function rescore(
  query: PageVectors,
  hits: readonly SearchHit[],
  vectorsOf: (page: number) => PageVectors | Promise<PageVectors>
): Promise<SearchHit[]> {
  const taken = takeVectors('query', query)
  const numbers = take('hits', hits, hitsRule).map((hit, i) => {
    const { page } = readFields(`hits[${i}]`, hit, ['page'])
    return take(`hits[${i}].page`, page as number, rule.integer(0))
  })
  check('vectorsOf', vectorsOf, rule.callback)
  const scores = maxSim(taken, await Promise.all(numbers.map(async (page) => await vectorsOf(page))))
  return numbers.map((page, i) => ({ page, score: scores[i]! })).sort((a, b) => b.score - a.score || a.page - b.page)
}
