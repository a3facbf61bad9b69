/** `watch` over a model that answers at once or slowly: what is looked at, when, and how it ends. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { watch, type Seen } from '../../lib/api/many/watch'
import type { TaskCalls } from '../../lib/api/many/batch-tasks'
import type { ModelHost } from '../../lib/api/request/host'
import type { RawPixels } from '../../lib/index'
import { frameIndex, h264, hasFfmpeg, makeClip } from '../support/clips'

type Any = Seen<'caption'> & Seen<'detect'>

/** A picture with a white square at x, on grey of some brightness. */
function picture(x: number, grey = 90): RawPixels {
  const [width, height] = [160, 120]
  const data = new Uint8Array(width * height * 3).fill(grey)
  for (let y = 40; y < 80; y++) data.fill(255, (y * width + x) * 3, (y * width + Math.min(x + 40, width)) * 3)
  return { data, width, height, channels: 3 }
}

/** Says which pictures it was given. */
function fakeModel(delayMs = 0): { model: TaskCalls; images: unknown[] } {
  const images: unknown[] = []
  const caption = async (image: unknown, options: { signal?: AbortSignal }): Promise<string> => {
    images.push(image)
    if ((image as { bad?: boolean }).bad) throw Object.assign(new Error('bad'), { code: 'ERR_IMAGE_INVALID' })
    await sleep(delayMs, undefined, { signal: options.signal })
    return `picture ${images.length}`
  }
  const detect = async (image: { x: number }): Promise<object[]> => {
    images.push(image)
    const { x } = image
    return [{ label: 'car', score: 0.9, normalized: { yMin: 0.4, xMin: x, yMax: 0.6, xMax: x + 0.2 } }]
  }
  return { model: { caption, detect } as unknown as TaskCalls, images }
}

const host = { throwIfDisposed: () => {} } as ModelHost

async function* every(ms: number, images: unknown[]): AsyncGenerator<never> {
  for (const image of images) {
    await sleep(ms)
    yield image as never
  }
}

async function collect(source: unknown, options: object, model = fakeModel().model): Promise<Any[]> {
  const seen: Any[] = []
  for await (const one of watch(model, host, source, options)) seen.push(one as Any)
  return seen
}

