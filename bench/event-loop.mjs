// How long JavaScript has to wait while a model works: delays of the event loop, sampled every millisecond.
//   node bench/event-loop.mjs [--model F | --synthetic 3b-224 --type Q4_0] [--threads N] [--seconds 10]
//
// The goal is a 99th percentile below 5 ms. "idle" and "busy threads" show what the machine itself does to a timer:
// nothing running, and as many threads as the engine has, spinning without any library. On Linux the kernel's own
// accounting divides the delays: "running" is work on the JavaScript thread, which is ours to keep short; "no core" is
// time in which it could have run and another thread had the core, of this process or of other programs.
import { closeSync, openSync, readSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { createHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import { Worker } from 'node:worker_threads'
import sharp from 'sharp'
import { loadModel } from '../dist/index.mjs'
import synthetic from '../dist/measure/synthetic.js'

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    synthetic: { type: 'string', default: 'tiny' },
    type: { type: 'string', default: 'Q4_0' },
    threads: { type: 'string' },
    seconds: { type: 'string', default: '10' }
  }
})
const seconds = Number(options.seconds)
const path = options.model ?? (await synthetic.syntheticModel({ size: options.synthetic, type: options.type })).path
const load = () => loadModel({ model: path, ...(options.threads && { threads: Number(options.threads) }) })

const resolution = 1
const rows = []

/**
 * The JavaScript thread's nanoseconds on a core and waiting for one; undefined where the system does not count them.
 */
function openSchedule() {
  let file
  try {
    file = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r')
  } catch {
    return undefined
  }
  const buffer = Buffer.alloc(64)
  const read = () =>
    buffer
      .toString('latin1', 0, readSync(file, buffer, 0, buffer.length, 0))
      .split(' ')
      .map(Number)
  return { read, close: () => closeSync(file) }
}

/** Runs `work` and records by how much a millisecond timer was late meanwhile, and why. */
async function measure(phase, work) {
  const histogram = monitorEventLoopDelay({ resolution })
  const schedule = openSchedule()
  const running = createHistogram()
  const noCore = createHistogram()
  await pause(100)
  let before = schedule?.read()
  const sampler =
    schedule &&
    setInterval(() => {
      const now = schedule.read()
      running.record(Math.max(1, now[0] - before[0]))
      noCore.record(Math.max(1, now[1] - before[1]))
      before = now
    }, resolution)
  histogram.enable()
  const note = await work()
  histogram.disable()
  clearInterval(sampler)
  schedule?.close()
  const ms = (nanoseconds) => Number((nanoseconds / 1e6).toFixed(2))
  // the histogram holds intervals between ticks: the timer's own millisecond and the delay
  const late = (nanoseconds) => ms(Math.max(0, nanoseconds - resolution * 1e6))
  rows.push({
    phase,
    samples: histogram.count,
    'p50 ms': late(histogram.percentile(50)),
    'p99 ms': late(histogram.percentile(99)),
    'max ms': late(histogram.max),
    ...(schedule && {
      'running p99': ms(running.percentile(99)),
      'running max': ms(running.max),
      'no core p99': ms(noCore.percentile(99)),
      'no core max': ms(noCore.max)
    }),
    note: note ?? ''
  })
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** JPEGs as a camera makes them: 12 million pixels, different ones. */
async function photos(count) {
  return await Promise.all(
    Array.from({ length: count }, (_, i) =>
      sharp({
        create: {
          width: 4000,
          height: 3000,
          channels: 3,
          background: { r: 40 * i, g: 90, b: 160 },
          noise: { type: 'gaussian', mean: 128, sigma: 30 + i }
        }
      })
        .jpeg()
        .toBuffer()
    )
  )
}

/** So many streams, each starting again with the next picture when it has ended, until the time is over. */
async function generate(model, streams, pictures) {
  const until = performance.now() + seconds * 1000
  let next = 0
  let tokens = 0
  await Promise.all(
    Array.from({ length: streams }, async () => {
      while (performance.now() < until) {
        const image = pictures[next++ % pictures.length]
        for await (const chunk of model.stream({
          image,
          prompt: `<loc${String(next % 1024).padStart(4, '0')}>`,
          maxTokens: 24,
          ignoreEos: true
        })) {
          tokens += chunk.token ? 1 : 0
          if (performance.now() > until) break
        }
      }
    })
  )
  return tokens
}

await measure('idle', () => pause(2000))
const pictures = await photos(8)
let model
await measure('loading, 5 times', async () => {
  for (let i = 0; i < 5; i++) {
    await model?.dispose()
    model = await load()
  }
})
const spinners = Array.from({ length: model.info.threads }, () => new Worker('for (;;);', { eval: true }))
await Promise.all(spinners.map((worker) => new Promise((resolve) => worker.once('online', resolve))))
await measure(`busy threads (${model.info.threads})`, () => pause(Math.min(seconds, 5) * 1000))
await Promise.all(spinners.map((worker) => worker.terminate()))
for (const streams of [1, 4]) {
  await measure(
    `${streams} stream${streams > 1 ? 's' : ''}`,
    async () => `${await generate(model, streams, pictures)} tokens`
  )
}
const tasks = {
  caption: async (image) => await model.caption(image),
  detect: async (image) => await model.detect(image, ['star', 'circle']),
  segment: async (image) => await model.segment(image, ['star', 'circle'])
}
for (const [task, ask] of Object.entries(tasks)) {
  await measure(`${task}, one after the other`, async () => {
    const until = performance.now() + seconds * 1000
    let count = 0
    while (performance.now() < until) await ask(pictures[count++ % pictures.length])
    return `${count} pictures`
  })
}
await measure('decoding pictures', async () => {
  const until = performance.now() + Math.min(seconds, 5) * 1000
  let count = 0
  while (performance.now() < until)
    count += (await Promise.all(pictures.map((image) => model.encodeImage(image)))).length
  return `${count} pictures`
})
const { info } = model
await measure('disposing', async () => {
  await model.dispose()
  await pause(50) // memory is given back in the turn that reports the end
})
console.log(
  `${info.architecture} ${info.variant} ${info.quantization}, ${info.device} (${info.isa}), ${info.threads} threads`
)
console.table(rows)
