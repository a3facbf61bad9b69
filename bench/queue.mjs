// What a queue costs Redis: memory of jobs that wait and of results that stay, commands a job, and jobs a second that
// one Redis hands out to workers that do nothing.
//   node bench/queue.mjs --redis redis://127.0.0.1:6379 [--jobs 5000]      an empty Redis of its own
import { parseArgs } from 'node:util'
import { Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { createQueue } from '../dist/queue/index.mjs'

const { values: options } = parseArgs({
  options: { redis: { type: 'string' }, jobs: { type: 'string', default: '5000' } }
})
const count = Number(options.jobs)
const redis = new Redis(options.redis, { maxRetriesPerRequest: null })
const queue = await createQueue({ redis: options.redis, name: 'bench' })

async function number(section, pattern) {
  return Number(pattern.exec(await redis.info(section))[1])
}
const memory = async () => await number('memory', /used_memory:(\d+)/)
const commands = async () => await number('stats', /total_commands_processed:(\d+)/)

const box = { x: 412, y: 165, width: 123, height: 123 }
const place = { yMin: 0.368304, xMin: 0.0915179, yMax: 0.642857, xMax: 0.366071 }
const scores = { score: 0.941495, labelScore: 0.999432, boxScore: 0.94203 }
const detections = [1, 2].map(() => ({ label: 'cow', classId: 0, box, normalized: place, ...scores }))
const result = { detections, width: 4032, height: 3024, finishReason: 'stop' }

try {
  const empty = await memory()
  let start = performance.now()
  const url = (i) => `https://bucket.s3.eu-central-1.amazonaws.com/photos/2026/11/${String(i).padStart(9, '0')}.jpg`
  await queue.addMany(
    Array.from({ length: count }, (_, i) => ({ task: 'detect', image: url(i), options: { labels: ['cow', 'boat'] } }))
  )
  const added = performance.now() - start
  const waiting = await memory()
  const before = await commands()
  start = performance.now()
  const connection = { url: options.redis, maxRetriesPerRequest: null }
  const workers = [1, 2, 3, 4].map(() => new Worker('bench', async () => result, { connection, concurrency: 16 }))
  while ((await queue.counts()).done < count) await new Promise((resolve) => setTimeout(resolve, 50))
  const taken = performance.now() - start
  const after = await commands()
  await Promise.all(workers.map(async (worker) => await worker.close()))
  const perJob = (bytes) => `${Math.round(bytes / count)} bytes`
  console.log(`a job that waits: ${perJob(waiting - empty)}; with its result: ${perJob((await memory()) - empty)}`)
  console.log(
    `added ${Math.round((1000 * count) / added)} jobs/s, taken and done ${Math.round((1000 * count) / taken)} jobs/s`
  )
  console.log(
    `commands of one job, taken and done, with those inside scripts: ${((after - before) / count).toFixed(1)}`
  )
} finally {
  await queue.close()
  redis.disconnect()
}
