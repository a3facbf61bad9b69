/*
 * The demo model with its mask decoder in Q8_0: 1.1 MB less of 5.6. `convert` keeps mask decoders in F16: in a model
 * of gigabytes their 4 MB are nothing.
 *
 *   node scripts/demo-model/pack_masks.mjs IN.gguf OUT.gguf
 */
import { createRequire } from 'node:module'
import { floatsOf, rewrite } from './rewrite.mjs'

const { native } = createRequire(import.meta.url)('../../dist/engine/native.js')
const block = 32

/** A filter's values as one row, which a block type needs; what is shorter than a block stays. */
async function packed(tensor) {
  const [rows, ...rest] = tensor.shape
  const cols = rest.reduce((product, size) => product * size, 1)
  if (!tensor.name.startsWith('mask.') || rest.length === 0 || cols % block !== 0) return undefined
  const values = new Uint8Array((await floatsOf(tensor)).buffer)
  return { type: 'Q8_0', shape: [rows, cols], bytes: await native().quantizeRows(values, 'F32', 'Q8_0', cols) }
}

const [from, to] = process.argv.slice(2)
if (!to) {
  console.error('Usage: node scripts/demo-model/pack_masks.mjs IN.gguf OUT.gguf')
  process.exit(2)
}
await rewrite(from, to, packed)
