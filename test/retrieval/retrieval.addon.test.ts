/** ColPali's vectors against the reference (golden/hf/colpali-tiny). */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import {
  drawSimilarityMap,
  loadModel,
  maxSim,
  poolTokens,
  quantizeVectors,
  similarityMap,
  type MultiVector,
  type PaliGemma
} from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { readSafetensors } from '../support/safetensors'
import { writeTinyModel } from '../support/tiny-model'

const folder = golden('hf', 'colpali-tiny')
let model: PaliGemma

beforeAll(async () => {
  if (!hasGolden) return
  const file = join(tempDir(), 'colpali.gguf')
  await convert({ source: folder, out: file, type: 'f32' })
  model = await loadModel({ model: file, kvCacheType: 'f32', threads: 2 })
})
afterAll(async () => {
  await model?.dispose()
  removeTempDirs()
})

describe.skipIf(!hasGolden)('ColPali', () => {
  it.each([
    ['colpali-engine', 'colpali_engine'],
    ['transformers', 'transformers']
  ] as const)("%s: has the reference's vectors and scores", async (flavour, key) => {
    const { sets } = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as {
      sets: { flavour: string; docs: { image: string }[]; queries: { query: string }[]; maxsim: number[][] }[]
    }
    const set = sets.find((s) => s.flavour === key)!
    const expected = readSafetensors(join(folder, 'expected.safetensors'))
    const near = (ours: MultiVector, name: string) => {
      const { shape, data } = expected.get(name)!
      expect([ours.tokens, ours.dims]).toEqual(shape)
      expect(
        ours.data.reduce((worst, x, i) => Math.max(worst, Math.abs(x - data[i]!)), 0),
        name
      ).toBeLessThanOrEqual(1e-4)
    }
    const pages = []
    for (const { image } of set.docs) {
      pages.push(await model.embedImage(join(folder, 'images', image), { flavour }))
      near(pages.at(-1)!, `${key}.doc.${image}`)
    }
    for (const [n, { query }] of set.queries.entries()) {
      const vectors = await model.embedText(query, { flavour })
      near(vectors, `${key}.query.${n}`)
      maxSim(vectors, pages).forEach((score, page) =>
        expect(Math.abs(score - set.maxsim[n]![page]!)).toBeLessThanOrEqual(1e-3)
      )
    }
  })

  it('says what the tokens are: patches of a page, words of a query', async () => {
    const file = join(folder, 'images', 'a.png')
    const [ours, theirs] = [
      await model.embedText('invoice total', { flavour: 'colpali-engine' }),
      await model.embedText('invoice total', { flavour: 'transformers' })
    ]
    expect(ours.texts!.length).toBe(ours.tokens)
    expect(ours.texts!.join('')).toBe(`<bos>invoice total${'<pad>'.repeat(10)}`)
    expect(theirs.texts!.length).toBe(theirs.tokens)
    expect(theirs.texts!.join('')).toBe(`<bos>Question: invoice total${'<pad>'.repeat(10)}\n`)
    const page = await model.embedImage(file)
    expect(page.imageTokens).toBe(model.info.imageTokens)
    const map = similarityMap(ours, page)
    expect([map.rows, map.columns]).toEqual([4, 4])
    const [{ width, height }, original] = await Promise.all([
      sharp(await drawSimilarityMap(file, map)).metadata(),
      sharp(file).metadata()
    ])
    expect([width, height]).toEqual([original.width, original.height])
  })

  it('loses little in int8, and still finds its pages pooled and as bits', async () => {
    const pages = await Promise.all(
      ['a.png', 'c.png'].map(async (name) => await model.embedImage(join(folder, 'images', name)))
    )
    const query = await model.embedText('invoice total')
    const exact = maxSim(query, pages)
    maxSim(
      query,
      pages.map((page) => quantizeVectors(page, 'int8'))
    ).forEach((score, i) => expect(Math.abs(score / exact[i]! - 1)).toBeLessThan(0.005))
    const pooled = await Promise.all(pages.map(async (page) => await poolTokens(page, { factor: 2 })))
    pooled.forEach((page, i) => expect(page.tokens).toBe(Math.floor(pages[i]!.tokens / 2)))
    // a page is most like itself in every form
    for (const form of [pages, pooled, pages.map((page) => quantizeVectors(page, 'binary'))]) {
      pages.forEach((page, i) => {
        const scores = maxSim(page, form)
        expect(scores.indexOf(Math.max(...scores))).toBe(i)
      })
    }
  })

  it('needs a model with the head, and vectors of one width', async () => {
    const plain = await loadModel(writeTinyModel())
    await expect(plain.embedText('invoice')).rejects.toMatchObject({ code: 'ERR_MODEL_UNSUPPORTED' })
    await plain.dispose()
    await expect(model.embedText('x', { flavour: 'other' as 'transformers' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
    const query = await model.embedText('invoice')
    expect(() => maxSim(query, [{ data: new Float32Array(4), tokens: 1, dims: 4 }])).toThrow(/vectors of 128 values/)
  })
})
