/** Masks in other people's forms, and results that come back from JSON. */
import type { PlainBytes } from '../../base/plain-memory'
import { reviveArray } from '../../base/compact-json'
import { isRecord } from '../../base/realms'
import { everyItem, readFields, readOptions, rule, type Rule, take, takeList, type Rules } from '../../base/validate'
import { defaultMaxImagePixels } from '../../images/image-input'
import { type Mask, takeMask } from './mask'
import { asMask, reviveMask } from './mask-json'
import { type CompressedRle, decodeRle, encodeRle, runsOf, type UncompressedRle } from './rle'

/** Options of {@link maskToRle}. */
export interface RleOptions {
  /** "compressed" (default): the short text that COCO's files carry; "uncompressed": the lengths themselves. */
  form?: 'compressed' | 'uncompressed' | undefined
}

const rleRules: Rules<RleOptions> = { form: rule.oneOf('compressed', 'uncompressed') }

/**
 * A mask (over 127 is inside) as COCO's run lengths, exactly as pycocotools writes them: `mask.encode`'s text, or the
 * lengths of the runs, column by column, the first outside.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function maskToRle(mask: Mask, options: RleOptions & { form: 'uncompressed' }): UncompressedRle
/** As the short text that COCO's files carry. @throws PaliGemmaError ERR_INVALID_OPTION */
export function maskToRle(mask: Mask, options?: RleOptions & { form?: 'compressed' | undefined }): CompressedRle
/** With a `form` that is known only when it runs. @throws PaliGemmaError ERR_INVALID_OPTION */
export function maskToRle(mask: Mask, options?: RleOptions): CompressedRle | UncompressedRle
export function maskToRle(mask: Mask, options: RleOptions = {}): CompressedRle | UncompressedRle {
  const { form = 'compressed' } = readOptions<RleOptions>('maskToRle', options, rleRules)
  const taken = takeMask('mask', mask)
  const size: [number, number] = [taken.height, taken.width]
  return form === 'compressed' ? { size, counts: encodeRle(taken) } : { size, counts: runsOf(taken) }
}

const mostRuns = 1 << 26
const side = rule.integer(0, 2 ** 30)
const sizeRule: Rule = {
  expected: '[height, width]',
  take: (v) => takeList(v, 2),
  accepts: (v) => Array.isArray(v) && v.length === 2 && everyItem(v, side.accepts)
}
const countsRule: Rule = {
  expected: 'text or array of lengths',
  take: (v) => (typeof v === 'string' ? v : takeList(v, mostRuns)),
  accepts: (v) => typeof v === 'string' || Array.isArray(v),
  longest: mostRuns
}

/**
 * The mask (0 or 255) of COCO's run lengths, compressed or not. `maxImagePixels` limits what a few characters may
 * become; default 200 million.
 * @throws PaliGemmaError ERR_INVALID_OPTION for runs that are not of the size, ERR_IMAGE_TOO_LARGE
 */
export function rleToMask(
  rle: { size: readonly [height: number, width: number]; counts: string | readonly number[] },
  options: { maxImagePixels?: number | undefined } = {}
): Mask & { data: PlainBytes } {
  const { maxImagePixels = defaultMaxImagePixels } = readOptions<{ maxImagePixels?: number | undefined }>(
    'rleToMask',
    options,
    { maxImagePixels: rule.integer(1) }
  )
  const fields = readFields('rle', rle, ['size', 'counts'], 'run lengths ({ size: [height, width], counts })')
  const size = take('rle.size', fields['size'], sizeRule) as [number, number]
  const counts = take('rle.counts', fields['counts'], countsRule) as string | number[]
  return asMask(decodeRle('rle.counts', size, counts, maxImagePixels))
}

/**
 * For `JSON.parse(text, reviveResults)`: masks and vectors of results, which `JSON.stringify` writes compactly (runs,
 * base64), become what they were. Everything else stays.
 * @throws PaliGemmaError ERR_INVALID_OPTION for masks and vectors that were cut or changed, ERR_IMAGE_TOO_LARGE over
 * 200 million pixels
 */
export function reviveResults(_key: string, value: unknown): unknown {
  if (!isPlain(value)) return value
  return reviveArray(value) ?? reviveMask(value, defaultMaxImagePixels) ?? value
}

/** As JSON makes objects; what cannot be read is none. */
function isPlain(value: unknown): value is object {
  try {
    return isRecord(value) && Object.keys(value).length > 0
  } catch {
    return false
  }
}
