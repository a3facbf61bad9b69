/** A GPU from load to loss, emulated: npm run test:gpu. Reference results on it are those of the other tests. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import {
  demoImage,
  estimateMemory,
  listDevices,
  loadModel,
  type LoadOptions,
  type PaliGemma,
  verifyModel
} from '../../lib/index'
import { removeTempDirs } from '../support/convert-helpers'
import { writeTinyModel } from '../support/tiny-model'

let model = ''
const loaded: PaliGemma[] = []
beforeAll(() => {
  model = writeTinyModel()
})
afterEach(async () => {
  for (const one of loaded.splice(0)) await one.dispose()
  delete process.env.PALIGEMMA_EMULATED_MEMORY
  delete process.env.PALIGEMMA_EMULATED_LOSS
})
afterAll(removeTempDirs)

const picture = { data: new Uint8Array(28 * 28 * 3).fill(90), width: 28, height: 28, channels: 3 as const }

describe.each(['cuda-emulated', 'metal-emulated'] as const)('%s', (device) => {
  const load = async (options: Partial<LoadOptions> = {}): Promise<PaliGemma> => {
    const one = await loadModel({ model, device, ...options })
    loaded.push(one)
    return one
  }

  it('is listed and told by info', async () => {
    const { devices } = await listDevices()
    expect(devices).toContainEqual(expect.objectContaining({ device, name: 'Emulated GPU', memoryBytes: 2 ** 33 }))
    const { info } = await load()
    expect(info).toMatchObject({ device, isa: 'Emulated GPU', threads: 0 })
    expect(info).not.toHaveProperty('deviceNote')
  })

  it('writes what the CPU writes', async () => {
    const [gpu, cpu] = [await load({ model: 'demo' }), await load({ model: 'demo', device: 'cpu' })]
    const [a, b] = await Promise.all([gpu, cpu].map(async (one) => await one.caption(demoImage)))
    expect(a).toEqual(b)
  })

  it('is checked by verify with the demo', async () => {
    const { ok, checks } = await verifyModel()
    expect(checks.filter(({ outcome }) => outcome === 'failed')).toEqual([])
    expect(ok).toBe(true)
    expect(checks.map(({ name }) => name)).toContain(`demo on ${device}`)
  })

  it('gives a request the same numbers alone and in company', async () => {
    const gpu = await load({ maxSequences: 3 })
    const ask = async (prompt: string) =>
      await gpu.generate({ image: picture, prompt, maxTokens: 6, ignoreEos: true, logProbs: true })
    const alone = await ask('a')
    const [first, , again] = await Promise.all(['a', 'b', 'a'].map(ask))
    expect(first!.tokens).toEqual(alone.tokens)
    expect(again!.tokens).toEqual(alone.tokens)
  })

  it('refuses a model that does not fit before loading it, with numbers and what would', async () => {
    process.env.PALIGEMMA_EMULATED_MEMORY = String(100 * 2 ** 20)
    const refusal = await load().then(
      () => undefined,
      (error: unknown) => error as Error
    )
    expect(refusal).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' })
    const [, needed] = /about (\d+) MiB are needed \(weights .*, cache .*, work .*\) and 100 MiB are free/.exec(
      refusal!.message
    )!
    const { gpu } = await estimateMemory(model)
    expect(Math.abs(gpu / 2 ** 20 - Number(needed))).toBeLessThanOrEqual(1 + 0.02 * Number(needed))
  })

  it('that is lost ends its requests, not the process, and a new load works', async () => {
    const neighbour = await load()
    process.env.PALIGEMMA_EMULATED_LOSS = '600'
    const gpu = await load()
    delete process.env.PALIGEMMA_EMULATED_LOSS
    const endless = { prompt: 'x', maxTokens: 10_000, ignoreEos: true }
    const requests = [gpu.generate(endless), gpu.generate({ ...endless, prompt: 'y' })]
    for (const request of await Promise.allSettled(requests))
      expect(request).toMatchObject({ status: 'rejected', reason: { code: 'ERR_DEVICE_LOST' } })
    await expect(gpu.generate({ prompt: 'x', maxTokens: 2 })).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' })
    await expect(gpu.encodeImage(picture)).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' })
    const short = { prompt: 'x', maxTokens: 2, ignoreEos: true }
    const { text } = await neighbour.generate(short)
    expect((await (await load()).generate(short)).text).toBe(text)
  })
})
