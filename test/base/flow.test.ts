import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { flow } from '../../lib/base/flow'
import { randomNumbers } from '../support/tiny-model'

const pause = async (ms: number): Promise<void> => await new Promise((resolve) => setTimeout(resolve, ms))

async function* numbers(count: number, log?: { read: number; closed: boolean }): AsyncGenerator<number> {
  try {
    for (let i = 0; i < count; i++) {
      if (log) log.read++
      yield i
    }
  } finally {
    if (log) log.closed = true
  }
}

describe('flow', () => {
  it('gives every result once, in order or as they come, for any mix of durations', { tags: ['slow'] }, async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const next = randomNumbers(seed)
      const [concurrency, ordered] = [1 + (seed % 5), seed % 2 === 0]
      let [running, most] = [0, 0]
      const seen: number[] = []
      const work = async (item: number): Promise<number> => {
        most = Math.max(most, ++running)
        await pause(next() * 4)
        running--
        return item
      }
      const source = seed % 3 === 0 ? Array.from({ length: 40 }, (_, i) => i) : numbers(40)
      for await (const item of flow(source, work, { name: 'items', concurrency, ordered, window: 2 * concurrency })) {
        seen.push(item)
        if (next() < 0.2) await pause(3)
      }
      expect(most).toBe(concurrency)
      if (!ordered) seen.sort((a, b) => a - b)
      expect(seen).toEqual(Array.from({ length: 40 }, (_, i) => i))
    }
  })

  it('reads no further than the window while nobody takes results', async () => {
    const log = { read: 0, closed: false }
    const results = flow(numbers(1000, log), async (item) => item, {
      name: 'items',
      concurrency: 3,
      ordered: false,
      window: 6
    })
    await results.next()
    await pause(20)
    expect(log.read).toBe(7)
    await results.return()
    expect(log.closed).toBe(true)
  })

  it('lets others pass one that takes long, as far as the window goes', async () => {
    const log = { read: 0, closed: false }
    let release = (): void => {}
    const work = async (item: number): Promise<number> => {
      if (item === 0) await new Promise<void>((resolve) => (release = resolve))
      return item
    }
    const results = flow(numbers(100, log), work, { name: 'items', concurrency: 2, ordered: true, window: 10 })
    const first = results.next()
    await pause(20)
    expect(log.read).toBe(10)
    release()
    expect((await first).value).toBe(0)
    expect((await results.next()).value).toBe(1)
    await results.return()
  })

  it('aborts what is in work and closes the source when the loop is left', async () => {
    const log = { read: 0, closed: false }
    const aborted: number[] = []
    const work = async (item: number, _: number, signal: AbortSignal): Promise<number> => {
      if (item > 0) await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
      if (signal.aborted) aborted.push(item)
      return item
    }
    for await (const item of flow(numbers(100, log), work, {
      name: 'items',
      concurrency: 4,
      ordered: false,
      window: 8
    })) {
      expect(item).toBe(0)
      await pause(5)
      break
    }
    await pause(1)
    expect(aborted).toEqual([1, 2, 3, 4])
    expect(log).toEqual({ read: 5, closed: true })
  })

  it('finishes what was read before the source failed', async () => {
    async function* failing(): AsyncGenerator<number> {
      yield* numbers(5)
      throw new Error('no more disk')
    }
    const seen: number[] = []
    const late = async (item: number): Promise<number> => {
      await pause(5)
      return item
    }
    const read = async (): Promise<void> => {
      for await (const item of flow(failing(), late, {
        name: 'items',
        concurrency: 8,
        ordered: true,
        window: 8
      }))
        seen.push(item)
    }
    await expect(read()).rejects.toThrow('no more disk')
    expect(seen).toEqual([0, 1, 2, 3, 4])
    const broken = {
      [Symbol.iterator]: () => ({
        next: () => {
          throw new Error('at once')
        }
      })
    } // prettier-ignore
    await expect(
      flow(broken as never, async () => 1, { name: 'items', concurrency: 1, ordered: false, window: 1 }).next()
    ).rejects.toThrow('at once')
  })

  it('ends at once by its signal, even while the source waits for ever', async () => {
    const control = new AbortController()
    const never = { [Symbol.asyncIterator]: () => ({ next: async () => await new Promise<never>(() => {}) }) }
    const results = flow(never, async () => 1, {
      name: 'items',
      concurrency: 1,
      ordered: false,
      window: 2,
      signal: control.signal
    })
    const next = results.next()
    control.abort(new Error('enough'))
    await expect(next).rejects.toThrow('enough')
    const left = flow(never, async () => 1, { name: 'items', concurrency: 1, ordered: false, window: 2 })
    const waiting = left.next()
    waiting.catch(() => {})
    expect(await Promise.race([waiting, pause(5)])).toBeUndefined()
  })

  it('ends with what the work rejects with', async () => {
    const work = async (item: number): Promise<number> => {
      if (item === 3) throw new Error('all is lost')
      return item
    }
    const read = async (): Promise<void> => {
      for await (const item of flow(numbers(100), work, { name: 'items', concurrency: 2, ordered: true, window: 4 }))
        expect(item).toBeLessThan(3)
    }
    await expect(read()).rejects.toThrow('all is lost')
  })

  it.each([
    [1_000_000, false],
    [200_000, true]
  ])('takes %i items in flat memory (ordered: %s)', { timeout: 120_000, tags: ['slow'] }, async (items, ordered) => {
    setFlagsFromString('--expose_gc')
    const collect = runInNewContext('gc') as () => void
    let [count, early] = [0, 0]
    const source = numbers(items)
    const work = async (item: number): Promise<object> => ({ item, text: 'x'.repeat(100) })
    for await (const result of flow(source, work, { name: 'items', concurrency: 10, ordered, window: 20 })) {
      expect.assert('item' in result)
      if (++count === 50_000) {
        collect()
        early = process.memoryUsage().heapUsed
      }
    }
    collect()
    expect(count).toBe(items)
    expect(process.memoryUsage().heapUsed - early).toBeLessThan(20e6)
  })

  it('names the option of a source that cannot be read', async () => {
    const read = async (source: unknown): Promise<void> => {
      const options = { name: 'items', concurrency: 1, ordered: true, window: 1 }
      for await (const _ of flow(source as unknown[], async (item) => await Promise.resolve(item), options)) break
    }
    for (const iterator of [null, undefined, 5, {}, { next: 1 }])
      for (const method of [Symbol.iterator, Symbol.asyncIterator])
        await expect(read({ [method]: () => iterator })).rejects.toMatchObject({
          code: 'ERR_INVALID_OPTION',
          message: expect.stringContaining('for items but received')
        })
    for (const result of [null, undefined, 'done', 7])
      await expect(read({ [Symbol.iterator]: () => ({ next: () => result }) })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining('{ done, value }')
      })
    // what it throws itself is its own
    const own = new Error('own')
    const next = (): never => {
      throw own
    }
    await expect(read({ [Symbol.iterator]: () => ({ next }) })).rejects.toBe(own)
  })
})
