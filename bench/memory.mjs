// Memory: the peak of a load and one generation against the file's size, and whether anything grows with requests.
//   node bench/memory.mjs [--model F | --synthetic 3b-224 --type Q4_0] [--requests 200]
//
// The goal is a peak of at most 1.15 times the file and the attention cache. The second part runs requests of every
// kind on a tiny model; its resident size after the second half must be that after the first.
import { execFileSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import memory from '../dist/measure/memory.js'
import synthetic from '../dist/measure/synthetic.js'
import { loadModel } from '../dist/index.mjs'

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    synthetic: { type: 'string', default: '3b-224' },
    type: { type: 'string', default: 'Q4_0' },
    requests: { type: 'string', default: '200' },
    part: { type: 'string' }
  }
})

const MB = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`

function picture(size) {
  return { data: randomFillSync(new Uint8Array(size * size * 3)), width: size, height: size }
}

/** In a process of its own: the peak of one load and one answer. */
async function peak(path) {
  memory.resetPeakMemory()
  const before = process.memoryUsage().rss
  const model = await loadModel(path)
  await model.generate({ image: picture(model.info.imageSize), prompt: 'caption en', maxTokens: 8, ignoreEos: true })
  const result = { before, peak: memory.peakMemory(), bytes: statSync(path).size }
  await model.dispose()
  console.log(JSON.stringify(result))
}

/** In a process of its own: resident size every tenth of the requests. */
async function growth(path, requests) {
  const model = await loadModel(path)
  const sizes = []
  // few pictures, so that the engine's cache of recent ones, which is bounded, does not look like a leak
  const pictures = Array.from({ length: 8 }, () => picture(model.info.imageSize))
  const encoded = await model.encodeImage(pictures[0])
  for (let i = 1; i <= requests; i++) {
    const image = i % 3 === 0 ? encoded : pictures[i % pictures.length]
    const request = { image, prompt: `request ${i}`, maxTokens: 8, ignoreEos: true }
    if (i % 5 === 0)
      for await (const chunk of model.stream(request)) {
        if (chunk.text.length > 4) break
      }
    else if (i % 7 === 0) await model.score({ image, prompt: 'score', suffix: `suffix ${i}` })
    else if (i % 11 === 0) await model.generate({ ...request, signal: AbortSignal.timeout(1) }).catch(() => {})
    else await model.generate(request)
    if (i % Math.max(1, Math.floor(requests / 10)) === 0) {
      globalThis.gc?.()
      sizes.push(process.memoryUsage().rss)
    }
  }
  await model.dispose()
  console.log(JSON.stringify(sizes))
}

function inChild(part, path) {
  const args = [
    '--expose-gc',
    fileURLToPath(import.meta.url),
    '--part',
    part,
    '--model',
    path,
    '--requests',
    options.requests
  ]
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }))
}

if (options.part === 'peak') await peak(options.model)
else if (options.part === 'growth') await growth(options.model, Number(options.requests))
else {
  const path = options.model ?? (await synthetic.syntheticModel({ size: options.synthetic, type: options.type })).path
  const { before, peak: most, bytes } = inChild('peak', path)
  console.log(
    `${path}: ${MB(bytes)}; peak ${MB(most)}, ${(most / bytes).toFixed(3)} times the file (${MB(before)} of it ` +
      'before loading)'
  )
  const tiny = (await synthetic.syntheticModel({ size: 'tiny', type: 'Q4_0' })).path
  const sizes = inChild('growth', tiny)
  console.log(
    `tiny model, ${options.requests} requests: resident ${sizes.map((size) => (size / 1e6).toFixed(0)).join(', ')} MB`
  )
  const half = sizes[Math.floor(sizes.length / 2) - 1]
  console.log(`second half: ${sizes.at(-1) >= half ? '+' : ''}${((sizes.at(-1) - half) / 1e6).toFixed(1)} MB`)
}
