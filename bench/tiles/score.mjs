// What was found in a scene against what was drawn.
import sharp from 'sharp'
import { boxOverlap } from '../../dist/index.mjs'
import { svgOf } from './scenes.mjs'

export const emptyTally = () => ({
  objects: 0,
  boxes: 0,
  found: 0,
  duplicates: 0,
  iou: 0,
  maskIou: 0,
  seconds: 0,
  views: 1
})

const normalized = ({ x, y, width, height }, scene) => ({
  yMin: y / scene.height,
  xMin: x / scene.width,
  yMax: (y + height) / scene.height,
  xMax: (x + width) / scene.width
})

/** Adds a scene's results; an object is found once, by the right label and a box IoU above 0.5. */
export async function addScene(tally, scene, results) {
  const open = scene.objects.map((object) => ({ object, box: normalized(object.box, scene), found: false }))
  tally.objects += open.length
  tally.boxes += results.length
  for (const one of results) {
    const hits = open.filter(({ object, box }) => object.label === one.label && boxOverlap(box, one.normalized) > 0.5)
    const fresh = hits.find(({ found }) => !found)
    if (fresh) {
      fresh.found = true
      tally.found++
      tally.iou += boxOverlap(fresh.box, one.normalized)
      if (one.mask) tally.maskIou += await maskOverlap(fresh.object, scene, one.mask)
    } else if (hits.length > 0) tally.duplicates++
  }
}

/** Of all the picture's pixels. */
async function maskOverlap(object, { width, height }, mask) {
  const left = Math.floor(object.box.x)
  const top = Math.floor(object.box.y)
  const across = Math.min(Math.ceil(object.box.x + object.box.width), width) - left
  const down = Math.min(Math.ceil(object.box.y + object.box.height), height) - top
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${across}" height="${down}" ` +
    `viewBox="${left} ${top} ${across} ${down}">${svgOf(object)}</svg>`
  const drawn = await sharp(Buffer.from(svg)).extractChannel('alpha').raw().toBuffer()
  let [both, truth, given] = [0, 0, 0]
  for (let y = 0; y < down; y++) {
    for (let x = 0; x < across; x++) {
      if (drawn[y * across + x] < 128) continue
      truth++
      if (mask.data[(top + y) * width + left + x] > 127) both++
    }
  }
  for (const value of mask.data) if (value > 127) given++
  return both / Math.max(truth + given - both, 1)
}

/** A row of results, with numbers of three places. */
export function rowOf(kind, way, scenes, tally) {
  const share = (part, all) => (all === 0 ? null : Number((part / all).toFixed(3)))
  return {
    kind,
    way,
    scenes,
    views: tally.views,
    objects: tally.objects,
    recall: share(tally.found, tally.objects),
    precision: share(tally.found, tally.boxes),
    falseBoxes: tally.boxes - tally.found - tally.duplicates,
    duplicates: tally.duplicates,
    boxIou: share(tally.iou, tally.found),
    ...(tally.maskIou > 0 && { maskIou: share(tally.maskIou, tally.found) }),
    secondsPerScene: Number((tally.seconds / scenes).toFixed(2))
  }
}

export function markdownOf(rows) {
  const columns = Object.keys(Object.assign({}, ...rows))
  const line = (cells) => `| ${cells.join(' | ')} |`
  return [
    line(columns),
    line(columns.map(() => '---')),
    ...rows.map((row) => line(columns.map((c) => row[c] ?? '')))
  ].join('\n')
}
