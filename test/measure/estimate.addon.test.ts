/** The estimate of memory against what a process really takes. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { execute } from '../../lib/cli/program'
import { convert } from '../../lib/convert'
import { native } from '../../lib/engine/native'
import { estimateMemory, inspectModel } from '../../lib/index'
import { estimateOn } from '../../lib/measure/estimate'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')

// Loads a model in a fresh process and fills its context by one long prompt; prints what that took.
const child = `
const { loadModel } = require(${JSON.stringify(join(root, 'dist', 'index.js'))})
const [path, options, tokens] = JSON.parse(process.argv[1])
;(async () => {
  const first = await loadModel({ model: path, contextSize: 512 })
  await first.generate({ prompt: 'warm', maxTokens: 2 })
  await first.dispose()
  global.gc()
  const before = process.memoryUsage().rss
  const model = await loadModel({ model: path, ...options })
  const ids = model.tokenize(' cow').length
  await model.generate({ prompt: ' cow'.repeat(Math.floor(tokens / ids)), maxTokens: 16, ignoreEos: true })
  console.log(process.memoryUsage().rss - before)
})()`

describe.skipIf(!hasGolden)('estimateMemory of a file', () => {
  let model: string

  beforeAll(async () => {
    model = join(tempDir(), 'pg2-k.gguf')
    await convert({ source: golden('hf', 'pg2-k'), out: model, type: 'f32' })
  })

  it('reads sizes from metadata and tensors', async () => {
    const { tensors, metadata } = await inspectModel(model)
    const value = (key: string) => metadata.find((entry) => entry.key === `gemma2.${key}`)!.value as number
    const { weights, kv } = await estimateMemory(model, { kvCacheType: 'f32' })
    expect(weights).toBe(tensors.reduce((sum, { bytes }) => sum + bytes, 0))
    expect(kv.perToken).toBe(
      value('block_count') * 2 * value('attention.head_count_kv') * value('attention.key_length') * 4
    )
    const { isa } = native().cpuInfo()
    expect(await estimateMemory(model)).toEqual(await estimateOn(isa, model))
    await expect(estimateMemory('nowhere.gguf')).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
  })

  it('paligemma inspect shows it', async () => {
    const out: string[] = []
    const context = {
      stdout: { write: (text: string) => out.push(text) },
      stderr: { write: () => {} },
      signal: new AbortController().signal
    }
    expect(await execute(['inspect', model], context)).toBe(0)
    expect(out.join('')).toMatch(
      new RegExp(
        '\nmemory: about \\d+(\\.\\d)? MB with 4 usual requests at a time ' +
          '\\(weights 12\\.0 MB, attention cache .* each\\); .* with 4 that fill the context\n'
      )
    )
    out.length = 0
    expect(await execute(['inspect', model, '--json'], context)).toBe(0)
    expect(JSON.parse(out.join('')).memory).toEqual(await estimateMemory(model))
  })

  it.skipIf(!existsSync(join(root, 'dist', 'index.js')))('is near what a process takes for a long prompt', async () => {
    const options = { contextSize: 7000, kvCacheType: 'f32' as const, maxSequences: 1, threads: 2 }
    const tokens = 6000
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--expose-gc', '-e', child, JSON.stringify([model, options, tokens])],
      { encoding: 'utf8' }
    )
    expect(stderr + status).toBe('0')
    const taken = Number(stdout)
    const { total } = await estimateMemory(model, { ...options, images: 0, promptTokens: tokens, maxTokens: 16 })
    expect(taken).toBeGreaterThan(0.6 * total)
    expect(taken).toBeLessThan(1.6 * total)
  })
})
