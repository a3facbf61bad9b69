/** Many pages' vectors in one place, searched by all threads beside the event loop. */
import type { PlainDoubles } from '../base/plain-memory'
import { nativeCall, nativeSync, PaliGemmaError } from '../base/errors'
import { native, type NativePageStore } from '../engine/native'
import { publicCall } from '../base/call'
import { untilAborted } from '../base/signals'
import { check, readOptions, rule, take, type Rules } from '../base/validate'
import type { SearchHit } from './max-sim'
import {
  nativeRows,
  type MultiVector,
  type PageVectors,
  quantizeVectors,
  queryAs,
  takeVectors,
  typeOf,
  typeRule,
  type VectorType
} from './vectors'

/** Options of {@link PageIndex}. */
export interface PageIndexOptions {
  /** How vectors are held; default "int8". f32 vectors that are added become this type. */
  type?: VectorType | undefined
  /** Width of the vectors; default 128, ColPali's. */
  dims?: number | undefined
  /** Of a search; default: the physical cores this process may use. Results do not depend on it. */
  threads?: number | undefined
}

/** Options of {@link PageIndex.search}. */
export interface SearchOptions {
  /** The best so many pages; default 10. */
  limit?: number | undefined
  /** Rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

const indexRules: Rules<PageIndexOptions> = {
  type: typeRule,
  dims: rule.integer(1, 4096),
  threads: rule.integer(1, 1024)
}
const searchRules: Rules<SearchOptions> = { limit: rule.integer(1, 2 ** 31 - 1), signal: rule.signal }

// A search looks at so much at a time: some tens of milliseconds, after which an abort is seen and others may go on.
const sliceBytes = 256 << 20

/**
 * Pages' vectors in native memory, each once and packed: 132 KB a page of 1030 vectors in int8, 527 KB in f32, 16 KB
 * in binary; a third of that with {@link poolTokens}. Every search reads them all. Pages have numbers in the order in
 * which they were added, from 0. Nothing is kept on disk: fill it from your database at start.
 *
 * Memory is freed when the index is collected, or at once with `clear()`.
 */
export class PageIndex {
  /** How vectors are held. */
  readonly type: VectorType
  /** Width of the vectors. */
  readonly dims: number
  readonly #store: NativePageStore
  #last: Promise<unknown> = Promise.resolve()
  #clears = 0

  /** @throws PaliGemmaError ERR_INVALID_OPTION, ERR_NATIVE_MISSING */
  constructor(options: PageIndexOptions = {}) {
    const { type = 'int8', dims = 128, threads } = readOptions<PageIndexOptions>('PageIndex', options, indexRules)
    this.type = type
    this.dims = dims
    this.#store = nativeSync(() => native().createPageStore(type, dims, threads))
  }

  /** Pages that can be found. */
  get size(): number {
    return this.#store.pages - this.#store.removed
  }
  /** Native memory taken, in bytes. */
  get bytes(): number {
    return this.#store.bytes
  }

  /**
   * Copies a page's vectors into the index; its number. At least one token.
   * @throws PaliGemmaError ERR_INVALID_OPTION where width or type do not fit, ERR_OUT_OF_MEMORY
   */
  add(given: PageVectors): number {
    const vectors = takeVectors('vectors', given)
    if (vectors.dims !== this.dims)
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected vectors of ${this.dims} values but received ${vectors.dims}`
      )
    if (vectors.tokens === 0)
      throw new PaliGemmaError('ERR_INVALID_OPTION', 'Expected vectors of at least one token but received none')
    const type = typeOf(vectors)
    if (type !== this.type && type !== 'f32')
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected vectors of type "f32" or "${this.type}" but received "${type}"`
      )
    const packed =
      type === this.type ? vectors : quantizeVectors(vectors as MultiVector, this.type as 'int8' | 'binary')
    return nativeSync(() => this.#store.add(nativeRows(packed), packed.type === 'int8' ? packed.scales : undefined))
  }

  /** The page is not found any more. Its number stays taken, and its memory too until `clear()`. */
  remove(page: number): void {
    check('page', page, rule.integer(0))
    nativeSync(() => this.#store.remove(page))
  }

  /** Removes all pages and frees their memory; numbers begin at 0 again. Searches under way find nothing. */
  clear(): void {
    this.#store.clear()
    this.#clears++
  }

  /**
   * The pages that fit best, best first; of equal ones the lower number first. An f32 query is quantized as the pages
   * are. Searches run one after the other, each on all threads; pages that are added meanwhile may be missed.
   * @throws PaliGemmaError ERR_INVALID_OPTION; an abort rejects with the signal's reason
   */
  async search(query: PageVectors, options: SearchOptions = {}): Promise<SearchHit[]> {
    return await publicCall<SearchOptions, SearchHit[]>(
      'search',
      options,
      searchRules,
      [],
      async ({ limit = 10, signal }) => await this.#search(query, limit, signal)
    )
  }

  async #search(query: PageVectors, limit: number, signal: AbortSignal): Promise<SearchHit[]> {
    const { rows, scales } = this.#query(query)
    const end = this.#store.pages
    const step = Math.max(1024, Math.floor(sliceBytes / (this.#store.bytes / Math.max(end, 1) + 1)))
    const clears = this.#clears
    let best: SearchHit[] = []
    for (let begin = 0; begin < end; begin += step) {
      const found = await untilAborted(
        this.#exclusively(
          async () => await this.#store.search(rows, scales, begin, Math.min(begin + step, end), limit)
        ),
        signal
      )
      if (this.#clears !== clears) return []
      const hits = Array.from(found.pages, (page, i) => ({ page, score: found.scores[i]! }))
      best =
        best.length === 0
          ? hits
          : [...best, ...hits].sort((a, b) => b.score - a.score || a.page - b.page).slice(0, limit)
    }
    return best
  }

  /**
   * The scores of some pages, in the order of their numbers as given; NaN for removed ones.
   * @throws PaliGemmaError ERR_INVALID_OPTION
   */
  async score(query: PageVectors, pages: readonly number[]): Promise<PlainDoubles> {
    const list = take('pages', pages, rule.listOf('page numbers', rule.integer(0).accepts, { most: 1 << 20 }))
    const { rows, scales } = this.#query(query)
    return await this.#exclusively(async () => await this.#store.score(rows, scales, list))
  }

  /** A copy: what the caller does with its buffers while the query waits makes no difference. */
  #query(given: PageVectors): { rows: Uint8Array; scales: Float32Array | undefined } {
    const query = takeVectors('query', given)
    if (query.dims !== this.dims)
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected a query of vectors of ${this.dims} values but received ${query.dims}`
      )
    const packed = queryAs(query, this.type)
    return { rows: nativeRows(packed).slice(), scales: packed.type === 'int8' ? packed.scales.slice() : undefined }
  }

  /** One search at a time: each takes all threads, and waiting ones hold none of libuv's. */
  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(async () => await nativeCall(work))
    this.#last = turn.catch(() => {})
    return await turn
  }
}
