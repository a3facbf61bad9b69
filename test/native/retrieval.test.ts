/** ColPali's vectors against the reference (golden/hf/colpali-tiny). */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import { loadModel, maxSim, type MultiVector, type PaliGemma } from '../../lib/index'
import { removeTempDirs, tempDir } from '../unit/convert-helpers'
import { golden, hasGolden } from '../unit/golden'
import { readSafetensors } from './safetensors'
import { writeTinyModel } from './tiny-model'

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
  it.each([['colpali-engine', 'colpali_engine'], ['transformers', 'transformers']] as const)('%s: has the reference\'s vectors and scores', async (flavour, key) => {
    const { sets } = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as
      { sets: { flavour: string, docs: { image: string }[], queries: { query: string }[], maxsim: number[][] }[] }
    const set = sets.find(s => s.flavour === key)!
    const expected = readSafetensors(join(folder, 'expected.safetensors'))
    const near = (ours: MultiVector, name: string) => {
      const { shape, data } = expected.get(name)!
      expect([ours.tokens, ours.dims]).toEqual(shape)
      expect(ours.data.reduce((worst, x, i) => Math.max(worst, Math.abs(x - data[i]!)), 0), name).toBeLessThanOrEqual(1e-4)
    }
    const pages = []
    for (const { image } of set.docs) {
      pages.push(await model.embedImage(join(folder, 'images', image), { flavour }))
      near(pages.at(-1)!, `${key}.doc.${image}`)
    }
    for (const [n, { query }] of set.queries.entries()) {
      const vectors = await model.embedText(query, { flavour })
      near(vectors, `${key}.query.${n}`)
      maxSim(vectors, pages).forEach((score, page) => expect(Math.abs(score - set.maxsim[n]![page]!)).toBeLessThanOrEqual(1e-3))
    }
  })

  it('needs a model with the head, and vectors of one width', async () => {
    const plain = await loadModel(writeTinyModel())
    await expect(plain.embedText('invoice')).rejects.toMatchObject({ code: 'ERR_MODEL_UNSUPPORTED' })
    await plain.dispose()
    await expect(model.embedText('x', { flavour: 'other' as 'transformers' })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    const query = await model.embedText('invoice')
    expect(() => maxSim(query, [{ data: new Float32Array(4), tokens: 1, dims: 4 }])).toThrow(/vectors of 128 values/)
  })
})
