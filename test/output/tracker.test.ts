import { describe, expect, it } from 'vitest'
import { assign } from '../../lib/output/assign'
import { Tracker, type Trackable } from '../../lib/output/tracker'
import { randomNumbers } from '../support/tiny-model'

const at = (x: number, y: number, side = 0.1, label = 'car', score = 0.9): Trackable => ({
  label,
  score,
  normalized: { yMin: y - side / 2, xMin: x - side / 2, yMax: y + side / 2, xMax: x + side / 2 }
})

describe('assign', () => {
  const best = (values: number[][]): number => {
    if (values.length === 0) return 0
    const [first, ...rest] = values as [number[], ...number[][]]
    const without = (column: number): number[][] => rest.map((row) => row.filter((_, c) => c !== column))
    return Math.max(best(rest), ...first.map((value, c) => value + best(without(c))))
  }

  it('finds the largest sum of every small table', () => {
    const random = randomNumbers(5)
    for (let round = 0; round < 300; round++) {
      const [rows, columns] = [Math.floor(random() * 6), Math.floor(random() * 6)]
      const values = Array.from({ length: rows }, () =>
        Array.from({ length: columns }, () => (random() < 0.3 ? 0 : random()))
      )
      const pairs = assign(rows, columns, (r, c) => values[r]![c]!)
      expect(new Set(pairs.map(([r]) => r)).size).toBe(pairs.length)
      expect(new Set(pairs.map(([, c]) => c)).size).toBe(pairs.length)
      expect(pairs.every(([r, c]) => values[r]![c]! > 0)).toBe(true)
      const sum = pairs.reduce((total, [r, c]) => total + values[r]![c]!, 0)
      expect(sum).toBeCloseTo(rows === 0 || columns === 0 ? 0 : best(values), 10)
    }
  })
})

describe('Tracker', () => {
  it('says who came and who left, once', () => {
    const tracker = new Tracker({ keepSeconds: 0.5 })
    expect(tracker.update([at(0.2, 0.5)], 0)).toMatchObject({ tracked: [], entered: [], left: [] })
    const second = tracker.update([at(0.22, 0.5)], 0.1)
    expect(second.tracked).toMatchObject([{ id: 1, label: 'car' }])
    expect(second.entered).toMatchObject([{ id: 1, age: 0.1 }])
    expect(tracker.update([], 0.3).left).toEqual([])
    expect(tracker.update([], 0.7).left).toMatchObject([{ id: 1, label: 'car' }])
    expect(tracker.update([], 0.8).left).toEqual([])
    // it comes back too late to be the same
    tracker.update([at(0.22, 0.5)], 0.9)
    expect(tracker.update([at(0.22, 0.5)], 1).entered).toMatchObject([{ id: 2 }])
  })

  it('leaves out what is seen once, and begins nothing with doubtful detections', () => {
    const tracker = new Tracker()
    tracker.update([at(0.2, 0.5), at(0.7, 0.5, 0.1, 'car', 0.3)], 0)
    const { tracked, entered } = tracker.update([at(0.7, 0.5, 0.1, 'car', 0.3)], 0.1)
    expect([tracked, entered]).toEqual([[], []])
    const sure = new Tracker({ confirmFrames: 1 })
    expect(sure.update([at(0.2, 0.5)], 0).tracked).toMatchObject([{ id: 1 }])
    // a doubtful one goes on with it
    expect(sure.update([at(0.21, 0.5, 0.1, 'car', 0.2)], 0.1).tracked).toMatchObject([{ id: 1 }])
  })

  it('does not take things of other names for each other', () => {
    const tracker = new Tracker({ confirmFrames: 1 })
    tracker.update([at(0.5, 0.5, 0.1, 'cat')], 0)
    expect(tracker.update([at(0.5, 0.5, 0.1, 'dog')], 0.1).tracked).toMatchObject([{ id: 2, label: 'dog' }])
  })

  it('counts at lines and in zones', () => {
    const tracker = new Tracker({
      confirmFrames: 1,
      lines: [
        { name: 'gate', from: [0.5, 0.2], to: [0.5, 0.8] },
        { name: 'elsewhere', from: [0.5, 0], to: [0.5, 0.1] }
      ],
      zones: [
        {
          name: 'yard',
          points: [
            [0.5, 0],
            [1, 0],
            [1, 1],
            [0.5, 1]
          ]
        }
      ]
    })
    let update = tracker.update([at(0.3, 0.5)], 0)
    for (let step = 1; step <= 10; step++) update = tracker.update([at(0.3 + 0.04 * step, 0.5)], step / 10)
    // down the line, its right hand is the picture's left
    expect(update.lines).toEqual({ gate: { left: 1, right: 0 }, elsewhere: { left: 0, right: 0 } })
    expect(update.zones).toEqual({ yard: 1 })
    for (let step = 1; step <= 10; step++) update = tracker.update([at(0.7 - 0.04 * step, 0.5)], 1 + step / 10)
    expect(update.lines).toMatchObject({ gate: { left: 1, right: 1 } })
    expect(update.zones).toEqual({ yard: 0 })
  })

  it.each<[string, () => unknown]>([
    ['newScore', () => new Tracker({ newScore: 2 })],
    ['lines', () => new Tracker({ lines: [{ name: 'a', from: [0, 0], to: [0, 2] }] })],
    [
      'zones',
      () =>
        new Tracker({
          zones: [
            {
              name: 'a',
              points: [
                [0, 0],
                [1, 1]
              ]
            }
          ]
        })
    ],
    ['detections', () => new Tracker().update([{} as Trackable], 0)],
    ['time', () => new Tracker().update([], NaN)],
    ['Unknown option', () => new Tracker({ keep: 1 } as never)]
  ])('refuses wrong %s', (name, call) => {
    expect(call).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(name) as string }) as Error
    )
  })
})
