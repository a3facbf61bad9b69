// A camera for a day, faster than life: memory and handles while model.watch goes on, what a still scene costs, and how
// soon it ends.
//   node --expose-gc bench/watch.mjs [--frames 864000] [--changing 1000] [--still 20]
// `frames`: of 640 x 480, one in `changing` shows something new. `still`: seconds of a still scene at 10 pictures/s.
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { loadModel } from '../dist/index.mjs'

const { values } = parseArgs({
  options: {
    frames: { type: 'string', default: '10000' },
    changing: { type: 'string', default: '1000' },
    still: { type: 'string', default: '20' }
  }
})
const [frames, changing, still] = [values.frames, values.changing, values.still].map(Number)
const [width, height] = [640, 480]

/** A square somewhere on grey, and a camera's noise. */
function picture(seed) {
  const data = new Uint8Array(width * height * 3).fill(120)
  for (let i = 0; i < data.length; i += 97) data[i] += (i * 31 + seed) % 5
  const left = (seed * 53) % 500
  for (let y = 200; y < 300; y++) data.fill(230, (y * width + left) * 3, (y * width + left + 100) * 3)
  return { data, width, height, channels: 3 }
}

const model = await loadModel({ model: 'demo', threads: 1 })
const call = { task: 'detect', labels: 'black heart', tracks: true, onlyWhenChanged: true }

function state() {
  globalThis.gc?.()
  const { rss } = process.memoryUsage()
  return { rssMb: Math.round(rss / 1e6), handles: process.getActiveResourcesInfo().length }
}

async function* day() {
  let shown = picture(0)
  for (let i = 0; i < frames; i++) {
    if (i % changing === 0) shown = picture(i / changing)
    if (i % Math.ceil(frames / 10) === 0) console.log(JSON.stringify({ frame: i, ...state() }))
    yield { ...shown }
  }
}
let looks = 0
for await (const _ of model.watch(day(), call)) looks++
console.log(JSON.stringify({ frame: frames, looks, ...state() }))

async function* scene() {
  const shown = picture(1)
  for (;;) {
    await sleep(100)
    yield { ...shown }
  }
}
const control = new AbortController()
const watching = (async () => {
  for await (const _ of model.watch(scene(), { ...call, signal: control.signal })) {
  }
})().catch(() => {})
await sleep(2000)
const before = process.cpuUsage()
await sleep(still * 1000)
const { user, system } = process.cpuUsage(before)
const start = performance.now()
control.abort()
await watching
const share = (user + system) / 1e6 / still
console.log(
  JSON.stringify({
    stillShareOfCore: Number(share.toFixed(4)),
    endedAfterMs: Math.round(performance.now() - start)
  })
)
await model.dispose()
