/**
 * Ids over whole clips of drawn shapes that cross and hide each other.
 *
 * The measure is that of the MOT benchmarks (Milan et al., 2016): id switches, where a thing gets another id than when
 * it was last followed, over all the places where there is something to see.
 */
import { describe, expect, it } from 'vitest'
import { boxOverlap } from '../../lib/output/nms'
import { Tracker, type Trackable } from '../../lib/output/tracker'
import { randomNumbers } from '../support/tiny-model'

const [clips, frames, rate] = [100, 80, 10]
const side = 0.1

interface Mover {
  label: string
  at: (seconds: number) => [x: number, y: number]
}

type Seen = Trackable & { who: number }

/** Pairs that meet in a point and go on, and some on their own. Who comes first hides who comes later. */
function drawMovers(random: () => number): Mover[] {
  const movers: Mover[] = []
  const between = (from: number, to: number): number => from + (to - from) * random()
  for (let pair = 0; pair < 3; pair++) {
    const [x, y, when] = [between(0.3, 0.7), between(0.3, 0.7), between(2, 6)]
    const first = between(0, 2 * Math.PI)
    // alike in two of three pairs, and not in one line
    const angles = [first, first + between(0.25 * Math.PI, 1.75 * Math.PI)]
    for (const [i, angle] of angles.entries()) {
      const speed = between(0.06, 0.14)
      const label = pair === 2 && i === 1 ? 'dog' : 'car'
      movers.push({
        label,
        at: (t) => [x + speed * Math.cos(angle) * (t - when), y + speed * Math.sin(angle) * (t - when)]
      })
    }
  }
  for (let i = 0; i < 2; i++) {
    const [x, y, phase] = [between(0.15, 0.85), between(0.15, 0.85), between(0, 6)]
    movers.push({ label: 'dog', at: (t) => [x + 0.08 * Math.cos(t / 2 + phase), y + 0.08 * Math.sin(t / 2 + phase)] })
  }
  return movers
}

function boxAt([x, y]: [number, number], noise = () => 0): Trackable['normalized'] {
  const [cx, cy] = [x + noise(), y + noise()]
  return { yMin: cy - side / 2, xMin: cx - side / 2, yMax: cy + side / 2, xMax: cx + side / 2 }
}

interface Tally {
  /** Places where there is something to see. */
  places: number
  switches: number
  crossings: number
  /** Of one thing behind another: at least a frame. */
  occlusions: number
}

function follow(random: () => number, tally: Tally): void {
  const movers = drawMovers(random)
  const tracker = new Tracker<Seen>()
  const ids = new Map<number, number>()
  const hidden = new Set<number>()
  const met = new Set<string>()
  for (let frame = 0; frame < frames; frame++) {
    const time = frame / rate
    const places = movers.map(({ at }) => boxAt(at(time)))
    const detections: Seen[] = []
    for (const [who, { label, at }] of movers.entries()) {
      const [x, y] = at(time)
      if (Math.min(x, y, 1 - x, 1 - y) < side / 2) continue // out of the picture
      const covered = Math.max(0, ...places.slice(0, who).map((other) => boxOverlap(other, places[who]!)))
      for (let other = 0; other < who; other++)
        if (boxOverlap(places[other]!, places[who]!) > 0) met.add(`${other} ${who}`)
      // a third of the union is half of the box
      if (covered > 1 / 3) {
        if (!hidden.has(who)) tally.occlusions++
        hidden.add(who)
        continue
      }
      hidden.delete(who)
      tally.places++
      if (random() < 0.03) continue // overlooked
      const score = covered > 0.1 || random() < 0.1 ? 0.35 : 0.9
      detections.push({ label, score, who, normalized: boxAt([x, y], () => (random() - 0.5) * 0.008) })
    }
    for (const { who, id } of tracker.update(detections, time).tracked) {
      if ((ids.get(who) ?? id) !== id) tally.switches++
      ids.set(who, id)
    }
  }
  tally.crossings += met.size
}

describe('ids', () => {
  it('stay in 98 of 100 sightings and more, over crossings and behind others', { tags: ['slow'] }, () => {
    const random = randomNumbers(29)
    const tally: Tally = { places: 0, switches: 0, crossings: 0, occlusions: 0 }
    for (let clip = 0; clip < clips; clip++) follow(random, tally)
    expect(tally.crossings).toBeGreaterThan(3 * clips)
    expect(tally.occlusions).toBeGreaterThan(2 * clips)
    expect(tally.switches / tally.places).toBeLessThan(0.02)
  })
})
