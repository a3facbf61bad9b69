/** Late interaction without a model: scores, the page index, smaller vectors, pooling, maps. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import {
  drawSimilarityMap,
  maxSim,
  PageIndex,
  poolTokens,
  quantizeVectors,
  rescore,
  similarityMap,
  type MultiVector,
  type PageVectors
} from '../../lib/index'
import { golden, hasGolden } from '../support/golden'
import { readSafetensors } from '../support/safetensors'

/** The same numbers on every machine: a linear congruential generator, -1..1. */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  }
}

/** Vectors of length 1. */
function vectors(tokens: number, dims = 128, seed = 1): MultiVector {
  const next = generator(seed)
  const data = Float32Array.from({ length: tokens * dims }, next)
  for (let t = 0; t < tokens; t++) {
    const row = data.subarray(t * dims, (t + 1) * dims)
    const length = Math.hypot(...row)
    row.forEach((x, i) => {
      row[i] = x / length
    })
  }
  return { data, tokens, dims }
}

/** The definition. */
function plainScore(query: MultiVector, page: MultiVector): number {
  let sum = 0
  for (let q = 0; q < query.tokens; q++) {
    let best = -Infinity
    for (let p = 0; p < page.tokens; p++) {
      let dot = 0
      for (let i = 0; i < query.dims; i++) dot += query.data[q * query.dims + i]! * page.data[p * page.dims + i]!
      best = Math.max(best, dot)
    }
    sum += best
  }
  return sum
}

const pageSet = (count: number, dims = 128): MultiVector[] =>
  Array.from({ length: count }, (_, i) => vectors(3 + ((i * 5) % 40), dims, 100 + i))
const code = (call: () => unknown): string => {
  try {
    call()
    return 'done'
  } catch (error) {
    return `${(error as { code: string }).code}: ${(error as Error).message}`
  }
}

describe('maxSim', () => {
  it.each([1, 2, 3, 20, 37])('sums the best dot products of a query of %i tokens', (tokens) => {
    for (const dims of [1, 7, 96, 128]) {
      const query = vectors(tokens, dims, tokens)
      const pages = pageSet(9, dims)
      const scores = maxSim(query, pages)
      expect(scores).toBeInstanceOf(Float64Array)
      pages.forEach((page, i) => expect(scores[i]).toBeCloseTo(plainScore(query, page), 4))
    }
  })

  it('gives 0 for pages without tokens, nothing for no pages', () => {
    expect([...maxSim(vectors(3), [{ data: new Float32Array(0), tokens: 0, dims: 128 }])]).toEqual([0])
    expect(maxSim(vectors(3), []).length).toBe(0)
  })

  it('takes pages of all types at once, and quantizes the query as they are', () => {
    const query = vectors(17)
    const page = vectors(50, 128, 5)
    const [exact, int8, binary, again] = maxSim(query, [
      page,
      quantizeVectors(page, 'int8'),
      quantizeVectors(page, 'binary'),
      page
    ])
    expect(again).toBe(exact)
    expect(Math.abs(int8! - exact!)).toBeLessThan(0.05)
    expect(binary).toBe(maxSim(quantizeVectors(query, 'binary'), [quantizeVectors(page, 'binary')])[0])
    // the cosine of the signs, by definition
    const signs = (v: MultiVector): MultiVector => ({
      ...v,
      data: v.data.map((x) => (x > 0 ? 1 : -1) / Math.sqrt(v.dims))
    })
    expect(binary).toBeCloseTo(plainScore(signs(query), signs(page)), 5)
  })

  it('takes views into larger buffers, and widths that fill no byte', () => {
    const page = vectors(12, 13, 3)
    const bytes = new Uint8Array(1 + 12 * 2)
    bytes.set(quantizeVectors(page, 'binary').data, 1)
    const query = vectors(5, 13, 4)
    const [score] = maxSim(query, [{ type: 'binary', data: bytes.subarray(1), tokens: 12, dims: 13 }])
    expect(score).toBe(maxSim(query, [quantizeVectors(page, 'binary')])[0])
  })

  it('refuses what does not fit', () => {
    const query = vectors(3)
    const page = vectors(4)
    expect(code(() => maxSim(query, [page, vectors(3, 64)]))).toBe(
      'ERR_INVALID_OPTION: Expected vectors of 128 values for pages[1] but received 64'
    )
    expect(code(() => maxSim(query, [{ ...page, tokens: 5 }]))).toBe(
      'ERR_INVALID_OPTION: Expected 5 x 128 values for pages[0].data but received 512'
    )
    expect(code(() => maxSim({ ...query, data: [...query.data] as unknown as Float32Array }, []))).toMatch(
      /^ERR_INVALID_OPTION: Expected Float32Array for query\.data/
    )
    expect(code(() => maxSim(quantizeVectors(query, 'int8'), [page]))).toMatch(
      /^ERR_INVALID_OPTION: Expected a query of type "f32"/
    )
    expect(code(() => maxSim(query, [{ ...quantizeVectors(page, 'int8'), scales: new Float32Array(3) }]))).toMatch(
      /^ERR_INVALID_OPTION: Expected Float32Array of 4 values for pages\[0\]\.scales/
    )
    expect(code(() => maxSim(query, page as unknown as PageVectors[]))).toMatch(
      /^ERR_INVALID_OPTION: Expected array of vectors for pages/
    )
    expect(code(() => maxSim(query, [{ ...page, type: 'f16' as 'f32' }]))).toMatch(
      /^ERR_INVALID_OPTION: Expected "f32" or "int8" or "binary" for pages\[0\]\.type/
    )
  })
})

