/** Pictures among options: what they may be, and relative paths as they were meant when the call was made. */
import { isAbsolute } from 'node:path'
import { absolute } from '../base/paths'
import { longestName, take, takeList, type Rule } from '../base/validate'
import { isBase64Picture } from './texts'
import { PaliGemmaError } from '../base/errors'
import { checkImage, type ImageEmbedding, type ImageInput, isEmbedding } from './image-input'

/** The picture with a relative path made absolute: later changes of the working folder do not matter. */
export function pictureAtCall(image: unknown, folder: string): unknown {
  if (typeof image !== 'string' || image === '' || image.length > longestName || isAbsolute(image)) return image
  if (/^[a-z][a-z0-9+.-]+:/i.test(image) || isBase64Picture(image)) return image
  return absolute(folder, image)
}

function accepts(image: unknown, name: string): true {
  checkImage(image, name) // has the better words
  return true
}

export const imageRule: Rule = {
  expected: 'a picture',
  take: pictureAtCall,
  accepts: (image) => accepts(image, 'image'),
  longest: Infinity // base64: how much a picture may have is said where it is read
}

// Far more than any context holds.
const mostImages = 4096

export const imagesRule: Rule = {
  expected: `array of at most ${mostImages} images`,
  take: (images, folder) => {
    const list = takeList(images, mostImages, Infinity)
    return Array.isArray(list) ? list.map((image) => pictureAtCall(image, folder)) : list
  },
  accepts: (images) => Array.isArray(images) && images.every((image, i) => accepts(image, `images[${i}]`))
}

/** The picture that a call is given as an argument. Throws ERR_INVALID_OPTION. */
export function takeImage(image: unknown, folder = ''): ImageInput {
  return take('image', image, imageRule, folder) as ImageInput
}

/** The same where pixels are needed. Throws ERR_INVALID_OPTION. */
export function takePicture(image: unknown): Exclude<ImageInput, ImageEmbedding> {
  const picture = takeImage(image)
  if (!isEmbedding(picture)) return picture
  throw new PaliGemmaError(
    'ERR_INVALID_OPTION',
    'Expected a picture for image but received an ImageEmbedding, which has no pixels'
  )
}
