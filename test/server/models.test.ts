/** Several models by name: loaded when asked for, unloaded when not, with adapters of their own, in another server. */
import { Hono } from 'hono'
import { describe, expect, it } from 'vitest'
import { Models } from '../../lib/server/models'
import { createServer } from '../../lib/server'
import { fakeInfo, FakeNative } from '../support/fake-native'
import { open, refuseUnhandled } from '../support/fake-model'
import { ask, closeServers, eventually, serve } from '../support/served'

refuseUnhandled()
closeServers()

const body = (model: string) => ({ model, messages: ask('caption en') })
const path = '/v1/chat/completions'

describe('models', () => {
  it('are loaded at once, and /ready waits for them', async () => {
    const fake = new FakeNative()
    fake.loadDelayMs = 150
    const { url, server } = await serve(fake, { models: { a: 'a.gguf', b: 'b.gguf' } })
    expect((await fetch(`${url}/ready`)).status).toBe(503)
    expect((await fetch(`${url}/health`)).status).toBe(200)
    await server.ready()
    expect((await fetch(`${url}/ready`)).status).toBe(200)
    expect(fake.loads.map(({ path }) => path)).toEqual([
      expect.stringMatching(/a\.gguf$/),
      expect.stringMatching(/b\.gguf$/)
    ])
  })

  it('that are lazy are loaded once, however many ask', async () => {
    const fake = new FakeNative()
    fake.loadDelayMs = 50
    const { url, post, client } = await serve(fake, { models: { a: 'a.gguf', b: 'b.gguf' }, lazy: true })
    expect((await fetch(`${url}/ready`)).status).toBe(200)
    expect(fake.loads).toHaveLength(0)
    await Promise.all(Array.from({ length: 5 }, async () => await post(path, body('b'))))
    expect(fake.loads).toHaveLength(1)
    expect((await client.models.list()).data).toMatchObject([{ loaded: false }, { loaded: true }])
  })

  it('are unloaded when nobody asks, and loaded again', async () => {
    const fake = new FakeNative(() => ['a', 150, 'b'])
    const { post } = await serve(fake, { lazy: true, idleUnloadMs: 60 })
    expect((await post(path, body('fake'))).status).toBe(200) // takes longer than that
    expect(fake.disposals).toBe(0)
    await eventually(() => fake.disposals === 1)
    expect((await post(path, body('fake'))).status).toBe(200)
    expect(fake.loads).toHaveLength(2)
  })

  it('that are being loaded do not hold up the end of the server', async () => {
    const fake = new FakeNative()
    fake.loadDelayMs = 3_600_000
    const { server, log } = await serve(fake)
    const ready = server.ready()
    await server.close()
    await expect(ready).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    expect(log.join('')).toBe('')
  })

  it('that cannot be loaded are 503 without the path, and tried again', async () => {
    const fake = new FakeNative()
    fake.loadError = { code: 'ERR_MODEL_INVALID', message: '/secret/fake.gguf: byte 7 is wrong' }
    const { server, post, url, log } = await serve(fake)
    await expect(server.ready()).rejects.toMatchObject({ code: 'ERR_MODEL_INVALID' })
    expect((await fetch(`${url}/ready`)).status).toBe(503)
    const response = await post(path, body('fake'))
    expect(response.status).toBe(503)
    const text = await response.text()
    expect(text).toContain('ERR_MODEL_INVALID')
    expect(text).not.toContain('secret')
    expect(log.join('')).toContain('/secret/fake.gguf')
    fake.loadError = undefined
    expect((await post(path, body('fake'))).status).toBe(200)
  })

  it('that were loaded before are used as they are, and stay their owner’s', async () => {
    const fake = new FakeNative()
    const model = await open(fake)
    const { server, post } = await serve(new FakeNative(), { models: { mine: model } })
    expect((await post(path, body('mine'))).status).toBe(200)
    await server.close()
    expect(fake.disposals).toBe(0)
    expect(await model.generate({ prompt: 'x' })).toMatchObject({ text: 'abc' })
    await model.dispose()
  })

  it('share weights under several names, each with its adapters', async () => {
    const fake = new FakeNative()
    const named = (name: string) => ({ name, scale: 1, rank: 2, targets: 1, parameters: 4 })
    fake.info = { ...fakeInfo, adapters: [named('own.gguf'), named('cows.gguf'), named('pages.gguf')] }
    const models = {
      mix: { model: 'mix.gguf', adapters: ['own.gguf'] },
      cows: { base: 'mix', adapters: ['cows.gguf'] },
      both: { base: 'mix', adapters: [{ path: 'cows.gguf', scale: 0.5 }, 'pages.gguf'] }
    }
    const loaded: unknown[] = []
    const registry = new Models(models, {
      load: async (options) => {
        loaded.push(options)
        return await open(fake)
      },
      idleUnloadMs: undefined,
      logger: { info: () => {}, error: () => {} }
    })
    const { signal } = new AbortController()
    const [mix, cows, both] = await Promise.all(
      ['mix', 'cows', 'both'].map(async (name) => await registry.open(name, signal))
    )
    expect(loaded).toMatchObject([{ model: 'mix.gguf', adapters: ['own.gguf', 'cows.gguf', 'pages.gguf'] }])
    expect([mix!.adapters, cows!.adapters, both!.adapters]).toEqual([
      ['own.gguf'],
      ['cows.gguf'],
      [{ path: 'cows.gguf', scale: 0.5 }, 'pages.gguf']
    ])
    expect(new Set([mix!.model, cows!.model, both!.model]).size).toBe(1)
    await registry.close()
  })
})

describe('mounted in another server', () => {
  it('answers under its base path', async () => {
    const model = await open(new FakeNative())
    const server = createServer({ models: { mine: model }, basePath: '/api/paligemma', logger: false })
    const app = new Hono()
    app.get('/', (c) => c.text('the app'))
    app.all('/api/paligemma/*', async (c) => await server.fetch(c.req.raw))
    const response = await app.request('/api/paligemma/v1/chat/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body('mine'))
    })
    expect(await response.json()).toMatchObject({ choices: [{ message: { content: 'abc' } }] })
    expect((await app.request('/api/paligemma/nope')).status).toBe(404)
    expect(await (await app.request('/')).text()).toBe('the app')
    await server.close()
    await model.dispose()
  })

  it('ends the work when the request’s signal aborts', async () => {
    const fake = new FakeNative(() => ['a', 5000, 'b'])
    const model = await open(fake)
    const server = createServer({ models: { mine: model }, logger: false })
    const controller = new AbortController()
    const asked = server.fetch(
      new Request('http://localhost/v1/chat/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body('mine')),
        signal: controller.signal
      })
    )
    await eventually(() => fake.running === 1)
    controller.abort()
    expect((await asked).status).toBe(499)
    await eventually(() => fake.running === 0)
    await server.close()
    await model.dispose()
  })
})
