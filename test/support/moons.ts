/** Pictures of what the demo model has never seen: moons beside shapes that it knows. */
import type { FitExample } from '../../lib/index'
import { encodeLocation } from '../../lib/index'

export interface Moon {
  image: { data: Uint8Array; width: number; height: number; channels: 3 }
  color: string
  /** y0, x0, y1, x1 in 0..1. */
  box: [number, number, number, number]
}

const side = 112
const fine = 3 // samples a pixel has in either direction
const colors: Record<string, [number, number, number]> = {
  red: [214, 40, 40],
  green: [44, 140, 60],
  blue: [40, 80, 210],
  yellow: [240, 205, 40],
  purple: [130, 50, 170],
  orange: [240, 130, 30]
}

function generator(seed: number): () => number {
  let state = seed * 2654435761 + 1
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}

type Inside = (x: number, y: number) => boolean

/** A crescent of this radius, turned by an angle. */
function crescent(cx: number, cy: number, r: number, angle: number): Inside {
  const [dx, dy] = [cx + Math.cos(angle) * r * 0.5, cy + Math.sin(angle) * r * 0.5]
  return (x, y) => Math.hypot(x - cx, y - cy) < r && Math.hypot(x - dx, y - dy) > r * 0.85
}

function known(kind: number, cx: number, cy: number, r: number): Inside {
  if (kind === 0) return (x, y) => Math.hypot(x - cx, y - cy) < r
  if (kind === 1) return (x, y) => Math.max(Math.abs(x - cx), Math.abs(y - cy)) < r * 0.85
  return (x, y) => y < cy + r * 0.7 && y > cy - r && Math.abs(x - cx) < ((y - cy + r) / 1.7) * 0.95
}

/** A moon and one shape of another colour on a light ground. */
export function drawMoon(seed: number): Moon {
  const random = generator(seed)
  for (let i = 0; i < 8; i++) random()
  const names = Object.keys(colors)
  const color = names[Math.floor(random() * names.length)]!
  const other = names[(names.indexOf(color) + 1 + Math.floor(random() * (names.length - 1))) % names.length]!
  const r = 0.13 + random() * 0.1
  const left = random() < 0.5
  const cx = (left ? 0.27 : 0.73) + (random() - 0.5) * 0.06
  const cy = 0.25 + random() * 0.5
  const moon = crescent(cx, cy, r, random() * 2 * Math.PI)
  const shape = known(
    Math.floor(random() * 3),
    (left ? 0.73 : 0.27) + (random() - 0.5) * 0.06,
    0.25 + random() * 0.5,
    r
  )
  const ground = [0, 1, 2].map(() => 200 + random() * 50)
  const data = new Uint8Array(side * side * 3)
  const box: Moon['box'] = [1, 1, 0, 0]
  for (let py = 0; py < side; py++)
    for (let px = 0; px < side; px++) {
      const sum = [0, 0, 0]
      for (let i = 0; i < fine * fine; i++) {
        const x = (px + ((i % fine) + 0.5) / fine) / side
        const y = (py + (Math.floor(i / fine) + 0.5) / fine) / side
        const paint = moon(x, y) ? colors[color]! : shape(x, y) ? colors[other]! : ground
        for (let c = 0; c < 3; c++) sum[c]! += paint[c]! / (fine * fine)
        if (!moon(x, y)) continue
        box[0] = Math.min(box[0], y)
        box[1] = Math.min(box[1], x)
        box[2] = Math.max(box[2], y)
        box[3] = Math.max(box[3], x)
      }
      data.set(sum.map(Math.round), (py * side + px) * 3)
    }
  return { image: { data, width: side, height: side, channels: 3 }, color, box }
}

/** What there is to learn about a picture. */
export function lessons({ image, color, box }: Moon): FitExample[] {
  const place = box.map((value) => encodeLocation(value)).join('')
  return [
    { image, prompt: 'detect moon', response: `${place} moon` },
    { image, prompt: `answer en what shape is ${color}?`, response: 'moon' },
    { image, prompt: 'answer en what color is the moon?', response: color }
  ]
}

/** Intersection over union of two boxes, y0, x0, y1, x1. */
export function overlap(a: readonly number[], b: readonly number[]): number {
  const height = Math.max(0, Math.min(a[2]!, b[2]!) - Math.max(a[0]!, b[0]!))
  const width = Math.max(0, Math.min(a[3]!, b[3]!) - Math.max(a[1]!, b[1]!))
  const area = (box: readonly number[]): number => (box[2]! - box[0]!) * (box[3]! - box[1]!)
  return (height * width) / (area(a) + area(b) - height * width)
}
