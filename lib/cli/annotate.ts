/** Annotated pictures of a result. */
import { mkdirSync, statSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { basename, extname, join } from 'node:path'
import type { Drawable, DrawOptions, PaliGemma } from '../index'
import { maskBox } from '../output/parse'
import { pick } from './args'
import { usageError } from './context'

/** Writes the image with boxes, labels and masks. */
export async function draw(
  image: string,
  results: readonly Drawable[],
  path: string,
  options?: DrawOptions
): Promise<void> {
  const { drawDetections } = await import('../index.js')
  const png = await drawDetections(image, results, options)
  try {
    await writeFile(path, png)
  } catch (error) {
    throw usageError(
      `Expected a path that can be written for --annotate but received ${path}: ${(error as Error).message}`
    )
  }
}

/** The file for one image: --annotate's value, or a file in it where there are several images. */
export function annotationPath(target: string, image: string, images: number): string {
  if (images === 1 && !target.endsWith('/') && !isFolder(target)) return target
  if (images > 1 && extname(target) !== '' && !isFolder(target)) {
    throw usageError(`Expected a folder for --annotate with ${images} images but received ${target}`)
  }
  mkdirSync(target, { recursive: true })
  const name = /^(?:https?|data|file):/.test(image) ? 'image' : basename(image, extname(image))
  return join(target, `${name}.png`)
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}

/** The same for generated text: its boxes, and its masks where the model can decode them. */
export async function annotateText(
  model: PaliGemma,
  image: string,
  text: string,
  path: string,
  options: Record<string, unknown>
): Promise<void> {
  const { parseOutput, preprocessImage } = await import('../index.js')
  const { native } = await import('../engine/native.js')
  // The model's own preprocessing knows the picture's size and how locations map back to it.
  const { transform } = await preprocessImage(image, {
    size: model.info.imageSize,
    ...pick(options, ['resize', 'fit'])
  })
  const geometry = {
    width: transform.sourceWidth,
    height: transform.sourceHeight,
    transform,
    ...(pick(options, ['locScale']) as { locScale?: 1023 | 1024 })
  }
  const convention = (options['maskConvention'] as 'training' | 'demo' | undefined) ?? 'training'
  const results = await Promise.all(
    parseOutput(text, geometry)
      .filter((object) => object.valid)
      .map(async (object) => {
        if (!object.codes || !model.info.hasMaskDecoder) return object
        const { width, height } = geometry
        const data = await native().pasteMask(
          await model.decodeMask(object.codes),
          maskBox(object, geometry),
          width,
          height,
          convention
        )
        return { ...object, mask: { width, height, data } }
      })
  )
  await draw(image, results, path)
}
