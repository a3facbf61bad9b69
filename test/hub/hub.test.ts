/** Names, settings, cache and locks of pulled models. */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { homedir, hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { Cache, type CacheRecord, recordFormat } from '../../lib/hub/cache'
import { resolveModel } from '../../lib/hub/resolve'
import { acquireLock } from '../../lib/hub/lock'
import { expectReference, parseReference } from '../../lib/hub/reference'
import { chooseFiles } from '../../lib/hub/choose'
import type { HubFile } from '../../lib/hub/repository'
import { retryAfter } from '../../lib/hub/failures'
import { cacheDirectory, hubSettings } from '../../lib/hub/settings'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

describe('names of hub models', () => {
  it.each([
    ['google/paligemma2-3b-mix-224', { id: 'google/paligemma2-3b-mix-224' }],
    ['google/paligemma2-3b-mix-224:Q4_K_M', { id: 'google/paligemma2-3b-mix-224', type: 'Q4_K_M' }],
    ['google/paligemma-3b-pt-224@bfloat16', { id: 'google/paligemma-3b-pt-224', revision: 'bfloat16' }],
    [
      'vidore/colpali-v1.2-merged@refs/pr/1:Q8_0',
      { id: 'vidore/colpali-v1.2-merged', revision: 'refs/pr/1', type: 'Q8_0' }
    ]
  ])('%s', (text, expected) => {
    expect(parseReference(text)).toEqual(expected)
  })

  it.each([
    '',
    'gpt2',
    'a/b/c',
    '../b',
    'a/..',
    './a',
    '/a/b',
    'a\\b',
    'C:\\a',
    'a--b/c',
    'a/b.',
    'a/b@../../x',
    'a/b@',
    'a/b:',
    'a b/c',
    `a/${'b'.repeat(100)}`,
    'https://example.org/a/b'
  ])('%j is none', (text) => {
    expect(parseReference(text)).toBeUndefined()
    expect(() => expectReference(text)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }))
  })

  it('types may be written as for convert', () => {
    expect(expectReference('a/b:q4_k')).toEqual({ id: 'a/b', type: 'Q4_K_M' })
    expect(expectReference('a/b/')).toEqual({ id: 'a/b' })
    expect(() => expectReference('a/b:q9')).toThrow(/Expected one of F32, F16/)
  })
})

describe('settings', () => {
  it('the cache is where the system keeps caches, unless PALIGEMMA_CACHE says otherwise', () => {
    expect(cacheDirectory({}, 'linux')).toBe(join(homedir(), '.cache', 'paligemma'))
    expect(cacheDirectory({ XDG_CACHE_HOME: '/x' }, 'linux')).toBe(join('/x', 'paligemma'))
    expect(cacheDirectory({ XDG_CACHE_HOME: 'relative' }, 'linux')).toBe(join(homedir(), '.cache', 'paligemma'))
    expect(cacheDirectory({}, 'darwin')).toBe(join(homedir(), 'Library', 'Caches', 'paligemma'))
    expect(cacheDirectory({ LOCALAPPDATA: '/l' }, 'win32')).toBe(join('/l', 'paligemma'))
    expect(cacheDirectory({ PALIGEMMA_CACHE: '/mine', XDG_CACHE_HOME: '/x' }, 'linux')).toBe('/mine')
  })

  it('endpoint and token come from the environment; options win', async () => {
    const env = { HF_ENDPOINT: 'https://mirror.example/hf/', HF_TOKEN: ' hf_env\n', HF_HOME: '/nowhere' }
    expect(await hubSettings({}, env)).toMatchObject({
      endpoint: 'https://mirror.example/hf',
      token: 'hf_env',
      hubCacheDir: join('/nowhere', 'hub')
    })
    expect(await hubSettings({ endpoint: 'http://localhost:1', token: 'hf_option' }, env)).toMatchObject({
      endpoint: 'http://localhost:1',
      token: 'hf_option'
    })
    expect(await hubSettings({ token: false }, env)).toMatchObject({ token: undefined })
    expect(await hubSettings({}, { HF_HOME: '/nowhere', HF_HUB_CACHE: '/hub' })).toMatchObject({
      endpoint: 'https://huggingface.co',
      token: undefined,
      hubCacheDir: '/hub'
    })
  })

  it('the token that "hf auth login" stored is found', async () => {
    const home = tempDir()
    writeFileSync(join(home, 'token'), 'hf_stored\n')
    expect(await hubSettings({}, { HF_HOME: home })).toMatchObject({ token: 'hf_stored' })
    expect(await hubSettings({}, { HF_HOME: '/nowhere', HF_TOKEN_PATH: join(home, 'token') })).toMatchObject({
      token: 'hf_stored'
    })
  })

  it.each(['ftp://x', 'huggingface.co', 'https://user:secret@host', 'https://host?x=1'])(
    'HF_ENDPOINT %j is refused',
    async (endpoint) => {
      await expect(hubSettings({}, { HF_ENDPOINT: endpoint })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining('HF_ENDPOINT') as string
      })
    }
  )

  it('a token that would break the header is refused without being shown', async () => {
    const failure = await hubSettings({}, { HF_TOKEN: 'hf_sec ret\r\nX: y', HF_HOME: '/nowhere' }).catch(
      (error: Error) => error
    )
    expect(failure).toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect((failure as Error).message).not.toContain('sec ret')
  })
})

