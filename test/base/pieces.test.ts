import { describe, expect, it } from 'vitest'
import { Pieces } from '../../lib/base/pieces'

describe('pieces', () => {
  it('are joined in their order, whatever their sizes', () => {
    const sizes = [0, 1, 4096, 3, 4095, 4095, 70_000, 1, 0, 5000, 2]
    let next = 0
    const all = sizes.map((size) => Uint8Array.from({ length: size }, () => next++ % 251))
    const pieces = new Pieces()
    for (const [i, piece] of all.entries()) {
      pieces.add(piece)
      expect(pieces.joined().equals(Buffer.concat(all.slice(0, i + 1))), `after ${i}`).toBe(true)
    }
    expect(pieces.bytes).toBe(next)
  })

  it('of a byte each are few objects', () => {
    const pieces = new Pieces()
    for (let i = 0; i < 1_000_000; i++) pieces.add(Uint8Array.of(i))
    expect(pieces.joined()).toHaveLength(1_000_000)
    const { kept } = pieces as unknown as { kept: Uint8Array[] }
    expect(kept.length).toBeLessThan(100)
    expect(new Set(kept.map(({ buffer }) => buffer.byteLength)).size).toBeLessThan(20)
  })
})
