/**
 * One object out of its sightings in overlapping tiles and in the whole picture. Pure.
 *
 * Two sightings are of one object when they agree where both views look: clipped to what the two views share, the boxes
 * are nearly the same. That tells neighbours from halves without a guess about sizes: two objects beside each other can
 * never both agree with one.
 */
import type { Tile } from '../images/tile-plan'

/** An object as one view shows it; its box in pixels of the whole picture. */
export interface Sighting {
  label: string
  score: number
  box: Tile
  /** Index of the view that shows it. */
  view: number
}

/** An object of the picture. */
export interface MergedSighting {
  /** In pixels of the whole picture. */
  box: Tile
  score: number
  /** Indexes of the sightings that it consists of: one, or the parts of an object that no view shows whole. */
  parts: number[]
}

/** Of the shared region, intersection over union. */
const agreement = 0.5
/** A box that ends so near to a tile's border is taken to go on beyond it: a share of the tile's side. */
const borderShare = 0.02
/** Who sees more than this of a place decides what is there. */
const majority = 0.5
/** The smaller of two boxes lies in the other by more than this. */
const inside = 0.8
/**
 * A larger view's word counts for what is wider or higher than this share of a smaller one: what is less the smaller
 * see better.
 */
const largeShare = 0.5
/** Views whose sides, or shapes, differ by no more than this see the same things. */
const alike = 1.5
/**
 * What is at least this share of a view, each way, no view overlooks: of the demo model's sightings 93 in 100 have
 * another one in such a larger view, of its errors one in twenty. bench/tiles.mjs measures what comes of it.
 */
const plainShare = 0.15

/** What else the views say. */
export interface Witness {
  /** Seen with scores too low to count: they bear out others. */
  doubtful?: readonly Sighting[]
  /** Indexes of views that did not come to the end of their list: what they do not name may be there. */
  unfinished?: ReadonlySet<number>
}

/** `views`: the whole picture first, then its tiles, of one size or of several. The best score comes first. */
export function mergeSightings(
  sightings: readonly Sighting[],
  views: readonly Tile[],
  { doubtful = [], unfinished = new Set() }: Witness = {}
): MergedSighting[] {
  const seen = sightings.map((sighting, index) => new Seen(sighting, index, views))
  const all = [...seen, ...doubtful.map((sighting) => new Seen(sighting, -1, views))]
  const telling = views.filter((_, index) => !unfinished.has(index))
  const objects = groups(seen)
    .map(resolve)
    .filter((object) => !tooSmall(object, views) && confirmed(object, seen, telling))
    .filter((object) => !onlyFromNear(object, all, telling, views[0]!))
    .sort((a, b) => Number(a.cut) - Number(b.cut) || b.score - a.score)
  const kept: Resolved[] = []
  for (const object of objects) if (!kept.some((other) => repeats(object, other))) kept.push(object)
  return kept
    .sort((a, b) => b.score - a.score)
    .map(({ box, score, members }) => ({ box, score, parts: members.map(({ index }) => index) }))
}

class Seen {
  readonly label: string
  readonly score: number
  readonly box: Tile
  readonly view: Tile
  readonly whole: boolean
  /** Its tile's border runs through it, or next to it. */
  readonly cut: boolean
  parent: Seen = this

  constructor(
    { label, score, box, view }: Sighting,
    readonly index: number,
    views: readonly Tile[]
  ) {
    this.label = label
    this.score = score
    this.box = box
    this.view = views[view]!
    this.whole = view === 0
    this.cut = !this.whole && touchesInnerBorder(box, this.view, views[0]!)
  }

  root(): Seen {
    let seen: Seen = this
    while (seen.parent !== seen) seen = seen.parent = seen.parent.parent
    return seen
  }
}

