/** Many requests on one model: company, shared prefixes, beams, samples, limits. */
import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, type GeneratedToken, type GenerateOptions, type PaliGemma } from '../../lib/index'
import { writeTinyModel } from '../support/tiny-model'

let path = ''
let model: PaliGemma
const picture = (seed: number) => ({
  data: Uint8Array.from({ length: 28 * 28 * 3 }, (_, i) => (i * seed) % 251),
  width: 28,
  height: 28,
  channels: 3 as const
})
const request = (seed: number, more: Partial<GenerateOptions> = {}): GenerateOptions => ({
  image: picture(seed),
  prompt: `what is ${'a'.repeat(seed % 7)}`,
  maxTokens: 4 + ((seed * 3) % 17),
  ignoreEos: true,
  logProbs: true,
  ...more
})

beforeAll(async () => {
  path = writeTinyModel()
  model = await loadModel({ model: path, threads: 2, maxSequences: 4 })
})
afterAll(async () => {
  await model.dispose()
  rmSync(path, { force: true })
})

describe('in company', () => {
  it('gives every request of a batch what it gives alone, bit for bit', async () => {
    const requests = Array.from({ length: 12 }, (_, i) =>
      request(i + 1, i % 3 === 0 ? { temperature: 1, seed: i } : {})
    )
    const alone: GeneratedToken[][] = []
    for (const r of requests) alone.push((await model.generate(r)).tokens)
    const done: number[] = []
    const batch = await model.generateBatch(requests, { onResult: (_, i) => done.push(i) })
    batch.forEach((result, i) => expect('tokens' in result && result.tokens, `item ${i}`).toEqual(alone[i]))
    expect(done.sort((a, b) => a - b)).toEqual(requests.map((_, i) => i))
  })

  it('gives pictures and prompts that pass together what they get alone, bit for bit', async () => {
    // 36 tokens of a picture: enough to share products
    const file = writeTinyModel({ imageSize: 84 })
    try {
      const alone = await loadModel({ model: file, threads: 1 })
      const requests = Array.from({ length: 11 }, (_, i) =>
        i % 4 === 1
          ? request(i + 1, { images: [picture(i), picture(2 * i)], image: undefined })
          : request(i + 1, i % 3 === 0 ? { temperature: 1, seed: i } : {})
      )
      const expected: GeneratedToken[][] = []
      for (const r of requests) expected.push((await alone.generate(r)).tokens)
      await alone.dispose()
      for (const maxSequences of [2, 3, 8]) {
        // which has seen no picture yet
        const together = await loadModel({ model: file, threads: 2, maxSequences })
        const batch = await together.generateBatch(requests)
        batch.forEach((result, i) => expect('tokens' in result && result.tokens, `item ${i}`).toEqual(expected[i]))
        await together.dispose()
      }
    } finally {
      rmSync(file, { force: true })
    }
  })

  it('lets a bad item of a batch fail alone', async () => {
    const results = await model.generateBatch([
      request(1),
      { ...request(2), image: Buffer.from('no picture') },
      request(3)
    ])
    expect(results.map((r) => (r instanceof Error ? (r as { code?: string }).code : 'ok'))).toEqual([
      'ok',
      'ERR_IMAGE_INVALID',
      'ok'
    ])
  })

  it('keeps running streams flowing while another request is prefilled', async () => {
    const stream = model.stream(request(5, { maxTokens: 60 }))
    const other = model.generate(request(6, { prompt: 'b'.repeat(100) }))
    let tokens = 0
    for await (const chunk of stream) if (chunk.token) tokens++
    expect(tokens).toBe(60)
    expect((await other).tokens.length).toBeGreaterThan(0)
  })
})

describe('beams', () => {
  it('finds an output at least as probable as the greedy one', async () => {
    const sum = (tokens: { logProb?: number }[]) => tokens.reduce((s, t) => s + t.logProb!, 0)
    for (const seed of [3, 4, 5]) {
      // two tokens: longer greedy outputs may be pruned on the way
      const greedy = await model.generate(request(seed, { maxTokens: 2 }))
      const beams = await model.generate(request(seed, { maxTokens: 2, beams: 4 }))
      expect(beams.tokens.length).toBe(2)
      expect(sum(beams.tokens)).toBeGreaterThanOrEqual(sum(greedy.tokens) - 1e-4)
    }
  })

  it('gives tokens whose log-probabilities are those of scoring the text', async () => {
    const { tokens } = await model.generate(request(4, { maxTokens: 3, beams: 3, logProbs: true }))
    for (const token of tokens) expect(token.logProb).toBeLessThanOrEqual(0)
    const again = await model.generate(request(4, { maxTokens: 3, beams: 3, logProbs: true }))
    expect(again.tokens).toEqual(tokens)
  })

  it.each([
    [{ beams: 5 }, /maxSequences/],
    [{ beams: 2, temperature: 1 }, /temperature 0 with beams/],
    [{ beams: 0 }, /integer from 1 to 64 for beams/]
  ])('refuses %o', async (options, message) => {
    await expect(model.generate(request(1, options))).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(message) as unknown })
    )
  })
})

describe('bestOf', () => {
  it('returns the sample with the best mean log-probability', async () => {
    const options = request(7, { temperature: 1.5, maxTokens: 8 })
    const mean = (tokens: { logProb?: number }[]) => tokens.reduce((s, t) => s + t.logProb!, 0) / tokens.length
    const samples = []
    for (let seed = 10; seed < 15; seed++) samples.push(await model.generate({ ...options, seed }))
    const best = await model.generate({ ...options, seed: 10, bestOf: 5 })
    expect(mean(best.tokens)).toBe(Math.max(...samples.map((s) => mean(s.tokens))))
    expect(best.tokens.map((t) => t.text).join('')).toBe(best.text)
  })

  it('needs a temperature', async () => {
    await expect(model.generate(request(1, { bestOf: 3 }))).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })
})

describe('limits', () => {
  it('refuses a request beyond maxQueue with ERR_BUSY and takes the next one later', async () => {
    const limited = await loadModel({ model: path, maxQueue: 2 })
    const results = await Promise.allSettled([1, 2, 3].map(async (seed) => await limited.generate(request(seed))))
    expect(results.map((r) => (r.status === 'fulfilled' ? 'ok' : (r.reason as { code: string }).code))).toEqual([
      'ok',
      'ok',
      'ERR_BUSY'
    ])
    await expect(limited.generate(request(4))).resolves.toBeTruthy()
    const batch = await limited.generateBatch([1, 2, 3, 4, 5].map((seed) => request(seed)))
    expect(batch.every((r) => 'tokens' in r)).toBe(true)
    await limited.dispose()
  })

  it('ends a request at its deadline with ERR_DEADLINE, others go on', async () => {
    const others = model.generate(request(2, { maxTokens: 20 }))
    await expect(
      model.generate(request(1, { maxTokens: 100_000, deadlineMs: 1, prompt: 'a'.repeat(60) }))
    ).rejects.toMatchObject({ code: 'ERR_DEADLINE' })
    expect((await others).tokens.length).toBe(20)
  })
})
