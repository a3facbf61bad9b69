/** How a mask goes through JSON: 2 MB of numbers would be a few hundred characters of runs. */
import { deflateSync, inflateSync } from 'node:zlib'
import type { PlainBytes } from '../../base/plain-memory'
import { PaliGemmaError } from '../../base/errors'
import { check, rule } from '../../base/validate'
import { checkPixels, type Mask } from './mask'
import { decodeRle, encodeRle, type CompressedRle } from './rle'

/**
 * What `JSON.stringify` writes for a mask of a result: COCO's compressed runs (see {@link maskToRle}); where it has
 * soft edges its bytes, compressed (zlib) and in base64.
 */
export type MaskJson = CompressedRle | { size: [height: number, width: number]; deflated: string }

/** A mask of a result: plain, with a `toJSON` that loops, copies and comparisons do not see. */
export function asMask<T extends Mask>(mask: T): T {
  return Object.defineProperty(mask, 'toJSON', { value: maskJson })
}

function maskJson(this: Mask): MaskJson {
  const { width, height, data } = this
  for (let i = 0; i < data.length; i++)
    if (data[i] !== 0 && data[i] !== 255)
      return { size: [height, width], deflated: deflateSync(data, { level: 1 }).toString('base64') }
  return { size: [height, width], counts: encodeRle(this) }
}

/** The mask of a {@link MaskJson}; undefined for anything else. */
export function reviveMask(value: object, maxPixels: number): (Mask & { data: PlainBytes }) | undefined {
  const { size, counts, deflated } = value as { size?: unknown; counts?: unknown; deflated?: unknown }
  if (Object.keys(value).length !== 2 || !isSize(size)) return undefined
  if (typeof counts === 'string') return asMask(decodeRle('counts', size, counts, maxPixels))
  if (typeof deflated !== 'string') return undefined
  const [height, width] = size
  checkPixels(width, height, maxPixels)
  let data: Buffer
  try {
    data = inflateSync(Buffer.from(deflated, 'base64'), { maxOutputLength: Math.max(width * height, 1) })
  } catch (cause) {
    throw new PaliGemmaError('ERR_INVALID_OPTION', 'Expected a mask that was deflated but it was cut or changed', {
      cause
    })
  }
  check('the bytes of a mask', data.length, { expected: `${width * height}`, accepts: (v) => v === width * height })
  return asMask({ width, height, data: new Uint8Array(data) })
}

function isSize(value: unknown): value is [number, number] {
  const side = rule.integer(0, 2 ** 31)
  return Array.isArray(value) && value.length === 2 && side.accepts(value[0]) && side.accepts(value[1])
}
