/** `pull` against a hub that works. The conversion is a stand-in here. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { pull } from '../../lib/hub/pull'
import type { PullOptions, PullPlan, PullProgress } from '../../lib/hub/pull-options'
import { Cache } from '../../lib/hub/cache'
import { resolveModel } from '../../lib/hub/resolve'
import { execute } from '../../lib/cli/program'
import { tempDir } from '../support/convert-helpers'
import { sha256 } from '../support/hub-server'
import {
  noise,
  files,
  first,
  firstContent,
  wholeModel,
  hub,
  cacheDir,
  messages,
  useHub,
  run,
  downloadDir,
  failure
} from '../support/pull-fixture'

useHub()

describe('pull', () => {
  it('downloads what conversion needs, converts, removes the download, and is found by name', {
    tags: ['slow']
  }, async () => {
    const plans: PullPlan[] = []
    const progress: PullProgress[] = []
    const result = await run({
      type: 'q4_k',
      onPlan: (plan) => plans.push(plan),
      onProgress: (step) => progress.push(step)
    })
    expect(result).toMatchObject({
      id: hub.id,
      commit: hub.commit,
      revision: 'main',
      type: 'Q4_K_M',
      converted: true,
      cached: false,
      vision: null,
      bytes: 900_000,
      notes: ['converted']
    })
    expect(basename(result.path)).toBe('tiny-model-Q4_K_M.gguf')
    expect(readFileSync(result.path).equals(wholeModel)).toBe(true)
    expect(plans).toEqual([
      {
        id: hub.id,
        commit: hub.commit,
        type: 'Q4_K_M',
        converts: true,
        files: [
          'config.json',
          'tokenizer.model',
          'tokenizer.json',
          'model.safetensors.index.json',
          first,
          'model-00002-of-00002.safetensors'
        ].map((path) => ({ path, bytes: Buffer.from(files[path as keyof typeof files]).length, present: 0 }))
      }
    ])
    const downloads = progress.filter(({ stage }) => stage === 'download')
    expect(downloads.at(-1)).toMatchObject({ fraction: 1, bytes: 901_000 + 4 + files['config.json'].length })
    expect(progress.at(-1)).toMatchObject({ stage: 'convert', fraction: 1 })
    expect(existsSync(join(cacheDir, 'downloads', 'org--tiny-model'))).toBe(false)
    expect(readdirSync(join(cacheDir, 'locks'))).toEqual([])
    expect(await resolveModel('org/tiny-model', new Cache(cacheDir))).toEqual({ path: result.path })
    expect(hub.seen.some(({ path }) => /README/.test(path))).toBe(false)
  })

  it('does nothing twice', { tags: ['slow'] }, async () => {
    const made = await run()
    hub.seen.length = 0
    expect(await run()).toMatchObject({ cached: true, path: made.path })
    expect(hub.seen.map(({ path }) => path)).toEqual([`/api/models/${hub.id}/revision/main`])
    hub.seen.length = 0
    expect(await run({ revision: hub.commit })).toMatchObject({ cached: true, path: made.path })
    expect(hub.seen).toEqual([])
    expect(await run({ force: true })).toMatchObject({ cached: false })
  })

  it('keeps weights with keep, and uses them for another type', async () => {
    await run({ keep: true })
    expect(existsSync(join(downloadDir(), first))).toBe(true)
    hub.seen.length = 0
    const plans: PullPlan[] = []
    await run({ type: 'F16', onPlan: (plan) => plans.push(plan) })
    expect(hub.seen.filter(({ path }) => path.includes('/resolve/'))).toEqual([])
    expect(plans[0]!.files.every(({ bytes, present }) => bytes === present)).toBe(true)
  })

  it('a moved branch is a new model; the old commit stays', { tags: ['slow'] }, async () => {
    const old = await run()
    const before = hub.commit
    hub.commit = 'd'.repeat(40)
    const next = await run()
    expect(next.commit).toBe(hub.commit)
    const cache = new Cache(cacheDir)
    expect(await resolveModel('org/tiny-model', cache)).toEqual({ path: next.path })
    expect(await resolveModel(`org/tiny-model@${before}`, cache)).toEqual({ path: old.path })
  })

  it('a mask decoder makes another model, by its content', { tags: ['slow'] }, async () => {
    const npz = join(cacheDir, 'vae.npz')
    writeFileSync(npz, 'decoder')
    const made = await run({ maskDecoder: npz })
    expect(made).toMatchObject({ maskDecoder: sha256(Buffer.from('decoder')), cached: false })
    expect(await run({ maskDecoder: npz })).toMatchObject({ cached: true })
    writeFileSync(npz, 'another')
    expect(await run({ maskDecoder: npz })).toMatchObject({ cached: false })
    await expect(run({ maskDecoder: 'nowhere.npz' })).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
  })

  it('reads a list of files page by page', async () => {
    hub.pageSize = 2
    expect(await run()).toMatchObject({ bytes: 900_000 })
    expect(hub.seen.filter(({ path }) => path.includes('/tree/')).length).toBe(4)
  })

  it('takes files from the cache of the Python library, if they are right', async () => {
    const home = tempDir()
    const snapshot = join(home, 'hub', 'models--org--tiny-model', 'snapshots', hub.commit)
    mkdirSync(snapshot, { recursive: true })
    writeFileSync(join(snapshot, first), firstContent)
    writeFileSync(join(snapshot, 'model-00002-of-00002.safetensors'), noise(300_000, 99))
    const { path } = await run({}, { env: { HF_HOME: home } })
    expect(readFileSync(path).equals(wholeModel)).toBe(true)
    expect(hub.requestsFor(first, 'hub')).toEqual([])
    expect(hub.requestsFor('model-00002-of-00002.safetensors', 'files')).toHaveLength(1)
    expect(readFileSync(join(snapshot, first)).equals(firstContent)).toBe(true)
  })

  it('two at a time: one downloads, the other waits and finds the result', async () => {
    const [a, b] = await Promise.all([run(), run()])
    expect([a.cached, b.cached].sort()).toEqual([false, true])
    expect(hub.requestsFor(first, 'files')).toHaveLength(1)
    expect(messages.join()).toMatch(/waiting for process \d+ on /)
  })

  it('wrong options are named', async () => {
    await expect(pull('not an id')).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('google/paligemma2') as string
    })
    expect(await failure({ type: 'q9' })).toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect(await failure({ revision: '../x' })).toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('for revision') as string
    })
    expect(await failure({ keeep: true } as PullOptions)).toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('did you mean keep?') as string
    })
    await expect(pull('a/b:q4_k', { type: 'q8_0' })).rejects.toMatchObject({
      message: expect.stringContaining('Q4_K_M as the name says') as string
    })
    const file = join(cacheDir, 'file')
    writeFileSync(file, '')
    expect(await failure({ cacheDir: file })).toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('PALIGEMMA_CACHE') as string
    })
  })

  it('what a callback throws ends the work at once, and is what pull rejects with', async () => {
    const reason = new Error('my mistake')
    await expect(
      run({
        onProgress: () => {
          throw reason
        }
      })
    ).rejects.toBe(reason)
    await expect(
      run({
        onPlan: () => {
          throw reason
        }
      })
    ).rejects.toBe(reason)
    expect(messages).toEqual([])
    expect(readdirSync(join(cacheDir, 'locks'))).toEqual([])
  })

  it('a model that an older version made is loaded, but made anew by the next pull', { tags: ['slow'] }, async () => {
    const { path } = await run()
    const record = path.replace('.gguf', '.json')
    writeFileSync(record, readFileSync(record, 'utf8').replace('"format": 1', '"format": 0'))
    expect(await resolveModel('org/tiny-model', new Cache(cacheDir))).toEqual({ path })
    expect(await run()).toMatchObject({ cached: false, path })
    expect(await run()).toMatchObject({ cached: true })
  })

  it('a full disk is noticed before the weights are downloaded', async () => {
    const error = await failure({ type: 'bf16' }, { freeBytes: async () => 1_700_000 })
    expect(error.code).toBe('ERR_DISK_FULL')
    expect(error.message).toContain('0.9 MB for the download and about 0.9 MB for the model, but only 1.7 MB are free')
    expect(hub.requestsFor(first, 'hub')).toEqual([])
    expect(await run({ type: 'q4_0' }, { freeBytes: async () => 1_700_000 })).toMatchObject({ cached: false })
  })

  it('a conversion that fails leaves the download for the next try, and no model', async () => {
    expect(
      await failure(
        {},
        {
          convert: async () => {
            throw new Error('cannot convert')
          }
        }
      )
    ).toMatchObject({ message: 'cannot convert' })
    await expect(resolveModel('org/tiny-model', new Cache(cacheDir))).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND'
    })
    hub.seen.length = 0
    expect(await run()).toMatchObject({ cached: false })
    expect(hub.requestsFor(first, 'files')).toEqual([])
    expect(
      await failure(
        { type: 'f16' },
        {
          convert: async () => {
            throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' })
          }
        }
      )
    ).toMatchObject({ code: 'ERR_DISK_FULL' })
  })
})

describe('paligemma pull', () => {
  it('an unusable hub ends with code 1, a wrong id with code 2', { tags: ['slow'] }, async () => {
    const cli = async (...args: string[]) => {
      const err: string[] = []
      const code = await execute(['pull', ...args], {
        stdout: { write: () => {} },
        stderr: { write: (text) => err.push(text) },
        signal: new AbortController().signal
      })
      return { code, err: err.join('') }
    }
    const before = { ...process.env }
    Object.assign(process.env, { HF_ENDPOINT: hub.url, PALIGEMMA_CACHE: cacheDir, HF_HOME: cacheDir, HF_TOKEN: '' })
    try {
      expect(await cli('org/other')).toMatchObject({
        code: 1,
        err: expect.stringContaining('ERR_MODEL_NOT_FOUND: ') as string
      })
      expect(await cli('nonsense')).toMatchObject({
        code: 2,
        err: expect.stringContaining('ERR_INVALID_OPTION: ') as string
      })
    } finally {
      process.env = before
    }
  })
})
