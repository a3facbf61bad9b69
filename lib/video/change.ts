/** Whether a picture shows anything new: a cheap comparison before the model looks at all. Pure. */

interface Rgb {
  data: Uint8Array | Uint8ClampedArray
  width: number
  height: number
}

const [columns, rows] = [32, 24]
/** Pixels of each field that are looked at, each way. */
const samples = 4

/** Mean brightness of 32 x 24 fields, 0..255. */
export function overview({ data, width, height }: Rgb): Float32Array {
  const fields = new Float32Array(columns * rows)
  for (let field = 0; field < fields.length; field++) {
    const [left, top] = [field % columns, Math.floor(field / columns)]
    let sum = 0
    for (let i = 0; i < samples * samples; i++) {
      const x = Math.min(Math.floor(((left + ((i % samples) + 0.5) / samples) / columns) * width), width - 1)
      const y = Math.min(Math.floor(((top + (Math.floor(i / samples) + 0.5) / samples) / rows) * height), height - 1)
      const at = (y * width + x) * 3
      sum += 0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!
    }
    fields[field] = sum / (samples * samples)
  }
  return fields
}

/**
 * 0..1: the share of fields whose brightness differs by more than 12 of 255, once a change of light over the whole
 * picture is taken off. Noise of a camera stays below 0.01, a person who comes in is above.
 */
export function changedShare(before: Float32Array, now: Float32Array): number {
  const differences = now.map((value, i) => value - before[i]!)
  const light = [...differences].sort((a, b) => a - b)[differences.length >> 1]!
  let changed = 0
  // what is white or black does not follow the light
  for (const difference of differences)
    if (Math.abs(difference) > noise && Math.abs(difference - light) > noise) changed++
  return changed / differences.length
}

const noise = 12
