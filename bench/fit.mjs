// What a training example costs: a forward and a backward pass against the prefill of the same tokens, and the memory.
//   node bench/fit.mjs [--model F | --synthetic 3b-224 --type Q4_0] [--suffix 32] [--rounds 3] [--targets text,...]
//
// Prefill and steps take turns in one run. Costs are processor seconds of the whole process, so that other work on the
// machine weighs little; the picture's own pass through the tower is left out on both sides, where it is not trained.
import { randomFillSync } from 'node:crypto'
import { statSync } from 'node:fs'
import { parseArgs } from 'node:util'
import memory from '../dist/measure/memory.js'
import synthetic from '../dist/measure/synthetic.js'
import { loadModel } from '../dist/index.mjs'

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    synthetic: { type: 'string', default: '3b-224' },
    type: { type: 'string', default: 'Q4_0' },
    suffix: { type: 'string', default: '32' },
    rounds: { type: 'string', default: '3' },
    targets: { type: 'string', default: 'text' }
  }
})

async function seconds(work) {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1]
const shown = (values) => `${median(values).toFixed(2)} (${values.map((value) => value.toFixed(2)).join(', ')})`

const path = options.model ?? (await synthetic.syntheticModel({ size: options.synthetic, type: options.type })).path
const model = await loadModel(path)
const size = model.info.imageSize
const targets = options.targets.split(',')
const picture = () => ({ data: randomFillSync(new Uint8Array(size * size * 3)), width: size, height: size })
const response = 'a '.repeat(Number(options.suffix)).trim()
const prompt = 'caption en'

const costs = { vision: [], prefill: [], step: [] }
for (let round = 0; round < Number(options.rounds); round++) {
  const image = picture()
  let features
  costs.vision.push(await seconds(async () => (features = await model.encodeImage(image))))
  // the same tokens as the example's: all of the response is scored in one pass
  costs.prefill.push(await seconds(async () => model.score({ image: features, prompt, suffix: response })))
  memory.resetPeakMemory()
  const fit = () => model.fit([{ image, prompt, response }], { steps: 1, batchSize: 1, targets })
  costs.step.push(await seconds(fit))
}
const file = statSync(path).size
const seesAgain = costs.step.map((cost, i) => cost - costs.vision[i])
const ratio = seesAgain.map((cost, i) => cost / costs.prefill[i])
console.log(`${path}, ${model.info.isa}, ${model.info.threads} threads, targets ${targets.join(', ')}`)
console.log(`vision  ${shown(costs.vision)} processor seconds`)
console.log(`prefill ${shown(costs.prefill)}`)
console.log(`step    ${shown(costs.step)}, vision included`)
console.log(`step without vision / prefill: ${shown(ratio)}`)
const peak = memory.peakMemory()
console.log(`peak of a step ${(peak / 1e9).toFixed(2)} GB, the file and ${((peak - file) / 1e9).toFixed(2)} GB`)
await model.dispose()
