/** Memory of published sizes, against sums done by hand. */
import { describe, expect, it } from 'vitest'
import { estimateMemory, estimateOn } from '../../lib/measure/estimate'

const GB = 1e9

describe('estimateMemory of published sizes', () => {
  it.each([
    // name, type, weights as docs/convert.md has them, bytes a token takes in the cache: layers x (K, V) x heads x head
    // size x 2
    ['3b-224', 'BF16', 6.07, 26 * 2 * 4 * 256 * 2],
    ['3b-224', 'Q8_0', 3.24, 26 * 2 * 4 * 256 * 2],
    ['3b-224', 'Q4_K_M', 2.15, 26 * 2 * 4 * 256 * 2],
    ['pg1-3b-448', 'BF16', 5.85, 18 * 2 * 1 * 256 * 2],
    ['10b-224', 'Q8_0', 10.3, 42 * 2 * 8 * 256 * 2],
    ['28b-896', 'BF16', 55.3, 46 * 2 * 16 * 128 * 2]
  ])('%s as %s', async (name, type, gigabytes, perToken) => {
    const { weights, kv, total } = await estimateMemory(name, { type })
    expect(Math.abs(weights / GB / gigabytes - 1)).toBeLessThan(0.02)
    expect(kv.perToken).toBe(perToken)
    expect(total).toBeGreaterThan(weights)
  })

  it('counts cache pages of 64 tokens', async () => {
    const { kv } = await estimateMemory('3b-224', { promptTokens: 20, maxTokens: 42 })
    // 256 + 20 + 2 + 42 = 320 tokens = 5 pages
    expect(kv.perSequence).toBe(320 * kv.perToken)
    expect(kv.perFullSequence).toBe(8192 * kv.perToken)
    expect((await estimateMemory('3b-224', { promptTokens: 21, maxTokens: 42 })).kv.perSequence).toBe(384 * kv.perToken)
    expect((await estimateMemory('3b-224', { contextSize: 300, maxTokens: 256 })).kv.perSequence).toBe(
      320 * kv.perToken
    )
  })

  it("the cache's type, the number of sequences and the context count", async () => {
    const usual = await estimateMemory('3b-448')
    expect((await estimateMemory('3b-448', { kvCacheType: 'f32' })).kv.perToken).toBe(2 * usual.kv.perToken)
    expect((await estimateMemory('3b-448', { kvCacheType: 'q8_0' })).kv.perToken).toBe((usual.kv.perToken / 64) * 34)
    const two = await estimateMemory('3b-448', { maxSequences: 2 })
    expect(usual.total - two.total).toBeGreaterThan(2 * usual.kv.perSequence)
    expect(usual.most - two.most).toBeGreaterThan(2 * usual.kv.perFullSequence)
    expect((await estimateMemory('3b-448', { contextSize: 2048 })).most).toBeLessThan(usual.most)
    expect(usual.most).toBeGreaterThan(usual.total)
  })

  it('scratch of the text model: residual and queries of all rows, the widest stage of 512', async () => {
    const { scratch } = await estimateMemory('3b-896', { promptTokens: 30 })
    // 4096 + 30 + 2 rows of 2304 and of 8 x 256; the feed-forward of 512 rows is wider than the other stages
    expect(scratch.prefill).toBe(4 * (4128 * (2304 + 2048)) + Math.max(4 * 512 * (2 * 2304 + 9216), 4 * 4128 * 2304))
    // 4096 patches: residual and four more of 1152, beside the gathered patches of 588 values
    expect(scratch.vision).toBe(4 * 4096 * (5 * 1152 + 588))
    // one row, and the logits of one
    expect((await estimateMemory('3b-896', { maxSequences: 1 })).scratch.decode).toBe(
      4 * (2304 + 2048) + 4 * (257216 + 2304)
    )
  })

  it('scratch of two requests, whose pictures and prompts pass together with AVX-512, and of no more', async () => {
    const [one, two, eight] = await Promise.all(
      [1, 2, 8].map(async (maxSequences) => (await estimateOn('avx512vnni', '3b-224', { maxSequences })).scratch)
    )
    // 290 rows; of shorter ones up to 576 in one block
    expect(one!.prefill).toBe(4 * 290 * (2304 + 2048 + 2 * 2304 + 9216))
    expect(two!.prefill).toBe(4 * 576 * (2304 + 2048 + 2 * 2304 + 9216))
    // 256 patches each, beside the feed-forward's 4352 values; patches are gathered one picture after another
    expect(one!.vision).toBe(4 * 256 * (2 * 1152 + 4352 + 588))
    expect(two!.vision).toBe(4 * 256 * (2 * (2 * 1152 + 4352) + 588))
    expect(eight!.prefill).toBe(two!.prefill)
    expect(eight!.vision).toBe(two!.vision)
    // pictures of 448 px have more rows than a block: each alone
    expect((await estimateOn('amx', '3b-448', { maxSequences: 8 })).scratch.prefill).toBe(
      (await estimateOn('amx', '3b-448', { maxSequences: 1 })).scratch.prefill
    )
  })

  it.each(['avx2', 'avxvnni', 'neon', 'i8mm', 'scalar'])('on %s requests pass alone, however many', async (isa) => {
    const [one, eight] = await Promise.all(
      [1, 8].map(async (maxSequences) => (await estimateOn(isa, '3b-224', { maxSequences })).scratch)
    )
    expect([eight!.prefill, eight!.vision, eight!.kernels]).toEqual([one!.prefill, one!.vision, one!.kernels])
    expect(one).toEqual((await estimateOn('avx512', '3b-224', { maxSequences: 1 })).scratch)
    // where nobody says, what takes more
    expect((await estimateOn(undefined, '3b-224')).total).toBe((await estimateOn('avx512', '3b-224')).total)
  })

  it.each(['3b-896', '10b-896', '28b-896', 'pg1-3b-896'])(
    '%s encodes a picture of 896 px in less than 1.2 GB',
    async (name) => {
      const { scratch, features } = await estimateMemory(name)
      expect(scratch.vision + scratch.kernels + features).toBeLessThan(1.2 * GB)
    }
  )

  it('says what is wrong', async () => {
    const wrong = async (...args: Parameters<typeof estimateMemory>) =>
      await estimateMemory(...args).catch((error: Error) => error)
    expect(await wrong('4b-224')).toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('3b-224') as string
    })
    expect(await wrong('3b-224', { type: 'q9' })).toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('Q4_K_M') as string
    })
    expect(await wrong('3b-224', { contextSize: 100 })).toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('Expected contextSize >= 258') as string
    })
    expect(await wrong('3b-224', { sequences: 3 } as never)).toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect(await wrong('google/paligemma2-3b-mix-999')).toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    expect(await wrong('some.gguf', { type: 'Q8_0' })).toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })
})