describe('quantizeVectors', () => {
  it("rounds to 127 steps of each vector's largest value", () => {
    const page = vectors(40, 128, 9)
    const { data, scales, ...rest } = quantizeVectors(page, 'int8')
    expect(rest).toEqual({ type: 'int8', tokens: 40, dims: 128 })
    page.data.forEach((x, i) =>
      expect(Math.abs(x - data[i]! * scales[Math.floor(i / 128)]!)).toBeLessThanOrEqual(
        scales[Math.floor(i / 128)]! * 0.5001
      )
    )
    expect([...quantizeVectors({ data: new Float32Array([0, 0, 3, -4]), tokens: 2, dims: 2 }, 'int8').data]).toEqual([
      0, 0, 95, -127
    ])
  })

  it("packs signs as NumPy's packbits does", () => {
    const data = new Float32Array([1, -1, 0, 2, -1, -1, -1, 1e-9, /* next byte */ 3, -1])
    expect([...quantizeVectors({ data, tokens: 1, dims: 10 }, 'binary').data]).toEqual([0b10010001, 0b10000000])
  })

  it('refuses values that are no numbers, and vectors that are quantized', () => {
    for (const type of ['int8', 'binary'] as const)
      for (const value of [NaN, Infinity, -Infinity]) {
        const data = new Float32Array([1, 2, 3, value])
        expect(code(() => quantizeVectors({ data, tokens: 2, dims: 2 }, type))).toMatch(
          /finite values for vectors\.data but vector 1/
        )
      }
    expect(code(() => quantizeVectors(quantizeVectors(vectors(1), 'int8') as unknown as MultiVector, 'int8'))).toMatch(
      /^ERR_INVALID_OPTION/
    )
    expect(code(() => quantizeVectors(vectors(1), 'f32' as 'int8'))).toMatch(
      /^ERR_INVALID_OPTION: Expected "int8" or "binary" for type/
    )
  })
})