const commit = 'a'.repeat(40)

function record(type: string, pulledAt: string, extra: Partial<CacheRecord> = {}): CacheRecord {
  return {
    format: recordFormat,
    id: 'org/name',
    revision: 'main',
    commit,
    type,
    visionType: null,
    maskDecoder: null,
    converted: true,
    model: `name-${type}.gguf`,
    vision: null,
    bytes: 5,
    pulledAt,
    ...extra
  }
}

describe("loadModel's way from a name to a file", () => {
  async function filled() {
    const cache = new Cache(tempDir())
    const dir = cache.modelDir('org/name', commit)
    mkdirSync(dir, { recursive: true })
    for (const [type, day] of [
      ['Q4_K_M', '2026-01-02'],
      ['Q8_0', '2026-01-01']
    ] as const) {
      writeFileSync(join(dir, `name-${type}.gguf`), 'model')
      await cache.add(record(type, day))
    }
    return { cache, dir }
  }

  it('takes what was pulled last, or the type that is named', async () => {
    const { cache, dir } = await filled()
    expect(await resolveModel('org/name', cache)).toEqual({ path: join(dir, 'name-Q4_K_M.gguf') })
    expect(await resolveModel('org/name:q8_0', cache)).toEqual({ path: join(dir, 'name-Q8_0.gguf') })
    expect(await resolveModel(`org/name@${commit}`, cache)).toEqual({ path: join(dir, 'name-Q4_K_M.gguf') })
  })

  it('gives the vision file of a pair', async () => {
    const { cache, dir } = await filled()
    writeFileSync(join(dir, 'text-F16.gguf'), 'text')
    writeFileSync(join(dir, 'mmproj.gguf'), 'eyes')
    await cache.add(record('F16', '2026-02-01', { model: 'text-F16.gguf', vision: 'mmproj.gguf', bytes: 8 }))
    expect(await resolveModel('org/name', cache)).toEqual({
      path: join(dir, 'text-F16.gguf'),
      vision: join(dir, 'mmproj.gguf')
    })
  })

  it('a path that exists wins', async () => {
    const { cache } = await filled()
    const dir = tempDir()
    const before = process.cwd()
    mkdirSync(join(dir, 'org'))
    writeFileSync(join(dir, 'org', 'name'), 'mine')
    process.chdir(dir)
    try {
      expect(await resolveModel('org/name', cache)).toEqual({ path: resolve('org/name') })
    } finally {
      process.chdir(before)
    }
  })

  it('what was not pulled is ERR_MODEL_NOT_FOUND with the command that fetches it', async () => {
    const { cache } = await filled()
    await expect(resolveModel('org/other', cache)).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('"npx paligemma pull org/other"') as string
    })
    await expect(resolveModel('org/name@v2:q6_k', cache)).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('"npx paligemma pull org/name --revision v2 --type Q6_K"') as string
    })
    await expect(resolveModel('org/name:q6_k', cache)).rejects.toMatchObject({
      message: expect.stringContaining('which has it as Q8_0, Q4_K_M)') as string
    })
  })

  it('paths are left to the reader', async () => {
    const { cache } = await filled()
    for (const path of ['models/x.gguf', './a/b', '/a/b', 'a', 'a/b/c'])
      expect(await resolveModel(path, cache)).toEqual({ path: resolve(path) })
  })

  it('a record whose file is missing, cut or elsewhere counts for nothing', async () => {
    const { cache, dir } = await filled()
    writeFileSync(join(dir, 'name-Q4_K_M.gguf'), 'cut')
    expect(await resolveModel('org/name', cache)).toEqual({ path: join(dir, 'name-Q8_0.gguf') })
    writeFileSync(join(dir, 'name-Q8_0.json'), '{')
    await expect(resolveModel('org/name', cache)).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    writeFileSync(join(dir, 'evil.json'), JSON.stringify(record('F32', '2027', { model: '../../../etc/passwd' })))
    await expect(resolveModel('org/name', cache)).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
  })
})

