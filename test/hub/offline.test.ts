/** A model that was pulled, without a network, without a hub, and where nothing can be written. */
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { convert } from '../../lib/convert'
import { Cache } from '../../lib/hub/cache'
import { pull } from '../../lib/hub/pull'
import type { PullHooks, PullOptions } from '../../lib/hub/pull-options'
import { hubSettings } from '../../lib/hub/settings'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { refuse, TestHub } from '../support/hub-server'
import { asStranger, hasStrangers } from '../support/permissions'

afterAll(removeTempDirs)

const fakeConvert: typeof convert = async ({ out, type }) => {
  writeFileSync(out, 'model')
  return { path: String(out), bytes: 5, type: type!, tensors: 1, parameters: 1, notes: [] }
}

let hub: TestHub
let cacheDir: string
let messages: string[]
const others: Server[] = []

beforeEach(async () => {
  hub = await TestHub.start({
    'config.json': '{"model_type":"paligemma"}',
    'tokenizer.model': 'x',
    'model.safetensors': 'weights'
  })
  cacheDir = tempDir()
  messages = []
})
afterEach(async () => {
  await hub.stop()
  for (const server of others.splice(0)) server.close()
})

const run = async (options: PullOptions = {}, env: PullHooks['env'] = {}, id = hub.id) =>
  await pull(
    id,
    { endpoint: hub.url, cacheDir, onMessage: (message) => messages.push(message), ...options },
    {
      timing: { stallMs: 1000, pauseMs: 5, maxPauseMs: 20, attempts: 4 },
      convert: fakeConvert,
      env: { HF_HOME: join(cacheDir, 'no-hf'), ...env },
      lockTiming: { beatMs: 50, deadMs: 2000 }
    }
  )
const failure = async (...args: Parameters<typeof run>) =>
  (await run(...args).then(
    () => ({ code: 'none', message: 'it did not fail' }),
    (error: unknown) => error
  )) as { code: string; message: string }

describe('offline by a variable', () => {
  it.each([
    { HF_HUB_OFFLINE: '1' },
    { HF_HUB_OFFLINE: 'on' },
    { HF_HUB_OFFLINE: 'True' },
    { TRANSFORMERS_OFFLINE: 'YES' },
    { HF_HUB_OFFLINE: '', TRANSFORMERS_OFFLINE: '1' }
  ])('%j: the cached model, and no request', async (env) => {
    const made = await run()
    hub.seen.length = 0
    expect(await run({}, env)).toMatchObject({ path: made.path, cached: true })
    expect(await run({ type: 'q8_0' }, env)).toMatchObject({ path: made.path, cached: true })
    expect(hub.seen).toEqual([])
  })

  it.each([{ HF_HUB_OFFLINE: '0' }, { HF_HUB_OFFLINE: '0', TRANSFORMERS_OFFLINE: '1' }, { HF_HUB_OFFLINE: 'no' }])(
    '%j is online',
    async (env) => {
      expect(await run({}, env)).toMatchObject({ cached: false })
    }
  )

  it('any type does where none is asked for, with a note', async () => {
    const { path } = await run({ type: 'f16' })
    const found = await run({}, { HF_HUB_OFFLINE: '1' })
    expect(found).toMatchObject({ path, type: 'F16', cached: true })
    expect(found.notes.join()).toMatch(/HF_HUB_OFFLINE.*F16/)
  })

  it('what is not there is named, with the variable', async () => {
    await run({ type: 'f16' })
    hub.seen.length = 0
    const env = { HF_HUB_OFFLINE: '1' }
    expect(await failure({}, env, 'org/other')).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringMatching(/org\/other is not in the cache.*HF_HUB_OFFLINE/)
    })
    expect((await failure({ type: 'q4_0' }, env)).message).toMatch(/as Q4_0 is not in the cache.*has it as F16/)
    expect((await failure({ revision: 'dev' }, { TRANSFORMERS_OFFLINE: '1' })).message).toMatch(
      /@dev.*TRANSFORMERS_OFFLINE/
    )
    expect((await failure({ force: true }, env)).message).toMatch(/pulled anew.*HF_HUB_OFFLINE/)
    expect(hub.seen).toEqual([])
  })
})

