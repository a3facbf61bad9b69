/** The learning rate of every step, and which examples each of them takes. */

export type Schedule = 'cosine' | 'linear' | 'constant'

export interface Plan {
  learningRate: number
  warmup: number
  schedule: Schedule
  /** Steps in all. */
  total: number
}

/** Of step `s`, 0 .. total - 1. The first step of a warm-up has rate 0: moments move, weights do not. */
export function rateOf(s: number, { learningRate, warmup, schedule, total }: Plan): number {
  if (s < warmup) return (learningRate * s) / warmup
  const done = (s - warmup) / Math.max(total - warmup, 1)
  if (schedule === 'cosine') return (learningRate * (1 + Math.cos(Math.PI * done))) / 2
  return schedule === 'linear' ? learningRate * (1 - done) : learningRate
}

export interface Order {
  /** Examples. */
  count: number
  batchSize: number
  shuffle: boolean
  seed: number
}

export const stepsPerEpoch = ({ count, batchSize }: Order): number => Math.ceil(count / batchSize)

/** Indices of the examples of step `s`; epochs have batches of their own, the last of them may be short. */
export function batchOf(s: number, order: Order): number[] {
  const perEpoch = stepsPerEpoch(order)
  const epoch = Math.floor(s / perEpoch)
  const first = (s % perEpoch) * order.batchSize
  return permutation(epoch, order).slice(first, first + order.batchSize)
}

/** The same for the same seed, epoch and count, so that a run can go on anywhere. */
function permutation(epoch: number, { count, shuffle, seed }: Order): number[] {
  const list = Array.from({ length: count }, (_, i) => i)
  if (!shuffle) return list
  const random = generator(seed, epoch)
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[list[i], list[j]] = [list[j]!, list[i]!]
  }
  return list
}

/** Numbers in [0, 1): mulberry32 over seed and epoch. */
function generator(seed: number, epoch: number): () => number {
  let state = (Math.imul(seed ^ Math.floor(seed / 2 ** 32), 0x9e3779b1) ^ Math.imul(epoch + 1, 0x85ebca6b)) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let z = Math.imul(state ^ (state >>> 15), state | 1)
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61)
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32
  }
}
