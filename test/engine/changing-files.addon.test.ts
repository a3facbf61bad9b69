/** Model files that are cut, written to or replaced while they are loaded: the process goes on, the requests say so. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { writeTinyModel } from '../support/tiny-model'

const addon = process.env.PALIGEMMA_NATIVE ?? join(__dirname, '..', '..', 'build', 'Release', 'paligemma.node')
let model = ''

beforeAll(() => {
  model = writeTinyModel()
})
afterAll(removeTempDirs)

const copyOfModel = (): string => {
  const copy = join(tempDir(), 'model.gguf')
  copyFileSync(model, copy)
  return copy
}

function run(scenario: string, env: Record<string, string> = {}) {
  const child = join(__dirname, '..', 'support', 'changing-files-child.cjs')
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    [child, addon, copyOfModel(), model, scenario],
    { encoding: 'utf8', env: { ...process.env, ...env }, timeout: 60_000 }
  )
  const seen = stdout ? (JSON.parse(stdout) as Record<string, unknown>) : {}
  return { status, signal, stderr, seen }
}

const clean = { status: 0, signal: null, stderr: '' }
const refused = {
  same: false,
  after: ['ERR_MODEL_CHANGED', 'ERR_MODEL_CHANGED'],
  tokens: true,
  stopped: 'stopped',
  other: true
}

// Windows lets nobody cut or write to a file that is loaded.
describe.skipIf(process.platform === 'win32')('a model file', () => {
  it.each(['cutWhileIdle', 'cutToNothing', 'overwritten', 'extended'])('%s refuses what comes later', (scenario) => {
    expect(run(scenario)).toEqual({ ...clean, seen: refused })
  })

  it.each(['copied', 'deleted', 'replaced'])('%s changes nothing', (scenario) => {
    const { seen, ...end } = run(scenario)
    expect(end).toEqual(clean)
    expect(seen).toMatchObject({ same: true, tokens: true, stopped: 'stopped', other: true })
    expect((seen.after as string[])[1]).toMatch(/^text: /)
  })

  it('that is cut while requests run ends them, and those of no other model', () => {
    expect(run('cutWhileRunning')).toEqual({
      ...clean,
      seen: { ends: Array(3).fill('ERR_MODEL_CHANGED'), later: 'ERR_MODEL_CHANGED', others: true }
    })
  })

  it('that is overwritten while a request runs ends it', () => {
    expect(run('overwrittenWhileRunning')).toEqual({ ...clean, seen: { end: 'ERR_MODEL_CHANGED' } })
  })

  it('may be cut at any moment of loading', () => {
    const { seen, ...end } = run('cutWhileLoading')
    expect(end).toEqual(clean)
    // an empty or half file that was cut before it was opened is just damaged
    for (const outcome of seen.seen as string[])
      expect(['ready', 'text', 'ERR_MODEL_CHANGED', 'ERR_MODEL_INVALID']).toContain(outcome)
  })

  it('is watched by each of two addons in one process', () => {
    expect(run('twoAddons')).toEqual({ ...clean, seen: { ends: Array(2).fill('ERR_MODEL_CHANGED') } })
  })

  it('leaves every other bus error to whoever had it before', () => {
    expect(run('foreignSignal')).toMatchObject({ signal: 'SIGBUS', seen: {} })
    expect(run('afterAWorker')).toMatchObject({ signal: 'SIGBUS', seen: {} })
  })

  // Where another process has the core just then, the cut is noticed before its pages are touched.
  it('kills where the handler is unwanted', { retry: 4 }, () => {
    expect(run('cutWhileRunning', { PALIGEMMA_FAULT_HANDLER: '0' })).toMatchObject({ signal: 'SIGBUS', seen: {} })
  })

  it('is a coded error of the library as well', async () => {
    const copy = copyOfModel()
    const loaded = await loadModel(copy)
    const safe = await loadModel({ model: copy, weights: 'copy' })
    const request = { prompt: 'caption en', maxTokens: 4 }
    const { text } = await safe.generate(request)
    truncateSync(copy, 4096)
    await expect(loaded.generate(request)).rejects.toMatchObject({
      name: 'PaliGemmaError',
      code: 'ERR_MODEL_CHANGED',
      message: expect.stringMatching(/model\.gguf: .*it has 4096 bytes now, not \d+\./)
    })
    await expect(loaded.stream(request).text()).rejects.toMatchObject({ code: 'ERR_MODEL_CHANGED' })
    expect(await loaded.generateBatch([request])).toMatchObject([{ code: 'ERR_MODEL_CHANGED' }])
    await expect(loaded.score({ prompt: 'x', suffix: 'y' })).rejects.toMatchObject({ code: 'ERR_MODEL_CHANGED' })
    expect((await safe.generate(request)).text).toBe(text)
    await loaded.dispose()
    await safe.dispose()
  })
})
