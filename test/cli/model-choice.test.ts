/** Which model a verb runs: named, by environment, the only pulled one, or none. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { demoImage, demoModel } from '../../lib/base/package-files'
import { chooseModel } from '../../lib/cli/model'
import { Cache, recordFormat } from '../../lib/hub/cache'
import { resolveModel } from '../../lib/hub/resolve'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

describe('the model of a verb', () => {
  const before = { ...process.env }
  let cacheDir: string

  beforeEach(() => {
    cacheDir = tempDir()
    process.env['PALIGEMMA_CACHE'] = cacheDir
    delete process.env['PALIGEMMA_MODEL']
  })
  afterEach(() => {
    process.env = { ...before }
  })

  async function pulled(id: string): Promise<void> {
    const cache = new Cache(cacheDir)
    const commit = '0123456789012345678901234567890123456789'
    mkdirSync(cache.modelDir(id, commit), { recursive: true })
    writeFileSync(join(cache.modelDir(id, commit), 'm.gguf'), 'GGUF')
    await cache.add({
      format: recordFormat,
      id,
      revision: 'main',
      commit,
      type: 'Q8_0',
      visionType: null,
      maskDecoder: null,
      converted: true,
      pulledAt: '2026-01-01T00:00:00Z',
      model: 'm.gguf',
      vision: null,
      bytes: 4
    })
  }

  it('is the named one, else PALIGEMMA_MODEL, else the only pulled one', async () => {
    await pulled('org/one')
    expect((await resolveModel(await chooseModel(undefined))).path).toContain(join(cacheDir, 'models'))
    process.env['PALIGEMMA_MODEL'] = 'other.gguf'
    expect(await chooseModel(undefined)).toBe('other.gguf')
    expect(await chooseModel('named.gguf')).toBe('named.gguf')
  })

  it('is asked for where there is none or several, with what to do', async () => {
    await expect(chooseModel(undefined)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/paligemma pull .*--model demo/)
    })
    await pulled('org/one')
    await pulled('org/two')
    await expect(chooseModel(undefined)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/several.*org\/one.*org\/two/)
    })
    process.env['PALIGEMMA_MODEL'] = '  '
    await expect(chooseModel(undefined)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(chooseModel('')).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('"demo" is the one that ships with the package', async () => {
    expect(await resolveModel('demo')).toEqual({ path: demoModel })
    expect(demoImage).toMatch(/[/\\]demo[/\\]shapes\.png$/)
  })
})
