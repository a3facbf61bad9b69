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
import { fileURLToPath } from 'node:url'
import { floatsOf, rewrite } from './rewrite.mjs'

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
  const wide = async (tensor) => {
    if (!/^(token_embd|output_norm|blk|mm)\./.test(tensor.name)) return undefined
    const found = widened(tensor.name, tensor.shape, await floatsOf(tensor))
    return found && { type: 'F32', shape: found.shape, bytes: new Uint8Array(found.values.buffer) }
  }
  await rewrite(from, to, wide, (key, value) => (doubled.includes(key) ? 2 * value : value))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [from, to] = process.argv.slice(2)
  if (!to) {
    console.error('Usage: node scripts/demo-model/widen.mjs IN.gguf OUT.gguf')
    process.exit(2)
  }
  await widen(from, to)
}
