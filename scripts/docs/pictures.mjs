// docs/pictures: what the demo model really gives on pictures that it was never trained on, drawn by the package
// itself. Run by `npm run docs`, looked at by people; kernel tables differ in the last digits, so no test compares
// bytes.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Writes the pictures of the task guide into `folder`; `api` is the built package. */
export async function writePictures(api, folder) {
  mkdirSync(folder, { recursive: true })
  const model = await api.loadModel('demo')
  const save = (name, bytes) => writeFileSync(join(folder, name), bytes)
  const draw = async (image, objects, options) =>
    await api.drawDetections(image, objects, { format: 'webp', ...options })
  try {
    const { demoImage } = api
    const labels = ['red circle', 'purple ring', 'black heart', 'blue square']
    const found = await Promise.all(labels.map((label) => model.detect(demoImage, label)))
    save('detect.webp', await draw(demoImage, found.flat(), { scores: true }))
    const [ring] = await model.segment(demoImage, 'purple ring')
    save('segment.webp', await draw(demoImage, [ring]))
    save('mask.webp', await draw(demoImage, [ring], { boxes: false, picture: false }))
    save('cut-out.png', await api.cropBox(demoImage, ring, { cutOut: true, padding: 4 }))
  } finally {
    await model.dispose()
  }
}
