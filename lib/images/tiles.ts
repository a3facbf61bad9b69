/** A picture and its tiles as the model sees them, from one decode. */
import { nativeCall } from '../base/errors'
import type { NativeBinding } from '../engine/native'
import { withDecoded } from './decode'
import type { DecodedImage, ImageEmbedding, ImageInput } from './image-input'
import { openImage } from './open'
import type { PreprocessedImage } from './preprocess'
import { pictureDefaults, type PreprocessOptions } from './preprocess-options'
import { openParts, type Parts } from './parts'
import type { Tile } from './tile-plan'

/** What the model sees of a rectangle of the picture; `transform` leads back to that rectangle. */
export type View = Pick<PreprocessedImage, 'data' | 'transform'> & { tile: Tile }

/** Which rectangles of a picture to look at; it is given the whole. */
export type PlanTiles = (picture: Tile) => Tile[]

/** Bytes copied in one go: a millisecond or two of the event loop. */
const copiedAtOnce = 4 * 1024 * 1024

/**
 * The views of `plan`, in its order; of a large TIFF each is read by itself. Rejects as `preprocessImage`, or with what
 * `plan` throws.
 */
export async function preprocessTiles(
  binding: NativeBinding,
  image: Exclude<ImageInput, ImageEmbedding>,
  options: PreprocessOptions,
  plan: PlanTiles
): Promise<View[]> {
  const opened = await openImage(image, options)
  const parts = await openParts(opened, options)
  if (parts) return await viewsOf(binding, parts, options, plan)
  return await withDecoded(opened, options, async (picture) => {
    const { width, height } = picture
    const read = async (tile: Tile): Promise<DecodedImage> => ({ ...tile, data: await cut(picture, tile) })
    return await viewsOf(binding, { width, height, read }, options, plan)
  })
}

async function viewsOf(
  binding: NativeBinding,
  { width, height, read }: Parts,
  options: PreprocessOptions,
  plan: PlanTiles
): Promise<View[]> {
  const { size, resize = pictureDefaults.resize, fit = pictureDefaults.fit, signal } = options
  const views: View[] = []
  for (const tile of plan({ x: 0, y: 0, width, height })) {
    signal?.throwIfAborted()
    const pixels = await read(tile, size)
    const { data, transform } = await nativeCall(() =>
      binding.resize(pixels.data, pixels.width, pixels.height, size, resize, fit)
    )
    // pixels of the picture, of which it may have been read with fewer
    const [scaleX, scaleY] = [
      (transform.scaleX * pixels.width) / tile.width,
      (transform.scaleY * pixels.height) / tile.height
    ]
    const { width: sourceWidth, height: sourceHeight } = tile
    views.push({ data, tile, transform: { ...transform, scaleX, scaleY, size, sourceWidth, sourceHeight } })
  }
  return views
}

/** A rectangle's own pixels. */
async function cut({ data, width, height }: DecodedImage, tile: Tile): Promise<Buffer> {
  if (tile.width === width && tile.height === height) return data
  const row = tile.width * 3
  const pixels = Buffer.allocUnsafe(row * tile.height)
  for (let y = 0, copied = 0; y < tile.height; y++, copied += row) {
    const from = ((tile.y + y) * width + tile.x) * 3
    data.copy(pixels, y * row, from, from + row)
    if (copied < copiedAtOnce) continue
    copied = 0
    await new Promise(setImmediate)
  }
  return pixels
}
