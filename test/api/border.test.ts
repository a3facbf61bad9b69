/** What holds for every call: contexts of callbacks, shared and odd signals, seeds, bodies of responses. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { getEventListeners, getMaxListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { openModel } from '../../lib/api/load-model'
import type { PaliGemma } from '../../lib/api/model'
import { prompts } from '../../lib/api/options/prompts'
import { FakeNative, picture, type Script } from '../support/fake-native'

const open = async (...script: Script): Promise<PaliGemma> =>
  await openModel(new FakeNative(() => script).binding, { model: 'm.gguf' })
const request = { prompt: 'p', image: picture }

describe('callbacks', () => {
  it('run in the context of the call that they were given to', async () => {
    const storage = new AsyncLocalStorage<string>()
    const model = await storage.run('loader', async () => await open('a', 1, 'b'))
    const seen: Record<string, unknown[]> = {}
    const note = (name: string) => () => void (seen[name] ??= []).push(storage.getStore())
    const ask = async (user: string): Promise<void> =>
      await storage.run(user, async () => {
        await model.generate({ ...request, onToken: note(`generate ${user}`) })
        await model.stream({ ...request, onToken: note(`stream ${user}`) }).result
        await model.generateBatch([{ ...request, onToken: note(`item ${user}`) }], { onResult: note(`batch ${user}`) })
        await model.generate({ ...request, temperature: 1, bestOf: 2, onToken: note(`best ${user}`) })
      })
    await Promise.all([ask('ann'), ask('bob')])
    for (const [name, stores] of Object.entries(seen)) expect(new Set(stores)).toEqual(new Set([name.split(' ')[1]]))
    expect(Object.keys(seen)).toHaveLength(10)
  })

  it('and sources of loops, too, whoever runs the loop', async () => {
    const storage = new AsyncLocalStorage<string>()
    const model = await open('a')
    const seen: unknown[] = []
    async function* source() {
      try {
        for (let i = 0; i < 5; i++) {
          seen.push(storage.getStore())
          await new Promise((resolve) => setTimeout(resolve, 1))
          yield picture
        }
      } finally {
        seen.push(storage.getStore())
      }
    }
    const loops: (() => AsyncIterable<{ result?: unknown; error?: unknown }>)[] = [
      () => model.batch(source(), { task: 'caption' }),
      () => model.watch(source(), { task: 'caption', minInterval: 0 })
    ]
    for (const take of loops) {
      const loop = storage.run('ann', take)
      await storage.run('bob', async () => {
        for await (const { result, error } of loop) {
          expect([result, error, storage.getStore()]).toEqual(['a', undefined, 'bob'])
          if (seen.length > 3) break
        }
      })
    }
    expect(seen.length).toBeGreaterThan(6)
    expect(new Set(seen)).toEqual(new Set(['ann']))
  })

  it('that reject end the call with their own reason', async () => {
    const model = await open('a', 5, 'b')
    const mine = new Error('mine')
    await expect(model.generate({ ...request, onToken: async () => await Promise.reject(mine) })).rejects.toBe(mine)
  })
})

describe('signals', () => {
  it('may be shared by any number of requests, and nothing stays on them', async () => {
    const model = await open('a', 1, 'b')
    const { signal } = new AbortController()
    const most = getMaxListeners(signal)
    const running = Array.from({ length: 40 }, async () => await model.generate({ ...request, signal }))
    expect(getEventListeners(signal, 'abort').length).toBeLessThanOrEqual(1)
    await Promise.all(running)
    expect(getEventListeners(signal, 'abort')).toEqual([])
    expect(getMaxListeners(signal)).toBe(most)
  })

  it('end all of their requests with their reason', async () => {
    const model = await open('a', 1000, 'b')
    const control = new AbortController()
    const reason = new Error('closing')
    const running = Array.from({ length: 20 }, async () => await model.generate({ ...request, signal: control.signal }))
    control.abort(reason)
    for (const end of await Promise.allSettled(running)) expect(end).toEqual({ status: 'rejected', reason })
    expect(getEventListeners(control.signal, 'abort')).toEqual([])
  })

  it('of other kinds work, or are refused', async () => {
    const model = await open('a')
    const kind = (parts: object): AbortSignal =>
      ({ aborted: false, addEventListener() {}, removeEventListener() {}, ...parts }) as unknown as AbortSignal
    const fails = (): never => {
      throw new TypeError('boom')
    }
    expect((await model.generate({ ...request, signal: kind({}) })).text).toBe('a')
    for (const signal of [
      kind({ addEventListener: fails }),
      kind({ removeEventListener: undefined }),
      kind({ aborted: 1 })
    ])
      await expect(model.generate({ ...request, signal })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('whose methods are asynchronous and fail leave no rejection behind', async () => {
    const model = await open('a')
    const late = async (): Promise<never> => await Promise.reject(new Error('late'))
    const unhandled: unknown[] = []
    const note = (error: unknown): void => void unhandled.push(error)
    process.on('unhandledRejection', note)
    try {
      const signal = { aborted: false, addEventListener: late, removeEventListener: late } as unknown as AbortSignal
      expect((await model.generate({ ...request, signal })).text).toBe('a')
      await new Promise((resolve) => setTimeout(resolve, 20))
    } finally {
      process.off('unhandledRejection', note)
    }
    expect(unhandled).toEqual([])
  })

  it('that abort while they are asked end the call', async () => {
    const model = await open('a')
    const reason = new Error('now')
    const signal = {
      aborted: false,
      reason,
      addEventListener: (_: string, listener: () => void) => listener(),
      removeEventListener() {}
    }
    await expect(model.generate({ ...request, signal: signal as unknown as AbortSignal })).rejects.toBe(reason)
  })
})

describe('odd values', () => {
  const thrower = {
    get prompt(): never {
      throw new Error('boom')
    }
  }
  const { proxy: revoked, revoke } = Proxy.revocable({}, {})
  revoke()
  const holes = new Array<never>(2 ** 32 - 1)

  it.each([
    ['a throwing getter', thrower],
    ['a revoked proxy', revoked],
    ['holes for images', { prompt: 'p', images: holes }],
    ['holes for stop', { prompt: 'p', stop: holes }],
    ['a revoked proxy for images', { prompt: 'p', images: revoked }],
    ['a revoked proxy for constrain', { prompt: 'p', constrain: revoked }],
    ['a revoked proxy for adapters', { prompt: 'p', adapters: [revoked] }],
    ['not a number', { prompt: 'p', maxTokens: NaN }],
    ['a symbol', Symbol('x')]
  ])('%s is ERR_INVALID_OPTION', async (_, value) => {
    const model = await open('a')
    await expect(model.generate(value as never)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(model.stream(value as never).result).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })
})

describe('seeds', () => {
  it('are drawn where none is given, and told', async () => {
    const model = await open('a')
    const draw = async (seed?: number) => (await model.generate({ ...request, temperature: 1, seed })).seed
    expect(await draw(7)).toBe(7)
    const drawn = await Promise.all(Array.from({ length: 8 }, async () => await draw()))
    expect(new Set(drawn).size).toBe(8)
    expect(drawn.every(Number.isSafeInteger)).toBe(true)
    expect((await model.generate(request)).seed).toBe(0)
  })
})

describe('streams as bodies', () => {
  it('give text, JSON lines and events', async () => {
    const model = await open('a', 'ä', 'b')
    expect(await model.stream(request).text()).toBe('aäb')
    expect(await new Response(model.stream(request).toTextStream()).text()).toBe('aäb')
    const lines = await model.stream(request).toResponse({ format: 'jsonl' }).text()
    expect(
      lines
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { text: string }).text)
    ).toEqual(['a', 'ä', 'b'])
    const events = model.stream(request).toResponse({ format: 'sse', headers: { 'x-id': '1' } })
    expect(events.headers.get('content-type')).toMatch('text/event-stream')
    expect(events.headers.get('x-id')).toBe('1')
    expect(await events.text()).toMatch(/^data: \{"text":"a".*\n\n[\s\S]*event: end\ndata: \{"finishReason":"stop"/)
    expect(() => model.stream(request).toResponse({ format: 'xml' as never })).toThrow(/format/)
  })

  it('end the work when the client leaves', async () => {
    const model = await open('a', 5000, 'b')
    const stream = model.stream(request)
    const reader = stream.toResponse().body!.getReader()
    await reader.read()
    await reader.cancel()
    expect((await stream.result).finishReason).toBe('abort')
  })
})

it('lists say whether they were cut, beside what JSON sees', async () => {
  const model = await open('<loc0000><loc0000><loc0512><loc0512> cow')
  const found = await model.detect(picture, 'cow')
  expect(found).toHaveLength(1)
  expect(found.finishReason).toBe('stop')
  expect(Object.keys(found)).toEqual(['0'])
  expect(Array.isArray(JSON.parse(JSON.stringify(found)))).toBe(true)
})

it('detect has room for every label where no maxTokens says otherwise', async () => {
  const fake = new FakeNative(() => ['<loc0000><loc0000><loc0512><loc0512> cow'])
  fake.info = { ...fake.info, contextSize: 100_000 }
  const model = await openModel(fake.binding, { model: 'm.gguf' })
  const room = async (labels: string[], options = {}): Promise<number | undefined> => {
    await model.detect(picture, labels, options)
    const request = fake.requests.at(-1)!
    return request.kind === 'generate' ? request.maxTokens : undefined
  }
  const many = Array.from({ length: 200 }, (_, i) => `thing ${i}`)
  expect(await room(['cow'])).toBe(512)
  expect(await room(many)).toBeGreaterThan(200 * 6)
  expect(await room(many, { maxTokens: 9 })).toBe(9)
})

it('helpers refuse what they cannot use with a code', () => {
  const coded = expect.objectContaining({ code: 'ERR_INVALID_OPTION' }) as Error
  for (const wrong of [null, 5, Symbol('x'), {}, [5], []]) expect(() => prompts.detect(wrong as never)).toThrow(coded)
  for (const wrong of [null, 5, Symbol('x'), {}]) {
    expect(() => prompts.caption(wrong as never)).toThrow(coded)
    expect(() => prompts.answer(wrong as never)).toThrow(coded)
  }
})
