// What reading and decoding pictures costs a batch: pictures per second of model.batch over JPEG files, and of the same
// engine over the same pictures as pixels that are ready, in turns.
//   node bench/batch.mjs [--model demo | --synthetic 3b-224 --type Q4_0] [--pictures 200] [--rounds 3] [--sequences 8]
//     [--width 1280] [--tokens 32] [--concurrency N]
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import sharp from 'sharp'
import { demoImage, loadModel, preprocessImage } from '../dist/index.mjs'
import synthetic from '../dist/measure/synthetic.js'

const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: 'demo' },
    synthetic: { type: 'string' },
    type: { type: 'string', default: 'Q4_0' },
    pictures: { type: 'string', default: '200' },
    rounds: { type: 'string', default: '3' },
    sequences: { type: 'string', default: '8' },
    width: { type: 'string', default: '1280' },
    tokens: { type: 'string', default: '32' },
    concurrency: { type: 'string' }
  }
})
const [count, rounds, width] = [options.pictures, options.rounds, options.width].map(Number)
const path = options.synthetic
  ? (await synthetic.syntheticModel({ size: options.synthetic, type: options.type })).path
  : options.model
const model = await loadModel({ model: path, maxSequences: Number(options.sequences) })
const folder = mkdtempSync(join(tmpdir(), 'batch-'))

/** No two are alike: features of pictures that were seen are kept. */
async function makePictures() {
  const files = []
  for (let i = 0; i < count; i++) {
    const file = join(folder, `${i}.jpg`)
    const size = { width, height: Math.round(width * 0.75), fit: 'fill' }
    await sharp(demoImage)
      .resize(size)
      .modulate({ hue: i % 360, brightness: 1 - i / (4 * count) })
      .jpeg()
      .toFile(file)
    files.push(file)
  }
  return files
}

const atOnce = options.concurrency ? { concurrency: Number(options.concurrency) } : {}

async function measure(items) {
  const start = performance.now()
  const before = process.cpuUsage()
  let done = 0
  const task = { task: 'generate', prompt: 'caption en', maxTokens: Number(options.tokens), ignoreEos: true, ...atOnce }
  for await (const { error } of model.batch(items, task)) {
    if (error) throw error
    done++
  }
  const { user, system } = process.cpuUsage(before)
  return { rate: (1000 * done) / (performance.now() - start), cpuMs: (user + system) / 1000 / done }
}

try {
  const files = await makePictures()
  const size = model.info.imageSize
  const ready = []
  for (const file of files) ready.push({ ...(await preprocessImage(file, { size })), transform: undefined })
  await measure(files.slice(0, 8).map((image) => ({ image })))
  const rates = { alone: [], batch: [] }
  for (let round = 0; round < rounds; round++) {
    rates.alone.push(await measure(ready.map(({ data }) => ({ image: { data, width: size, height: size } }))))
    rates.batch.push(await measure(files.map((image) => ({ image }))))
  }
  const median = (list, key) => list.map((one) => one[key]).sort((a, b) => a - b)[list.length >> 1]
  const { alone, batch } = rates
  const shown = (list) =>
    `${list.map(({ rate }) => rate.toFixed(2)).join(' ')} pictures/s, ${median(list, 'cpuMs').toFixed(1)} CPU ms each`
  console.log(`${path}, ${model.info.isa}, ${model.info.threads} threads, ${options.sequences} sequences`)
  console.log(`pixels ready: ${shown(alone)}`)
  console.log(`JPEG of ${width} px: ${shown(batch)}`)
  const share = (a, b) => `${((100 * a) / b).toFixed(1)} %`
  console.log(`share of the rate: ${share(median(batch, 'rate'), median(alone, 'rate'))}`)
  console.log(`share of the CPU time that the engine has: ${share(median(alone, 'cpuMs'), median(batch, 'cpuMs'))}`)
} finally {
  await model.dispose()
  rmSync(folder, { recursive: true, force: true })
}