function touchesInnerBorder(box: Tile, tile: Tile, picture: Tile): boolean {
  const marginX = Math.max(borderShare * tile.width, 1)
  const marginY = Math.max(borderShare * tile.height, 1)
  return (
    (tile.x > 0 && box.x < tile.x + marginX) ||
    (tile.y > 0 && box.y < tile.y + marginY) ||
    (right(tile) < picture.width && right(box) > right(tile) - marginX) ||
    (bottom(tile) < picture.height && bottom(box) > bottom(tile) - marginY)
  )
}

/** Sightings that agree, directly or through others. */
function groups(seen: Seen[]): Seen[][] {
  const byLeft = [...seen].sort((a, b) => a.box.x - b.box.x)
  for (const [i, a] of byLeft.entries()) {
    for (let k = i + 1; k < byLeft.length && byLeft[k]!.box.x <= right(a.box) + nearby(a); k++) {
      if (sameObject(a, byLeft[k]!)) byLeft[k]!.root().parent = a.root()
    }
  }
  const found = new Map<Seen, Seen[]>()
  for (const one of seen) {
    const group = found.get(one.root())
    if (group) group.push(one)
    else found.set(one.root(), [one])
  }
  return [...found.values()]
}

/** Halves of tiles without overlap need not touch. */
const nearby = ({ view }: Seen): number => 2 * Math.max(borderShare * view.width, 1)

function sameObject(a: Seen, b: Seen): boolean {
  if (a.label !== b.label || a.view === b.view) return false
  const shared = intersection(a.view, b.view)
  if (area(shared) === 0) return a.cut && b.cut && facing(a, b)
  const inA = intersection(a.box, shared)
  const inB = intersection(b.box, shared)
  return overlap(inA, inB) > agreement
}

/** Two halves at a border which their tiles share: as wide (or high) along it, and close to it. */
function facing(a: Seen, b: Seen): boolean {
  const across = gap(a.box.x, right(a.box), b.box.x, right(b.box))
  const down = gap(a.box.y, bottom(a.box), b.box.y, bottom(b.box))
  const near = 2 * Math.max(borderShare * Math.max(a.view.width, a.view.height), 1)
  const along = (from: number, to: number, from2: number, to2: number): number =>
    (Math.min(to, to2) - Math.max(from, from2)) / Math.max(Math.max(to, to2) - Math.min(from, from2), 1)
  const sameRows = along(a.box.y, bottom(a.box), b.box.y, bottom(b.box)) > agreement
  const sameColumns = along(a.box.x, right(a.box), b.box.x, right(b.box)) > agreement
  return (across >= 0 && across < near && sameRows) || (down >= 0 && down < near && sameColumns)
}

/** Between two spans; negative where they overlap by more than nothing. */
const gap = (from: number, to: number, from2: number, to2: number): number => Math.max(from2 - to, from - to2)

interface Resolved {
  label: string
  box: Tile
  score: number
  /** All sightings of it. */
  group: Seen[]
  /** What it is made of. */
  members: Seen[]
  /** No view shows it whole. */
  cut: boolean
  /** The smallest view that shows it. */
  closest: Tile
}

/** One object: as the tiles show it that have it whole, else the whole picture, else its parts joined. */
function resolve(group: Seen[]): Resolved {
  const { label } = group[0]!
  const closest = group.map(({ view }) => view).reduce((a, b) => (area(b) < area(a) ? b : a))
  const uncut = group.filter(({ cut }) => !cut)
  const tiled = uncut.filter(({ whole }) => !whole)
  if (uncut.length > 0) {
    const one = mostAgreed(tiled.length > 0 ? tiled : uncut, uncut)
    return { label, box: one.box, score: one.score, group, members: [one], cut: false, closest }
  }
  const box = group.map((one) => one.box).reduce(union)
  const score = Math.max(...group.map((one) => one.score))
  return { label, box, score, group, members: group, cut: true, closest }
}

/** Whose box the others bear out most, each with the weight of its score; of two that is the better score's. */
function mostAgreed(candidates: Seen[], voters: Seen[]): Seen {
  const votes = (one: Seen): number => voters.reduce((sum, { box, score }) => sum + score * overlap(box, one.box), 0)
  return candidates.map((one) => ({ one, votes: votes(one) })).reduce((a, b) => (b.votes > a.votes ? b : a)).one
}

