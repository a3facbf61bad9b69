/** `pull --list`, `pull --remove` and their functions, on a cache that `pull` filled from a hub on this machine. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { execute } from '../../lib/cli/program'
import type { convert } from '../../lib/convert'
import { Cache } from '../../lib/hub/cache'
import { resolveModel } from '../../lib/hub/resolve'
import { acquireLock } from '../../lib/hub/lock'
import { listPulled, removePulled } from '../../lib/hub/manage'
import { pull } from '../../lib/hub/pull'
import type { PullOptions } from '../../lib/hub/pull-options'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { TestHub } from '../support/hub-server'

afterAll(removeTempDirs)

const weights = Buffer.alloc(50_000, 7)
const files = {
  'config.json': '{"model_type":"paligemma"}',
  'tokenizer.model': Buffer.alloc(100),
  'model.safetensors': weights
}
const downloadedBytes = Object.values(files).reduce((sum, content) => sum + content.length, 0)

/** Its size tells the type. */
const fakeConvert: typeof convert = async ({ out, type }) => {
  writeFileSync(out, Buffer.alloc(type === 'Q8_0' ? 2000 : 1000))
  return { path: String(out), bytes: statSync(out).size, type: type!, tensors: 1, parameters: 1, notes: [] }
}

let hub: TestHub
let cacheDir: string
let before: NodeJS.ProcessEnv

beforeEach(async () => {
  hub = await TestHub.start(files)
  cacheDir = tempDir()
  before = process.env
  process.env = { ...process.env, PALIGEMMA_CACHE: cacheDir }
})
afterEach(async () => {
  process.env = before
  await hub.stop()
})

const run = async (options: PullOptions = {}) =>
  await pull(
    hub.id,
    { endpoint: hub.url, cacheDir, ...options },
    { convert: fakeConvert, env: { HF_HOME: join(cacheDir, 'no-hf') } }
  )

/** The branch moves on; the old commit stays in the cache. */
async function pullNewCommit(options: PullOptions = {}): Promise<string> {
  const old = hub.commit
  hub.commit = 'beef'.padEnd(40, '0')
  await run(options)
  return old
}

describe('listPulled', () => {
  it('of an empty or missing cache is empty', async () => {
    expect(await listPulled({ cacheDir })).toEqual({ dir: cacheDir, models: [], downloads: [], bytes: 0 })
    expect(await listPulled({ cacheDir: join(cacheDir, 'nowhere') })).toMatchObject({ models: [], bytes: 0 })
  })

  it('names every model as loadModel takes it, with sizes, and kept downloads', { tags: ['slow'] }, async () => {
    await run({ keep: true })
    await run({ type: 'Q4_K_M', revision: hub.commit, keep: true })
    const old = await pullNewCommit({ type: 'Q4_K_M' })
    const { dir, models, downloads, bytes } = await listPulled()
    expect(dir).toBe(cacheDir)
    expect(models.map(({ name, bytes }) => ({ name, bytes }))).toEqual([
      { name: `${hub.id}:Q4_K_M`, bytes: 1000 },
      { name: `${hub.id}@${old}:Q4_K_M`, bytes: 1000 },
      { name: `${hub.id}@${old}:Q8_0`, bytes: 2000 }
    ])
    for (const { name, path } of models) expect(await resolveModel(name)).toEqual({ path })
    expect(downloads).toMatchObject([{ id: hub.id, commit: old, bytes: downloadedBytes }])
    expect(bytes).toBe(4000 + downloadedBytes)
  })

  it('leaves out models that are not whole', async () => {
    const { path } = await run()
    writeFileSync(path, 'short')
    expect(await listPulled({ cacheDir })).toMatchObject({ models: [], bytes: 0 })
  })

  it('counts an interrupted download', async () => {
    const dir = new Cache(cacheDir).downloadDir(hub.id, hub.commit)
    mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, 'model.safetensors.part'), Buffer.alloc(123))
    expect((await listPulled({ cacheDir })).downloads).toMatchObject([{ id: hub.id, bytes: 123 }])
  })

  it('refuses wrong options', async () => {
    await expect(listPulled({ cachDir: cacheDir } as never)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })
})