describe('a hub that cannot be reached', () => {
  it('leaves the cached model, with a note, at the first failure', async () => {
    const { path } = await run()
    await hub.stop()
    const found = await run()
    expect(found).toMatchObject({ path, cached: true })
    expect(found.notes.join()).toMatch(/cached model is used.*127\.0\.0\.1/)
    expect(messages).toEqual([])
  })

  it.each([
    ['a hub without an answer', () => true],
    ['an error of the hub', (_: unknown, response: Parameters<typeof refuse>[0]) => refuse(response, 503)],
    ['a refused token', (_: unknown, response: Parameters<typeof refuse>[0]) => refuse(response, 401)]
  ])('so does %s', { tags: ['slow'] }, async (_, answer) => {
    const { path } = await run()
    hub.seen.length = 0
    hub.intercept = (request, response) => {
      answer(request, response)
      return true
    }
    expect(await run()).toMatchObject({ path, cached: true, notes: [expect.stringContaining('cached model is used')] })
    expect(hub.seen).toHaveLength(1)
  })

  it('leaves the cached model of another type where none is asked for, with a note', async () => {
    const { path } = await run({ type: 'f16' })
    await hub.stop()
    const found = await run()
    expect(found).toMatchObject({ path, type: 'F16', cached: true })
    expect(found.notes.join()).toMatch(/cached model of type F16 is used/)
    expect(messages).toEqual([])
  })

  it('does not hide an abort, and is an error where something new is wanted', async () => {
    await run()
    const control = new AbortController()
    hub.intercept = () => {
      control.abort(new Error('enough'))
      return true
    }
    await expect(run({ signal: control.signal })).rejects.toThrow('enough')
    await hub.stop()
    expect(await failure({ type: 'f16' })).toMatchObject({ code: 'ERR_DOWNLOAD_FAILED' })
    expect(await failure({ force: true })).toMatchObject({ code: 'ERR_DOWNLOAD_FAILED' })
  })
})

describe.skipIf(process.platform === 'win32')("a snapshot in the cache of Hugging Face's library", () => {
  const commit = 'ab'.repeat(20)
  const hubCache = () => join(cacheDir, 'hf-hub')
  const env = () => ({ HF_HUB_CACHE: hubCache() })
  /** As that library lays it out: contents by their checksums, and links of their names. */
  function snapshot(files: Record<string, string>): void {
    const root = join(hubCache(), `models--${hub.id.replace('/', '--')}`)
    const at = (...parts: string[]) => join(root, ...parts)
    for (const dir of ['refs', 'blobs', `snapshots/${commit}`]) mkdirSync(at(dir), { recursive: true })
    writeFileSync(at('refs', 'main'), commit)
    for (const [name, content] of Object.entries(files)) {
      const large = name.endsWith('.safetensors')
      const hash = createHash(large ? 'sha256' : 'sha1')
      const blob = hash
        .update(large ? '' : `blob ${content.length}\0`)
        .update(content)
        .digest('hex')
      writeFileSync(at('blobs', blob), content)
      symlinkSync(at('blobs', blob), at('snapshots', commit, name))
    }
  }
  const files = { 'config.json': '{"model_type":"paligemma"}', 'tokenizer.json': '{}', 'model.safetensors': 'weights' }

  it('is enough where requests are forbidden, and none is made', async () => {
    snapshot(files)
    hub.seen.length = 0
    const made = await run({ type: 'f16' }, { ...env(), HF_HUB_OFFLINE: '1' })
    expect(made).toMatchObject({ commit, type: 'F16', cached: false })
    expect(made.notes.join()).toMatch(/hf-hub has, since HF_HUB_OFFLINE forbids requests/)
    expect(hub.seen).toEqual([])
    expect(await run({ type: 'f16' }, { ...env(), HF_HUB_OFFLINE: '1' })).toMatchObject({ cached: true })
  })

  it('is enough where the hub cannot be reached', async () => {
    snapshot(files)
    await hub.stop()
    expect(await run({}, env())).toMatchObject({ commit, cached: false })
    expect(messages).toEqual([])
  })

  it('is not where something is missing or damaged, which is named', async () => {
    const { 'model.safetensors': _, ...rest } = files
    snapshot(rest)
    const offline = { ...env(), HF_HUB_OFFLINE: '1' }
    expect(await failure({}, offline)).toMatchObject({ message: expect.stringContaining('model.safetensors') })
    snapshot({ 'model.safetensors': 'weights' })
    const link = join(hubCache(), `models--${hub.id.replace('/', '--')}`, 'snapshots', commit, 'model.safetensors')
    writeFileSync(link, 'weighty')
    expect(await failure({}, offline)).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringMatching(/no whole copy of .*model\.safetensors.*HF_HUB_OFFLINE/)
    })
    expect(await failure({}, { ...offline, HF_HUB_CACHE: join(cacheDir, 'empty') })).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('is not in the cache')
    })
  })
})

