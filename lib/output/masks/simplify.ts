/** Fewer points for a ring (Douglas and Peucker's way). */

/** Without the points that lie nearer than `tolerance` to the line without them. */
export function simplifyRing(points: number[], tolerance: number): number[] {
  const count = points.length / 2
  if (tolerance <= 0 || count <= 4) return points
  const far = farthest(points, 0, count, points[0]!, points[1]!, points[0]!, points[1]!).index
  const keep = new Uint8Array(count + 1)
  keep[0] = keep[far] = 1
  const todo: [number, number][] = [
    [0, far],
    [far, count]
  ]
  for (let span = todo.pop(); span; span = todo.pop()) {
    const [from, to] = span
    const last = to % count
    const { index, distance } = farthest(
      points,
      from + 1,
      to,
      points[2 * from]!,
      points[2 * from + 1]!,
      points[2 * last]!,
      points[2 * last + 1]!
    )
    if (distance <= tolerance) continue
    keep[index] = 1
    todo.push([from, index], [index, to])
  }
  return points.filter((_, i) => keep[i >> 1])
}

/** Of the points [from, to) the one that is farthest from the segment a-b. */
function farthest(
  points: readonly number[],
  from: number,
  to: number,
  ax: number,
  ay: number,
  bx: number,
  by: number
): { index: number; distance: number } {
  const [dx, dy] = [bx - ax, by - ay]
  const square = dx * dx + dy * dy
  let best = { index: from, distance: -1 }
  for (let i = from; i < to; i++) {
    const [x, y] = [points[2 * i]! - ax, points[2 * i + 1]! - ay]
    const along = square === 0 ? 0 : Math.min(Math.max((x * dx + y * dy) / square, 0), 1)
    const distance = Math.hypot(x - along * dx, y - along * dy)
    if (distance > best.distance) best = { index: i, distance }
  }
  return best
}
