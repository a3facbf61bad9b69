/** Where a picture lies in what the model sees. */
/** Maps boxes back from the model's square input: original x = (x - offsetX) / scaleX. */
export interface ImageTransform {
  /** Resized pixels per original pixel. */
  scaleX: number
  scaleY: number
  /** In resized pixels; not 0 only with `fit: 'pad'`. */
  offsetX: number
  offsetY: number
  /** Of the square, in pixels. */
  size: number
  /** Of the original picture, in pixels. */
  sourceWidth: number
  sourceHeight: number
}
