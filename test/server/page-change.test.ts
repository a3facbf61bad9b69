/** The page's own measure of change, for browsers, is `watch`'s. */
import { describe, expect, it } from 'vitest'
// @ts-expect-error -- a script for browsers, without types
import * as page from '../../lib/server/page/change.mjs'
import { changedShare, overview } from '../../lib/video/change'

const [width, height] = [128, 96]

/** The same picture as the library and as a canvas has it. */
function picture(at: (place: number) => number[]): { rgb: Uint8Array; rgba: Uint8Array } {
  const rgb = new Uint8Array(width * height * 3)
  const rgba = new Uint8Array(width * height * 4).fill(255)
  for (let place = 0; place < width * height; place++) {
    rgb.set(at(place), place * 3)
    rgba.set(at(place), place * 4)
  }
  return { rgb, rgba }
}

describe('a frame in the page', () => {
  const noisy = (seed: number): number[] => [0, 1, 2].map((c) => (Math.imul(seed * 3 + c, 2654435761) >>> 24) % 256)
  const pictures = [
    picture(noisy),
    picture((place) => noisy(place).map((value) => Math.min(value + 9, 255))),
    picture((place) => (place % width < 20 ? [250, 250, 250] : noisy(place))),
    picture((place) => [place % 256, (place >> 3) % 256, 7])
  ]

  it('has the same brightness in the same fields', () => {
    for (const { rgb, rgba } of pictures) {
      const fields = overview({ data: rgb, width, height })
      const own = page.overview(rgba) as Float32Array
      expect(own.every((value, i) => Math.abs(value - fields[i]!) < 0.01)).toBe(true)
    }
  })

  it('has changed as much', () => {
    const [first, ...others] = pictures.map(({ rgb }) => overview({ data: rgb, width, height }))
    const shares = others.map((other) => changedShare(first!, other))
    expect(others.map((other) => page.changedShare(first, other))).toEqual(shares)
    expect(shares[0]).toBe(0)
    expect(shares[1]).toBeGreaterThan(0.1)
  })
})
