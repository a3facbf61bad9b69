/** What a stranger gets wrong first: the model's name, and the token. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Cache } from '../../lib/hub/cache'
import { proxyUsed } from '../../lib/hub/failures'
import { pull } from '../../lib/hub/pull'
import { expectReference } from '../../lib/hub/reference'
import { resolveModel } from '../../lib/hub/resolve'
import { hubSettings } from '../../lib/hub/settings'
import { similarNames } from '../../lib/hub/similar'
import { refuse } from '../support/hub-server'
import { cacheDir, failure, hooks, hub, useHub } from '../support/pull-fixture'

useHub()

describe('a misspelt name', () => {
  it.each([
    ['google/paligemma-2-3b-mix-224', ['google/paligemma2-3b-mix-224']],
    ['google/PaliGemma2_3B_mix_448', ['google/paligemma2-3b-mix-448']],
    ['google/palligemma2-10b-pt-896', ['google/paligemma2-10b-pt-896']],
    ['gogle/paligemma-3b-pt-224@bfloat16:Q8_0', ['google/paligemma-3b-pt-224']],
    ['paligemma2-28b-mix-448', ['google/paligemma2-28b-mix-448']],
    ['google/paligemma2-3b-ft-docci448', ['google/paligemma2-3b-ft-docci-448']],
    ['google/paligemma2-3b-mix-224', []],
    ['google/gemma-2-2b-it', []],
    ['somebody/else', []],
    ['', []],
    ['x'.repeat(5000), []]
  ])('%s: %j', (given, names) => {
    expect(similarNames(given)).toEqual(names)
  })

  it('is followed by the right one where the hub knows none, and where the owner is missing', async () => {
    const at = async (id: string) =>
      await pull(id, { endpoint: hub.url, cacheDir }, hooks()).then(String, ({ message }: Error) => message)
    expect(await at('google/paligemma2-3b-mix224')).toContain('did you mean google/paligemma2-3b-mix-224?')
    expect(await at('paligemma2-3b-pt-448')).toContain('did you mean google/paligemma2-3b-pt-448?')
    hub.intercept = (_, response) => {
      refuse(response, 401)
      return true
    }
    expect(await at('google/paligemma2_3b_mix_224')).toContain('did you mean google/paligemma2-3b-mix-224?')
    expect(await at('org/private')).not.toContain('did you mean')
  })

  it('of what was pulled names that', async () => {
    for (const name of ['org--cow-finder', 'org--boats']) mkdirSync(join(cacheDir, 'models', name), { recursive: true })
    await expect(resolveModel('org/cowfinder', new Cache(cacheDir))).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('which has org/cow-finder: did you mean that?')
    })
    for (const [given, meant] of [
      ['demmo', /demmo: no such file; did you mean demo\?$/],
      ['cow-finder', /did you mean org\/cow-finder, which was pulled\?/],
      ['paligemma2-3b-mix-224', /did you mean google\/paligemma2-3b-mix-224\? "npx paligemma pull google\//]
    ] as const)
      await expect(resolveModel(given, new Cache(cacheDir))).rejects.toMatchObject({
        code: 'ERR_MODEL_NOT_FOUND',
        message: expect.stringMatching(meant)
      })
    for (const path of ['cow-finder.gguf', './cow-finder', 'elephants', 'memory'])
      expect(await resolveModel(path, new Cache(cacheDir))).toEqual({ path: resolve(path) })
  })

  it('may be a file of the repository, as other tools write it', () => {
    expect(expectReference(' org/name/sub/m-Q4_0.gguf ')).toEqual({ id: 'org/name', file: 'sub/m-Q4_0.gguf' })
    for (const wrong of ['org/name/../m.gguf', './org/name/m.gguf', 'org/name/sub', '/org/name/m.gguf'])
      expect(() => expectReference(wrong)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }))
  })
})

describe('a token that is refused', () => {
  const refused = async (env: Record<string, string>, token?: string) => {
    hub.intercept = (_, response) => {
      response.writeHead(401, { 'x-error-message': 'Invalid credentials in Authorization header' }).end()
      return true
    }
    return (await failure({ ...(token !== undefined && { token }) }, { env })).message
  }

  it('is said to be from where it is from', async () => {
    const home = join(cacheDir, 'hf')
    mkdirSync(home, { recursive: true })
    writeFileSync(join(home, 'token'), 'hf_stored\n')
    writeFileSync(join(cacheDir, 'other-token'), 'hf_other\n')
    const from = (where: string) => new RegExp(`token of ${where} is not valid`)
    expect(await refused({ HF_HOME: home })).toMatch(from(join(home, 'token')))
    expect(await refused({ HF_HOME: home, HF_TOKEN_PATH: join(cacheDir, 'other-token') })).toMatch(
      from(join(cacheDir, 'other-token'))
    )
    expect(await refused({ HF_HOME: home, HUGGING_FACE_HUB_TOKEN: 'hf_x' })).toMatch(from('HUGGING_FACE_HUB_TOKEN'))
    expect(await refused({ HF_HOME: home, HUGGING_FACE_HUB_TOKEN: 'hf_x', HF_TOKEN: 'hf_y' })).toMatch(from('HF_TOKEN'))
    expect(await refused({ HF_HOME: home, HF_TOKEN: 'hf_y' }, 'hf_z')).toMatch(from('the option token'))
    expect(await refused({ HF_HOME: home, HF_HUB_DISABLE_IMPLICIT_TOKEN: 'yes' })).toMatch(/without a token/)
  })

  it.each(['"hf_quoted"', "'hf_quoted'", 'hf_a b', 'hf_\u00e4', '`hf`'])(
    'is %j, as some .env readers leave it: nothing is asked, nothing shown',
    async (token) => {
      for (const [env, option] of [[{ HF_TOKEN: token }, undefined] as const, [{}, token] as const]) {
        hub.seen.length = 0
        const error = await failure({ ...(option !== undefined && { token: option }) }, { env })
        expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION' })
        expect(error.message).toContain(option === undefined ? 'for HF_TOKEN' : 'for the option token')
        expect(error.message).not.toContain(token)
        expect(hub.seen).toEqual([])
      }
    }
  )

  it('by a model that the hub disabled is not the matter', async () => {
    hub.intercept = (_, response) => {
      response.writeHead(403, { 'x-error-message': 'Access to this resource is disabled.' }).end()
      return true
    }
    const { code, message } = await failure({ token: 'hf_x' })
    expect(code).toBe('ERR_ACCESS_DENIED')
    expect(message).toContain('has been disabled')
    expect(message).not.toContain('licence')
  })
})

describe('the environment, as the Python library reads it', () => {
  it.each<[Record<string, string>, string]>([
    [{ HF_HOME: '/h' }, '/h/hub'],
    [{ HF_HOME: '/h', XDG_CACHE_HOME: '/x' }, '/h/hub'],
    [{ XDG_CACHE_HOME: '/x' }, '/x/huggingface/hub'],
    [{ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
    [{ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '/new' }, '/new'],
    [{ HF_HOME: '/h', HF_HUB_CACHE: '' }, '/h/hub'],
    [{ HF_HOME: '$BASE/hf', BASE: '/b' }, '/b/hf/hub'],
    [{ HF_HUB_CACHE: '~/hub', HOME: '/home/me' }, '/home/me/hub']
  ])('%j: its files are in %s', async (env, dir) => {
    expect((await hubSettings({ token: false }, env)).hubCacheDir).toBe(join(dir))
  })

  it.each([
    ['https://mirror.example', 'https://mirror.example'],
    ['https://mirror.example///', 'https://mirror.example'],
    ['http://mirror.example:8081/hf/', 'http://mirror.example:8081/hf'],
    [' https://MIRROR.example ', 'https://mirror.example'],
    ['http://[::1]:8080', 'http://[::1]:8080']
  ])('HF_ENDPOINT %j is %s', async (value, endpoint) => {
    expect((await hubSettings({ token: false }, { HF_ENDPOINT: value })).endpoint).toBe(endpoint)
  })

  it.each([
    ['mirror.example/hf', 'write https://mirror.example/hf'],
    ['localhost:8080', 'write https://localhost:8080'],
    ['https://me:secret@mirror.example', 'received one with a user'],
    ['https://mirror.example:99999', 'for HF_ENDPOINT'],
    ['https://mirror.example/?x=1', 'for HF_ENDPOINT']
  ])('HF_ENDPOINT %j is refused: %s', async (value, told) => {
    const error = await hubSettings({ token: false }, { HF_ENDPOINT: value }).then(String, (reason: Error) => reason)
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(told) })
    expect((error as Error).message).not.toContain('secret')
  })

  it('a proxy is used by Node where Node is told to and can', () => {
    const can = process.allowedNodeEnvironmentFlags.has('--use-env-proxy')
    expect(proxyUsed({ HTTPS_PROXY: 'http://p:1', NODE_USE_ENV_PROXY: '1' })).toBe(can)
    expect(proxyUsed({ https_proxy: 'http://p:1', NODE_OPTIONS: '--use-env-proxy' })).toBe(can)
    expect(proxyUsed({ HTTPS_PROXY: 'http://p:1' })).toBe(false)
    expect(proxyUsed({ NODE_USE_ENV_PROXY: '1' })).toBe(false)
  })
})