describe('PageIndex', () => {
  it.each(['f32', 'int8', 'binary'] as const)(
    '%s: finds what maxSim finds, whatever the number of threads',
    async (type) => {
      const pages = pageSet(3000, 32)
      const stored = pages.map((page) => (type === 'f32' ? page : quantizeVectors(page, type)))
      const query = vectors(11, 32, 7)
      const scores = maxSim(query, stored)
      const order = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]! || a - b)
      for (const threads of [1, 3]) {
        const index = new PageIndex({ type, dims: 32, threads })
        // f32 vectors become the index's type
        expect(pages.map((page, i) => index.add(i % 2 ? page : stored[i]!))).toEqual([...pages.keys()])
        expect(await index.search(query, { limit: 25 })).toEqual(
          order.slice(0, 25).map((page) => ({ page, score: scores[page] }))
        )
        expect(await index.score(query, [5, 2999, 5])).toEqual(
          new Float64Array([scores[5]!, scores[2999]!, scores[5]!])
        )
        expect((await index.search(query)).length).toBe(10)
      }
    }
  )

  it('forgets removed pages and, cleared, all of them', async () => {
    const index = new PageIndex()
    const pages = pageSet(30)
    pages.forEach((page) => index.add(page))
    const query = vectors(9)
    const [best, second] = await index.search(query)
    index.remove(best!.page)
    index.remove(best!.page)
    expect(index.size).toBe(29)
    expect((await index.search(query))[0]).toEqual(second)
    expect((await index.score(query, [best!.page]))[0]).toBeNaN()
    expect(index.bytes).toBeGreaterThan(0)
    const running = index.search(query, { limit: 100 })
    index.clear()
    expect(await running).toEqual([])
    expect([index.size, index.bytes, await index.search(query)]).toEqual([0, 0, []])
    expect(index.add(pages[0]!)).toBe(0)
    expect((await index.search(query))[0]!.page).toBe(0)
  })

  it('runs searches side by side, and pages may be added meanwhile', async () => {
    const index = new PageIndex({ type: 'f32' })
    const pages = pageSet(200)
    pages.forEach((page) => index.add(page))
    const queries = Array.from({ length: 12 }, (_, i) => vectors(5 + i, 128, i))
    const before = await Promise.all(queries.map(async (query) => await index.search(query, { limit: 3 })))
    const during = queries.map(async (query) => await index.search(query, { limit: 3 }))
    for (let i = 0; i < 50; i++) index.add({ data: new Float32Array(128), tokens: 1, dims: 128 })
    expect(await Promise.all(during)).toEqual(before)
  })

  it("rejects with the signal's reason", async () => {
    const index = new PageIndex()
    index.add(vectors(5))
    const reason = new Error('enough')
    await expect(index.search(vectors(3), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const control = new AbortController()
    const running = index.search(vectors(3), { signal: control.signal })
    control.abort(reason)
    await expect(running).rejects.toBe(reason)
    expect((await index.search(vectors(3)))[0]!.page).toBe(0)
  })

  it('refuses what does not fit', async () => {
    const index = new PageIndex({ type: 'binary', dims: 64 })
    expect(code(() => index.add(vectors(3)))).toBe('ERR_INVALID_OPTION: Expected vectors of 64 values but received 128')
    expect(code(() => index.add(quantizeVectors(vectors(3, 64), 'int8')))).toBe(
      'ERR_INVALID_OPTION: Expected vectors of type "f32" or "binary" but received "int8"'
    )
    expect(code(() => index.add({ data: new Float32Array(0), tokens: 0, dims: 64 }))).toMatch(/at least one token/)
    expect(code(() => index.remove(0))).toMatch(/^ERR_INVALID_OPTION/)
    expect(code(() => new PageIndex({ dims: 5000 }))).toMatch(/^ERR_INVALID_OPTION/)
    expect(code(() => new PageIndex({ type: 'f16' as 'f32' }))).toMatch(/^ERR_INVALID_OPTION/)
    await expect(index.search(vectors(3))).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(index.search(vectors(3, 64), { limit: 0 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(index.score(vectors(3, 64), [0])).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect(await index.search(vectors(3, 64))).toEqual([])
  })
})

describe('rescore', () => {
  it('finds with bits and orders with better vectors', async () => {
    const pages = pageSet(400)
    const query = vectors(16, 128, 3)
    const index = new PageIndex({ type: 'binary' })
    pages.forEach((page) => index.add(page))
    const hits = await rescore(query, await index.search(query, { limit: 100 }), async (page) => pages[page]!)
    const exact = maxSim(query, pages)
    const best = [...exact.keys()].sort((a, b) => exact[b]! - exact[a]!)
    expect(hits.slice(0, 3).map(({ page }) => page)).toEqual(best.slice(0, 3))
    expect(hits[0]!.score).toBe(exact[best[0]!])
    await expect(
      rescore(query, hits, () => {
        throw new Error('no database')
      })
    ).rejects.toThrow('no database')
  })
})

describe('poolTokens', () => {
  const { generated, ...reference } = JSON.parse(
    readFileSync(join(__dirname, '..', 'fixtures', 'token-pooling.json'), 'utf8')
  ) as Record<string, Record<string, number[]>> & { generated: Record<string, number[]> }

  it('clusters as scipy does for colpali-engine', async () => {
    const next = generator(1)
    const directions = Array.from({ length: 20 }, () => Array.from({ length: 32 }, next))
    const rows = Array.from({ length: 300 }, (_, t) => {
      const row = directions[(t * 7) % 20]!.map((x) => x + 0.5 * next())
      const length = Math.hypot(...row)
      return row.map((x) => x / length)
    })
    const page = { data: Float32Array.from(rows.flat()), tokens: 300, dims: 32 }
    for (const factor of [3, 15]) {
      const pooled = await poolTokens(page, { factor })
      expect(pooled.clusters).toEqual(generated[factor])
      expect([pooled.tokens, pooled.dims, pooled.data.length]).toEqual([300 / factor, 32, (300 / factor) * 32])
      // each the mean of its members, of length 1
      for (const cluster of [0, 7]) {
        const mean = Array.from({ length: 32 }, (_, k) =>
          rows.reduce((sum, row, t) => sum + (pooled.clusters[t] === cluster ? row[k]! : 0), 0)
        )
        const length = Math.hypot(...mean)
        mean.forEach((x, k) => expect(pooled.data[cluster * 32 + k]).toBeCloseTo(x / length, 5))
      }
    }
  })

  it.skipIf(!hasGolden)("clusters ColPali's pages as scipy does", async () => {
    const expected = readSafetensors(join(golden('hf', 'colpali-tiny'), 'expected.safetensors'))
    let compared = 0
    for (const [name, byFactor] of Object.entries(reference)) {
      const tensor = expected.get(name)
      if (!tensor) continue
      for (const [factor, clusters] of Object.entries(byFactor)) {
        expect(
          (await poolTokens({ data: tensor.data, tokens: tensor.shape[0]!, dims: 128 }, { factor: Number(factor) }))
            .clusters,
          `${name} ${factor}`
        ).toEqual(clusters)
        compared++
      }
    }
    expect(compared).toBe(12)
  })

  it('keeps everything at factor 1, and at least one vector', async () => {
    const page = vectors(7)
    const same = await poolTokens(page, { factor: 1 })
    expect(same.clusters).toEqual([0, 1, 2, 3, 4, 5, 6])
    same.data.forEach((x, i) => expect(x).toBeCloseTo(page.data[i]!, 6))
    expect((await poolTokens(vectors(2))).tokens).toBe(1)
    expect((await poolTokens({ data: new Float32Array(0), tokens: 0, dims: 4 })).tokens).toBe(0)
    await expect(poolTokens(page, { factor: 0.5 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(poolTokens(quantizeVectors(page, 'int8') as unknown as MultiVector)).rejects.toThrow(
      /pool before quantizing/
    )
  })
})

describe('similarityMap', () => {
  // 4 x 4 patches and two more tokens; the query's second token is the vector of the patch in row 1, column 2
  const page: MultiVector = { ...vectors(18, 16, 8), imageTokens: 16 }
  const query: MultiVector = {
    data: Float32Array.from([...vectors(1, 16, 3).data, ...page.data.subarray(6 * 16, 7 * 16)]),
    tokens: 2,
    dims: 16
  }

  it('has a dot product for every patch, and shows where a token matches', () => {
    const map = similarityMap(query, page, { tokens: [1] })
    expect([map.rows, map.columns, map.data.length]).toEqual([4, 4, 16])
    expect(map.data.indexOf(Math.max(...map.data))).toBe(6)
    expect(map.data[6]).toBeCloseTo(1, 5)
    const both = similarityMap(query, page)
    similarityMap(query, page, { tokens: [0] }).data.forEach((x, i) =>
      expect(both.data[i]).toBeCloseTo((x + map.data[i]!) / 2, 5)
    )
  })

  it('is drawn over the page, brightest at the match', async () => {
    const image = { data: new Uint8Array(120 * 80 * 3).fill(128), width: 120, height: 80 }
    const png = await drawSimilarityMap(image, similarityMap(query, page, { tokens: [1] }), { opacity: 1 })
    const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true })
    expect([info.format, info.width, info.height, info.channels]).toEqual(['raw', 120, 80, 3])
    const brightness = (x: number, y: number): number =>
      [0, 1, 2].reduce((sum, c) => sum + data[(y * 120 + x) * 3 + c]!, 0)
    const centre = (patch: number): number => brightness((patch % 4) * 30 + 15, Math.floor(patch / 4) * 20 + 10)
    const values = Array.from({ length: 16 }, (_, patch) => centre(patch))
    expect(values.indexOf(Math.max(...values))).toBe(6)
    // opacity 0: the page itself
    const bare = await sharp(await drawSimilarityMap(image, similarityMap(query, page), { opacity: 0 }))
      .raw()
      .toBuffer()
    expect(bare.every((x) => x === 128)).toBe(true)
  })

  it('leaves out what was padded around the page', async () => {
    // a page twice as wide as high lies in the two middle rows of patches
    const transform = {
      scaleX: 0.5,
      scaleY: 0.5,
      offsetX: 0,
      offsetY: 14,
      size: 56,
      sourceWidth: 112,
      sourceHeight: 56
    }
    const map = {
      data: Float32Array.from({ length: 16 }, (_, i) => (i === 4 ? 1 : i < 4 ? 0.9 : 0)),
      rows: 4,
      columns: 4,
      transform
    }
    const { data } = await sharp(
      await drawSimilarityMap({ data: new Uint8Array(112 * 56 * 3), width: 112, height: 56 }, map, { opacity: 1 })
    )
      .raw()
      .toBuffer({ resolveWithObject: true })
    const brightness = (x: number, y: number): number =>
      data[(y * 112 + x) * 3]! + data[(y * 112 + x) * 3 + 1]! + data[(y * 112 + x) * 3 + 2]!
    expect(brightness(8, 8)).toBeGreaterThan(500) // row 1 of the patches is the page's first
    expect(brightness(8, 48)).toBeLessThan(100)
    expect(brightness(100, 48)).toBeLessThan(100)
  })

  it('takes a map without contrast, and refuses pages without places', async () => {
    const flat = { data: new Float32Array(4).fill(0.5), rows: 2, columns: 2 }
    expect(
      (await sharp(await drawSimilarityMap({ data: new Uint8Array(12), width: 2, height: 2 }, flat)).metadata()).width
    ).toBe(2)
    expect(code(() => similarityMap(query, vectors(16, 16)))).toMatch(
      /ERR_INVALID_OPTION: Expected a page with imageTokens/
    )
    expect(code(() => similarityMap(query, page, { tokens: [2] }))).toBe(
      'ERR_INVALID_OPTION: Expected numbers below 2 for tokens but received 2'
    )
    expect(code(() => similarityMap(query, page, { tokens: [] }))).toMatch(/received none/)
    expect(code(() => similarityMap(query, { ...page, imageTokens: 15 }))).toMatch(/imageTokens/)
    await expect(
      drawSimilarityMap({ data: new Uint8Array(12), width: 2, height: 2 }, { ...flat, rows: 3 })
    ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(
      drawSimilarityMap({ data: new Uint8Array(12), width: 2, height: 2 }, flat, { range: [1, 0] })
    ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })
})
