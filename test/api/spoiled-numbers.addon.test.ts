/** Numbers that no text may be made of: NaN in logits that only the device sees, keys that the cache cannot hold. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadMaskDecoder, loadModel, type LoadOptions } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { ggufBytes, tinyModel } from '../support/tiny-model'

afterAll(removeTempDirs)

function changed(name: string, change: (data: Float32Array) => void, options: object = { vision: false }): string {
  const { metadata, tensors } = tinyModel(options)
  change(tensors.find((tensor) => tensor.name === name)!.data)
  const path = join(tempDir(), 'changed.gguf')
  writeFileSync(path, ggufBytes(metadata, tensors))
  return path
}

async function outcome(model: string, options: object = {}, load: Partial<LoadOptions> = {}): Promise<string> {
  await using loaded = await loadModel({ model, threads: 2, ...load })
  return await loaded.generate({ prompt: 'a b', maxTokens: 3, ignoreEos: true, ...options }).then(
    ({ tokens }) => `${tokens.length} tokens`,
    (error: { code: string }) => error.code
  )
}

describe('a row of the embedding that is NaN', () => {
  // of a token that neither comes nor is chosen: it spoils a logit alone
  const path = changed('token_embd.weight', (data) => data.fill(NaN, data.length - 32))

  it.each<[string, object]>([
    ['greedy', {}],
    ['greedy with log-probabilities', { logProbs: 3 }],
    ['sampling among a few', { temperature: 1, topK: 3, seed: 1 }],
    ['sampling', { temperature: 1, seed: 1 }],
    ['beams', { beams: 2 }]
  ])('ends %s generation with ERR_MODEL_INVALID', async (_name, options) => {
    expect(await outcome(path, options)).toBe('ERR_MODEL_INVALID')
  })
})

describe('vectors that leave the engine', () => {
  it.each(['mm.0.bias', 'v.post_ln.weight'])('are none where %s holds NaN', async (name) => {
    const model = changed(name, (data) => data.fill(NaN, 0, 1), {})
    await using loaded = await loadModel({ model, threads: 2 })
    const picture = { data: new Uint8Array(12), width: 2, height: 2, channels: 3 as const }
    await expect(loaded.encodeImage(picture)).rejects.toMatchObject({ code: 'ERR_MODEL_INVALID' })
  })
})

describe('keys and values that are too large for the cache', () => {
  it.each(['attn_k', 'attn_v'])('of %s end the request, and a wider cache takes them', async (name) => {
    const path = changed(`blk.0.${name}.weight`, (data) => data.forEach((value, i) => (data[i] = value * 1e6)))
    expect(await outcome(path)).toBe('ERR_MODEL_INVALID')
    expect(await outcome(path, {}, { kvCacheType: 'f32' })).toBe('3 tokens')
    const larger = changed(`blk.0.${name}.weight`, (data) => data.forEach((value, i) => (data[i] = value * 1e9)))
    expect(await outcome(larger, {}, { kvCacheType: 'q8_0' })).toBe('ERR_MODEL_INVALID')
  })
})

describe('a mask decoder that holds NaN', () => {
  it.each(['_vq_vae._embedding', 'decoder.3.net.2.weight', 'decoder.12.bias'])('in %s does not load', async (name) => {
    const model = changed(`mask.${name}`, (data) => data.fill(NaN, data.length - 1), { maskDecoder: true })
    const wanted = {
      code: 'ERR_MODEL_INVALID',
      message: expect.stringMatching(new RegExp(`${name} of the mask decoder holds nan in element`)) as string
    }
    await expect(loadModel({ model, threads: 2 })).rejects.toMatchObject(wanted)
    await expect(loadMaskDecoder(model)).rejects.toMatchObject(wanted)
  })
})
