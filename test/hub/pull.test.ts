/** `pull` against a hub that works, breaks off, stalls, lies and refuses. The conversion is a stand-in here. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { basename, join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { convert } from '../../lib/convert'
import { pull } from '../../lib/hub/pull'
import type { PullHooks, PullOptions, PullPlan, PullProgress } from '../../lib/hub/pull-options'
import { Cache } from '../../lib/hub/cache'
import { resolveModel } from '../../lib/hub/resolve'
import { execute } from '../../lib/cli/program'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { refuse, sha256, TestHub } from '../support/hub-server'

afterAll(removeTempDirs)

const noise = (bytes: number, seed: number): Buffer => {
  const buffer = Buffer.alloc(bytes)
  for (let i = 0; i < bytes; i++) buffer[i] = (seed = (seed * 1103515245 + 12345) & 0x7fffffff) >> 16
  return buffer
}
const files = {
  'config.json': JSON.stringify({ model_type: 'paligemma', torch_dtype: 'bfloat16' }),
  'tokenizer.model': noise(1000, 1),
  'model.safetensors.index.json': '{}',
  'model-00001-of-00002.safetensors': noise(600_000, 2),
  'model-00002-of-00002.safetensors': noise(300_000, 3),
  'README.md': 'not needed',
  'tokenizer.json': '{}'
}
const first = 'model-00001-of-00002.safetensors'
const firstContent = files[first]

/** Joins what was downloaded, so that the result shows whether every byte came through. */
const fakeConvert: typeof convert = async ({ source: from, out, type, onProgress }) => {
  const source = from as string
  const names = readdirSync(source)
    .filter((name) => name.endsWith('.safetensors'))
    .sort()
  writeFileSync(out, Buffer.concat(names.map((name) => readFileSync(join(source, name)))))
  onProgress?.(1)
  return { path: out, bytes: statSync(out).size, type: type!, tensors: 1, parameters: 1, notes: ['converted'] }
}
const wholeModel = Buffer.concat([firstContent, files['model-00002-of-00002.safetensors']])

let hub: TestHub
let cacheDir: string
const messages: string[] = []

beforeEach(async () => {
  hub = await TestHub.start(files)
  cacheDir = tempDir()
  messages.length = 0
})
afterEach(async () => {
  await hub.stop()
})

const hooks = (extra: Partial<PullHooks> = {}): PullHooks => ({
  timing: { stallMs: 300, pauseMs: 5, maxPauseMs: 20, attempts: 4 },
  convert: fakeConvert,
  env: { HF_HOME: join(cacheDir, 'no-hf') },
  lockTiming: { beatMs: 50, deadMs: 2000 },
  ...extra
})
const run = async (options: PullOptions = {}, extra: Partial<PullHooks> = {}) =>
  await pull(
    hub.id,
    { endpoint: hub.url, cacheDir, onMessage: (message) => messages.push(message), ...options },
    hooks(extra)
  )
const downloadDir = () => new Cache(cacheDir).downloadDir(hub.id, hub.commit)
const failure = async (options: PullOptions = {}, extra: Partial<PullHooks> = {}) => {
  const error = await run(options, extra).then(
    () => {
      throw new Error('it did not fail')
    },
    (reason: unknown) => reason
  )
  return error as { code: string; message: string }
}

/** Misbehaves for the first `times` content requests of a file, at the server that has the content. */
function misbehave(
  file: string,
  times: number,
  how: (response: ServerResponse, content: Buffer, from: number) => void
): void {
  let left = times
  hub.intercept = (request, response, { at, path }) => {
    if (at !== 'files' || !path.endsWith(file) || left-- <= 0) return false
    how(response, hub.files.get(file)!, Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0))
    return true
  }
}

