/** A second copy of the embedding, as LM head: told by its values, whatever type and padding it was saved with. */
import { toFloat32, type SourceTensor } from '../../formats/source'
import type { QuantizeRows } from '../stream'
import { bitsOf, isBlockType } from '../../formats/types'

// Values at a time: reading hides the work, and the event loop turns between two pieces.
const chunkValues = 1 << 18

/**
 * Why `head` is no copy of `embedding`; undefined where it is one: the same values in all rows that both have, or the
 * same but for the rounding to a narrower type. PaliGemma's own head is its embedding, so a copy says nothing new.
 */
export async function untiedBecause(
  head: SourceTensor,
  embedding: SourceTensor,
  quantizeRows: QuantizeRows
): Promise<string | undefined> {
  const cols = embedding.shape[1]
  if (head.shape.length !== 2 || embedding.shape.length !== 2 || head.shape[1] !== cols || !cols || !head.shape[0])
    return `is [${head.shape.join(', ')}], not a copy of`
  const rows = Math.min(head.shape[0]!, embedding.shape[0]!)
  const step = Math.max(1, Math.floor(chunkValues / cols))
  const comparison = new Comparison(head.type, embedding.type, cols)
  const bytes = [head, embedding].map((tensor) => tensor.bytes / tensor.shape[0]!) as [number, number]
  const buffers = bytes.map((row) => Buffer.alloc(row * step)) as [Buffer, Buffer]
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row)
    const parts = buffers.map((buffer, i) => buffer.subarray(0, count * bytes[i]!)) as [Buffer, Buffer]
    await Promise.all([head.read(row * bytes[0], parts[0]), embedding.read(row * bytes[1], parts[1])])
    if (head.type === embedding.type && parts[0].equals(parts[1])) continue
    const floats = async (tensor: SourceTensor, data: Buffer) =>
      !['F32', 'F16', 'BF16'].includes(tensor.type)
        ? new Float32Array(Uint8Array.from(await quantizeRows(data, tensor.type, 'F32', cols)).buffer)
        : toFloat32(data, tensor.type)
    comparison.add(await floats(head, parts[0]), await floats(embedding, parts[1]))
    const differing = comparison.firstDifference
    if (differing !== undefined) return `differs in row ${row + differing} from`
  }
  return undefined
}

// Relative error that rounding leaves in a row of a block type, by its bits; well above what is met.
const blockTolerance = (bits: number): number =>
  bits >= 8 ? 0.02 : bits >= 6 ? 0.06 : bits >= 5 ? 0.12 : bits >= 4 ? 0.25 : 0.5

/** Compares rows piece by piece. Plain types: equal, or equal after rounding, where one side was rounded throughout. */
class Comparison {
  /** The first row of the last piece that is another one. */
  firstDifference: number | undefined
  private readonly blocks: number | undefined
  private exact = true
  // Still possible: one side is the other after rounding to bfloat16 or float16.
  private readonly rounded: (typeof float16 & { near: boolean; sides: [boolean, boolean] })[]

  constructor(
    a: string,
    b: string,
    private readonly cols: number
  ) {
    // A side that was rounded to float16 by itself is that far off, too, where numbers are tiny.
    const absolute = [a, b].includes('F16') ? float16.absolute : 0
    this.rounded = [bfloat16, float16].map((type) => ({
      ...type,
      absolute: Math.max(type.absolute, absolute),
      near: true,
      sides: [true, true]
    }))
    const bits = [a, b].filter(isBlockType).map(bitsOf)
    this.blocks = bits.length > 0 ? blockTolerance(Math.min(...bits)) : undefined
  }

  add(a: Float32Array, b: Float32Array): void {
    this.firstDifference = this.blocks === undefined ? this.plain(a, b) : this.byRow(a, b, this.blocks)
  }

  private plain(a: Float32Array, b: Float32Array): number | undefined {
    const rounded = this.rounded.filter(({ near }) => near)
    for (let i = 0; i < a.length; i++) {
      const [x, y] = [a[i]!, b[i]!]
      if (x !== y && !(Number.isNaN(x) && Number.isNaN(y))) this.exact = false
      for (const type of rounded) {
        if (Math.abs(x - y) > type.relative * Math.max(Math.abs(x), Math.abs(y)) + type.absolute) type.near = false
        type.sides[0] &&= type.holds(x)
        type.sides[1] &&= type.holds(y)
      }
      if (!this.exact && !rounded.some(({ near, sides }) => near && (sides[0] || sides[1])))
        return Math.floor(i / this.cols)
    }
    return undefined
  }

  private byRow(a: Float32Array, b: Float32Array, tolerance: number): number | undefined {
    for (let row = 0; row * this.cols < a.length; row++) {
      let [difference, size] = [0, 0]
      for (let i = row * this.cols; i < (row + 1) * this.cols; i++) {
        difference += (a[i]! - b[i]!) ** 2
        size += Math.max(a[i]! ** 2, b[i]! ** 2)
      }
      if (!(difference <= tolerance ** 2 * size)) return row
    }
    return undefined
  }
}

const bits = new Float32Array(1)
const words = new Uint32Array(bits.buffer)

/** Half a unit in the last place, and whether a value is one of the type's. */
const bfloat16 = {
  relative: 2 ** -8,
  absolute: 0,
  holds(value: number): boolean {
    bits[0] = value
    return (words[0]! & 0xffff) === 0
  }
}
const float16 = {
  relative: 2 ** -11,
  absolute: 2 ** -25,
  holds(value: number): boolean {
    bits[0] = value
    const size = Math.abs(value)
    return size < 2 ** -14 ? Number.isInteger(value * 2 ** 24) : (words[0]! & 0x1fff) === 0 && size <= 65504
  }
}
