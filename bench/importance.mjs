// What an importance matrix of ten pictures does to the demo model's answers about ten others: the mean ratio of the KL
// divergence with it to that without.
//   node bench/importance.mjs [--copies 8] [--type Q4_0]... [--model F]
//
// One model's divergence is a matter of luck, a quarter up or down. So this takes the mean over copies of the model
// that compute the same with their channels in another order: blocks of a quantized type then hold other values
// together, and every copy is another draw of rounding errors.
import { closeSync, copyFileSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { collectImportance, compareQuality, dequantizeTensor, inspectModel, quantizeModel } from '../dist/index.mjs'

const root = join(fileURLToPath(import.meta.url), '..', '..')
const { values: options } = parseArgs({
  options: {
    copies: { type: 'string', default: '8' },
    type: { type: 'string', multiple: true, default: ['Q4_0', 'Q4_1', 'IQ4_NL'] },
    model: { type: 'string', default: join(root, 'demo', 'paligemma2-demo.gguf') }
  }
})

function permutation(length, seed) {
  const order = Array.from({ length }, (_, i) => i)
  let state = seed >>> 0
  for (let i = length - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const j = Math.floor((state / 2 ** 32) * (i + 1))
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  return order
}

/** Which order the rows and the columns of a text tensor take, if any. */
function ordersOf(name, hidden, ffn) {
  if (name.startsWith('v.')) return {}
  if (/^(token_embd|output_norm)\.weight$|_norm\.weight$|^mm\.0\.bias$|attn_[qkv]\.weight$/.test(name))
    return { cols: hidden }
  if (/^mm\.0\.weight$|^blk\.\d+\.attn_output\.weight$/.test(name)) return { rows: hidden }
  if (/^blk\.\d+\.ffn_(gate|up)\.weight$/.test(name)) return { rows: ffn, cols: hidden }
  return /^blk\.\d+\.ffn_down\.weight$/.test(name) ? { rows: hidden, cols: ffn } : {}
}

/** Copies `base`, whose tensors are F32, with its channels in the order of `seed`. */
async function equivalentCopy(base, out, seed) {
  const { tensors } = await inspectModel(base)
  const widthOf = (name) => tensors.find((tensor) => tensor.name === name).shape.at(-1)
  const hidden = permutation(widthOf('token_embd.weight'), seed)
  const ffn = permutation(widthOf('blk.0.ffn_down.weight'), seed + 1)
  copyFileSync(base, out)
  const file = openSync(out, 'r+')
  try {
    for (const { name, offset, shape } of tensors) {
      const { rows, cols } = ordersOf(name, hidden, ffn)
      if (!rows && !cols) continue
      const { data } = await dequantizeTensor(base, name)
      const width = shape.at(-1)
      const moved = data.map((_, i) => {
        const [row, col] = [Math.floor(i / width), i % width]
        return data[(rows ? rows[row] : row) * width + (cols ? cols[col] : col)]
      })
      writeSync(file, new Uint8Array(moved.buffer), 0, moved.byteLength, offset)
    }
  } finally {
    closeSync(file)
  }
}

const pictures = (from, to) =>
  Array.from({ length: to - from }, (_, i) =>
    join(root, 'test', 'fixtures', 'demo-eval', `${String(from + i).padStart(3, '0')}.png`)
  )
const asked = {
  images: pictures(20, 30),
  prompts: ['caption en', 'detect red circle ; blue star', 'ocr'],
  maxTokens: 40
}
const observed = ['caption en', 'detect green square', 'answer en how many shapes are there?']

const folder = mkdtempSync(join(tmpdir(), 'paligemma-importance-'))
const [base, model, imatrix, small] = ['base', 'copy', 'imatrix', 'small'].map((name) => join(folder, `${name}.gguf`))

async function divergence(type, given) {
  await quantizeModel({ source: model, out: small, type, imatrix: given })
  return (await compareQuality({ model: small, against: model, ...asked })).kl.mean
}

try {
  await quantizeModel({ source: options.model, out: base, type: 'F32' })
  const logs = Object.fromEntries(options.type.map((type) => [type, []]))
  for (let seed = 1; seed <= Number(options.copies); seed++) {
    await equivalentCopy(base, model, seed)
    const { kl } = await compareQuality({ model, against: base, ...asked })
    if (!(kl.mean < 1e-6)) throw new Error(`copy ${seed} does not compute the same: divergence ${kl.mean}`)
    await collectImportance({ model, out: imatrix, images: pictures(0, 10), prompts: observed })
    for (const type of options.type)
      logs[type].push(Math.log((await divergence(type, imatrix)) / (await divergence(type))))
  }
  for (const [type, found] of Object.entries(logs)) {
    const mean = found.reduce((sum, value) => sum + value, 0) / found.length
    const spread = Math.sqrt(found.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (found.length - 1))
    const ratio = Math.exp(mean)
    console.log(`${type} ${ratio.toFixed(2)} +- ${((ratio * spread) / Math.sqrt(found.length)).toFixed(2)}`)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
