/** Annotated pictures of a result. */
import { basename, extname, join, resolve } from 'node:path'
import { checkOutput, makeFolder, type OutputOptions, writeOutput } from '../../base/output-file'
import { isFolder } from '../../base/paths'
import type { Drawable, DrawOptions, ImageInput, PaliGemma } from '../../index'
import { usageError } from '../context'

/** Writes the image with boxes, labels and masks. */
export async function draw(
  image: ImageInput,
  results: readonly Drawable[],
  path: string,
  { option = '--annotate', sources = [], ...options }: DrawOptions & OutputOptions = {}
): Promise<void> {
  const { drawDetections } = await import('../../index.js')
  const png = await drawDetections(image, results, options)
  await writeOutput(path, png, { option, sources })
}

/** Refuses the name of another kind of picture. */
export function checkPng(path: string): void {
  if (/\.(?:jpe?g|gif|webp|avif|tiff?|bmp|svg|pdf)$/i.test(path))
    throw usageError(`Expected a name that ends in .png for --annotate, which writes PNG, but received ${path}`)
}

/** Where --annotate puts the drawings of several images, without one of them meeting another or a source. */
export class Annotations {
  readonly #paths: ReadonlyMap<string, string>
  readonly #folder: string | undefined

  constructor(
    target: string,
    private readonly images: readonly string[],
    private readonly look: DrawOptions = {}
  ) {
    const isFile = images.length === 1 && !/[/\\]$/.test(target) && !isFolder(target)
    if (isFile) checkPng(target)
    if (images.length > 1 && extname(target) !== '' && !isFolder(target))
      throw usageError(`Expected a folder for --annotate with ${images.length} images but received ${target}`)
    this.#folder = isFile ? undefined : target
    this.#paths = isFile ? new Map([[images[0]!, target]]) : uniquePaths(target, images)
  }

  /** Before the model is loaded: the places can be written, and are none of these files. */
  async check(others: readonly string[]): Promise<void> {
    if (this.#folder !== undefined) await makeFolder(this.#folder, '--annotate')
    // The first stands for all of a folder.
    await checkOutput(this.pathOf(this.images[0]!), { option: '--annotate', sources: [...this.images, ...others] })
  }

  pathOf(image: string): string {
    return this.#paths.get(image)!
  }

  async draw(image: string, picture: ImageInput, results: readonly Drawable[]): Promise<void> {
    await draw(picture, results, this.pathOf(image), { ...this.look, sources: this.images })
  }
}

/** FOLDER/NAME.png; of several images of one name the later ones get numbers. */
function uniquePaths(folder: string, images: readonly string[]): Map<string, string> {
  const taken = new Set(images.map((image) => resolve(image).toLowerCase()))
  const paths = new Map<string, string>()
  for (const image of images) {
    const isPath = image !== '-' && !/^(?:https?|data|file):/i.test(image)
    const name = isPath ? basename(image, extname(image)) : 'image'
    let path = join(folder, `${name}.png`)
    for (let n = 2; taken.has(resolve(path).toLowerCase()); n++) path = join(folder, `${name}-${n}.png`)
    taken.add(resolve(path).toLowerCase())
    paths.set(image, path)
  }
  return paths
}

/** The same for generated text: its boxes, and its masks where the model can decode them. */
export async function annotateText(model: PaliGemma, image: ImageInput, text: string, path: string): Promise<void> {
  const objects = await model.parse(text, image)
  const drawables = objects.filter(({ valid }) => valid)
  await draw(image, drawables, path, { sources: typeof image === 'string' ? [image] : [] })
}