describe('removePulled', () => {
  it('removes all types, revisions and downloads of a model, and nothing of others', async () => {
    await run({ keep: true })
    await pullNewCommit({ type: 'Q4_K_M' })
    const other = join(cacheDir, 'models', 'org--tiny-model-2', 'refs', 'main')
    mkdirSync(dirname(other), { recursive: true })
    writeFileSync(other, hub.commit)
    const removed = await removePulled(hub.id, { cacheDir })
    expect(removed.models.map(({ type }) => type)).toEqual(['Q4_K_M', 'Q8_0'])
    expect(removed).toMatchObject({ downloads: [{ bytes: downloadedBytes }], bytes: 3000 + downloadedBytes })
    expect(readdirSync(join(cacheDir, 'models'))).toEqual(['org--tiny-model-2'])
    expect(readFileSync(other, 'utf8')).toBe(hub.commit)
    expect(readdirSync(join(cacheDir, 'downloads'))).toEqual([])
    expect(readdirSync(join(cacheDir, 'locks'))).toEqual([])
    await expect(resolveModel(hub.id)).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
  })

  it('removes one type: the others and the downloads stay', async () => {
    await run({ keep: true })
    const { path } = await run({ type: 'Q4_K_M', keep: true })
    expect(await removePulled(`${hub.id}:q8_0`)).toMatchObject({
      models: [{ name: `${hub.id}:Q8_0`, bytes: 2000 }],
      downloads: [],
      bytes: 2000
    })
    expect(await resolveModel(hub.id)).toEqual({ path })
    expect(readdirSync(dirname(path)).sort()).toEqual(['tiny-model-Q4_K_M.gguf', 'tiny-model-Q4_K_M.json'])
    expect((await listPulled()).downloads).toHaveLength(1)
  })

  it('removes what a revision led to; the branch of another commit stays', async () => {
    await run()
    const old = await pullNewCommit()
    expect((await removePulled(`${hub.id}@${old}`)).models).toMatchObject([{ commit: old }])
    expect((await listPulled()).models.map(({ name }) => name)).toEqual([`${hub.id}:Q8_0`])
    expect((await removePulled(`${hub.id}@main`)).models).toHaveLength(1)
    expect(existsSync(join(cacheDir, 'models', 'org--tiny-model'))).toBe(false)
  })

  it('keeps a vision file that another type needs', async () => {
    const cache = new Cache(cacheDir)
    const dir = cache.modelDir(hub.id, hub.commit)
    mkdirSync(dir, { recursive: true })
    for (const name of ['a-Q8_0.gguf', 'a-Q4_0.gguf', 'mmproj.gguf']) writeFileSync(join(dir, name), Buffer.alloc(10))
    for (const type of ['Q8_0', 'Q4_0']) {
      await cache.add({
        format: 1,
        id: hub.id,
        revision: 'main',
        commit: hub.commit,
        type,
        visionType: null,
        maskDecoder: null,
        converted: false,
        model: `a-${type}.gguf`,
        vision: 'mmproj.gguf',
        bytes: 20,
        pulledAt: '2026-01-01T00:00:00.000Z'
      })
    }
    await removePulled(`${hub.id}:Q4_0`)
    expect(readdirSync(dir).sort()).toEqual(['a-Q8_0.gguf', 'a-Q8_0.json', 'mmproj.gguf'])
    expect(await resolveModel(hub.id)).toEqual({ path: join(dir, 'a-Q8_0.gguf'), vision: join(dir, 'mmproj.gguf') })
  })

  it('removes what a process that died has left', async () => {
    const dir = new Cache(cacheDir).modelDir(hub.id, hub.commit)
    mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, 'tiny-model-Q8_0.gguf.part'), 'half')
    expect(await removePulled(hub.id)).toEqual({ models: [], downloads: [], bytes: 0 })
    expect(existsSync(dirname(dir))).toBe(false)
  })

  it('says what is there when the name is not', async () => {
    await run()
    const error = {
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining(`, which has ${hub.id}:Q8_0); "npx paligemma pull --list"`) as string
    }
    await expect(removePulled(`${hub.id}:F16`)).rejects.toMatchObject(error)
    await expect(removePulled(`${hub.id}@dev`)).rejects.toMatchObject(error)
    await expect(removePulled('org/other')).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('org/other is not in the cache') as string
    })
    await expect(removePulled('../../etc')).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect((await listPulled()).models).toHaveLength(1)
  })

  it('waits for a process that is pulling the model, and stops waiting when told to', async () => {
    await run()
    const lock = await acquireLock(new Cache(cacheDir).lockFile(hub.id))
    const controller = new AbortController()
    const messages: string[] = []
    const stopped = removePulled(hub.id, {
      signal: controller.signal,
      onMessage: (message) => {
        messages.push(message)
        controller.abort(new Error('enough'))
      }
    })
    await expect(stopped).rejects.toThrow('enough')
    expect(messages).toEqual([
      expect.stringMatching(/^waiting for process \d+ on .*, which is pulling org\/tiny-model$/)
    ])
    expect((await listPulled()).models).toHaveLength(1)
    const removing = removePulled(hub.id)
    await lock.release()
    expect((await removing).models).toHaveLength(1)
  })
})

describe('paligemma pull --list and --remove', () => {
  const cli = async (...args: string[]) => {
    const out: string[] = []
    const err: string[] = []
    const code = await execute(['pull', ...args], {
      stdout: { write: (text) => out.push(text) },
      stderr: { write: (text) => err.push(text) },
      signal: new AbortController().signal
    })
    return { code, out: out.join(''), err: err.join('') }
  }

  it('print names and sizes', async () => {
    await run({ keep: true })
    const listed = await cli('--list')
    expect(listed).toMatchObject({ code: 0, err: '' })
    const today = new Date().toISOString().slice(0, 10)
    expect(listed.out.split('\n')).toEqual([
      `  2.0 KB  ${hub.id}:Q8_0  (${today})`,
      ` 50.1 KB  ${hub.id}@${hub.commit}  (downloaded weights)`,
      ` 52.1 KB  in ${cacheDir}`,
      ''
    ])
    expect(JSON.parse((await cli('--list', '--json')).out)).toEqual(await listPulled())
    expect(await cli('--remove', hub.id)).toMatchObject({
      code: 0,
      out: expect.stringMatching(/ 52\.1 KB {2}removed\n$/) as string
    })
    expect((await cli('--list')).out).toBe(`     0 B  in ${cacheDir}\n`)
    expect(await cli('--remove', hub.id)).toMatchObject({
      code: 1,
      err: expect.stringContaining('ERR_MODEL_NOT_FOUND') as string
    })
  })

  it.each([
    [[], 'Expected a model such as'],
    [['--remove'], 'to remove'],
    [['--list', 'org/x'], 'Expected no model with --list'],
    [['--list', '--remove', 'org/x'], 'received both'],
    [['--remove', 'org/x', '--type', 'Q8_0'], 'received --type'],
    [['--remove', 'nonsense'], 'model of the Hugging Face hub']
  ])('%j is wrong usage', async (args, part) => {
    expect(await cli(...args)).toMatchObject({ code: 2, err: expect.stringContaining(part) as string })
  })
})