describe('watch', () => {
  it('takes the latest picture, never a queue, and counts what it dropped', async () => {
    const images = Array.from({ length: 40 }, (_, i) => picture(i))
    const { model } = fakeModel(60)
    const seen = await collect(every(5, images), { task: 'caption' }, model)
    expect(seen.length).toBeLessThan(20)
    expect(seen.at(-1)!.image).toBe(images.at(-1))
    expect(seen.at(-1)!.dropped + seen.length).toBe(40)
    const places = seen.map(({ image }) => images.indexOf(image as RawPixels))
    expect(places).toEqual([...places].sort((a, b) => a - b))
    for (const one of seen) expect(one.ageMs).toBeGreaterThanOrEqual(0)
    expect(seen.at(-1)!.fps).toBeGreaterThan(0)
    expect(seen[0]!.result).toBe('picture 1')
  })

  it('looks only where something changed, light and noise apart', async () => {
    const random = (i: number): number => ((i * 7919) % 7) - 3
    const noisy = (image: RawPixels): RawPixels => ({
      ...image,
      data: image.data.map((v, i) => Math.max(0, Math.min(255, v + random(i))))
    })
    const images = [
      picture(10),
      noisy(picture(10)), // noise
      picture(10, 110), // a cloud went
      picture(60), // it moved
      picture(60),
      picture(10)
    ]
    const seen = await collect(every(20, images), { task: 'caption', onlyWhenChanged: true })
    expect(seen.map(({ image }) => images.indexOf(image as RawPixels))).toEqual([0, 3, 5])
    expect(seen.at(-1)!.unchanged).toBe(3)
    expect(await collect(every(20, images), { task: 'caption', onlyWhenChanged: 0.9 })).toHaveLength(1)
  })

  it('keeps at least minInterval between two', { tags: ['slow'] }, async () => {
    const start = performance.now()
    const seen = await collect(
      every(
        10,
        Array.from({ length: 30 }, (_, i) => picture(i))
      ),
      {
        task: 'caption',
        minInterval: 0.1
      }
    )
    expect(seen.length).toBeLessThanOrEqual(Math.ceil((performance.now() - start) / 100) + 1)
    expect(seen.length).toBeGreaterThanOrEqual(2)
  })

  it('follows things', async () => {
    const images = [0.1, 0.13, 0.16, 0.19].map((x) => ({ x, data: new Uint8Array(3), width: 1, height: 1 }))
    const seen = await collect(every(30, images), { task: 'detect', labels: 'car', tracks: { confirmFrames: 2 } })
    expect(seen.map(({ tracks }) => tracks!.tracked.map(({ id }) => id))).toEqual([[], [1], [1], [1]])
    expect(seen[1]!.tracks!.entered).toHaveLength(1)
    await expect(collect([], { task: 'caption', tracks: true })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('goes on after a picture that cannot be read', async () => {
    const bad = { bad: true, data: new Uint8Array(3), width: 1, height: 1 }
    const seen = await collect(every(20, [picture(1), bad, picture(2)]), { task: 'caption' })
    expect(seen.map(({ error }) => error?.message)).toEqual([undefined, 'bad', undefined])
  })

  it('ends with its signal, with the loop, and with its source', async () => {
    const endless = async function* (): AsyncGenerator<RawPixels> {
      for (;;) yield picture(1)
    }
    const control = new AbortController()
    const reason = new Error('enough')
    setTimeout(() => control.abort(reason), 100)
    await expect(collect(endless(), { task: 'caption', signal: control.signal })).rejects.toBe(reason)
    let closed = false
    const closing = async function* (): AsyncGenerator<RawPixels> {
      try {
        for (;;) {
          await sleep(5)
          yield picture(1)
        }
      } finally {
        closed = true
      }
    }
    for await (const _ of watch(fakeModel().model, host, closing(), { task: 'caption' })) break
    expect(closed).toBe(true)
    const failing = async function* (): AsyncGenerator<RawPixels> {
      yield picture(1)
      throw reason
    }
    await expect(collect(failing(), { task: 'caption' })).rejects.toBe(reason)
    // nothing comes, ever
    const silent = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) }
    await expect(collect(silent, { task: 'caption', signal: AbortSignal.timeout(50) })).rejects.toMatchObject({
      name: 'TimeoutError'
    })
  })

  it('of many thousand pictures leaves nothing behind', { timeout: 120_000, tags: ['slow'] }, async () => {
    const frames = 10_000
    const shown = Array.from({ length: 120 }, (_, i) => picture(i))
    const many = async function* (): AsyncGenerator<RawPixels> {
      for (let i = 0; i < frames; i++) yield { ...shown[i % 120]! }
    }
    const found = [{ label: 'car', score: 0.9, normalized: { yMin: 0.4, xMin: 0.1, yMax: 0.6, xMax: 0.3 } }]
    const model = { detect: async () => found } as unknown as TaskCalls
    const options = { task: 'detect', labels: 'car', tracks: true, onlyWhenChanged: 0.001 }
    const state = (): { rss: number; resources: number } => {
      global.gc?.()
      return { rss: process.memoryUsage.rss(), resources: process.getActiveResourcesInfo().length }
    }
    let early: ReturnType<typeof state> | undefined
    let rounds = 0
    let ended: number[] = []
    for await (const { dropped, unchanged, tracks } of watch(model, host, many(), options)) {
      rounds++
      if (rounds + dropped + unchanged > frames / 5) early ??= state()
      ended = [rounds + dropped + unchanged, (tracks as { tracked: object[] }).tracked.length]
    }
    const late = state()
    expect(ended[0]).toBeGreaterThan(frames - 10)
    expect(ended[1]).toBe(1)
    expect(late.rss - early!.rss).toBeLessThan(60e6)
    expect(late.resources).toBeLessThanOrEqual(early!.resources + 2)
  })

  it.each<[unknown, object, RegExp]>([
    [7, { task: 'caption' }, /camera, rtsp: or http: URL, file, or iterable of pictures for source/],
    [new Uint8Array(3), { task: 'caption' }, /source/],
    [[], {}, /task/],
    [[], { task: 'caption', minInterval: -1 }, /minInterval/],
    [[], { task: 'caption', onlyWhenChanged: 2 }, /onlyWhenChanged/],
    [[], { task: 'detect', labels: 'a', tracks: { keep: 1 } }, /Unknown option "keep"/],
    [[], { task: 'caption', stallSeconds: 0 }, /stallSeconds/],
    [[], { task: 'caption', ordered: true }, /Unknown option "ordered"/]
  ])('refuses %j with %j', async (source, options, words) => {
    await expect(collect(source, options)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(words) as string
    })
  })

  describe.skipIf(!hasFfmpeg)('over ffmpeg', () => {
    it('plays a file at its own pace, and opens a stream that ended again', { tags: ['slow'] }, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'paligemma-watch-'))
      const server = createServer((_, response) => {
        response.setHeader('content-type', 'video/x-matroska')
        response.end(clipBytes)
      }).listen(0, '127.0.0.1')
      await once(server, 'listening')
      let clipBytes = Buffer.alloc(0)
      try {
        const clip = join(folder, 'clip.mkv')
        makeClip(clip, 10, 10, h264)
        const start = performance.now()
        const seen = await collect(clip, { task: 'caption' })
        expect(performance.now() - start).toBeGreaterThan(600)
        expect(frameIndex(seen.at(-1)!.image as RawPixels & { data: Uint8Array })).toBeGreaterThan(5)
        clipBytes = (await import('node:fs')).readFileSync(clip)
        const tries: number[] = []
        const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
        for await (const _ of watch(fakeModel().model, host, url, {
          task: 'caption',
          onReconnect: (_error: Error, attempt: number) => void tries.push(attempt)
        }))
          if (tries.length === 1) break
        expect(tries).toEqual([1])
        await expect(collect(join(folder, 'none.mkv'), { task: 'caption' })).rejects.toMatchObject({
          code: 'ERR_IMAGE_INVALID'
        })
      } finally {
        server.close()
        rmSync(folder, { recursive: true, force: true })
      }
    })
  })
})
