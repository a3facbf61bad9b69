/** Constraints as users write them, and JSON Schema as a regular expression. */
import { describe, expect, it } from 'vitest'
import { constraintRule, toNativeConstraint, type Constraint } from '../../lib/output/constraint'
import { boxOverlap, suppressOverlaps } from '../../lib/output/nms'

describe('a constraint', () => {
  it('has one of four forms and nothing else', () => {
    for (const good of [
      'detect',
      'segment',
      { kind: 'detect' },
      { kind: 'segment', labels: ['a'], maxObjects: 2 },
      { choices: ['a'] },
      { regex: 'a' },
      { regex: /a/ },
      { jsonSchema: {} },
      { regex: 'a', choices: undefined }
    ])
      expect(constraintRule.accepts(good), JSON.stringify(good)).toBe(true)
    for (const bad of [
      'draw',
      null,
      [],
      {},
      { kind: 'draw' },
      { kind: 'detect', label: [] },
      { labels: ['a'] },
      { choices: [] },
      { choices: [''] },
      { regex: 5 },
      { jsonSchema: 'x' },
      { jsonSchema: [] },
      { choices: ['a'], regex: 'b' },
      { regex: 'a', flags: 'i' }
    ])
      expect(constraintRule.accepts(bad), JSON.stringify(bad)).toBe(false)
  })

  it('reaches the engine as a kind with its data', async () => {
    expect(await toNativeConstraint(undefined)).toBeUndefined()
    expect(await toNativeConstraint('detect')).toEqual({ kind: 'detect', labels: [] })
    expect(await toNativeConstraint({ kind: 'segment', labels: ['a'], maxObjects: 3 })).toEqual({
      kind: 'segment',
      labels: ['a'],
      maxObjects: 3
    })
    expect(await toNativeConstraint({ choices: ['a', 'b'] })).toEqual({ kind: 'choices', choices: ['a', 'b'] })
    expect(await toNativeConstraint({ regex: /a\/b+/u })).toEqual({ kind: 'regex', pattern: 'a\\/b+' })
    expect(await toNativeConstraint({ jsonSchema: { const: 'a.b' } })).toEqual({ kind: 'schema', pattern: '"a\\.b"' })
    await expect(toNativeConstraint({ regex: /a/i })).rejects.toThrow(
      'Expected RegExp without flags other than "u" for constrain.regex but received "/a/i"'
    )
    await expect(toNativeConstraint({ jsonSchema: { type: 'text' } } as Constraint)).rejects.toThrow('jsonSchema.type')
  })
})

describe('overlapping boxes', () => {
  const box = (label: string, score: number, xMin: number, xMax: number, yMin = 0, yMax = 1) => ({
    label,
    score,
    normalized: { xMin, xMax, yMin, yMax }
  })

  it('are measured by intersection over union', () => {
    const at = (xMin: number, xMax: number) => box('a', 1, xMin, xMax).normalized
    expect(boxOverlap(at(0, 1), at(0, 1))).toBe(1)
    expect(boxOverlap(at(0, 0.5), at(0.5, 1))).toBe(0)
    expect(boxOverlap(at(0, 0.5), at(0.25, 0.75))).toBeCloseTo(1 / 3)
    expect(boxOverlap(at(0.2, 0.2), at(0.2, 0.2))).toBe(0)
    expect(boxOverlap(at(0.5, 0), at(0, 1))).toBe(0)
  })

  it('keep the best of each label, in order', () => {
    const boxes = [
      box('a', 0.5, 0, 0.5),
      box('b', 0.4, 0, 0.5),
      box('a', 0.9, 0.01, 0.5),
      box('a', 0.1, 0.6, 1),
      box('a', 0.9, 0.02, 0.5)
    ]
    expect(suppressOverlaps(boxes, 0.5)).toEqual([boxes[1], boxes[2], boxes[3]])
    expect(suppressOverlaps(boxes, 1)).toEqual(boxes)
    expect(suppressOverlaps([], 0.5)).toEqual([])
  })

  it('of any labels suppress each other with classAgnostic', () => {
    const boxes = [box('a', 0.5, 0, 0.5), box('b', 0.9, 0.01, 0.5), box('c', 0.4, 0.6, 1), box('a', 0.9, 0.6, 0.99)]
    expect(suppressOverlaps(boxes, 0.5)).toEqual(boxes)
    expect(suppressOverlaps(boxes, 0.5, { classAgnostic: true })).toEqual([boxes[1], boxes[3]])
  })

  it('do not chain: what overlaps only a dropped box stays', () => {
    const boxes = [box('a', 0.9, 0, 0.4), box('a', 0.8, 0.1, 0.5), box('a', 0.7, 0.2, 0.6)]
    expect(suppressOverlaps(boxes, 0.5)).toEqual([boxes[0], boxes[2]])
  })
})
