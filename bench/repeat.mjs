// What a second question about a picture costs: time to the first token of a picture that the model has never seen, and
// of the same one asked about again, in turns.
//   node bench/repeat.mjs [--model demo] [--width 448] [--rounds 9]
import { parseArgs } from 'node:util'
import sharp from 'sharp'
import { demoImage, loadModel } from '../dist/index.mjs'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'demo' },
    width: { type: 'string', default: '448' },
    rounds: { type: 'string', default: '9' }
  }
})
const [width, rounds] = [Number(values.width), Number(values.rounds)]
const model = await loadModel(values.model)

/** No two are alike. */
const picture = (i) =>
  sharp(demoImage)
    .resize({ width, height: Math.round(width * 0.75), fit: 'fill' })
    .modulate({ hue: i * 7 })
    .jpeg()
    .toBuffer()

const times = { new: [], again: [] }
for (let i = 0; i <= rounds; i++) {
  const image = await picture(i)
  const first = await model.generate({ image, prompt: 'caption en' })
  await new Promise((resolve) => setTimeout(resolve, 100)) // it is kept after it was given
  const again = await model.generate({ image, prompt: 'ocr' })
  if (i === 0) continue // loads sharp
  times.new.push(first.timings.firstTokenMs)
  times.again.push(again.timings.firstTokenMs)
}
const median = (list) => list.sort((a, b) => a - b)[list.length >> 1].toFixed(1)
const { isa, threads } = model.info
console.log(`${values.model}, JPEG of ${width} px, ${isa}, ${threads} threads: first token of`)
console.log(`a new picture ${median(times.new)} ms, of another question about it ${median(times.again)} ms`)
await model.dispose()
