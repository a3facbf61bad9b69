/**
 * Who is who from one frame to the next: detections of a video get ids that stay. Two-stage association by overlap as
 * ByteTrack does it (Zhang et al., 2022): sure detections first, then doubtful ones for tracks that would be lost.
 * Pure.
 */
import { readOptions, rule, take, wrongOption, type Rule, type Rules } from '../base/validate'
import { assign } from './assign'
import { boxOverlap } from './nms'
import type { NormalizedBox } from './parse'

/** What a tracker looks at: results of `detect` and `segment` are. */
export interface Trackable {
  /** Tracks go on with detections of their own label alone. */
  label: string
  /** 0..1 */
  score: number
  /** 0..1 of the frame. */
  normalized: NormalizedBox
}

/** A point, 0..1 of the picture's width and height. */
export type Point = readonly [x: number, y: number]

/** Options of {@link Tracker}. */
export interface TrackerOptions {
  /** Detections with at least this score begin tracks; less sure ones only go on with them. Default 0.5. */
  newScore?: number | undefined
  /** Seconds that a track lives on unseen; default 1. */
  keepSeconds?: number | undefined
  /** Frames that must see something before it counts as there; default 2. */
  confirmFrames?: number | undefined
  /** Lines between two points; a track is counted under a line's name when its middle crosses it. */
  lines?: readonly { name: string; from: Point; to: Point }[] | undefined
  /** Areas by their corners, three or more; counted are tracks whose middle is inside now. */
  zones?: readonly { name: string; points: readonly Point[] }[] | undefined
}

/** Something that is followed. */
export interface Track {
  /** From 1 on; never given twice by one tracker. */
  id: number
  /** Of its detections. */
  label: string
  /** Where it was seen last. */
  normalized: NormalizedBox
  /** Of the detection seen last, 0..1. */
  score: number
  /** Seconds since it was first seen. */
  age: number
}

/** What {@link Tracker.update} knows after a frame. */
export interface TrackUpdate<T> {
  /** The detections of tracks that are there, with their ids. */
  tracked: (T & { id: number })[]
  /** Tracks that are there from this frame on. */
  entered: Track[]
  /** Tracks that were unseen for longer than `keepSeconds` and are given up. */
  left: Track[]
  /** Crossings of each line since the beginning: to its left and right side, seen from `from` to `to`. */
  lines: Record<string, { left: number; right: number }>
  /** Tracks inside each zone now. */
  zones: Record<string, number>
}

const number01 = rule.number(0, 1)
const isPoint = (v: unknown): boolean => Array.isArray(v) && v.length === 2 && v.every(number01.accepts)
const named = (v: unknown): v is Record<string, unknown> =>
  typeof v === 'object' && v !== null && typeof (v as { name?: unknown }).name === 'string'

const linesRule: Rule = rule.listOf(
  '{ name, from: [x, y], to: [x, y] } with 0..1',
  (v) => named(v) && isPoint(v['from']) && isPoint(v['to'])
)
const zonesRule: Rule = rule.listOf('{ name, points: [[x, y], ...] } with at least three of 0..1', (v) => {
  if (!named(v) || !Array.isArray(v['points'])) return false
  return v['points'].length >= 3 && v['points'].length <= 1000 && v['points'].every(isPoint)
})

export const trackerRules: Rules<TrackerOptions> = {
  newScore: number01,
  keepSeconds: rule.number(0, 3600),
  confirmFrames: rule.integer(1, 100),
  lines: linesRule,
  zones: zonesRule
}

const trackablesRule = rule.listOf('{ label, score, normalized }', (v) => {
  const { label, score, normalized } = v as Trackable
  return typeof label === 'string' && Number.isFinite(score) && typeof normalized === 'object' && normalized !== null
})

/** Overlaps below this are no match: of where a track should be now and a sure or a doubtful detection. */
const [leastOverlap, leastOverlapDoubtful] = [0.15, 0.4]
/** What an overlap with the last place counts, against one with the expected place. */
const stillShare = 0.8
/** How much of a new speed is believed. */
const speedShare = 0.5

class Followed<T extends Trackable> {
  seen: T
  hits = 1
  /** Of the middle, a second. */
  private speed: Point = [0, 0]

  constructor(
    readonly id: number,
    first: T,
    readonly since: number,
    private lastSeen: number
  ) {
    this.seen = first
  }

  /** Where it should be at a time. */
  at(time: number): NormalizedBox {
    const seconds = time - this.lastSeen
    const { yMin, xMin, yMax, xMax } = this.seen.normalized
    const [dx, dy] = [this.speed[0] * seconds, this.speed[1] * seconds]
    return { yMin: yMin + dy, xMin: xMin + dx, yMax: yMax + dy, xMax: xMax + dx }
  }

  see(detection: T, time: number): void {
    const seconds = Math.max(time - this.lastSeen, 1e-3)
    const [was, is] = [middle(this.seen.normalized), middle(detection.normalized)]
    const share = this.hits === 1 ? 1 : speedShare
    this.speed = [0, 1].map(
      (i) => (1 - share) * this.speed[i]! + (share * (is[i]! - was[i]!)) / seconds
    ) as unknown as Point
    this.seen = detection
    this.lastSeen = time
    this.hits++
  }

  track(time: number): Track {
    const { label, normalized, score } = this.seen
    return { id: this.id, label, normalized, score, age: time - this.since }
  }

  gone(time: number): number {
    return time - this.lastSeen
  }
}

