/*
 * What a model answers to `segment` about drawn training pictures: the codes that mask_answers.py learns from.
 *
 *   node scripts/demo-model/mask_answers.mjs --shard DIR/shards/shard0000 --out DIR/answers.jsonl
 *                                            [--model demo/paligemma2-demo.gguf] [--limit 1500]
 *
 * One line for each name that a picture's objects go by: {"picture": 3, "label": "red star", "text": "<loc…"}.
 */
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { loadModel } from '../../dist/index.js'

const { values } = parseArgs({
  options: {
    shard: { type: 'string' },
    out: { type: 'string' },
    model: { type: 'string', default: 'demo/paligemma2-demo.gguf' },
    limit: { type: 'string', default: '1500' }
  }
})

/** The bytes of a NumPy file of uint8, and its shape. */
async function bytesOf(name) {
  const file = await readFile(join(values.shard, `${name}.npy`))
  const end = 10 + file.readUInt16LE(8)
  const header = file.toString('latin1', 10, end)
  if (!header.includes("'|u1'")) throw new Error(`${name}.npy: expected uint8, got ${header}`)
  const shape = /\(([\d, ]+)\)/
    .exec(header)[1]
    .split(',')
    .filter((n) => n.trim())
    .map(Number)
  return { data: file.subarray(end), shape }
}

/** The lists of words in settings.py, so that they stand in one place. */
async function words(name) {
  const settings = await readFile(new URL('settings.py', import.meta.url), 'utf8')
  const [, list] = new RegExp(`^${name} = [[{]([^\\]}]*)[\\]}]`, 'm').exec(settings)
  return [...list.matchAll(/"(\w+)"/g)].map(([, word]) => word)
}

const [pixels, count, shape, color] = await Promise.all(['pixels', 'shapes', 'shape', 'color'].map(bytesOf))
const [shapes, colors] = [await words('SHAPES'), await words('COLORS')]
const [, height, width] = pixels.shape
const model = await loadModel(values.model)
const out = await open(values.out, 'w')
for (let n = 0; n < Math.min(Number(values.limit), pixels.shape[0]); n++) {
  const size = height * width * 3
  const picture = { data: pixels.data.subarray(n * size, (n + 1) * size), width, height, channels: 3 }
  const image = await model.encodeImage(picture)
  const at = Array.from({ length: count.data[n] }, (_, i) => n * shape.shape[1] + i)
  const labels = new Set(at.map((i) => `${colors[color.data[i]]} ${shapes[shape.data[i]]}`))
  for (const label of labels) {
    const { text } = await model.generate({ image, prompt: `segment ${label}`, maxTokens: 80 })
    await out.write(`${JSON.stringify({ picture: n, label, text })}\n`)
  }
}
await out.close()
await model.dispose()
