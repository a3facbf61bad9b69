import { describe, expect, it } from 'vitest'
import { planTiles, tilesRule, type TileOption } from '../../lib/images/tile-plan'

const sizes = [
  [1600, 1200],
  [2400, 600],
  [301, 4001],
  [224, 225],
  [7, 5],
  [1, 1],
  [16320, 12240]
] as const

/** Every pixel, by rows and columns of edges. */
function uncovered(width: number, height: number, tiles: ReturnType<typeof planTiles>): string[] {
  const xs = [...new Set([0, ...tiles.map(({ x }) => x), ...tiles.map((tile) => tile.x + tile.width)])]
  const ys = [...new Set([0, ...tiles.map(({ y }) => y), ...tiles.map((tile) => tile.y + tile.height)])]
  const missing: string[] = []
  for (const x of xs.filter((x) => x < width)) {
    for (const y of ys.filter((y) => y < height)) {
      const inside = tiles.some((t) => x >= t.x && x < t.x + t.width && y >= t.y && y < t.y + t.height)
      if (!inside) missing.push(`${x},${y}`)
    }
  }
  return missing
}

describe('planTiles', () => {
  const grids: Exclude<TileOption, 'auto'>[] = [
    { columns: 4, rows: 3 },
    { columns: 1, rows: 7, overlap: 0 },
    { columns: 2, rows: 2, overlap: 0.5 },
    { size: 512 },
    { size: 2048, overlap: 0.1 }
  ]
  for (const [width, height] of sizes) {
    for (const option of grids) {
      it(`cuts ${width} x ${height} into ${JSON.stringify(option)}: equal tiles that cover all of it`, () => {
        const many = 'size' in option && width * height > 10e6 && option.size < 1000
        if (many) {
          expect(() => planTiles({ width, height }, 224, option)).toThrow(/at most 256 tiles.*choose larger ones/)
          return
        }
        const tiles = planTiles({ width, height }, 224, option)
        if ('columns' in option) {
          const wanted = Math.min(option.columns, width) * Math.min(option.rows, height)
          expect(tiles).toHaveLength(wanted === 1 ? 0 : wanted)
        }
        if (tiles.length === 0) return
        expect(new Set(tiles.map((tile) => `${tile.width} x ${tile.height}`)).size).toBe(1)
        expect(uncovered(width, height, tiles)).toEqual([])
        for (const tile of tiles) {
          expect(Math.min(tile.x, tile.y)).toBeGreaterThanOrEqual(0)
          expect(tile.x + tile.width).toBeLessThanOrEqual(width)
          expect(tile.y + tile.height).toBeLessThanOrEqual(height)
        }
      })
    }
  }

  it('shares what was asked for with the neighbour', () => {
    for (const overlap of [0, 0.1, 0.25, 0.5]) {
      const [first, second] = planTiles({ width: 3000, height: 500 }, 224, { columns: 5, rows: 1, overlap })
      const shared = (first!.x + first!.width - second!.x) / first!.width
      expect(Math.abs(shared - overlap)).toBeLessThan(0.01)
    }
  })

  it('takes one pass where tiles gain nothing, and square tiles along a long picture', () => {
    expect(planTiles({ width: 300, height: 280 }, 224, 'auto')).toEqual([])
    expect(planTiles({ width: 448, height: 448 }, 224, 'auto')).toEqual([])
    expect(planTiles({ width: 1, height: 500 }, 112, 'auto')).toEqual([])
    expect(planTiles({ width: 30_000, height: 15 }, 224, 'auto')).toEqual([])
    expect(planTiles({ width: 1, height: 500 }, 112, { columns: 1, rows: 2 })).toHaveLength(2)
    const strip = planTiles({ width: 2400, height: 300 }, 224, 'auto')
    expect(strip.length).toBeGreaterThan(6)
    expect(strip.every(({ y, height }) => y === 0 && height === 300)).toBe(true)
    const fine = strip.at(-1)!
    expect(fine.width / fine.height).toBeGreaterThan(0.8)
    expect(fine.width / fine.height).toBeLessThan(1.25)
  })

  it('cuts again where there are many: large tiles first, and never more than it may', () => {
    for (const [width, height] of [...sizes, [12_000, 9000], [65_000, 65_000], [100_000, 20]] as const) {
      for (const square of [112, 224, 448, 896]) {
        const tiles = planTiles({ width, height }, square, 'auto')
        const areas = tiles.map((tile) => tile.width * tile.height)
        expect(areas).toEqual([...areas].sort((a, b) => b - a))
        expect(tiles.length, `${width} x ${height} at ${square}`).toBeLessThanOrEqual(110)
      }
    }
    const levels = new Set(planTiles({ width: 1600, height: 1200 }, 112, 'auto').map(({ width }) => width))
    expect(levels.size).toBe(3)
  })

  it.each([
    ['auto', true],
    [{ columns: 4, rows: 3 }, true],
    [{ columns: 4, rows: 3, overlap: 0 }, true],
    [{ size: 500, overlap: undefined }, true],
    ['all', false],
    [4, false],
    [{ columns: 4 }, false],
    [{ columns: 4, rows: 3, size: 200 }, false],
    [{ columns: 4, rows: 3, overlaps: 0.1 }, false],
    [{ columns: 0, rows: 3 }, false],
    [{ columns: 1.5, rows: 3 }, false],
    [{ size: 8 }, false],
    [{ size: 500, overlap: 0.6 }, false],
    [{ size: 500, overlap: '0.2' }, false],
    [null, false],
    [[4, 3], false]
  ])('accepts %j: %s', (value, accepted) => {
    expect(tilesRule.accepts(tilesRule.take!(value, ''))).toBe(accepted)
  })
})
