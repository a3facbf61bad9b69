import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel } from '../../lib/index'
import { writeTinyModel } from '../support/tiny-model'

const picture = (width: number, height: number) => ({ data: new Uint8Array(width * height * 3), width, height })

describe('pictures of a long shape', () => {
  let path = ''
  beforeAll(() => {
    path = writeTinyModel()
  })
  afterAll(() => rmSync(path, { force: true }))

  it('are warned about once, unless fit was chosen', async () => {
    const warnings: string[] = []
    const listen = (warning: Error & { code?: string }): void => {
      if (warning.code === 'PALIGEMMA_IMAGE_SHAPE') warnings.push(warning.message)
    }
    process.on('warning', listen)
    const see = async (options: { fit?: 'pad' | 'squash' }, ...sizes: [number, number][]): Promise<number> => {
      const model = await loadModel({ model: path, threads: 1, ...options })
      for (const size of sizes) await model.encodeImage(picture(...size))
      await model.dispose()
      await new Promise(setImmediate)
      return warnings.length
    }
    expect(await see({ fit: 'squash' }, [90, 30])).toBe(0)
    expect(await see({ fit: 'pad' }, [90, 30])).toBe(0)
    expect(await see({}, [60, 30], [30, 60], [40, 40])).toBe(0)
    expect(await see({}, [30, 61], [90, 30])).toBe(1)
    expect(warnings[0]).toMatch(/30 x 61 .*fit: 'pad'/)
    process.off('warning', listen)
  })
})
