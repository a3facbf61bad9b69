/** Masks blended into a picture; all pixel work is sharp's, off the event loop. */
import type Sharp from 'sharp'
import { PaliGemmaError } from '../../base/errors'
import type { DecodedImage } from '../../images/image-input'
import type { Mask } from '../masks/mask'

/** Throws ERR_INVALID_OPTION. */
export function checkMaskSize(mask: Mask, { width, height }: { width: number; height: number }): void {
  if (mask.width !== width || mask.height !== height)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected masks of ${width} x ${height} pixels, as the picture, but received ${mask.width} x ${mask.height}`
    )
  if (mask.data.length !== width * height)
    throw new PaliGemmaError('ERR_INVALID_OPTION', 'The buffer of a mask was transferred or shrunk while it was drawn')
}

/** Colours the picture where the mask is set, with its soft edges. */
export async function blendMask(
  sharp: typeof Sharp,
  canvas: DecodedImage,
  mask: Mask,
  colour: string,
  opacity: number
): Promise<DecodedImage> {
  const { width, height } = canvas
  // a copy, whose buffer nobody transfers
  const alpha = await sharp(Buffer.from(mask.data), {
    raw: { width, height, channels: 1 },
    limitInputPixels: false
  })
    .linear(opacity, 0)
    .toColourspace('b-w')
    .raw()
    .toBuffer()
  const overlay = await sharp({ create: { width, height, channels: 3, background: colour }, limitInputPixels: false })
    .joinChannel(alpha, { raw: { width, height, channels: 1 } })
    .raw()
    .toBuffer()
  const data = await sharp(canvas.data, { raw: { width, height, channels: 3 }, limitInputPixels: false })
    .composite([{ input: overlay, raw: { width, height, channels: 4 }, limitInputPixels: false }])
    .removeAlpha()
    .raw()
    .toBuffer()
  return { data, width, height }
}
