// docs/pictures: what the demo model really gives on pictures that it was never trained on, drawn by the package
// itself. Run by `npm run docs`, looked at by people; kernel tables differ in the last digits, so no test compares
// bytes.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'

/** Writes the pictures of the task guide into `folder`; `api` is the built package. */
export async function writePictures(api, folder) {
  mkdirSync(folder, { recursive: true })
  const model = await api.loadModel('demo')
  const save = (name, bytes) => writeFileSync(join(folder, name), bytes)
  const draw = async (image, objects, options) =>
    await api.drawDetections(image, objects, { format: 'webp', ...options })
  try {
    const { demoImage } = api
    save('shapes.webp', await sharp(demoImage).webp().toBuffer())
    const labels = ['red circle', 'purple ring', 'black heart', 'blue square']
    const found = await Promise.all(labels.map((label) => model.detect(demoImage, label)))
    save('detect.webp', await draw(demoImage, found.flat(), { scores: true }))
    const [ring] = await model.segment(demoImage, 'purple ring')
    save('segment.webp', await draw(demoImage, [ring]))
    save('mask.webp', await draw(demoImage, [ring], { boxes: false, picture: false }))
    save('cut-out.png', await api.cropBox(demoImage, ring, { cutOut: true, padding: 4 }))
    const scenes = await sceneOf([4, 2])
    const named = ['black star', 'blue square', 'orange square', 'red ring', 'purple cross', 'green cross']
    const inTiles = []
    for (const label of named) {
      const options = { tiles: { columns: 4, rows: 2 }, minScore: api.recommendedMinScore(label) }
      inTiles.push(...(await model.detect(scenes, label, options)))
    }
    save('tiles.webp', await draw(scenes, inTiles, { tiles: true, scale: 2, fontSize: 16 }))
    save('tracks.webp', await tracked(api, model, scenes))
  } finally {
    await model.dispose()
  }
}

/** Pictures of the demo model's examination beside each other: everything in them is small. */
async function sceneOf([columns, rows]) {
  const side = 112
  const [width, height] = [columns * side, rows * side]
  const parts = Array.from({ length: columns * rows }, (_, i) => ({
    input: join('test', 'fixtures', 'demo-eval', `${String(i).padStart(3, '0')}.png`),
    left: (i % columns) * side,
    top: Math.floor(i / columns) * side
  }))
  const scene = sharp({ create: { width, height, channels: 3, background: 'grey' } }).composite(parts)
  return { data: await scene.removeAlpha().raw().toBuffer(), width, height, channels: 3 }
}

/** A camera that goes over the scene: four of its pictures, with the ids of what it sees. */
async function tracked(api, model, { data, width, height }) {
  const [label, side, shown] = ['black star', 112, []]
  const tracker = new api.Tracker()
  for (let frame = 0; frame < 16; frame++) {
    const window = { left: 8 * frame, top: 0, width: side, height: side }
    const raw = { width, height, channels: 3 }
    const pixels = await sharp(data, { raw }).extract(window).raw().toBuffer()
    const image = { data: pixels, width: side, height: side, channels: 3 }
    const found = await model.detect(image, label, { minScore: api.recommendedMinScore(label) })
    const objects = tracker
      .update(found, frame / 5)
      .tracked.map(({ id, ...one }) => ({ ...one, label: `#${id} ${label}` }))
    if (frame % 4 === 3) shown.push(await api.drawDetections(image, objects, { scale: 2, lineWidth: 3, fontSize: 16 }))
  }
  const [all] = [shown.length * 2 * side]
  const strip = sharp({ create: { width: all, height: 2 * side, channels: 3, background: 'white' } })
  return await strip
    .composite(shown.map((input, i) => ({ input, left: i * 2 * side, top: 0 })))
    .webp()
    .toBuffer()
}
