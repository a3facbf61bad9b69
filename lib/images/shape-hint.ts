/** Advice for pictures that the square which the model sees distorts a lot. */
import type { ImageTransform } from './transform'

/** Longer by more than this, small things lose most of their pixels along the longer side. */
const longestShape = 2

let given = false

/** Warns once in a process, with the code PALIGEMMA_IMAGE_SHAPE. */
export function hintAtShape({ sourceWidth, sourceHeight }: ImageTransform): void {
  const shape = Math.max(sourceWidth / sourceHeight, sourceHeight / sourceWidth)
  if (given || !(shape > longestShape)) return
  given = true
  process.emitWarning(
    `A picture of ${sourceWidth} x ${sourceHeight} is squashed into the square that the model sees. ` +
      "loadModel({ fit: 'pad' }) keeps its shape; detect and segment look closer with tiles: 'auto'; fit: 'squash' " +
      'keeps things as they are without this warning',
    { type: 'PaliGemmaWarning', code: 'PALIGEMMA_IMAGE_SHAPE' }
  )
}
