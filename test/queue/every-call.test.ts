/** The table of every-call.addon.test.ts for `node-paligemma/queue`, over a queue in memory. */
import { describe, expect, it } from 'vitest'
import * as api from '../../lib/queue'
import { attackRows, exportedCalls, looped, made, type Row } from '../support/call-table'
import { refuseUnhandled } from '../support/fake-model'
import { signal } from '../support/output-rows'

refuseUnhandled()

/** As much of BullMQ's as a queue asks. */
const held = {
  addBulk: async () => [],
  getJob: async () => undefined,
  getJobs: async () => [],
  getJobCounts: async () => ({}),
  retryJobs: async () => {},
  clean: async () => [],
  pause: async () => {},
  resume: async () => {},
  close: async () => {}
}
const queue = new api.PictureQueue(held as never, { redis: 'redis://127.0.0.1:1' })
const ofQueue = (name: keyof api.PictureQueue, ...args: unknown[]): Row => ({
  call: async (...given: never[]) => await (queue[name] as (...args: never[]) => unknown)(...given),
  args: () => args
})
const job = {
  id: 'a',
  task: 'detect',
  image: 'a.png',
  options: { labels: ['cow'], maxTokens: 3 },
  priority: 2,
  delayMs: 1
}
// nobody listens there: what is taken ends with ERR_DOWNLOAD_FAILED
const connection = { redis: 'redis://127.0.0.1:1', name: 'pictures', prefix: 'bull', connectTimeoutMs: 1 }

const rows: Record<string, Row> = {
  createQueue: {
    call: async (...args: never[]) =>
      await (await (api.createQueue as (...args: never[]) => Promise<api.PictureQueue>)(...args)).close(),
    args: () => [{ ...connection, attempts: 2, backoffMs: 5, keepSeconds: 9 }]
  },
  'new PictureQueue': made(api.PictureQueue, held, connection),
  'PictureQueue.add': ofQueue('add', job),
  'PictureQueue.addMany': {
    ...ofQueue('addMany', [job], { maxWaiting: 9, signal }),
    // the source's own error comes out as it is
    passes: (error) => error instanceof TypeError && /detached/.test(error.message)
  },
  'PictureQueue.get': ofQueue('get', 'a'),
  'PictureQueue.progress': ofQueue('progress', 'a'),
  'PictureQueue.results': looped(() => queue.results()),
  'PictureQueue.failures': looped(() => queue.failures()),
  'PictureQueue.counts': ofQueue('counts'),
  'PictureQueue.retryFailed': ofQueue('retryFailed'),
  'PictureQueue.forget': ofQueue('forget', 1),
  'PictureQueue.pause': ofQueue('pause'),
  'PictureQueue.resume': ofQueue('resume'),
  'PictureQueue.close': ofQueue('close'),
  readShards: looped(api.readShards as never, 'no folder'),
  startWorker: {
    call: async (...args: never[]) =>
      await (await (api.startWorker as (...args: never[]) => Promise<api.PictureWorker>)(...args)).close(),
    args: () => [
      {
        ...connection,
        model: { model: 'no.gguf', contextSize: 128 },
        concurrency: 2,
        rate: { max: 3, perMs: 4 },
        out: 'rows',
        stalledMs: 1000,
        maxStalls: 3
      }
    ]
  }
}
/** Needs Redis: queue.long.test.ts. */
const elsewhere = ['PictureQueue.wait', 'new PictureWorker', 'PictureWorker.close', 'PictureWorker.fail']

describe('every function of the queue', { tags: ['slow'] }, () => {
  it('has a row', () => {
    expect([...Object.keys(rows), ...elsewhere].sort()).toEqual(exportedCalls(api).sort())
  })

  attackRows(rows)
})
