// docs/pictures: what the demo model really gives on pictures that it was never trained on, drawn by the package
// itself. Run by `npm run docs`, looked at by people; kernel tables differ in the last digits, so no test compares
// bytes.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Writes the pictures of the task guide into `folder`; `api` is the built package. */
export async function writePictures(api, folder, scene) {
  mkdirSync(folder, { recursive: true })
  const model = await api.loadModel('demo')
  const save = (name, bytes) => writeFileSync(join(folder, name), bytes)
  const draw = async (image, objects, options) =>
    await api.drawDetections(image, objects, { format: 'webp', ...options })
  try {
    const { demoImage } = api
    const labels = ['purple ring', 'blue ring', 'black heart']
    save(
      'detect.webp',
      await draw(demoImage, await model.detect(demoImage, labels, { minScore: 0.3 }), { scores: true })
    )
    const [ring] = await model.segment(demoImage, 'blue ring')
    save('segment.webp', await draw(demoImage, [ring]))
    save('mask.webp', await draw(demoImage, [ring], { boxes: false, picture: false }))
    save('cut-out.png', await api.cropBox(demoImage, ring, { cutOut: true, padding: 4 }))
    // One of the two is not there: without a threshold it gets a box all the same.
    const wanted = ['purple star', 'blue heart']
    const found = await model.detect(scene, wanted)
    save('threshold-0.webp', await draw(scene, found, { scores: true, scale: 2 }))
    const kept = found.filter(({ score }) => score >= 0.6)
    save('threshold.webp', await draw(scene, kept, { scores: true, scale: 2 }))
  } finally {
    await model.dispose()
  }
}
