/** What a mask is. */
import { PaliGemmaError } from '../../base/errors'
import { isUint8Array } from '../../base/realms'
import { check, readFields, rule } from '../../base/validate'

/** One byte per pixel, row-major, 0..255; over 127 is inside. */
export interface Mask {
  /** In pixels. */
  width: number
  /** In pixels. */
  height: number
  /** [height, width] */
  data: Uint8Array
}

/** Throws ERR_IMAGE_TOO_LARGE: a few bytes of runs may claim any size. */
export function checkPixels(width: number, height: number, maxPixels: number): void {
  if (width * height <= maxPixels) return
  throw new PaliGemmaError(
    'ERR_IMAGE_TOO_LARGE',
    `A mask of ${width} x ${height} pixels is larger than the limit of ${maxPixels}; raise maxImagePixels`
  )
}

/** A mask among the arguments, its parts read once. Throws ERR_INVALID_OPTION. */
export function takeMask(name: string, given: unknown): Mask {
  const fields = readFields(name, given, ['width', 'height', 'data'], 'a mask ({ width, height, data })')
  const { width, height, data } = fields as unknown as Mask
  check(`${name}.width`, width, rule.integer(0, 2 ** 30))
  check(`${name}.height`, height, rule.integer(0, 2 ** 30))
  check(`${name}.data`, data, {
    expected: 'Uint8Array of width x height values',
    accepts: () => isUint8Array(data) && data.length === width * height
  })
  return { width, height, data }
}

/** The least byte of a pixel inside. */
export const insideFrom = 128