/** For the views that show it: smaller ones, which see such things better, see nothing. */
function tooSmall({ box, closest }: Resolved, views: readonly Tile[]): boolean {
  const smaller = views.filter((view) => area(view) < area(closest))
  if (smaller.length === 0) return false
  const next = smaller.reduce((a, b) => (area(b) > area(a) ? b : a))
  return box.width <= largeShare * next.width && box.height <= largeShare * next.height
}

/**
 * Whether the views that see most of it agree that it is there: half an object at a border looks like something else,
 * and its neighbour, which sees more, does not confirm it.
 */
function confirmed({ box, members, cut }: Resolved, seen: Seen[], views: readonly Tile[]): boolean {
  if (!cut || members.length > 1) return true
  const own = members[0]!
  return views
    .filter(
      (view) => view !== own.view && view.width <= alike * own.view.width && view.height <= alike * own.view.height
    )
    .filter((view) => area(intersection(box, view)) > majority * area(box))
    .every((view) => seen.some((one) => one.view === view && one.root() === own.root()))
}

/**
 * Whether larger views show it whole, plain and in the same shape, and none sees it: who stands too near takes the arm
 * of a cross for a square.
 */
function onlyFromNear({ label, box, closest }: Resolved, all: Seen[], views: readonly Tile[], picture: Tile): boolean {
  const plain = views.filter(
    (view) =>
      area(view) > alike * area(closest) &&
      Math.min(box.width / view.width, box.height / view.height) >= plainShare &&
      sameShape(view, closest) &&
      area(intersection(box, view)) === area(box) &&
      !touchesInnerBorder(box, view, picture)
  )
  const seenIn = (view: Tile): boolean =>
    all.some((one) => one.view === view && one.label === label && overlap(one.box, box) > agreement)
  return plain.length > 0 && !plain.some(seenIn)
}

function sameShape(a: Tile, b: Tile): boolean {
  const stretch = (a.width * b.height) / (a.height * b.width)
  return stretch <= alike && stretch >= 1 / alike
}

/** Of one object already kept: nearly the same box, or a part of it. */
function repeats(object: Resolved, kept: Resolved): boolean {
  if (object.label !== kept.label) return false
  const both = area(intersection(object.box, kept.box))
  const smaller = Math.min(area(object.box), area(kept.box))
  if (smaller === 0 || both === 0) return false
  if (overlap(object.box, kept.box) > agreement) return true
  if (both / smaller <= inside) return false
  // a part of something, or one box around several that tiles show one by one
  if (object.cut || area(object.closest) !== area(kept.closest)) return true
  // one thing in another of its name: only where a view tells them apart
  return area(object.box) < area(kept.box) && !seenTogether(object, kept)
}

const seenTogether = (a: Resolved, b: Resolved): boolean =>
  a.group.some((one) => b.group.some((other) => other.view === one.view))

const right = ({ x, width }: Tile): number => x + width
const bottom = ({ y, height }: Tile): number => y + height
const area = ({ width, height }: Tile): number => Math.max(width, 0) * Math.max(height, 0)

function intersection(a: Tile, b: Tile): Tile {
  const x = Math.max(a.x, b.x)
  const y = Math.max(a.y, b.y)
  return {
    x,
    y,
    width: Math.max(Math.min(right(a), right(b)) - x, 0),
    height: Math.max(Math.min(bottom(a), bottom(b)) - y, 0)
  }
}

function union(a: Tile, b: Tile): Tile {
  const x = Math.min(a.x, b.x)
  const y = Math.min(a.y, b.y)
  return { x, y, width: Math.max(right(a), right(b)) - x, height: Math.max(bottom(a), bottom(b)) - y }
}

function overlap(a: Tile, b: Tile): number {
  const both = area(intersection(a, b))
  const either = area(a) + area(b) - both
  return either > 0 ? both / either : 0
}
