/** Prompts in the form that Hugging Face's processors ask for: `<image>` and `<bos>` in front are placeholders. */
import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, type PaliGemma } from '../../lib/index'
import { withoutPlaceholders } from '../../lib/api/options/prompts'
import { embedRequest } from '../../lib/api/tasks/embed-request'
import { writeTinyModel } from '../support/tiny-model'

let path = ''
let model: PaliGemma
const picture = (seed: number) => ({
  data: Uint8Array.from({ length: 28 * 28 * 3 }, (_, i) => (i * seed) % 251),
  width: 28,
  height: 28
})

beforeAll(async () => {
  path = writeTinyModel()
  model = await loadModel({ model: path, threads: 1 })
})
afterAll(async () => {
  await model.dispose()
  rmSync(path, { force: true })
})

const wrongCount = { code: 'ERR_INVALID_OPTION', message: expect.stringContaining('<image>') as unknown }

describe('placeholders before a prompt', () => {
  it('leave the text behind them as it is', () => {
    expect(withoutPlaceholders('<image>caption en', 1)).toBe('caption en')
    expect(withoutPlaceholders('<image><image><bos>caption en\n', 2)).toBe('caption en\n')
    expect(withoutPlaceholders('<bos><image> caption en', 1)).toBe(' caption en')
    expect(withoutPlaceholders('<image> <image>\n<bos>caption', 2)).toBe('caption')
    expect(withoutPlaceholders('<bos>caption', 3)).toBe('caption')
    for (const text of ['what is <image>?', '<eos>caption', '<pad><image>', 'a <bos>', '<IMAGE>a', '<image', ''])
      expect(withoutPlaceholders(text, 1)).toBe(text)
  })

  it('give what the plain prompt gives, for one picture, several and none', async () => {
    const run = async (prompt: string, pictures: number): Promise<unknown> => {
      const images = Array.from({ length: pictures }, (_, i) => picture(i + 3))
      const { text, tokens, usage } = await model.generate({ prompt, images, maxTokens: 8, logProbs: true })
      return { text, tokens, usage }
    }
    for (const [pictures, forms] of [
      [0, ['<bos>what is it']],
      [1, ['<image>what is it', '<image><bos>what is it', '<bos>what is it', '<image><bos>what is it\n']],
      [2, ['<image><image>what is it', '<image><image><bos>what is it', '<image><bos><image>what is it']]
    ] as const) {
      const plain = await run('what is it', pictures)
      for (const form of forms) expect(await run(form, pictures), form).toEqual(plain)
    }
  })

  it('work in streams, batches, scores, beams and with control tokens allowed', async () => {
    const image = picture(5)
    const prompt = 'what is it'
    const same = { image, maxTokens: 6 }
    const plain = await model.generate({ ...same, prompt })
    const marked = { ...same, prompt: `<image><bos>${prompt}` }
    expect((await model.stream(marked).result).text).toBe(plain.text)
    expect((await model.generate({ ...marked, allowControlTokens: true })).text).toBe(plain.text)
    const [item] = await model.generateBatch([marked])
    expect((item as { text: string }).text).toBe(plain.text)
    const beams = await model.generate({ ...same, prompt, beams: 2 })
    expect((await model.generate({ ...marked, beams: 2 })).text).toBe(beams.text)
    const score = await model.score({ image, prompt, suffix: 'a' })
    expect(await model.score({ image, prompt: marked.prompt, suffix: 'a' })).toEqual(score)
    const answer = await model.answer(image, 'is it?', { maxTokens: 6 })
    expect(await model.answer(image, '<image>is it?', { maxTokens: 6 })).toBe(answer)
  })

  it('are counted in what an abandoned stream reports', async () => {
    const leave = async (prompt: string): Promise<number> => {
      const stream = model.stream({ image: picture(5), prompt, ignoreEos: true, maxTokens: 200 })
      for await (const _ of stream) break
      return (await stream.result).usage.promptTokens
    }
    expect(await leave('<image><bos>what is it')).toBe(await leave('what is it'))
  })

  it('are refused where they do not fit the pictures', async () => {
    const image = picture(5)
    await expect(model.generate({ image, prompt: '<image><image>a' })).rejects.toMatchObject(wrongCount)
    await expect(model.generate({ prompt: '<image>a' })).rejects.toMatchObject(wrongCount)
    await expect(model.generate({ images: [image, image], prompt: '<image>a' })).rejects.toMatchObject(wrongCount)
    await expect(model.score({ image, prompt: '<image><image>a', suffix: 'b' })).rejects.toMatchObject(wrongCount)
    expect(await model.generateBatch([{ image, prompt: '<image><image>a' }])).toMatchObject([wrongCount])
  })

  it('are left out of queries, before their prefix too', () => {
    for (const flavour of ['colpali-engine', 'transformers'] as const) {
      expect(embedRequest(flavour, '<bos>total due')).toEqual(embedRequest(flavour, 'total due'))
      expect(() => embedRequest(flavour, '<image>total due')).toThrow(/<image>/)
    }
  })
})
