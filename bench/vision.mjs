// What a picture costs at each size: operations, time, and the memory that the engine takes for it.
//   node bench/vision.mjs [--synthetic 3b-224 --synthetic 3b-448 --synthetic 3b-896] [--type Q4_0] [--runs 3]
//
// Memory is what the process holds besides mapped files, at most while the first picture is encoded, less what it held
// after loading: scratch, features, the picture itself. Linux only. The share is of the 8-bit peak, measured between
// the runs.
import { execFileSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import costs from '../dist/measure/costs.js'
import limits from '../dist/measure/limits.js'
import statistics from '../dist/measure/statistics.js'
import synthetic from '../dist/measure/synthetic.js'
import { estimateMemory, inspectModel, loadModel } from '../dist/index.mjs'

const { values: options } = parseArgs({
  options: {
    synthetic: { type: 'string', multiple: true, default: ['3b-224', '3b-448', '3b-896'] },
    type: { type: 'string', default: 'Q4_0' },
    runs: { type: 'string', default: '3' },
    model: { type: 'string' } // of a child
  }
})

/** Bytes that are no file's pages. */
function ownMemory() {
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'latin1'))[1]) * 1024
}

/** In a process of its own, so that no other size's memory is there. */
async function measure(path, runs) {
  const model = await loadModel(path)
  const { imageSize } = model.info
  const encode = async () => {
    const start = performance.now()
    await model.encodeImage({
      data: randomFillSync(new Uint8Array(imageSize * imageSize * 3)),
      width: imageSize,
      height: imageSize
    })
    return performance.now() - start
  }
  const before = ownMemory()
  let most = before
  const watch = setInterval(() => {
    most = Math.max(most, ownMemory())
  }, 2)
  await encode()
  clearInterval(watch)
  await encode() // the second picture moves the vision weights to their final form
  const times = []
  const peaks = []
  for (let i = 0; i < runs; i++) {
    times.push(await encode())
    peaks.push((await limits.measureLimits(model.info.threads)).int8Gops)
  }
  const { visionOps } = costs.costsOf([await inspectModel(path, { maxArray: 0 })])
  const result = {
    isa: model.info.isa,
    threads: model.info.threads,
    tokens: model.info.imageTokens,
    visionOps,
    ms: statistics.median(times),
    int8Gops: statistics.median(peaks),
    memory: most - before
  }
  await model.dispose()
  console.log(JSON.stringify(result))
}

if (options.model) await measure(options.model, Number(options.runs))
else {
  for (const size of options.synthetic) {
    const { path } = await synthetic.syntheticModel({ size, type: options.type })
    const args = [fileURLToPath(import.meta.url), '--model', path, '--runs', options.runs]
    const { isa, threads, tokens, visionOps, ms, int8Gops, memory } = JSON.parse(
      execFileSync(process.execPath, args, { encoding: 'utf8' })
    )
    const { scratch, features } = await estimateMemory(path, { threads })
    const gops = visionOps / ms / 1e6
    console.log(
      `${size} ${options.type}, ${isa}, ${threads} threads: ${tokens} tokens, ${Math.round(visionOps / 1e9)} GOP, ` +
        `${Math.round(ms)} ms, ${Math.round(gops)} GOPS` +
        `${int8Gops > 0 ? ` (${Math.round((100 * gops) / int8Gops)} % of ${Math.round(int8Gops)})` : ''}, ` +
        `${Math.round(memory / 1e6)} MB (estimated: scratch ${Math.round(scratch.vision / 1e6)}, kernels ` +
        `${Math.round(scratch.kernels / 1e6)}, features ${Math.round(features / 1e6)})`
    )
  }
}
