/*
 * A copy of the demo model with a text model twice as wide that computes the same.
 *
 *   node scripts/demo-model/widen.mjs demo/paligemma2-demo.gguf OUT.gguf
 *
 * The demo's rows have 128 and 384 values, which blocks of 256 do not divide, so no K type ever reaches its text model.
 * In the copy every channel, head and hidden unit is there twice: an RMS norm does not notice, and a matrix gives half
 * of its weight to each of the two. What it costs to round this copy, it costs to round trained weights. The text
 * matrices and the projector become F32; the vision tower stays as it is.
 */
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const require = createRequire(import.meta.url)
const { GgufSource, readFloats } = require('../../dist/convert/gguf/source.js')
const { OutputFile } = require('../../dist/base/output-file.js')
const { layoutGguf } = require('../../dist/formats/gguf-writer.js')
const { native } = require('../../dist/engine/native.js')

const doubled = [
  'gemma2.embedding_length',
  'gemma2.feed_forward_length',
  'gemma2.attention.head_count',
  'gemma2.attention.head_count_kv',
  'clip.vision.projection_dim'
]

const twice = (values) => {
  const result = new Float32Array(2 * values.length)
  result.set(values)
  result.set(values, values.length)
  return result
}

/** Each row [cols] as [cols, cols], times a factor. */
function twiceAlong(values, cols, factor) {
  const result = new Float32Array(2 * values.length)
  for (let i = 0; i < values.length; i++) {
    const row = Math.floor(i / cols) * 2 * cols + (i % cols)
    result[row] = result[row + cols] = values[i] * factor
  }
  return result
}

/** The wide form of a tensor: { shape, values }, or nothing where it stays. */
function widened(name, shape, values) {
  const cols = shape.at(-1)
  // embeddings are multiplied by sqrt(hidden), and are the LM head as well, which the last norm makes up for
  if (name === 'token_embd.weight')
    return { shape: [shape[0], 2 * cols], values: twiceAlong(values, cols, Math.SQRT1_2) }
  if (name === 'output_norm.weight') return { shape: [2 * cols], values: twice(values).map((x) => x * Math.SQRT1_2) }
  if (/^blk\.\d+\..*norm\.weight$/.test(name) || name === 'mm.0.bias')
    return { shape: [2 * cols], values: twice(values) }
  if (name === 'mm.0.weight') return { shape: [2 * shape[0], cols], values: twice(values) }
  if (/^blk\.\d+\./.test(name)) return { shape: [2 * shape[0], 2 * cols], values: twice(twiceAlong(values, cols, 0.5)) }
  return undefined
}

/** Writes the wide copy of the model `from` to `to`. */
export async function widen(from, to) {
  const source = await GgufSource.open(from)
  try {
    const metadata = source.metadata.map(({ key, type, value }) => [
      key,
      { type: 'copy', of: type, value: doubled.includes(key) ? 2 * value : value }
    ])
    const tensors = []
    for (const tensor of source.tensors) {
      const bytes = new Uint8Array(tensor.bytes)
      await tensor.read(0, bytes)
      const wide = /^(token_embd|output_norm|blk|mm)\./.test(tensor.name)
        ? widened(tensor.name, tensor.shape, await readFloats(tensor, native().quantizeRows))
        : undefined
      tensors.push(
        wide
          ? { name: tensor.name, type: 'F32', shape: wide.shape, bytes: new Uint8Array(wide.values.buffer) }
          : { name: tensor.name, type: tensor.type, shape: tensor.shape, bytes }
      )
    }
    const layout = await layoutGguf(metadata, tensors)
    const file = await OutputFile.create(to)
    try {
      await file.truncate(layout.bytes)
      await file.write(layout.header, 0)
      for (const [i, tensor] of tensors.entries()) await file.write(tensor.bytes, layout.offsets[i])
      await file.commit()
    } catch (error) {
      await file.discard()
      throw error
    }
  } finally {
    await source.close()
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [from, to] = process.argv.slice(2)
  if (!to) {
    console.error('Usage: node scripts/demo-model/widen.mjs IN.gguf OUT.gguf')
    process.exit(2)
  }
  await widen(from, to)
}