function sendPart(response: ServerResponse, content: Buffer, from: number, count: number): void {
  response.writeHead(from > 0 ? 206 : 200, {
    etag: `"v1-${first}"`,
    'content-length': content.length - from,
    ...(from > 0 && { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` })
  })
  response.write(content.subarray(from, from + count))
}

/** Sends a piece, then breaks the connection off. What of it arrives before the break is up to the system. */
function breakOff(response: ServerResponse, content: Buffer, from: number, count: number): void {
  sendPart(response, content, from, count)
  setTimeout(() => response.destroy(), 50)
}
const offset = (range: string | undefined): number => Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1])

describe('pull', () => {
  it('downloads what conversion needs, converts, removes the download, and is found by name', async () => {
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

  it('does nothing twice', async () => {
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

  it('a moved branch is a new model; the old commit stays', async () => {
    const old = await run()
    const before = hub.commit
    hub.commit = 'd'.repeat(40)
    const next = await run()
    expect(next.commit).toBe(hub.commit)
    const cache = new Cache(cacheDir)
    expect(await resolveModel('org/tiny-model', cache)).toEqual({ path: next.path })
    expect(await resolveModel(`org/tiny-model@${before}`, cache)).toEqual({ path: old.path })
  })

  it('a mask decoder makes another model, by its content', async () => {
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

  it('a model that an older version made is loaded, but made anew by the next pull', async () => {
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

describe('a connection that breaks', () => {
  const ranges = () => hub.requestsFor(first, 'files').map(({ headers }) => headers.range)

  it('is taken up where it ended, under the same ETag', async () => {
    misbehave(first, 2, (response, content, from) => breakOff(response, content, from, 150_000))
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    const seen = ranges()
    expect(seen).toHaveLength(3)
    expect(seen[0]).toBeUndefined()
    expect(offset(seen[1])).toBeGreaterThan(50_000)
    expect(offset(seen[2])).toBeGreaterThan(offset(seen[1]))
    expect(hub.requestsFor(first, 'files')[2]!.headers['if-range']).toBe(`"v1-${first}"`)
  })

  it('is taken up by the next process', async () => {
    misbehave(first, 99, (response, content, from) => {
      if (from > 0) response.destroy()
      else breakOff(response, content, from, 200_000)
    })
    const error = await failure()
    expect(error.code).toBe('ERR_DOWNLOAD_FAILED')
    expect(error.message).toMatch(/gave up after 4 attempts.*goes on from there/)
    const { size } = statSync(join(downloadDir(), `${first}.part`))
    expect(size).toBeGreaterThan(50_000)
    hub.intercept = () => false
    hub.seen.length = 0
    const plans: PullPlan[] = []
    expect(readFileSync((await run({ onPlan: (plan) => plans.push(plan) })).path).equals(wholeModel)).toBe(true)
    expect(ranges()).toEqual([`bytes=${size}-`])
    expect(plans[0]!.files.find(({ path }) => path === first)!.present).toBe(size)
  })

  it('starts over when the server has another version or knows no ranges', async () => {
    let etag = 'a'
    hub.intercept = (request, response, { at, path }) => {
      if (at !== 'files' || !path.endsWith(first)) return false
      if (etag === 'a') {
        etag = 'b'
        response.writeHead(200, { etag: '"a"', 'content-length': firstContent.length }).write(noise(100_000, 77))
        setTimeout(() => response.destroy(), 50)
      } else hub.sendFile(first, request, response, { etag: '"b"' })
      return true
    }
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(ranges()).toEqual([undefined, expect.stringMatching(/^bytes=\d+-$/)])
  })

  it('a wrong range is not appended', async () => {
    misbehave(first, 2, (response, content, from) => {
      if (from === 0) breakOff(response, content, 0, 100_000)
      else response.writeHead(206, { 'content-range': `bytes 0-${content.length - 1}/${content.length}` }).end(content)
    })
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(messages.join()).toContain('another range')
  })

  it('a stall ends after its time and the download goes on', async () => {
    misbehave(first, 1, (response, content, from) => sendPart(response, content, from, 250_000))
    const start = performance.now()
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(performance.now() - start).toBeGreaterThan(250)
    expect(offset(ranges()[1])).toBeGreaterThan(50_000)
    expect(messages.join()).toContain('sent nothing for 0.3 s')
  })

  it('a server that never answers is given up', async () => {
    hub.intercept = () => true
    const error = await failure()
    expect(error).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('sent nothing for 0.3 s; gave up after 4 attempts') as string
    })
  })

  it('a server that is not there is given up', async () => {
    const gone = await TestHub.start({})
    await gone.stop()
    const error = await failure({ endpoint: gone.url })
    expect(error).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(/127\.0\.0\.1:\d+: .*gave up/) as string
    })
  })

  it('a part that another process left damaged is noticed and downloaded again', async () => {
    mkdirSync(downloadDir(), { recursive: true })
    writeFileSync(join(downloadDir(), `${first}.part`), noise(100_000, 5))
    writeFileSync(join(downloadDir(), `${first}.part.etag`), `${sha256(firstContent)}\n"v1-${first}"`)
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(ranges()).toEqual(['bytes=100000-', undefined])
    expect(messages.join()).toContain('is damaged; starting over')
  })

  it('a part of another file is not gone on with', async () => {
    mkdirSync(downloadDir(), { recursive: true })
    writeFileSync(join(downloadDir(), `${first}.part`), noise(100_000, 5))
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(ranges()).toEqual([undefined])
  })

  it('an abort rejects with its reason; the part stays', async () => {
    misbehave(first, 99, (response, content, from) => sendPart(response, content, from, 200_000))
    const control = new AbortController()
    const reason = new Error('enough')
    const pulling = run(
      {
        signal: control.signal,
        onProgress: ({ bytes }) => {
          if (bytes > 400_000) control.abort(reason)
        }
      },
      { timing: { stallMs: 10_000 } }
    )
    await expect(pulling).rejects.toBe(reason)
    expect(statSync(join(downloadDir(), `${first}.part`)).size).toBeGreaterThan(50_000)
    expect(readdirSync(join(cacheDir, 'locks'))).toEqual([])
  })
})

describe('a hub that lies', () => {
  it('about a checksum: the file is removed', async () => {
    hub.lies[first] = { sha256: sha256(Buffer.from('other')) }
    const error = await failure()
    expect(error.code).toBe('ERR_DOWNLOAD_FAILED')
    expect(error.message).toContain(`SHA-256 ${sha256(firstContent)} instead of ${sha256(Buffer.from('other'))}`)
    expect(readdirSync(downloadDir()).filter((name) => name.startsWith(first))).toEqual([])
  })

  it("about a small file: git's checksum is verified too", async () => {
    hub.intercept = (_, response, { path }) => {
      if (!path.endsWith('/config.json')) return false
      response
        .writeHead(200, { 'content-length': files['config.json'].length })
        .end(files['config.json'].replace('p', 'q'))
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(/config\.json: .*git SHA-1/) as string
    })
    expect(existsSync(join(downloadDir(), 'config.json'))).toBe(false)
  })

  it('about a size, in the list: nothing is taken', async () => {
    hub.lies[first] = { size: 700_000 }
    const error = await failure()
    expect(error).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('the server sends 600000 bytes, but the hub lists 700000') as string
    })
    expect(existsSync(join(downloadDir(), `${first}.part`))).toBe(false)
  })

  it('about a size, by sending more than it said: no more than that is written', async () => {
    misbehave(first, 99, (response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' })
      response.end(noise(2_000_000, 9))
    })
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('sends more than the 600000 bytes') as string
    })
    expect(existsSync(join(downloadDir(), `${first}.part`))).toBe(false)
  })

  it.each([
    ['with a length', { 'content-length': '26' }, /the server sends 26 bytes, but the hub lists 600000/],
    ['without', {}, /answers with something else than the file; gave up/]
  ])('a page in place of the file, %s, does not cost the part that is there', async (_, headers, message) => {
    misbehave(first, 99, (response, content, from) => {
      if (from > 0)
        response.writeHead(200, { 'content-type': 'text/html', ...headers }).end('<html>please log in</html>')
      else breakOff(response, content, 0, 200_000)
    })
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(message) as string
    })
    expect(statSync(join(downloadDir(), `${first}.part`)).size).toBeGreaterThan(50_000)
    hub.intercept = () => false
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
  })

  it('a file that changed between the list and the download is noticed by its headers', async () => {
    hub.intercept = (_, response, { at, path }) => {
      if (at !== 'hub' || !path.endsWith(first)) return false
      response
        .writeHead(302, {
          location: `${hub.filesUrl}/${first}`,
          'x-linked-etag': `"${'9'.repeat(64)}"`,
          'x-linked-size': '600000'
        })
        .end()
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('9'.repeat(64)) as string
    })
    expect(hub.requestsFor(first, 'files').length).toBeLessThanOrEqual(1)
  })

  it.each(['../evil', '/etc/passwd', 'a/../../b', 'a\\b', 'c:d', ''])('a file name %j is refused', async (path) => {
    hub.extraEntries = [{ type: 'file', path, size: 1, oid: '0'.repeat(40) }]
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('not safe') as string
    })
  })

  it.each([
    [{ type: 'file', path: 'x', size: 1 }],
    [{ type: 'file', path: 'x', size: -1, oid: '0'.repeat(40) }],
    [{ type: 'file', path: 'x', size: 1, oid: '0'.repeat(40), lfs: { oid: 'short', size: 1 } }]
  ])('an entry without size or checksum is refused: %j', async (entry) => {
    hub.extraEntries = [entry]
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('lacks size or checksum of x') as string
    })
  })

  it('something that is no hub is called so', async () => {
    hub.intercept = (_, response) => {
      response.end('<html>welcome</html>')
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('is HF_ENDPOINT a Hugging Face hub?') as string
    })
    hub.intercept = (_, response) => {
      response.end('{"sha":"short"}')
      return true
    }
    expect(await failure()).toMatchObject({
      message: expect.stringContaining('is HF_ENDPOINT a Hugging Face hub?') as string
    })
  })
})

describe('who gets the token', () => {
  it('the hub does, the file server it redirects to does not', async () => {
    await run({ token: 'hf_secret' })
    expect(
      hub.seen.filter(({ at }) => at === 'hub').every(({ headers }) => headers.authorization === 'Bearer hf_secret')
    ).toBe(true)
    const others = hub.seen.filter(({ at }) => at === 'files')
    expect(others.length).toBeGreaterThan(0)
    expect(JSON.stringify(others)).not.toContain('hf_secret')
  })

  it('a list that goes on elsewhere is not followed', async () => {
    hub.intercept = (_, response, { at, path }) => {
      if (at === 'hub' && path.includes('/tree/')) response.setHeader('link', `<${hub.filesUrl}/more>; rel="next"`)
      return false
    }
    expect(await failure({ token: 'hf_secret' })).toMatchObject({
      message: expect.stringContaining('goes on at another server') as string
    })
    expect(hub.seen.filter(({ at }) => at === 'files')).toEqual([])
  })

  it.each([
    ['file:///etc/passwd', 'not safe'],
    ['ftp://x/y', 'not safe']
  ])('a redirect to %s is refused', async (location, message) => {
    hub.intercept = (_, response, { path }) => {
      if (!path.endsWith(first)) return false
      response.writeHead(302, { location }).end()
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining(message) as string
    })
  })

  it('https never becomes http', async () => {
    const asked: string[] = []
    const fetch = async (url: string) => {
      asked.push(url)
      return new Response(null, { status: 302, headers: { location: 'http://huggingface.co/x' } })
    }
    await expect(
      pull('a/b', { endpoint: 'https://huggingface.co', token: 'hf_secret', cacheDir, fetch }, hooks())
    ).rejects.toMatchObject({ message: expect.stringContaining('not safe') as string })
    expect(asked).toHaveLength(1)
  })

  it('redirects in a circle end', async () => {
    hub.intercept = (_, response, { path }) => {
      if (!path.endsWith(first)) return false
      response.writeHead(307, { location: path }).end()
      return true
    }
    expect(await failure()).toMatchObject({ message: expect.stringContaining('more than 10 redirects') as string })
  })
})

describe('refusals', () => {
  const always = (status: number, code?: string, headers: Record<string, string> = {}, only = /./) => {
    hub.intercept = (_, response, { at, path }) => {
      if (at !== 'hub' || !only.test(path)) return false
      refuse(response, status, code, headers)
      return true
    }
  }

  it('of a gated model: says to accept the licence at its page and to set HF_TOKEN', async () => {
    always(401, 'GatedRepo', {}, /\/resolve\//)
    const error = await failure()
    expect(error.code).toBe('ERR_ACCESS_DENIED')
    expect(error.message).toContain(
      `accept the licence at ${hub.url}/org/tiny-model, then set HF_TOKEN to an access token`
    )
    expect(error.message).toContain('GatedRepo said the hub')
    always(403, 'GatedRepo', {}, /\/resolve\//)
    expect((await failure({ token: 'hf_secret' })).message).toMatch(
      /accept the licence at .* with the account of HF_TOKEN/
    )
    always(401)
    const invalid = await failure({ token: 'hf_secret' })
    expect(invalid.message).toContain('the token of HF_TOKEN is not valid')
    expect(invalid.message).not.toContain('hf_secret')
    expect(hub.seen.length).toBeLessThan(30)
  })

  it('of what is not there: repository, revision, file', async () => {
    await expect(pull('org/other', { endpoint: hub.url, cacheDir }, hooks())).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('has no model org/other that can be seen without a token') as string
    })
    expect(await failure({ revision: 'v9' })).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('has no revision v9') as string
    })
    always(401, 'RepoNotFound')
    expect(await failure()).toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    always(404, 'EntryNotFound', {}, /\/resolve\//)
    expect(await failure()).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringMatching(/has no file \S+ at revision/) as string
    })
  })

  it('429 waits as long as it is told, then goes on', async () => {
    let left = 2
    const times: number[] = []
    hub.intercept = (_, response, { path }) => {
      if (!path.includes('/revision/')) return false
      times.push(performance.now())
      if (left-- <= 0) return false
      refuse(response, 429, undefined, { 'retry-after': '0.2' })
      return true
    }
    expect(await run()).toMatchObject({ cached: false })
    expect(times).toHaveLength(3)
    expect(times[1]! - times[0]!).toBeGreaterThan(190)
    expect(messages.join()).toContain('429 (too many requests); trying again in 0.2 s')
  })

  it('429 with more patience than a person has is reported', async () => {
    always(429, undefined, { 'retry-after': '3600' })
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('asks to wait 3600 s; try again then, or set HF_TOKEN') as string
    })
    expect(hub.seen).toHaveLength(1)
  })

  it('5xx is tried again, not for ever', async () => {
    always(503)
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('answers 503; gave up after 4 attempts') as string
    })
    expect(hub.seen).toHaveLength(4)
  })

  it('an expired address of the file server is asked for anew', async () => {
    let left = 2
    hub.intercept = (_, response, { at, path }) => {
      if (at !== 'files' || !path.endsWith(first) || left-- <= 0) return false
      refuse(response, 403)
      return true
    }
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(hub.requestsFor(first, 'hub')).toHaveLength(3)
  })

  it('other answers are reported as they are', async () => {
    always(418)
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(/answers 418/) as string
    })
    expect(hub.seen).toHaveLength(1)
  })
})

describe('paligemma pull', () => {
  it('an unusable hub ends with code 1, a wrong id with code 2', async () => {
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
