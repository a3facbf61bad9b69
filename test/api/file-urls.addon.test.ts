/** Models by file: URL, as `new URL('./model.gguf', import.meta.url)` gives them. */
import { rmSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  collectImportance,
  compareQuality,
  convertModel,
  dequantizeTensor,
  estimateMemory,
  inspectModel,
  listPulled,
  loadMaskDecoder,
  loadModel,
  loadTokenizer,
  pull,
  quantizeModel,
  verifyModel
} from '../../lib/index'
import { readShards, startWorker } from '../../lib/queue'
import { writeTinyModel } from '../support/tiny-model'

let path = ''
let url: URL
beforeAll(() => {
  path = writeTinyModel()
  url = pathToFileURL(path)
})
afterAll(() => rmSync(path, { force: true }))

describe('file: URLs', () => {
  it('name models', async () => {
    for (const source of [url, url.href, { model: url.href, threads: 1 }]) {
      const model = await loadModel(source)
      expect(model.info.imageSize).toBe(56)
      await model.dispose()
    }
  })

  it('name files to look into', async () => {
    for (const source of [url, url.href]) {
      const { tensors, path: seen } = await inspectModel(source)
      expect(seen).toBe(path)
      const name = tensors[0]!.name
      expect((await dequantizeTensor(source, name)).shape).toEqual((await dequantizeTensor(path, name)).shape)
      expect((await loadTokenizer(source)).size).toBe((await loadTokenizer(path)).size)
      expect(await estimateMemory(source)).toEqual(await estimateMemory(path))
    }
  })

  it('are taken wherever a path is, and what is missing is named by its path', async () => {
    const gone = new URL('file:///nowhere/file.gguf')
    const out = new URL('file:///nowhere/out.gguf')
    const model = await loadModel(url)
    const image = { data: new Uint8Array(3), width: 1, height: 1, channels: 3 as const }
    const calls: Record<string, () => Promise<unknown>> = {
      vision: async () => await loadModel({ model: url, vision: gone }),
      maskDecoder: async () => await loadModel({ model: url, maskDecoder: gone }),
      adapters: async () => await loadModel({ model: url, adapters: [gone] }),
      'adapters, scaled': async () => await loadModel({ model: url, adapters: [{ path: gone, scale: 2 }] }),
      'fit from': async () => await model.fit([{ image, prompt: 'a', response: 'b' }], { from: gone }),
      'convert source': async () => await convertModel({ source: [gone, gone], out }),
      'convert out': async () => await convertModel({ source: url, out }),
      quantize: async () => await quantizeModel({ source: gone, out: new URL('./out.gguf', url), type: 'Q8_0' }),
      'quantize out': async () => await quantizeModel({ source: url, out, type: 'Q8_0' }),
      importance: async () => await collectImportance({ model: url, out, images: [image] }),
      quality: async () => await compareQuality({ model: url, against: url, againstVision: gone, images: [image] }),
      verify: async () => await verifyModel({ model: url, vision: gone }),
      estimate: async () => await estimateMemory(url, { vision: gone }),
      'mask decoder': async () => await loadMaskDecoder(gone),
      'pull mask decoder': async () => await pull('a/b', { maskDecoder: gone }),
      shards: async () => await readShards(gone).next()
    }
    for (const [name, call] of Object.entries(calls)) {
      const error = (await call().then(
        () => new Error('nothing was missing'),
        (error: unknown) => error
      )) as Error
      expect(error.message, name).toContain('/nowhere')
      expect(error.message, name).not.toContain('instance of URL')
    }
    expect((await listPulled({ cacheDir: gone })).models).toEqual([])
    await expect(startWorker({ model: gone, redis: 'redis://127.0.0.1:1', stalledMs: 1 })).rejects.toThrow('stalledMs')
    await model.dispose()
  })

  it('that name nothing are errors that say so', async () => {
    await expect(loadModel('file:///nowhere/model.gguf')).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('/nowhere/model.gguf') as unknown
    })
    await expect(loadModel('file:///%00')).rejects.toMatchObject({ name: 'PaliGemmaError' })
  })
})
