/** A picture and its tiles as the model sees them, from one decode. */
import { nativeCall } from '../base/errors'
import type { NativeBinding } from '../engine/native'
import { withDecoded } from './decode'
import type { DecodedImage, ImageEmbedding, ImageInput } from './image-input'
import { openImage } from './open'
import type { PreprocessedImage } from './preprocess'
import { pictureDefaults, type PreprocessOptions } from './preprocess-options'
import { largeSize, reducedSize, withReduced } from './reduced'
import type { Tile } from './tile-plan'

/** What the model sees of a rectangle of the picture; `transform` leads back to that rectangle. */
export type View = Pick<PreprocessedImage, 'data' | 'transform'> & { tile: Tile }

/** Which rectangles of a picture to look at; it is given the whole. */
export type PlanTiles = (picture: Tile) => Tile[]

/** Bytes copied in one go: a millisecond or two of the event loop. */
const copiedAtOnce = 4 * 1024 * 1024

/**
 * The views of `plan`, in its order; a very large picture is read with no more pixels than they need. Rejects as
 * `preprocessImage`, or with what `plan` throws.
 */
export async function preprocessTiles(
  binding: NativeBinding,
  image: Exclude<ImageInput, ImageEmbedding>,
  options: PreprocessOptions,
  plan: PlanTiles
): Promise<View[]> {
  const opened = await openImage(image, options)
  const large = await largeSize(opened, options)
  const planned = ({ width, height }: Size): Tile[] => plan({ x: 0, y: 0, width, height })
  if (!large) {
    return await withDecoded(
      opened,
      options,
      async (picture) => await viewsOf(binding, picture, { of: picture, tiles: planned(picture) }, options)
    )
  }
  const tiles = planned(large)
  const to = reducedSize(large, tiles, options)
  return await withReduced(
    opened,
    { picture: large, to },
    options,
    async (picture) => await viewsOf(binding, picture, { of: large, tiles }, options)
  )
}

type Size = Pick<Tile, 'width' | 'height'>

/** `picture` may have fewer pixels than the one that the tiles are cut of. */
export async function viewsOf(
  binding: NativeBinding,
  picture: DecodedImage,
  { of, tiles }: { of: Size; tiles: Tile[] },
  { size, resize = pictureDefaults.resize, fit = pictureDefaults.fit, signal }: PreprocessOptions
): Promise<View[]> {
  const [zoomX, zoomY] = [picture.width / of.width, picture.height / of.height]
  const views: View[] = []
  for (const tile of tiles) {
    signal?.throwIfAborted()
    // whole pixels that hold the tile: up to one more on each side
    const part = outward(tile, zoomX, zoomY)
    const pixels = await cut(picture, part)
    const { data, transform } = await nativeCall(() =>
      binding.resize(pixels, part.width, part.height, size, resize, fit)
    )
    const { width: sourceWidth, height: sourceHeight } = tile
    views.push({
      data,
      tile,
      transform: {
        scaleX: transform.scaleX * zoomX,
        scaleY: transform.scaleY * zoomY,
        offsetX: transform.offsetX + (tile.x * zoomX - part.x) * transform.scaleX,
        offsetY: transform.offsetY + (tile.y * zoomY - part.y) * transform.scaleY,
        ...{ size, sourceWidth, sourceHeight }
      }
    })
  }
  return views
}

function outward({ x, y, width, height }: Tile, zoomX: number, zoomY: number): Tile {
  const span = (start: number, length: number, zoom: number): [number, number] => {
    const from = Math.floor(start * zoom)
    // a rounding error is no further pixel
    return [from, Math.max(Math.ceil((start + length) * zoom - 1e-6) - from, 1)]
  }
  const [[left, across], [top, down]] = [span(x, width, zoomX), span(y, height, zoomY)]
  return { x: left, y: top, width: across, height: down }
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
