/** A GGUF's header: as the format says, and written in slices. */
import { describe, expect, it } from 'vitest'
import { layoutGguf } from '../../lib/formats/gguf-writer'

const u64 = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}
const u32 = (value: number) => u64(value).subarray(0, 4)
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])

describe('layoutGguf', () => {
  it('a vocabulary of 257 thousand pieces lets others have their turns, and is what the format says', {
    tags: ['slow']
  }, async () => {
    const pieces = Array.from({ length: 257_216 }, (_, i) => `▁pièce${i}`)
    let turns = 0
    let going = true
    const others = (async () => {
      for (; going; turns++) await new Promise((resolve) => setImmediate(resolve))
    })()
    const { header, bytes } = await layoutGguf([['tokens', { type: 'strings', value: pieces }]], [])
    going = false
    await others
    expect(turns).toBeGreaterThan(5)
    const want = Buffer.concat([
      ...[Buffer.from('GGUF'), u32(3), u64(0), u64(1), text('tokens'), u32(9), u32(8), u64(pieces.length)],
      ...pieces.map(text)
    ])
    expect(Buffer.compare(header.subarray(0, want.length), want)).toBe(0)
    expect(header.length - want.length).toBeLessThan(32)
    expect(bytes).toBe(header.length)
  })

  it('lengths beyond 32 bits are written whole', async () => {
    const wide = 2 ** 33 + 64
    const { header, bytes } = await layoutGguf([], [{ name: 'w', type: 'F32', shape: [wide] }])
    expect(header.readBigUInt64LE(24 + 8 + 1 + 4)).toBe(BigInt(wide))
    expect(bytes).toBe(header.length + 4 * wide)
  })
})
