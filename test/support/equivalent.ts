/**
 * Copies of the demo model that compute the same with their channels in another order. Blocks of a quantized type then
 * hold other values together, so every copy is another draw of rounding errors: their mean says what a method does,
 * where a single model's divergence says how lucky it was.
 */
import { copyFileSync, openSync, closeSync, writeSync } from 'node:fs'
import { dequantizeTensor, inspectModel } from '../../lib/index'

function permutation(length: number, seed: number): number[] {
  const order = Array.from({ length }, (_, i) => i)
  let state = seed >>> 0
  for (let i = length - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const j = Math.floor((state / 2 ** 32) * (i + 1))
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  return order
}

/** Which order the rows and the columns of a text tensor take, if any. */
function ordersOf(name: string, hidden: number[], ffn: number[]): { rows?: number[]; cols?: number[] } {
  if (
    /^(token_embd|output_norm)\.weight$|_norm\.weight$|^mm\.0\.bias$|attn_[qkv]\.weight$/.test(name) &&
    !name.startsWith('v.')
  )
    return { cols: hidden }
  if (/^mm\.0\.weight$|^blk\.\d+\.attn_output\.weight$/.test(name)) return { rows: hidden }
  if (/^blk\.\d+\.ffn_(gate|up)\.weight$/.test(name)) return { rows: ffn, cols: hidden }
  return /^blk\.\d+\.ffn_down\.weight$/.test(name) ? { rows: hidden, cols: ffn } : {}
}

/** Copies `base`, a whole model whose tensors are F32. */
export async function equivalentCopy(base: string, out: string, seed: number): Promise<void> {
  const { tensors } = await inspectModel(base)
  const widthOf = (name: string) => tensors.find((tensor) => tensor.name === name)!.shape.at(-1)!
  const hidden = permutation(widthOf('token_embd.weight'), seed)
  const ffn = permutation(widthOf('blk.0.ffn_down.weight'), seed + 1)
  copyFileSync(base, out)
  const file = openSync(out, 'r+')
  try {
    for (const { name, offset, shape } of tensors) {
      const { rows, cols } = ordersOf(name, hidden, ffn)
      if (!rows && !cols) continue
      const { data } = await dequantizeTensor(base, name)
      const width = shape.at(-1)!
      const moved = data.map((_, i) => {
        const [row, col] = [Math.floor(i / width), i % width]
        return data[(rows ? rows[row]! : row) * width + (cols ? cols[col]! : col)]!
      })
      writeSync(file, new Uint8Array(moved.buffer), 0, moved.byteLength, offset)
    }
  } finally {
    closeSync(file)
  }
}