describe('locks', () => {
  const timing = { beatMs: 20, deadMs: 200 }

  it('let one in at a time, in this process too', async () => {
    const path = join(tempDir(), 'locks', 'a.lock')
    let inside = 0
    let most = 0
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        const lock = await acquireLock(path, { timing })
        most = Math.max(most, ++inside)
        await new Promise((resolve) => setTimeout(resolve, 5))
        inside--
        await lock.release()
      })
    )
    expect(most).toBe(1)
    expect(existsSync(path)).toBe(false)
  })

  it('a living owner keeps it, however long; who waits is told who has it', { tags: ['slow'] }, async () => {
    const path = join(tempDir(), 'a.lock')
    const owner = await acquireLock(path, { timing })
    const waited: string[] = []
    const control = new AbortController()
    setTimeout(() => control.abort(new Error('enough')), 500)
    await expect(
      acquireLock(path, { timing, signal: control.signal, onWait: (who) => waited.push(who) })
    ).rejects.toThrow('enough')
    expect(waited).toEqual([`process ${process.pid} on ${hostname()}`])
    expect(owner.lost.aborted).toBe(false)
    await owner.release()
  })

  it("a dead process's lock is taken over", async () => {
    const path = join(tempDir(), 'a.lock')
    const child = spawn(process.execPath, ['-e', ''])
    await new Promise((resolve) => child.on('exit', resolve))
    writeFileSync(path, JSON.stringify({ nonce: 'x', pid: child.pid, host: hostname() }))
    const lock = await acquireLock(path, { timing: { beatMs: 50, deadMs: 600_000 } })
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ pid: process.pid })
    await lock.release()
  })

  // A container that starts again has the same host name and the same process number, that of the lock.
  it.skipIf(process.platform !== 'linux')(
    'a process that has the number of a dead owner is told by its start',
    { tags: ['slow'] },
    async () => {
      const path = join(tempDir(), 'a.lock')
      const slow = { beatMs: 800, deadMs: 60_000 }
      const owner = await acquireLock(path, { timing: slow })
      const record = JSON.parse(readFileSync(path, 'utf8')) as { started: string }
      expect(record.started).toMatch(/^[0-9a-f-]{36} \d+$/)
      await owner.release()
      const [boot, start] = record.started.split(' ')
      for (const started of [`${boot} ${Number(start) - 1}`, `another-boot ${start}`]) {
        writeFileSync(path, JSON.stringify({ ...record, nonce: 'x', started }))
        const old = new Date(Date.now() - 10_000)
        utimesSync(path, old, old)
        const waited: string[] = []
        const lock = await acquireLock(path, { timing: slow, onWait: (whom) => waited.push(whom) })
        expect(waited).toHaveLength(started.startsWith(boot!) ? 0 : 1)
        await lock.release()
      }
    }
  )

  it.each([
    ["another machine's", JSON.stringify({ nonce: 'x', pid: 1, host: 'elsewhere' })],
    ['a half-written', '']
  ])('%s lock is taken over when nobody touches it', async (_, content) => {
    const path = join(tempDir(), 'a.lock')
    writeFileSync(path, content)
    utimesSync(path, 1e9, 1e9)
    const start = performance.now()
    let inside = 0
    await Promise.all(
      [1, 2].map(async () => {
        const lock = await acquireLock(path, { timing })
        expect(++inside).toBe(1)
        await new Promise((resolve) => setTimeout(resolve, 50))
        inside--
        await lock.release()
      })
    )
    expect(performance.now() - start).toBeGreaterThan(timing.deadMs - 20)
  })

  it('an owner that lost its lock is told', async () => {
    const path = join(tempDir(), 'a.lock')
    const lock = await acquireLock(path, { timing })
    writeFileSync(path, JSON.stringify({ nonce: 'other', pid: 1, host: 'elsewhere' }))
    await new Promise<void>((resolve) => lock.lost.addEventListener('abort', () => resolve(), { once: true }))
    expect(lock.lost.reason).toMatchObject({ code: 'ERR_DOWNLOAD_FAILED' })
    await lock.release()
    expect(existsSync(path)).toBe(true)
  })
})

