// What the soak asks: every kind of call and picture, with aborts, deadlines and mistakes among them.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { demoImage, inspectModel } from '../../dist/index.js'
import { layoutGguf } from '../../dist/formats/gguf-writer.js'

/** The same numbers on every machine. */
export class Dice {
  constructor(seed) {
    this.state = seed >>> 0
  }
  /** 0 .. n - 1 */
  below(n) {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0
    return Math.floor((this.state / 2 ** 32) * n)
  }
  of(list) {
    return list[this.below(list.length)]
  }
}

/** A LoRA of rank 2 for two matrices of the demo, small enough to leave its answers readable. */
export async function writeAdapter(path) {
  const { tensors } = await inspectModel('demo')
  const dice = new Dice(7)
  const targets = ['blk.0.attn_q.weight', 'blk.2.ffn_up.weight'].map((name) => tensors.find((t) => t.name === name))
  const parts = targets.flatMap(({ name, shape: [rows, cols] }) => [
    { name: `${name}.lora_a`, type: 'F32', shape: [2, cols] },
    { name: `${name}.lora_b`, type: 'F32', shape: [rows, 2] }
  ])
  const { header, offsets, bytes } = await layoutGguf(
    [
      ['general.type', { type: 'string', value: 'adapter' }],
      ['general.architecture', { type: 'string', value: 'gemma2' }],
      ['adapter.type', { type: 'string', value: 'lora' }],
      ['adapter.lora.alpha', { type: 'f32', value: 2 }]
    ],
    parts
  )
  const file = Buffer.alloc(bytes)
  header.copy(file)
  parts.forEach(({ shape: [rows, cols] }, i) => {
    for (let k = 0; k < rows * cols; k++) file.writeFloatLE((dice.below(1000) - 500) / 20_000, offsets[i] + 4 * k)
  })
  writeFileSync(path, file)
  return path
}

/** The demo's picture in every form, and some that are none. */
export async function makePictures(folder) {
  const source = sharp(demoImage)
  const encoded = await Promise.all([
    source.clone().jpeg().toBuffer(),
    source.clone().webp().toBuffer(),
    source.clone().greyscale().png().toBuffer(),
    source.clone().resize(900, 300, { fit: 'fill' }).png().toBuffer(),
    source.clone().toColourspace('cmyk').jpeg().toBuffer()
  ])
  const { data, info } = await source.clone().removeAlpha().raw().toBuffer({ resolveWithObject: true })
  const path = join(folder, 'picture.jpg')
  writeFileSync(path, encoded[0])
  const raw = { data: new Uint8Array(data), width: info.width, height: info.height, channels: 3 }
  return {
    good: [
      demoImage,
      path,
      ...encoded,
      ...encoded.map((bytes) => new Blob([bytes])),
      raw,
      { data: new Uint8Array(64 * 48).fill(90), width: 64, height: 48, channels: 1 },
      { data: new Uint8Array(4).fill(255), width: 1, height: 1, channels: 4 }
    ],
    bad: [Buffer.from('no picture'), encoded[0].subarray(0, 300), join(folder, 'missing.png'), Buffer.alloc(0)]
  }
}

const labels = ['star', 'red circle', 'square', 'heart', 'purple ring']
const questions = ['how many shapes are there?', 'what color is the star?', 'where is the circle?']
const schema = {
  type: 'object',
  properties: { color: { enum: ['red', 'green', 'blue'] }, count: { type: 'integer', minimum: 0, maximum: 9 } },
  required: ['color', 'count'],
  additionalProperties: false
}

/** A stream that is read whole, in part, or not at all. */
async function streamed(model, options, dice) {
  const stream = model.stream(options)
  const most = dice.of([0, 1, 3, 1000])
  let seen = 0
  for await (const _ of stream) if (++seen >= most) break
}

const kinds = {
  caption: (m, o) => m.caption(o.image, o.rest),
  answer: (m, o, d) => m.answer(o.image, d.of(questions), o.rest),
  choices: (m, o, d) => m.answer(o.image, d.of(questions), { ...o.rest, choices: ['1', '2', 'red', 'blue'] }),
  ocr: (m, o) => m.ocr(o.image, o.rest),
  detect: (m, o, d) => m.detect(o.image, [d.of(labels), d.of(labels)], o.rest),
  segment: (m, o, d) => m.segment(o.image, [d.of(labels)], o.rest),
  regex: (m, o) => m.generate({ ...o.asked, prompt: 'caption en', constrain: { regex: '[a-z ]{3,20}' } }),
  object: (m, o) => m.generateObject({ ...o.asked, prompt: 'caption en', schema, maxTokens: 64 }),
  sampled: (m, o, d) => m.generate({ ...o.asked, prompt: 'caption en', temperature: 1, topK: 20, seed: d.below(99) }),
  beams: (m, o) => m.generate({ ...o.asked, prompt: 'caption en', beams: 3, maxTokens: 12 }),
  bestOf: (m, o) => m.generate({ ...o.asked, prompt: 'caption en', bestOf: 2, temperature: 0.8, maxTokens: 12 }),
  batch: (m, o) => m.generateBatch([o.asked, o.asked, o.asked].map((asked) => ({ ...asked, prompt: 'caption en' }))),
  stream: (m, o, d) => streamed(m, { ...o.asked, prompt: 'caption en' }, d),
  score: (m, o) => m.score({ image: o.image, prompt: 'caption en', suffix: 'a red star', signal: o.rest.signal }),
  encoded: async (m, o) => {
    const image = await m.encodeImage(o.image, { signal: o.rest.signal })
    return await m.generate({ ...o.asked, image, prompt: 'caption en' })
  },
  text: (m, o) => m.generate({ ...o.rest, prompt: 'caption en', maxTokens: 8 })
}

/** A call with the codes or messages of the failures that it asks for. */
export function request(model, { good, bad }, dice) {
  const what = dice.of(Object.keys(kinds))
  const expected = ['ERR_OUTPUT_INCOMPLETE'] // of a cut object or choice
  const rest = { maxTokens: 24 + dice.below(40) }
  if (dice.below(3) === 0) rest.adapters = dice.of([[], ['adapter']])
  let image = dice.of(good)
  if (dice.below(12) === 0) {
    image = dice.of(bad)
    expected.push('ERR_IMAGE_INVALID')
  }
  if (dice.below(10) === 0) {
    const controller = new AbortController()
    setTimeout(() => controller.abort(new Error('asked to stop')), dice.below(120))
    rest.signal = controller.signal
    expected.push('asked to stop')
  }
  if (dice.below(15) === 0) {
    rest.deadlineMs = 1 + dice.below(60)
    expected.push('ERR_DEADLINE')
  }
  if (dice.below(40) === 0) {
    rest.temperature = -1
    expected.push('ERR_INVALID_OPTION')
  }
  const options = { image, rest, asked: { image, ...rest } }
  return { what, expected, run: async () => await kinds[what](model, options, dice) }
}
