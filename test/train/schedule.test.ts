import { describe, expect, it } from 'vitest'
import { batchOf, rateOf, stepsPerEpoch } from '../../lib/train/schedule'

describe('the learning rate', () => {
  const plan = { learningRate: 1, warmup: 2, total: 6 }

  it('rises from 0 and falls by half a cosine', () => {
    const rates = [0, 1, 2, 3, 4, 5].map((s) => rateOf(s, { ...plan, schedule: 'cosine' }))
    expect(rates.map((rate) => Number(rate.toFixed(4)))).toEqual([0, 0.5, 1, 0.8536, 0.5, 0.1464])
  })

  it('falls in a line, or not at all', () => {
    expect([2, 3, 5].map((s) => rateOf(s, { ...plan, schedule: 'linear' }))).toEqual([1, 0.75, 0.25])
    expect([1, 2, 5].map((s) => rateOf(s, { ...plan, schedule: 'constant' }))).toEqual([0.5, 1, 1])
  })

  it('is a number with a warm-up as long as the run', () => {
    expect(rateOf(1, { learningRate: 1, warmup: 2, total: 2, schedule: 'cosine' })).toBe(0.5)
  })
})

describe('the order', () => {
  it('cuts every epoch into batches of its own', () => {
    const order = { count: 5, batchSize: 2, shuffle: false, seed: 0 }
    expect(stepsPerEpoch(order)).toBe(3)
    expect([0, 1, 2, 3].map((s) => batchOf(s, order))).toEqual([[0, 1], [2, 3], [4], [0, 1]])
  })

  it('is a permutation of all in every epoch, another for each and for every seed', () => {
    const epoch = (n: number, seed: number): number[] =>
      [0, 1, 2, 3].flatMap((i) => batchOf(n * 4 + i, { count: 100, batchSize: 25, shuffle: true, seed }))
    const all = Array.from({ length: 100 }, (_, i) => i)
    for (const [n, seed] of [
      [0, 0],
      [1, 0],
      [0, 1],
      [7, 2 ** 40]
    ] as const) {
      expect([...epoch(n, seed)].sort((a, b) => a - b)).toEqual(all)
      expect(epoch(n, seed)).not.toEqual(all)
    }
    expect(epoch(0, 0)).not.toEqual(epoch(1, 0))
    expect(epoch(0, 0)).not.toEqual(epoch(0, 1))
    expect(epoch(0, 2 ** 40)).not.toEqual(epoch(0, 0))
    expect(epoch(3, 5)).toEqual(epoch(3, 5))
  })
})