/** Follows detections over frames: `const { tracked, entered, left } = tracker.update(detections, seconds)`. */
export class Tracker<T extends Trackable = Trackable> {
  readonly #options: Required<{ [K in keyof TrackerOptions]: NonNullable<TrackerOptions[K]> }>
  #followed: Followed<T>[] = []
  #nextId = 1
  #lastTime = -Infinity
  readonly #crossings = new Map<string, { left: number; right: number }>()

  /** @throws PaliGemmaError ERR_INVALID_OPTION */
  constructor(options: TrackerOptions = {}) {
    const taken = readOptions<TrackerOptions>('Tracker', options, trackerRules)
    const { newScore = 0.5, keepSeconds = 1, confirmFrames = 2, lines = [], zones = [] } = taken
    this.#options = { newScore, keepSeconds, confirmFrames, lines, zones }
    for (const { name } of lines) this.#crossings.set(name, { left: 0, right: 0 })
  }

  /**
   * The next frame's detections; `time` in seconds, rising.
   * @throws PaliGemmaError ERR_INVALID_OPTION
   */
  update(detections: readonly T[], time: number): TrackUpdate<T> {
    const list = take('detections', detections, trackablesRule) as T[]
    if (!(Number.isFinite(time) && time > this.#lastTime)) {
      throw wrongOption('time', `seconds, later than the ${this.#lastTime} before,`, time)
    }
    this.#lastTime = time
    const sure = list.filter(({ score }) => score >= this.#options.newScore)
    const doubtful = list.filter(({ score }) => score < this.#options.newScore)
    const entered: Track[] = []
    const matched = new Map<T, Followed<T>>()
    const open = this.#match(this.#followed, sure, leastOverlap, time, matched)
    this.#match(open, doubtful, leastOverlapDoubtful, time, matched)
    for (const [detection, followed] of matched) this.#follow(followed, detection, time, entered)
    for (const detection of sure)
      if (!matched.has(detection)) matched.set(detection, this.#begin(detection, time, entered))
    const left = this.#drop(time)
    const tracked = [...matched]
      .filter(([, { hits }]) => hits >= this.#options.confirmFrames)
      .map(([detection, { id }]) => ({ ...detection, id }))
    return { tracked, entered, left, lines: Object.fromEntries(this.#crossings), zones: this.#inside() }
  }

  /** Matches by overlap, the most in sum; what remains of `followed` comes back. */
  #match(
    followed: Followed<T>[],
    detections: T[],
    least: number,
    time: number,
    matched: Map<T, Followed<T>>
  ): Followed<T>[] {
    const places = followed.map((one) => one.at(time))
    const pairs = assign(followed.length, detections.length, (i, k) => {
      const detection = detections[k]!
      if (followed[i]!.seen.label !== detection.label) return 0
      // what turns round is near where it was
      const still = boxOverlap(followed[i]!.seen.normalized, detection.normalized)
      const overlap = Math.max(boxOverlap(places[i]!, detection.normalized), stillShare * still)
      return overlap >= least ? overlap : 0
    })
    for (const [i, k] of pairs) matched.set(detections[k]!, followed[i]!)
    const taken = new Set(pairs.map(([i]) => i))
    return followed.filter((_, i) => !taken.has(i))
  }

  #follow(followed: Followed<T>, detection: T, time: number, entered: Track[]): void {
    const before = middle(followed.seen.normalized)
    followed.see(detection, time)
    if (followed.hits === this.#options.confirmFrames) entered.push(followed.track(time))
    if (followed.hits < this.#options.confirmFrames) return
    const after = middle(detection.normalized)
    for (const { name, from, to } of this.#options.lines) {
      const side = crossing(before, after, from, to)
      if (side) this.#crossings.get(name)![side]++
    }
  }

  #begin(detection: T, time: number, entered: Track[]): Followed<T> {
    const followed = new Followed(this.#nextId++, detection, time, time)
    this.#followed.push(followed)
    if (this.#options.confirmFrames === 1) entered.push(followed.track(time))
    return followed
  }

  /** Those that are gone too long; what was seen once only was never there. */
  #drop(time: number): Track[] {
    const { keepSeconds, confirmFrames } = this.#options
    const gone = new Set(this.#followed.filter((one) => one.gone(time) > (one.hits < confirmFrames ? 0 : keepSeconds)))
    this.#followed = this.#followed.filter((one) => !gone.has(one))
    return [...gone].filter(({ hits }) => hits >= confirmFrames).map((one) => one.track(time))
  }

  #inside(): Record<string, number> {
    const there = this.#followed.filter(({ hits }) => hits >= this.#options.confirmFrames)
    return Object.fromEntries(
      this.#options.zones.map(({ name, points }) => [
        name,
        there.filter(({ seen }) => contains(points, middle(seen.normalized))).length
      ])
    )
  }
}

function middle({ yMin, xMin, yMax, xMax }: NormalizedBox): Point {
  return [(xMin + xMax) / 2, (yMin + yMax) / 2]
}

/** Above 0: c lies to the right of the way from a to b, as pictures are seen (y goes down). */
function turn(a: Point, b: Point, c: Point): number {
  return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/** The side of a line to which a step crosses it. */
function crossing(before: Point, after: Point, from: Point, to: Point): 'left' | 'right' | undefined {
  const [was, is] = [turn(from, to, before), turn(from, to, after)]
  if (was > 0 === is > 0) return undefined
  const meets = turn(before, after, from) > 0 !== turn(before, after, to) > 0
  return meets ? (is > 0 ? 'right' : 'left') : undefined
}

/** Whether a ray from the point crosses the outline an odd number of times. */
function contains(points: readonly Point[], [x, y]: Point): boolean {
  let inside = false
  for (const [i, [ax, ay]] of points.entries()) {
    const [bx, by] = points[(i + 1) % points.length]!
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside
  }
  return inside
}
