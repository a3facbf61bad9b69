import { describe, expect, it } from 'vitest'
import { planTiles, type Tile, type TileOption } from '../../lib/images/tile-plan'
import { mergeSightings, type Sighting } from '../../lib/output/merge-tiles'
import { randomNumbers } from '../support/tiny-model'

interface Thing {
  label: string
  box: Tile
}

function clip(box: Tile, view: Tile): Tile {
  const x = Math.max(box.x, view.x)
  const y = Math.max(box.y, view.y)
  return {
    x,
    y,
    width: Math.min(box.x + box.width, view.x + view.width) - x,
    height: Math.min(box.y + box.height, view.y + view.height) - y
  }
}

/** What a detector sees that finds whatever has `leastPixels` in the square of 112, a little inaccurately. */
function look(things: Thing[], views: Tile[], random: () => number, leastPixels = 8): Sighting[] {
  return views.flatMap((tile, view) =>
    things.flatMap(({ label, box }) => {
      const seen = clip(box, tile)
      const across = (seen.width / tile.width) * 112
      const down = (seen.height / tile.height) * 112
      if (!(across >= leastPixels && down >= leastPixels)) return []
      const noise = (side: number): number => (random() - 0.5) * 0.06 * side
      const jittered = {
        x: seen.x + noise(seen.width),
        y: seen.y + noise(seen.height),
        width: seen.width + noise(seen.width),
        height: seen.height + noise(seen.height)
      }
      return [{ label, score: 0.7 + 0.3 * random(), box: clip(jittered, tile), view }]
    })
  )
}

function scatter(
  {
    width,
    height,
    count,
    from,
    to,
    labels
  }: { width: number; height: number; count: number; from: number; to: number; labels: string[] },
  random: () => number
): Thing[] {
  const things: Thing[] = []
  for (let tries = 0; things.length < count && tries < 5000; tries++) {
    const side = from + random() * (to - from)
    const box = {
      x: random() * (width - side),
      y: random() * (height - side),
      width: side,
      height: side * (0.7 + 0.3 * random())
    }
    const apart = ({ box: other }: Thing): boolean =>
      box.x > other.x + other.width + 4 ||
      other.x > box.x + box.width + 4 ||
      box.y > other.y + other.height + 4 ||
      other.y > box.y + box.height + 4
    if (things.every(apart)) things.push({ label: labels[Math.floor(random() * labels.length)]!, box })
  }
  return things
}

function iou(a: Tile, b: Tile): number {
  const both = clip(a, b)
  const shared = Math.max(both.width, 0) * Math.max(both.height, 0)
  return shared / (a.width * a.height + b.width * b.height - shared)
}

const picture = { x: 0, y: 0, width: 1600, height: 1200 }

