/** From any picture to the RGB bytes the model sees. */
import type { PlainBytes } from '../base/plain-memory'
import { withDecoded } from './decode'
import { hasBytes, isBytes, type DecodedImage, type ImageEmbedding, type ImageInput } from './image-input'
import { takePicture } from './image-rule'
import { openImage } from './open'
import { nativeCall } from '../base/errors'
import { native, type NativeBinding } from '../engine/native'
import { pictureDefaults, preprocessRules, type PreprocessOptions } from './preprocess-options'
import type { RecentPictures } from './recent'
import type { ImageTransform } from './transform'
import { publicCall } from '../base/call'

/** What {@link preprocessImage} gives. */
export interface PreprocessedImage {
  /** = `size`, in pixels. */
  width: number
  /** = `size`, in pixels. */
  height: number
  /** RGB8, row-major, channels last: [height, width, 3]. */
  data: PlainBytes
  /** The map back to the original pixels. */
  transform: ImageTransform
}

/** {@link preprocessImage} with the options already checked; what `recent` knows is not decoded again. */
export async function preprocess(
  binding: NativeBinding,
  image: Exclude<ImageInput, ImageEmbedding>,
  options: PreprocessOptions,
  recent?: RecentPictures<PreprocessedImage>
): Promise<PreprocessedImage> {
  const { size } = options
  const opened = await openImage(image, options) // downloads wait for nobody
  const resized = async ({ data, width, height }: DecodedImage): Promise<PreprocessedImage> => {
    const { resize = pictureDefaults.resize, fit = pictureDefaults.fit } = options
    const result = await nativeCall(() => binding.resize(data, width, height, size, resize, fit))
    return {
      width: size,
      height: size,
      data: result.data,
      transform: { ...result.transform, size, sourceWidth: width, sourceHeight: height }
    }
  }
  if (!recent) return await withDecoded(opened, options, resized)
  const look = recent.looking(isBytes(image) || hasBytes(image))
  const picture = await withDecoded(opened, options, resized, look.for)
  look.keep(picture)
  return picture
}

/**
 * The RGB bytes that a model with images of `size` pixels would see; its values are these bytes / 127.5 - 1. Resizing
 * is bit-equal to Pillow, which the reference processor (Hugging Face SiglipImageProcessor) uses.
 *
 * @param options `resize` defaults to "bicubic", `fit` to "squash", `maxImagePixels` to 200 million
 * @throws PaliGemmaError ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_INVALID_OPTION, ERR_NATIVE_MISSING,
 * ERR_DEPENDENCY_MISSING; an abort rejects at once with the signal's reason
 */
export async function preprocessImage(image: ImageInput, options: PreprocessOptions): Promise<PreprocessedImage> {
  return await publicCall<PreprocessOptions, PreprocessedImage>(
    'preprocessImage',
    options,
    preprocessRules,
    ['size'],
    async (options) => await preprocess(native(), takePicture(image), options)
  )
}
