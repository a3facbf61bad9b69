/** The queue over a Redis of its own: every picture exactly once, whoever dies. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { demoImage } from '../../lib/base/package-files'
import { loadModel } from '../../lib/index'
import { createQueue, readShards, startWorker } from '../../lib/queue'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { hasRedis, TestRedis } from '../support/redis'

const command = join(__dirname, '..', '..', 'dist', 'cli', 'main.js')
const pictures = Number(process.env['PALIGEMMA_QUEUE_PICTURES'] ?? 240)
const pause = async (ms: number): Promise<void> => await new Promise((resolve) => setTimeout(resolve, ms))

describe.skipIf(!hasRedis)('a queue over Redis', () => {
  let redis: TestRedis
  let dir: string
  let tiny: string

  beforeAll(async () => {
    dir = tempDir()
    redis = await TestRedis.start(dir)
    tiny = join(dir, 'tiny.png')
    writeFileSync(tiny, await sharp(demoImage).resize(64, 64).png().toBuffer())
  })
  afterAll(async () => {
    await redis.stop()
    removeTempDirs()
  })

  it('gives results, dead letters, and adds nothing twice', async () => {
    await using queue = await createQueue({ redis: redis.url, name: 'first', attempts: 2, backoffMs: 10 })
    const labels = ['purple ring', 'black heart']
    const found = await queue.add({ task: 'segment', image: demoImage, options: { labels }, priority: 1 })
    expect(await queue.add({ task: 'segment', image: demoImage, options: { labels } })).toBe(found)
    const bytes = await queue.add({ id: '17', task: 'ocr', image: readFileSync(demoImage), options: { maxTokens: 4 } })
    const missing = await queue.add({ task: 'ocr', image: '/not/there.png' })
    const text = await queue.add({ task: 'generate', options: { prompt: 'caption en', maxTokens: 2 } })
    const wrong = await queue.add({ task: 'answer', image: tiny })
    expect(await queue.counts()).toEqual({ waiting: 5, active: 0, done: 0, failed: 0 })
    expect(await queue.get(found)).toBeUndefined()
    const out = join(dir, 'shards')
    await using worker = await startWorker({ redis: redis.url, name: 'first', model: 'demo', concurrency: 2, out })
    const { result } = await queue.wait(found)
    expect(result?.segmentations?.[0]?.mask.data).toHaveLength(448 * 448)
    expect((await queue.wait(bytes)).result).toEqual({ text: '359' })
    expect(await queue.wait(missing)).toMatchObject({ attempts: 1, error: { code: 'ERR_IMAGE_INVALID' } })
    expect(await queue.wait(wrong)).toMatchObject({ error: { code: 'ERR_INVALID_OPTION' } })
    expect((await queue.wait(text)).result?.text).toEqual(expect.any(String))
    expect(await queue.counts()).toEqual({ waiting: 0, active: 0, done: 3, failed: 2 })
    const failures: string[] = []
    for await (const { id } of queue.failures()) failures.push(id)
    expect(failures.sort()).toEqual([missing, wrong].sort())
    await queue.retryFailed()
    await queue.wait(missing)
    await worker.close()
    await worker.ended
    expect(worker.counts.done).toBe(3)
    const rows = new Map<string, unknown>()
    for await (const row of readShards(out)) rows.set(row.id, row.text)
    expect(rows.get('17')).toBe('359')
    expect(rows.size).toBe(3)
    await queue.forget()
    expect((await queue.counts()).done).toBe(0)
    await expect(queue.wait('nobody')).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(queue.wait(wrong, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
  }, 60_000)

  it('takes the urgent first, jobs without a priority last, delayed ones when it is time', async () => {
    await using queue = await createQueue({ redis: redis.url, name: 'urgent' })
    const job = { task: 'ocr', image: tiny, options: { maxTokens: 1 } } as const
    await queue.addMany([
      { ...job, id: 'plain-a' },
      { ...job, id: 'plain-b' },
      { ...job, id: 'late', priority: 1, delayMs: 1500 },
      { ...job, id: 'soon', priority: 7 },
      { ...job, id: 'first', priority: 1 }
    ])
    expect(await queue.counts()).toMatchObject({ waiting: 5 })
    expect(await queue.progress('late')).toEqual({ state: 'waiting' })
    const added = performance.now()
    await using model = await loadModel({ model: 'demo', threads: 1, maxSequences: 1 })
    const out = join(dir, 'urgent')
    // one is taken ahead: neighbours may end in another order
    await using worker = await startWorker({ redis: redis.url, name: 'urgent', model, concurrency: 1, out })
    await queue.wait('late')
    expect(performance.now() - added).toBeGreaterThan(1400)
    expect(await queue.progress('late')).toEqual({ state: 'done' })
    await worker.close()
    const order: string[] = []
    for await (const { id } of readShards(out)) order.push(id)
    expect(order.slice(0, 2).sort()).toEqual(['first', 'soon'])
    expect(order.slice(2)).toEqual(expect.arrayContaining(['plain-a', 'plain-b', 'late']))
  }, 60_000)

  it('says how far a job is', async () => {
    await using queue = await createQueue({ redis: redis.url, name: 'far' })
    const tiles = { labels: 'purple ring', tiles: { columns: 4, rows: 3 } }
    const id = await queue.add({ id: 'tiled', task: 'detect', image: demoImage, options: tiles })
    const long = { prompt: 'caption en', maxTokens: 200, ignoreEos: true }
    await queue.add({ id: 'long', task: 'generate', image: demoImage, options: long })
    expect(await queue.progress('nobody')).toBeUndefined()
    await using _ = await startWorker({ redis: redis.url, name: 'far', model: 'demo', concurrency: 1 })
    await Promise.all([queue.wait(id), queue.wait('long')])
    expect(await queue.progress(id)).toMatchObject({ state: 'done', unit: 'tiles', all: expect.any(Number) })
    expect(await queue.progress('long')).toMatchObject({ state: 'done', unit: 'tokens' })
  }, 60_000)

  it('tries again what a server refused for now', async () => {
    let asked = 0
    const server = createServer((_, response) => {
      response.statusCode = ++asked < 3 ? 503 : 200
      response.end(asked < 3 ? '' : readFileSync(demoImage))
    }).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const image = `http://127.0.0.1:${(server.address() as AddressInfo).port}/a.png`
    await using queue = await createQueue({ redis: redis.url, name: 'again', attempts: 3, backoffMs: 10 })
    await using model = await loadModel({ model: 'demo', allowPrivateAddresses: true })
    await using worker = await startWorker({ redis: redis.url, name: 'again', model })
    expect(await queue.wait(await queue.add({ task: 'ocr', image }))).toMatchObject({
      attempts: 3,
      result: { text: '359' }
    }) // prettier-ignore
    await worker.close()
    expect(await model.ocr(demoImage)).toBe('359') // it is not the worker's to dispose of
    server.close()
  }, 60_000)

  it('keeps to a rate, and stops for a model that is gone', async () => {
    await using queue = await createQueue({ redis: redis.url, name: 'slow', attempts: 1 })
    const model = await loadModel('demo')
    const rate = { max: 2, perMs: 300 }
    await using worker = await startWorker({ redis: redis.url, name: 'slow', model, rate })
    const start = performance.now()
    const jobs = Array.from({ length: 6 }, (_, i) => ({ id: `s${i}`, task: 'ocr' as const, image: tiny }))
    expect(await queue.addMany(jobs, { maxWaiting: 2 })).toBe(6)
    expect((await queue.counts()).waiting).toBeLessThanOrEqual(2)
    for (let i = 0; i < 6; i++) await queue.wait(`s${i}`)
    expect(performance.now() - start).toBeGreaterThan(550)
    await model.dispose()
    await queue.add({ id: 'last', task: 'ocr', image: tiny })
    await expect(worker.ended).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  }, 60_000)

  it.skipIf(process.platform === 'win32')(
    `has every one of ${pictures} pictures once, with two of four workers killed and Redis restarted`,
    async () => {
      const out = join(dir, 'many')
      const args = [command, 'worker', '-m', 'demo', '--redis', redis.url, '--queue', 'many', '--out', out]
      const start = (): ChildProcess =>
        spawn(process.execPath, [...args, '--concurrency', '2', '--stalled-after', '3'], { stdio: 'ignore' })
      await using queue = await createQueue({ redis: redis.url, name: 'many' })
      const ids = Array.from({ length: pictures }, (_, i) => `p${i}`)
      async function* jobs() {
        for (const id of ids) yield { id, task: 'ocr' as const, image: tiny, options: { maxTokens: 4 } }
      }
      expect(await queue.addMany(jobs())).toBe(pictures)
      expect(await queue.addMany(jobs())).toBe(pictures)
      const workers = Array.from({ length: 4 }, start)
      const doneAt = async (share: number): Promise<void> => {
        while ((await queue.counts()).done < share * pictures) await pause(50)
      }
      await doneAt(0.15)
      workers[0]!.kill('SIGKILL')
      await doneAt(0.3)
      workers[1]!.kill('SIGKILL')
      await doneAt(0.5)
      await redis.stop()
      await pause(500)
      await redis.run()
      await doneAt(1)
      expect(await queue.counts()).toEqual({ waiting: 0, active: 0, done: pictures, failed: 0 })
      const seen: string[] = []
      for await (const { id, result } of queue.results()) {
        expect(typeof result?.text).toBe('string')
        seen.push(id)
      }
      expect(seen.sort()).toEqual([...ids].sort())
      const ended = workers.slice(2).map((worker) => new Promise((resolve) => worker.once('exit', resolve)))
      for (const worker of workers.slice(2)) worker.kill('SIGTERM')
      expect(await Promise.all(ended)).toEqual([0, 0])
      const rows = new Set<string>()
      for await (const { id } of readShards(out)) rows.add(id)
      expect(rows.size).toBe(pictures)
    },
    600_000
  )
})