describe('failures that stay', () => {
  const tried = async (endpoint: string) => {
    const error = await failure({ endpoint })
    expect(messages).toEqual([])
    expect(error.code).toBe('ERR_DOWNLOAD_FAILED')
    return error.message
  }

  it('a port that no browser asks is refused at once', async () => {
    expect(await tried('http://127.0.0.1:6000')).toMatch(/127\.0\.0\.1:6000: bad port.*HF_ENDPOINT/)
  })

  it('so is a host that is not known', async () => {
    const error = await failure({
      endpoint: 'https://hub.invalid',
      fetch: async () => {
        throw new TypeError('fetch failed', {
          cause: Object.assign(new Error('getaddrinfo ENOTFOUND hub.invalid'), { code: 'ENOTFOUND' })
        })
      }
    })
    expect(error).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(/ENOTFOUND hub\.invalid/)
    })
    expect(messages).toEqual([])
  })

  it('so is a refused certificate', async () => {
    const cause = Object.assign(new Error('self-signed certificate'), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
    const error = await failure({ fetch: async () => await Promise.reject(new TypeError('fetch failed', { cause })) })
    expect(error.message).toMatch(/self-signed.*NODE_EXTRA_CA_CERTS/)
    expect(messages).toEqual([])
  })

  it('so is a server that does not speak HTTP', async () => {
    const server = createServer((socket) => socket.end('220 mail\r\n')).listen(0, '127.0.0.1')
    others.push(server)
    await new Promise((resolve) => server.once('listening', resolve))
    expect(await tried(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)).toMatch(/HF_ENDPOINT/)
  })

  it('a name that worked a moment ago may work again', async () => {
    let asked = 0
    const { path } = await run({
      fetch: async (url, init) => {
        if (++asked === 2)
          throw new TypeError('fetch failed', { cause: Object.assign(new Error('gone'), { code: 'ENOTFOUND' }) })
        return await fetch(url, init)
      }
    })
    expect(existsSync(path)).toBe(true)
    expect(messages.join()).toMatch(/gone.*trying again/)
  })

  it('a proxy that Node does not use is mentioned', async () => {
    const before = process.env['HTTPS_PROXY']
    process.env['HTTPS_PROXY'] = 'http://proxy:3128'
    try {
      expect(await tried('http://127.0.0.1:6000')).toMatch(/HTTPS_PROXY is set.*NODE_USE_ENV_PROXY=1/)
    } finally {
      if (before === undefined) delete process.env['HTTPS_PROXY']
      else process.env['HTTPS_PROXY'] = before
    }
  })
})

