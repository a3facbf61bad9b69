// docs/pictures: what the demo model really gives on pictures that it was never trained on, drawn by the package
// itself. Run by `npm run docs`, looked at by people; machines differ in the last digits, so no test compares bytes.
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
    for (const number of [10, 24])
      await sharp(scene(number))
        .webp({ lossless: true })
        .toFile(join(folder, `scene-${number}.webp`))
    save('numbers.webp', await toWebp(await sceneOf([4, 1], [14, 4, 28, 5])))
    await crowded(api, model, save)
    const scenes = await sceneOf([4, 2])
    const named = ['black star', 'blue square', 'orange square', 'red ring', 'purple cross', 'green cross']
    const inTiles = []
    for (const label of named) {
      const options = { tiles: { columns: 4, rows: 2 }, minScore: api.recommendedMinScore(label) }
      inTiles.push(...(await model.detect(scenes, label, options)))
    }
    save('tiles.webp', await draw(scenes, inTiles, { tiles: true, scale: 2, fontSize: 16 }))
    save('tracks.webp', await tracked(api, model, scenes))
    save('clip.webp', await clipOf(scenes))
    save('frames.webp', await framesOf(api, join(folder, 'clip.webp')))
  } finally {
    await model.dispose()
  }
}

/** A picture of the demo model's examination. */
const scene = (number) => join('test', 'fixtures', 'demo-eval', `${String(number).padStart(3, '0')}.png`)
const side = 112

/** Several of them beside each other: everything in them is small. */
async function sceneOf([columns, rows], numbers = Array.from({ length: columns * rows }, (_, i) => i)) {
  const [width, height] = [columns * side, rows * side]
  const parts = numbers.map((number, i) => ({
    input: scene(number),
    left: (i % columns) * side,
    top: Math.floor(i / columns) * side
  }))
  const all = sharp({ create: { width, height, channels: 3, background: 'grey' } }).composite(parts)
  return { data: await all.removeAlpha().raw().toBuffer(), width, height, channels: 3 }
}

const toWebp = async ({ data, width, height }) =>
  await sharp(data, { raw: { width, height, channels: 3 } })
    .webp({ lossless: true })
    .toBuffer()

/** A scene with more in it than one look tells apart: all that is found, what is likely, and what tiles find. */
async function crowded(api, model, save) {
  const pixels = await sceneOf([2, 2], [4, 5, 6, 11])
  save('crowd.webp', await toWebp(pixels))
  const halves = { columns: 2, rows: 2 }
  const looks = { 'all.webp': {}, 'likely.webp': { minScore: 0.3 }, 'closer.webp': { minScore: 0.3, tiles: halves } }
  for (const [name, options] of Object.entries(looks)) {
    const found = await model.detect(pixels, 'star', options)
    const drawing = { scores: true, scale: 2, lineWidth: 3, fontSize: 15, format: 'webp' }
    save(name, await api.drawDetections(pixels, found, drawing))
  }
}

/** The picture of a camera that goes over a scene, at one of its 16 steps. */
const windowOf = async ({ data, width, height }, step) =>
  await sharp(data, { raw: { width, height, channels: 3 } })
    .extract({ left: 8 * step, top: 0, width: side, height: side })
    .raw()
    .toBuffer()

/** ... all of them, five a second, as an animation. */
async function clipOf(scenes) {
  const frames = await Promise.all(Array.from({ length: 16 }, (_, step) => windowOf(scenes, step)))
  const raw = { width: side, height: side * frames.length, channels: 3, pageHeight: side }
  const delay = frames.map(() => 200)
  return await sharp(Buffer.concat(frames), { raw }).webp({ quality: 90, delay, loop: 0 }).toBuffer()
}

/** The frames of the clip that the guide asks about. */
async function framesOf(api, clip) {
  const shown = []
  for await (const { image } of api.videoFrames(clip, { count: 4 })) {
    const raw = { width: side, height: side, channels: 3 }
    shown.push(
      await sharp(image.data, { raw })
        .resize(2 * side, 2 * side, { kernel: 'nearest' })
        .png()
        .toBuffer()
    )
  }
  return await stripOf(shown)
}

const stripOf = async (pictures) =>
  await sharp({ create: { width: pictures.length * 2 * side, height: 2 * side, channels: 3, background: 'white' } })
    .composite(pictures.map((input, i) => ({ input, left: i * 2 * side, top: 0 })))
    .webp()
    .toBuffer()

/** Every fourth picture of that camera, with the ids of what it sees. */
async function tracked(api, model, scenes) {
  const [label, shown] = ['black star', []]
  const tracker = new api.Tracker()
  for (let step = 0; step < 16; step++) {
    const image = { data: await windowOf(scenes, step), width: side, height: side, channels: 3 }
    const found = await model.detect(image, label, { minScore: api.recommendedMinScore(label) })
    const objects = tracker
      .update(found, step / 5)
      .tracked.map(({ id, ...one }) => ({ ...one, label: `#${id} ${label}` }))
    if (step % 4 === 3) shown.push(await api.drawDetections(image, objects, { scale: 2, lineWidth: 3, fontSize: 16 }))
  }
  return await stripOf(shown)
}