describe('the files of a model', () => {
  const file = (path: string, bytes = 10): HubFile => ({ path, bytes, hash: { kind: 'git', value: '0'.repeat(40) } })
  const checkpoint = [
    'config.json',
    'generation_config.json',
    'preprocessor_config.json',
    'added_tokens.json',
    'tokenizer.model',
    'tokenizer.json',
    'README.md',
    '.gitattributes',
    'model.safetensors.index.json',
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    'images/model.safetensors',
    'optimizer.pt'
  ].map((path) => file(path))
  const choose = (files: HubFile[], type?: string, mustConvert = false) =>
    chooseFiles(files, { id: 'org/name', type, mustConvert })
  const names = (files: HubFile[]) => files.map(({ path }) => path)

  it('of a checkpoint: what convert reads, nothing else', () => {
    expect(names(choose(checkpoint).files).sort()).toEqual([
      'added_tokens.json',
      'config.json',
      'generation_config.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'preprocessor_config.json',
      'tokenizer.json',
      'tokenizer.model'
    ])
    const single = [...checkpoint.filter(({ path }) => !path.startsWith('model')), file('model.safetensors')]
    expect(names(choose(single).files)).toContain('model.safetensors')
  })

  it('of a checkpoint: one file before shards of an earlier save, shards of any names, all lists of tokens', () => {
    const both = names(choose([...checkpoint, file('model.safetensors'), file('special_tokens_map.json')]).files)
    expect(both).toContain('special_tokens_map.json')
    expect(both.filter((name) => name.startsWith('model'))).toEqual(['model.safetensors'])
    const renamed = [
      ...checkpoint.filter(({ path }) => !path.startsWith('model-')),
      ...['weights-1.safetensors', 'weights-2.safetensors', 'consolidated.safetensors'].map((path) => file(path))
    ]
    const weights = names(choose(renamed).files).filter((name) => name.endsWith('.safetensors'))
    expect(weights).toEqual(['weights-1.safetensors', 'weights-2.safetensors'])
  })

  it('what is missing is named: the index of shards, the weights of an adapter', () => {
    const shards = checkpoint.filter(({ path }) => path !== 'model.safetensors.index.json')
    expect(() => choose(shards)).toThrow(/lacks model\.safetensors\.index\.json/)
    expect(() => choose([file('adapter_config.json')])).toThrow(/lacks adapter_model\.safetensors/)
  })

  it('a ready GGUF of the type is taken, unless more than it can give is asked for', () => {
    const files = [...checkpoint, file('name-Q4_K_M.gguf'), file('name-f16.gguf'), file('sub/name-Q6_K.gguf')]
    expect(choose(files, 'Q4_K_M')).toMatchObject({
      kind: 'gguf',
      type: 'Q4_K_M',
      model: [{ path: 'name-Q4_K_M.gguf' }],
      vision: undefined
    })
    expect(choose(files, 'F16')).toMatchObject({ kind: 'gguf', model: [{ path: 'name-f16.gguf' }] })
    expect(choose(files, 'Q6_K').kind).toBe('checkpoint')
    expect(choose(files).kind).toBe('checkpoint')
    expect(choose(files, 'Q4_K_M', true).kind).toBe('checkpoint')
  })

  it('of a repository of GGUFs: the one of the type with its vision file, or the only one', () => {
    const files = [
      file('mmproj-model-f16.gguf', 5),
      file('mmproj-model-q8_0.gguf', 3),
      file('text-Q8_0.gguf'),
      file('text-Q4_K_M.gguf')
    ]
    expect(names(choose(files, 'Q4_K_M').files)).toEqual(['text-Q4_K_M.gguf', 'mmproj-model-f16.gguf'])
    expect(choose(files)).toMatchObject({ type: 'Q8_0' })
    expect(choose([file('some.Q5_K_M.gguf')])).toMatchObject({ kind: 'gguf', type: 'Q5_K_M' })
    expect(() => choose(files, 'F32')).toThrow(/GGUFs of the types Q8_0, Q4_K_M only, not F32; choose one with --type/)
    expect(() => choose(files, 'Q8_0', true)).toThrow(/ready GGUFs only/)
    expect(() => choose([file('a-Q8_0.gguf'), file('b-Q8_0.gguf')], 'Q8_0')).toThrow(
      /several files of type Q8_0: a-Q8_0.gguf, b-Q8_0.gguf/
    )
  })

  it.each([
    [['adapter_model.safetensors'], /lacks adapter_config.json/],
    [['adapter_model.bin', 'adapter_config.json'], /adapter_model\.bin.*pickled/],
    [['paligemma-3b-pt-224.npz'], /pull the repository without "-jax"/],
    [['config.json', 'pytorch_model.bin'], /pickled/],
    [['config.json', 'model.safetensors'], /lacks tokenizer.model/],
    [['README.md'], /lacks config.json and tokenizer.model or tokenizer.json/]
  ])('%j is refused with the reason', (paths, message) => {
    expect(() => choose(paths.map((path) => file(path)))).toThrow(
      expect.objectContaining({ code: 'ERR_MODEL_UNSUPPORTED', message: expect.stringMatching(message) as string })
    )
  })
})

describe('how long to wait', () => {
  it("Retry-After in seconds or as a date, else the end of the hub's rate limit window", () => {
    const now = Date.parse('2026-01-01T00:00:00Z')
    expect(retryAfter(new Headers({ 'retry-after': '7' }), now)).toBe(7000)
    expect(retryAfter(new Headers({ 'retry-after': 'Thu, 01 Jan 2026 00:00:30 GMT' }), now)).toBe(30_000)
    expect(retryAfter(new Headers({ 'retry-after': 'soon', ratelimit: '"resolvers";r=0;t=55' }), now)).toBe(55_000)
    expect(retryAfter(new Headers(), now)).toBeUndefined()
  })
})
