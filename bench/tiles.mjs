// What tiles gain: scenes of small shapes, whose truth is known, seen whole, padded and in tiles by the demo model.
//   node bench/tiles.mjs --ratio 4    eight tiles against eight calls: processor time, in turns
//   node bench/tiles.mjs [--scenes 20] [--kind small|panorama|border|empty|large] [--seed 1] [--out DIR]
//
// Each label of a scene is asked for by itself, with the recommended minimum score. Found: the right label and a box
// IoU above 0.5; duplicates: further boxes of an object already found. One JSON line a kind and way.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import sharp from 'sharp'
import { boxOverlap, drawDetections, loadModel, recommendedMinScore } from '../dist/index.mjs'

const { values: options } = parseArgs({
  options: {
    scenes: { type: 'string', default: '20' },
    kind: { type: 'string', multiple: true, default: ['small', 'panorama', 'border', 'large', 'empty'] },
    seed: { type: 'string', default: '1' },
    tiles: { type: 'string', multiple: true, default: ['auto'] },
    out: { type: 'string' },
    ratio: { type: 'string' }
  }
})

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
function randomOf(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

function svgOf({ shape, color, box }) {
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

const kinds = {
  small: { width: 1600, height: 1200, count: 20, from: 30, to: 90 },
  panorama: { width: 2400, height: 600, count: 12, from: 60, to: 160 },
  border: { width: 1600, height: 1200, count: 12, from: 60, to: 140, onBorders: true },
  large: { width: 1600, height: 1200, count: 4, from: 300, to: 600 },
  empty: { width: 1600, height: 1200, count: 0, from: 0, to: 0 }
}

function scene(kind, random) {
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

const normalized = ({ x, y, width, height }, s) => ({
  yMin: y / s.height,
  xMin: x / s.width,
  yMax: (y + height) / s.height,
  xMax: (x + width) / s.width
})

async function score(model, drawn, call, tally) {
  for (const s of drawn) {
    const open = s.objects.map(({ label, box }) => ({ label, box: normalized(box, s), found: false }))
    const start = performance.now()
    const results = []
    for (const label of s.labels) {
      const found = await model.detect(s.pixels, label, { minScore: recommendedMinScore(label), ...call })
      if (found.tiles) tally.views = found.tiles.length
      results.push(...found.map((one) => ({ ...one, label })))
    }
    tally.ms += performance.now() - start
    tally.objects += open.length
    for (const one of results) {
      tally.boxes++
      const hits = open.filter((object) => object.label === one.label && boxOverlap(object.box, one.normalized) > 0.5)
      const fresh = hits.find((object) => !object.found)
      if (fresh) {
        fresh.found = true
        tally.found++
        tally.iou += boxOverlap(fresh.box, one.normalized)
      } else if (hits.length > 0) tally.duplicates++
    }
    if (call.tiles && options.out)
      await sharp(await drawDetections(s.pixels, results)).toFile(join(options.out, `${s.name}.png`))
  }
}

/** A JPEG of 12 megapixels in eight tiles (and whole), and its eight parts each by a call of its own. */
async function ratio(rounds) {
  const model = await loadModel('demo')
  const { svg, width, height } = scene('small', randomOf(1))
  const [scale, tiles] = [2.5, { columns: 4, rows: 2 }]
  const jpeg = await sharp(Buffer.from(svg))
    .resize(width * scale, height * scale)
    .jpeg()
    .toBuffer()
  const call = { minScore: recommendedMinScore('red square') }
  const inTiles = async () => await model.detect(jpeg, 'red square', { ...call, tiles })
  const parts = (await inTiles()).tiles.slice(1)
  const oneByOne = async () => {
    for (const { x: left, y: top, width, height } of parts)
      await model.detect(sharp(jpeg).extract({ left, top, width, height }), 'red square', call)
  }
  const seconds = async (work) => {
    const before = process.cpuUsage()
    await work()
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1e6
  }
  await oneByOne()
  for (let round = 0; round < rounds; round++) {
    const [tiled, single] = [await seconds(inTiles), await seconds(oneByOne)]
    console.log(JSON.stringify({ tiled, single, ratio: Number((tiled / single).toFixed(2)) }))
  }
  await model.dispose()
}
if (options.ratio) {
  await ratio(Number(options.ratio))
  process.exit()
}

if (options.out) mkdirSync(options.out, { recursive: true })
const parseTiles = (text) => {
  const [, columns, rows] = /^(\d+)x(\d+)$/.exec(text) ?? []
  return columns ? { columns: Number(columns), rows: Number(rows) } : text === 'auto' ? text : { size: Number(text) }
}
const models = { squash: await loadModel('demo'), pad: await loadModel({ model: 'demo', fit: 'pad' }) }
for (const kind of options.kind) {
  const random = randomOf(Number(options.seed) * 1000 + Object.keys(kinds).indexOf(kind))
  const drawn = []
  for (let i = 0; i < Number(options.scenes); i++) {
    const one = scene(kind, random)
    const { data } = await sharp(Buffer.from(one.svg)).removeAlpha().raw().toBuffer({ resolveWithObject: true })
    drawn.push({ ...one, name: `${kind}-${i}`, pixels: { data, width: one.width, height: one.height, channels: 3 } })
  }
  const ways = [
    ['whole', 'squash', {}],
    ['pad', 'pad', {}],
    ...options.tiles.map((text) => [`tiles ${text}`, 'squash', { tiles: parseTiles(text) }])
  ]
  for (const [way, fit, call] of ways) {
    const tally = { objects: 0, boxes: 0, found: 0, duplicates: 0, iou: 0, ms: 0, views: 1 }
    await score(models[fit], drawn, call, tally)
    const share = (part, all) => (all === 0 ? null : Number((part / all).toFixed(3)))
    console.log(
      JSON.stringify({
        kind,
        way,
        views: tally.views,
        recall: share(tally.found, tally.objects),
        precision: share(tally.found, tally.boxes),
        falseBoxes: tally.boxes - tally.found - tally.duplicates,
        duplicates: tally.duplicates,
        meanIou: share(tally.iou, tally.found),
        secondsPerScene: Number((tally.ms / 1000 / drawn.length).toFixed(2))
      })
    )
  }
}
for (const model of Object.values(models)) await model.dispose()
