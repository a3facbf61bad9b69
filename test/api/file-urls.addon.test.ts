/** Models by file: URL, as `new URL('./model.gguf', import.meta.url)` gives them. */
import { rmSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dequantizeTensor, estimateMemory, inspectModel, loadModel, loadTokenizer } from '../../lib/index'
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

  it('that name nothing are errors that say so', async () => {
    await expect(loadModel('file:///nowhere/model.gguf')).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('/nowhere/model.gguf') as unknown
    })
    await expect(loadModel('file:///%00')).rejects.toMatchObject({ name: 'PaliGemmaError' })
  })
})
