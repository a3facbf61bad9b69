// Scenes of drawn shapes whose truth is known, the same everywhere.
const colors = {
  red: [214, 38, 42],
  green: [38, 158, 62],
  blue: [42, 82, 214],
  yellow: [242, 216, 40],
  purple: [136, 50, 172],
  orange: [244, 132, 28],
  black: [26, 26, 30]
}
const around = (n, start, radius) =>
  Array.from({ length: n }, (_, i) => {
    const angle = start + (2 * Math.PI * i) / n
    const r = typeof radius === 'function' ? radius(i) : radius
    return [0.5 + r * Math.cos(angle), 0.5 + r * Math.sin(angle)]
  })
const polygons = {
  square: [
    [0, 0],
    [1, 0],
    [1, 1],
    [0, 1]
  ],
  triangle: [
    [0.5, 0],
    [1, 1],
    [0, 1]
  ],
  star: around(10, -Math.PI / 2, (i) => (i % 2 ? 0.22 : 0.5)),
  cross: [
    [0.34, 0],
    [0.66, 0],
    [0.66, 0.34],
    [1, 0.34],
    [1, 0.66],
    [0.66, 0.66],
    [0.66, 1],
    [0.34, 1],
    [0.34, 0.66],
    [0, 0.66],
    [0, 0.34],
    [0.34, 0.34]
  ]
}
const heart = Array.from({ length: 48 }, (_, i) => {
  const t = (2 * Math.PI * i) / 48
  const y = 13 * Math.cos(t) - 5 * Math.cos(2 * t) - 2 * Math.cos(3 * t) - Math.cos(4 * t)
  return [0.5 + Math.sin(t) ** 3 / 2, (11.9 - y) / 28.9]
})
polygons.heart = heart

/** mulberry32: scenes are the same everywhere. */
export function randomOf(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

export function svgOf({ shape, color, box }) {
  const { x, y, width, height } = box
  const fill = `rgb(${colors[color].join(',')})`
  const center = `cx="${x + width / 2}" cy="${y + height / 2}"`
  if (shape === 'circle') return `<ellipse ${center} rx="${width / 2}" ry="${height / 2}" fill="${fill}"/>`
  if (shape === 'ring') {
    const stroke = 0.22 * width
    const [rx, ry] = [(width - stroke) / 2, (height - stroke) / 2]
    return `<ellipse ${center} rx="${rx}" ry="${ry}" fill="none" stroke="${fill}" stroke-width="${stroke}"/>`
  }
  const points = polygons[shape]
  const xs = points.map(([px]) => px)
  const ys = points.map(([, py]) => py)
  const [left, top] = [Math.min(...xs), Math.min(...ys)]
  const at = ([px, py]) =>
    `${x + ((px - left) / (Math.max(...xs) - left)) * width},${y + ((py - top) / (Math.max(...ys) - top)) * height}`
  return `<polygon points="${points.map(at).join(' ')}" fill="${fill}"/>`
}

export const kinds = {
  small: { width: 1600, height: 1200, count: 20, from: 30, to: 90 },
  panorama: { width: 2400, height: 600, count: 12, from: 60, to: 160 },
  border: { width: 1600, height: 1200, count: 12, from: 60, to: 140, onBorders: true },
  large: { width: 1600, height: 1200, count: 4, from: 300, to: 600 },
  empty: { width: 1600, height: 1200, count: 0, from: 0, to: 0 }
}

export function scene(kind, random) {
  const { width, height, count, from, to, onBorders } = kinds[kind]
  const pick = (list) => list[Math.floor(random() * list.length)]
  const labels = Array.from({ length: 4 }, () => [
    pick(Object.keys(colors)),
    pick([...Object.keys(polygons), 'circle', 'ring'])
  ])
  const objects = []
  for (let tries = 0; objects.length < count && tries < 5000; tries++) {
    const size = from + random() * (to - from)
    const [color, shape] = pick(labels)
    const w = size * (0.85 + 0.15 * random())
    const box = { x: random() * (width - w - 4) + 2, y: random() * (height - size - 4) + 2, width: w, height: size }
    // auto's tiles of such a picture meet at sixths and quarters
    if (onBorders && random() < 0.5) box.x = ((1 + Math.floor(random() * 5)) * width) / 6 - w / 2
    else if (onBorders) box.y = ((1 + Math.floor(random() * 3)) * height) / 4 - size / 2
    const clear = ({ box: other }) =>
      box.x > other.x + other.width + 6 ||
      other.x > box.x + w + 6 ||
      box.y > other.y + other.height + 6 ||
      other.y > box.y + size + 6
    if (objects.every(clear)) objects.push({ color, shape, label: `${color} ${shape}`, box })
  }
  const base = [0, 1, 2].map(() => Math.round(170 + random() * 60))
  const other = base.map((v) => Math.min(v + 18, 250))
  const stripes = random() < 0.5
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
    `<rect width="100%" height="100%" fill="rgb(${base})"/>` +
    (stripes
      ? Array.from(
          { length: Math.ceil(width / 80) },
          (_, i) => `<rect x="${i * 80}" width="40" height="${height}" fill="rgb(${other})"/>`
        ).join('')
      : '') +
    `${objects.map(svgOf).join('')}</svg>`
  const asked = count === 0 ? labels.slice(0, 2) : labels
  return { svg, objects, labels: [...new Set(asked.map(([color, shape]) => `${color} ${shape}`))], width, height }
}
