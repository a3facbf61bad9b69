/** Whether a camera's frame shows anything new: lib/video/change.ts, of what a canvas gives; a test compares them. */

const [columns, rows, samples, noise] = [32, 24, 4, 12]
const [width, height] = [columns * samples, rows * samples]

/** Brightness of 32 x 24 fields, from the pixels (RGBA) of 128 x 96 places. */
export function overview(pixels) {
  const fields = new Float32Array(columns * rows)
  for (let place = 0; place < width * height; place++) {
    const field = Math.floor(place / width / samples) * columns + Math.floor((place % width) / samples)
    const [red, green, blue] = pixels.subarray(place * 4)
    fields[field] += (0.299 * red + 0.587 * green + 0.114 * blue) / (samples * samples)
  }
  return fields
}

/** The share of fields that differ by more than noise, once a change of light over all of it is taken off. */
export function changedShare(before, now) {
  const differences = now.map((value, i) => value - before[i])
  const light = [...differences].sort((a, b) => a - b)[differences.length >> 1]
  const changed = differences.filter((value) => Math.abs(value) > noise && Math.abs(value - light) > noise)
  return changed.length / differences.length
}

const least = 0.01

/** Compares with the last frame that was looked at: slow changes add up. */
export class Changes {
  #canvas = new OffscreenCanvas(width, height)
  #seen
  #now

  isNew(video) {
    const context = this.#canvas.getContext('2d', { willReadFrequently: true })
    context.imageSmoothingEnabled = false
    context.drawImage(video, 0, 0, width, height)
    this.#now = overview(context.getImageData(0, 0, width, height).data)
    return !this.#seen || changedShare(this.#seen, this.#now) > least
  }

  lookedAt() {
    this.#seen = this.#now
  }

  /** Another question: whatever the camera shows is new. */
  forget() {
    this.#seen = undefined
  }
}