describe('mergeSightings', () => {
  it.each<[string, TileOption, number, number]>([
    ['small things', 'auto', 30, 90],
    ['things at borders', { columns: 4, rows: 3 }, 60, 140],
    ['things larger than what tiles share', { columns: 6, rows: 4 }, 60, 200],
    ['things of any size', 'auto', 30, 600],
    ['half of each tile shared', { columns: 5, rows: 4, overlap: 0.5 }, 40, 200]
  ])('%s: each once, in 200 scenes', (_, option, from, to) => {
    const random = randomNumbers(from * 1000 + to)
    let things = 0
    let found = 0
    let further = 0
    for (let scene = 0; scene < 200; scene++) {
      const truth = scatter({ ...picture, count: 20, from, to, labels: ['a', 'b'] }, random)
      const views = [picture, ...planTiles(picture, 112, option)]
      const merged = mergeSightings(look(truth, views, random), views)
      things += truth.length
      const matched = truth.map(({ box }) => merged.filter((one) => iou(one.box, box) > 0.5).length)
      found += matched.filter((times) => times > 0).length
      further += merged.length - matched.filter((times) => times > 0).length
    }
    // slivers at a border, too thin to be told from something else, are the few that remain
    expect(found / things).toBeGreaterThan(0.985)
    expect(further / things).toBeLessThan(0.01)
  })

  it('keeps neighbours of one kind apart across a border', () => {
    const views = [picture, ...planTiles(picture, 112, { columns: 2, rows: 1 })]
    const edge = views[1]!.x + views[1]!.width
    const box = (x: number): Tile => ({ x, y: 500, width: 60, height: 60 })
    const truth = [edge - 190, edge - 125, edge - 60, edge + 5].map((x) => ({ label: 'cow', box: box(x) }))
    const merged = mergeSightings(look(truth, views, randomNumbers(3), 2), views)
    expect(merged.map((one) => Math.round((one.box.x - edge + 190) / 65)).sort()).toEqual([0, 1, 2, 3])
  })

  it('joins what no view shows whole, and says of which sightings', () => {
    const views = [picture, ...planTiles(picture, 112, { columns: 4, rows: 1, overlap: 0.1 })]
    // seen by three tiles, the first and the last of which cut it; the whole picture misses it
    const [, a, b, c] = views as [Tile, Tile, Tile, Tile]
    const long = { x: a.x + a.width - 150, y: 400, width: c.x + 150 - (a.x + a.width - 150), height: 200 }
    const sightings = [a, b, c].map((tile, i) => ({
      label: 'train',
      score: [0.8, 0.81, 0.82][i]!,
      box: clip(long, tile),
      view: i + 1
    }))
    const merged = mergeSightings(sightings, views)
    expect(merged).toHaveLength(1)
    expect(merged[0]!.box).toEqual(long)
    expect([...merged[0]!.parts].sort()).toEqual([0, 1, 2])
    expect(merged[0]!.score).toBe(0.82)
  })

  it('joins halves of tiles that share nothing', () => {
    const views = [picture, ...planTiles(picture, 112, { columns: 2, rows: 1, overlap: 0 })]
    const box = { x: 700, y: 300, width: 200, height: 150 }
    const halves = [1, 2].map((view) => ({ label: 'cow', score: 0.9, box: clip(box, views[view]!), view }))
    expect(mergeSightings(halves, views).map((one) => one.box)).toEqual([box])
    const other = { ...halves[1]!, box: { ...halves[1]!.box, y: 600 } }
    expect(mergeSightings([halves[0]!, other], views)).toHaveLength(2)
  })

  it('believes the view that sees most: half a thing that its neighbour does not confirm is left out', () => {
    const views = [picture, ...planTiles(picture, 112, { columns: 2, rows: 1 })]
    const [, left, right] = views as [Tile, Tile, Tile]
    const half = { x: left.x + left.width - 30, y: 500, width: 30, height: 60 }
    expect(right.x).toBeLessThan(half.x)
    const star = { label: 'star', score: 0.9, box: { ...half, width: 60 }, view: 2 }
    const merged = mergeSightings([{ label: 'heart', score: 0.95, box: half, view: 1 }, star], views)
    expect(merged.map(({ parts }) => parts)).toEqual([[1]])
  })

  it('takes from the whole picture only what tiles cannot show whole', () => {
    const views = [picture, ...planTiles(picture, 112, { columns: 4, rows: 3 })]
    const whole = (box: Tile): Sighting => ({ label: 'cow', score: 0.9, box, view: 0 })
    const small = whole({ x: 100, y: 100, width: 50, height: 50 })
    const large = whole({ x: 300, y: 300, width: 900, height: 700 })
    expect(mergeSightings([small, large], views).map(({ box }) => box)).toEqual([large.box])
    expect(mergeSightings([small], [picture])).toHaveLength(1)
  })

  describe('what a larger view shows whole and plain', () => {
    const views = [picture, ...planTiles(picture, 112, { columns: 2, rows: 2 })]
    const arm: Sighting = { label: 'square', score: 0.9, box: { x: 300, y: 300, width: 250, height: 250 }, view: 1 }
    const at = (view: number, score = 0.9): Sighting => ({ ...arm, view, score })

    it('is left out where that view does not see it', () => {
      expect(mergeSightings([arm], views)).toEqual([])
      expect(mergeSightings([arm, at(0)], views)).toHaveLength(1)
      const other = { ...at(0), label: 'cross', box: { x: 200, y: 200, width: 500, height: 500 } }
      expect(mergeSightings([arm, other], views).map(({ parts }) => parts)).toEqual([[1]])
    })

    it('stays where that view sees it with a low score, or did not come to its end', () => {
      expect(mergeSightings([arm], views, { doubtful: [at(0, 0.1)] })).toEqual([
        { box: arm.box, score: 0.9, parts: [0] }
      ])
      expect(mergeSightings([arm], views, { doubtful: [{ ...at(0, 0.1), label: 'ring' }] })).toEqual([])
      expect(mergeSightings([arm], views, { unfinished: new Set([0]) })).toHaveLength(1)
      expect(mergeSightings([arm], views, { unfinished: new Set([2]) })).toEqual([])
    })

    it('stays where it is small there, or of another shape', () => {
      const small = { ...arm, box: { ...arm.box, width: 200, height: 170 } }
      expect(mergeSightings([small], views)).toHaveLength(1)
      const strip = { x: 0, y: 0, width: 1600, height: 500 }
      const squares = [strip, ...planTiles(strip, 112, { columns: 4, rows: 1 })]
      expect(mergeSightings([{ ...arm, box: { x: 100, y: 100, width: 280, height: 280 } }], squares)).toHaveLength(1)
    })
  })

  it('takes a find in another one of its name for a part of it, unless one view sees both', () => {
    const views = [picture, ...planTiles(picture, 112, { columns: 2, rows: 2, overlap: 0.5 })]
    const ring = { label: 'ring', score: 0.9, box: { x: 500, y: 450, width: 500, height: 300 }, view: 1 }
    const hole = { label: 'ring', score: 0.8, box: { x: 560, y: 520, width: 140, height: 100 }, view: 2 }
    expect(mergeSightings([ring, { ...ring, view: 0 }, hole], views)).toHaveLength(1)
    expect(mergeSightings([ring, { ...ring, view: 0 }, { ...hole, view: 1 }], views)).toHaveLength(2)
  })

  it('does not ask a neighbour that did not come to its end', () => {
    const views = [picture, ...planTiles(picture, 112, { columns: 2, rows: 1 })]
    const left = views[1]!
    const half = { label: 'cow', score: 0.9, box: { x: left.width - 30, y: 500, width: 30, height: 60 }, view: 1 }
    expect(mergeSightings([half], views)).toEqual([])
    expect(mergeSightings([half], views, { unfinished: new Set([2]) })).toHaveLength(1)
  })

  it('has nothing to say about nothing, and takes any number', { tags: ['slow'] }, () => {
    expect(mergeSightings([], [picture])).toEqual([])
    const views = [picture, ...planTiles(picture, 112, { columns: 16, rows: 16 })]
    const random = randomNumbers(9)
    const many = Array.from({ length: 20_000 }, () => ({
      label: 'dot',
      score: random(),
      box: { x: random() * 1590, y: random() * 1190, width: 8, height: 8 },
      view: 1 + Math.floor(random() * 256)
    }))
    expect(mergeSightings(many, views).length).toBeGreaterThan(0)
  })
})