describe('a mirror under a path', () => {
  it.each(['/api/huggingfaceml/remote', '/hf/'])('%s is asked there for everything, pages and files', async (path) => {
    const asked: string[] = []
    const { path: made } = await run({
      endpoint: `${hub.url}${path}`,
      fetch: async (url, init) => {
        const { pathname } = new URL(url)
        asked.push(pathname)
        return await fetch(url.replace(path.replace(/\/$/, ''), ''), init)
      }
    })
    expect(existsSync(made)).toBe(true)
    // the test hub redirects to its file server as if it stood at the root
    const ours = asked.filter((pathname) => /\/(?:api\/models|resolve)\//.test(pathname))
    expect(ours.length).toBeGreaterThan(3)
    for (const pathname of ours) expect(pathname).toMatch(new RegExp(`^${path.replace(/\/$/, '')}/(?:api/models|org)/`))
    expect(asked.join()).not.toContain('//')
  })
})

describe('redirects', () => {
  const headers = { 'content-type': 'application/json' }
  const outside = async (location: string, env: PullHooks['env'] = {}) => {
    const asked: string[] = []
    const error = await failure(
      {
        endpoint: 'https://203.0.114.1',
        token: 'hf_secret',
        fetch: async (url, init) => {
          const sent = new Headers(init.headers)
          asked.push(`${new URL(url).host}${sent.has('authorization') ? ' with a token' : ''}`)
          return asked.length === 1
            ? new Response(null, { status: 302, headers: { location } })
            : new Response('[]', { status: 200, headers })
        }
      },
      env
    )
    return { asked, message: error.message }
  }

  it.each(['https://127.0.0.1/x', 'https://169.254.169.254/latest', 'https://[::1]/', 'https://localhost:8443/x'])(
    'from outside to %s are refused',
    async (location) => {
      const { asked, message } = await outside(location)
      expect(asked).toEqual(['203.0.114.1 with a token'])
      expect(message).toMatch(/inside this network.*PALIGEMMA_ALLOW_PRIVATE_ADDRESSES/)
    }
  )

  it('are allowed by the variable, and never with the token', async () => {
    const { asked } = await outside('https://10.0.0.1/x', { PALIGEMMA_ALLOW_PRIVATE_ADDRESSES: '1' })
    expect(asked).toEqual(['203.0.114.1 with a token', '10.0.0.1'])
    expect((await outside('https://203.0.114.9/x')).asked).toEqual(['203.0.114.1 with a token', '203.0.114.9'])
  })

  it.each(['https://user:password@203.0.114.2/', 'file:///etc/passwd', 'https://[', 'http://203.0.114.2/'])(
    'to %s are refused',
    async (location) => {
      const { asked, message } = await outside(location)
      expect(asked).toHaveLength(1)
      expect(message).toMatch(/not safe/)
      expect(message).not.toContain('password')
    }
  )
})

describe('a server that sends a byte now and then', () => {
  it('is given up', { tags: ['slow'] }, async () => {
    hub.files.set('model.safetensors', Buffer.alloc(1000))
    hub.intercept = (_, response, { at, path }) => {
      if (at !== 'files' || !path.endsWith('.safetensors')) return false
      response.writeHead(200, { 'content-length': 1000 })
      const timer = setInterval(() => response.write('w'), 50)
      response.on('close', () => clearInterval(timer))
      return true
    }
    const error = await pull(
      hub.id,
      { endpoint: hub.url, cacheDir },
      { timing: { stallMs: 500, pauseMs: 5, attempts: 2 }, convert: fakeConvert, env: {} }
    ).catch((reason: Error) => reason)
    expect((error as Error).message).toMatch(/sent only \d+ bytes/)
  })
})

describe.skipIf(process.platform === 'win32')('a cache that cannot be written', () => {
  const allOf = (dir: string): string[] =>
    readdirSync(dir, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [...allOf(join(dir, entry.name)), join(dir, entry.name)] : []
    )
  const protect = (mode: number): void => {
    for (const dir of [...allOf(cacheDir), cacheDir]) chmodSync(dir, mode)
  }

  it.skipIf(!hasStrangers)('gives the model that is in it', async () => {
    const { path } = await run()
    protect(0o555)
    try {
      await asStranger(cacheDir, async () => {
        expect(await run()).toMatchObject({ path, cached: true })
        expect(await failure({ type: 'f16' })).toMatchObject({ message: expect.stringContaining(cacheDir) })
      })
    } finally {
      protect(0o755)
    }
  })

  it('is no lock file away from it: none is made for a model that is there', async () => {
    const { path } = await run()
    // A file where the folder of locks would be: whoever wants one fails, also as root.
    const locks = join(cacheDir, 'locks')
    for (const name of readdirSync(locks)) throw new Error(`${name} was left`)
    rmdirSync(locks)
    writeFileSync(locks, '')
    expect(await run()).toMatchObject({ path, cached: true })
    expect(await failure({ type: 'f16' })).toMatchObject({ message: expect.stringContaining('PALIGEMMA_CACHE') })
  })

  it('says which commit to load when the branch cannot be written down', async () => {
    const { path, commit } = await run()
    const refs = join(new Cache(cacheDir).modelDir(hub.id, 'refs'))
    rmSync(refs, { recursive: true })
    writeFileSync(refs, '')
    const found = await run()
    expect(found).toMatchObject({ path, cached: true })
    expect(found.notes.join()).toContain(`${hub.id}@${commit}`)
  })
})

describe('paths in the environment', () => {
  const home = () => {
    const dir = tempDir()
    mkdirSync(join(dir, 'hf'))
    writeFileSync(join(dir, 'hf', 'token'), 'hf_test\n')
    return dir
  }

  it.each([
    { HF_HOME: '~/hf' },
    { HF_HOME: '$HOME/hf' },
    { HF_HOME: '${HOME}/hf' },
    { HF_TOKEN_PATH: '~/hf/token' },
    { XDG_CACHE_HOME: '~/nothing', HF_TOKEN_PATH: '$HOME/hf/token' }
  ])('%j finds the stored token', async (env) => {
    const settings = await hubSettings({}, { HOME: home(), ...(env as Record<string, string>) })
    expect(settings.token).toBe('hf_test')
  })

  it('every one of them is expanded', async () => {
    const HOME = home()
    const env = { HOME, PALIGEMMA_CACHE: '~/models', HF_HUB_CACHE: '${HOME}/hub' }
    expect(await hubSettings({}, env)).toMatchObject({ cacheDir: join(HOME, 'models'), hubCacheDir: join(HOME, 'hub') })
    const xdg = await hubSettings({}, { HOME, XDG_CACHE_HOME: '$HOME/xdg' })
    if (process.platform === 'linux') expect(xdg.cacheDir).toBe(join(HOME, 'xdg', 'paligemma'))
    expect(xdg.hubCacheDir).toBe(join(HOME, 'xdg', 'huggingface', 'hub'))
    expect((await hubSettings({}, { HOME, HUGGINGFACE_HUB_CACHE: '~/old' })).hubCacheDir).toBe(join(HOME, 'old'))
  })

  it('HF_HUB_DISABLE_IMPLICIT_TOKEN keeps stored tokens at home', async () => {
    const env = { HF_TOKEN: 'hf_env', HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' }
    expect((await hubSettings({}, env)).token).toBeUndefined()
    expect((await hubSettings({ token: 'hf_given' }, env)).token).toBe('hf_given')
  })
})
