/** The outlines of a mask: along the edges of its pixels, so that they fill to the same pixels again. */
import { readOptions, rule, type Rules } from '../../base/validate'
import { insideFrom, type Mask, takeMask } from './mask'
import { simplifyRing } from './simplify'

/**
 * A connected part of a mask. Rings are x, y, x, y, ... in pixels, from corner (0, 0) on, without repeating the first
 * point.
 */
export interface MaskPolygon {
  /** Clockwise as seen on the picture. */
  outer: number[]
  /** Counter-clockwise. */
  holes: number[][]
}

/** Options of {@link maskToPolygons}. */
export interface PolygonOptions {
  /** Points may go that lie nearer than this (pixels) to the line without them; default 0: exact. */
  tolerance?: number | undefined
  /** Parts and holes of fewer pixels are left out; default 0. */
  minArea?: number | undefined
}

export const polygonRules: Rules<PolygonOptions> = { tolerance: rule.number(0, 1e6), minArea: rule.number(0) }

/**
 * The parts of a mask (over 127 is inside), from the top, as polygons with holes. Pixels that touch at a corner only
 * are parts of their own. With `tolerance` 0 filling them gives the mask again.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function maskToPolygons(mask: Mask, options: PolygonOptions = {}): MaskPolygon[] {
  const { tolerance = 0, minArea = 0 } = readOptions<PolygonOptions>('maskToPolygons', options, polygonRules)
  return polygonsOf(takeMask('mask', mask), tolerance, minArea)
}

export function polygonsOf(mask: Mask, tolerance = 0, minArea = 0): MaskPolygon[] {
  const rings = traceRings(mask)
  const parts = new Map<Ring, MaskPolygon>()
  for (const ring of rings)
    if (ring.area > 0 && ring.area >= minArea)
      parts.set(ring, { outer: simplifyRing(ring.points, tolerance), holes: [] })
  const holes = rings.filter(({ area }) => area < 0 && -area >= minArea)
  if (holes.length > 0) {
    const parentOf = parentsIn(rings)
    for (const hole of holes) {
      const points = simplifyRing(hole.points, tolerance)
      if (points.length >= 6) parts.get(parentOf(hole))?.holes.push(points)
    }
  }
  return [...parts.values()].filter(({ outer }) => outer.length >= 6)
}

interface Ring {
  points: number[]
  /** In pixels; negative for holes. */
  area: number
}

// East, south, west, north, in picture coordinates (y goes down).
const stepX = [1, 0, -1, 0]
const stepY = [0, 1, 0, -1]
// The two pixels ahead of a corner, as seen on the way: the right one, and the left one.
const rightX = [0, -1, -1, 0]
const rightY = [0, 0, -1, -1]
const leftX = [0, 0, -1, -1]
const leftY = [-1, 0, 0, -1]

/** Every closed line between inside and outside, the inside to its right. Each begins at the top edge of a pixel. */
function traceRings({ width, height, data }: Mask): Ring[] {
  const isInside = (x: number, y: number): boolean =>
    x >= 0 && y >= 0 && x < width && y < height && data[y * width + x]! >= insideFrom
  const seen = new Uint8Array(width * height) // top edges
  const rings: Ring[] = []
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (data[y * width + x]! >= insideFrom && !seen[y * width + x] && !isInside(x, y - 1))
        rings.push(traceRing(x, y, isInside, (px, py) => (seen[py * width + px] = 1)))
  return rings
}

function traceRing(
  startX: number,
  startY: number,
  isInside: (x: number, y: number) => boolean,
  markTop: (x: number, y: number) => void
): Ring {
  const points: number[] = []
  let [x, y, direction] = [startX, startY, 0]
  let twice = 0
  do {
    if (direction === 0) markTop(x, y)
    const [toX, toY] = [x + stepX[direction]!, y + stepY[direction]!]
    twice += x * toY - toX * y
    ;[x, y] = [toX, toY]
    const before = direction
    if (!isInside(x + rightX[direction]!, y + rightY[direction]!)) direction = (direction + 1) % 4
    else if (isInside(x + leftX[direction]!, y + leftY[direction]!)) direction = (direction + 3) % 4
    if (direction !== before) points.push(x, y)
  } while (x !== startX || y !== startY || direction !== 0)
  return { points, area: twice / 2 }
}

/** The outer ring around a hole: in the row of one of the hole's sides, what comes before it. */
function parentsIn(rings: Ring[]): (hole: Ring) => Ring {
  const rows = new Map<number, { x: number; ring: Ring }[]>()
  for (const ring of rings)
    eachSide(ring.points, (x, y) => {
      const row = rows.get(y)
      if (row) row.push({ x, ring })
      else rows.set(y, [{ x, ring }])
    })
  for (const row of rows.values()) row.sort((a, b) => a.x - b.x)
  const known = new Map<Ring, Ring>()
  return (hole) => {
    const way: Ring[] = []
    let ring = hole
    while (ring.area < 0 && !known.has(ring)) {
      way.push(ring)
      ring = beforeIn(rows, ring)
    }
    const parent = known.get(ring) ?? ring
    for (const one of way) known.set(one, parent)
    return parent
  }
}

/** The ring that the pixels to the left of a hole's leftmost side begin at. */
function beforeIn(rows: ReadonlyMap<number, { x: number; ring: Ring }[]>, hole: Ring): Ring {
  let [left, top] = [Infinity, 0]
  eachSide(hole.points, (x, y) => {
    if (x < left) [left, top] = [x, y]
  })
  const row = rows.get(top)!
  let [low, high] = [0, row.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (row[middle]!.x < left) low = middle + 1
    else high = middle
  }
  return row[low - 1]!.ring
}

/** Every vertical edge of a pixel on the ring: its x, and the row. */
function eachSide(points: readonly number[], use: (x: number, y: number) => void): void {
  for (let i = 0; i < points.length; i += 2) {
    const [x, y] = [points[i]!, points[i + 1]!]
    const [nextX, nextY] = [points[(i + 2) % points.length]!, points[(i + 3) % points.length]!]
    if (x === nextX) for (let row = Math.min(y, nextY); row < Math.max(y, nextY); row++) use(x, row)
  }
}

/**
 * All rings of a mask as one: bridges without width lead from one to the next. For formats that know one ring an
 * object; it fills to the same pixels.
 */
export function joinRings(polygons: readonly MaskPolygon[]): number[] {
  const joined: number[] = []
  for (const ring of polygons.flatMap(({ outer, holes }) => [outer, ...holes])) {
    if (joined.length === 0) {
      joined.push(...ring)
      continue
    }
    const at = nearest(joined, ring[0]!, ring[1]!)
    const bridge = [joined[at]!, joined[at + 1]!]
    joined.splice(at + 2, 0, ...ring, ring[0]!, ring[1]!, ...bridge)
  }
  return joined
}

function nearest(points: readonly number[], x: number, y: number): number {
  let [best, least] = [0, Infinity]
  for (let i = 0; i < points.length; i += 2) {
    const distance = (points[i]! - x) ** 2 + (points[i + 1]! - y) ** 2
    if (distance < least) [best, least] = [i, distance]
  }
  return best
}
