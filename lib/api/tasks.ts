/** `detect` and `segment`: finding, then masks. */
import type { PlainBytes } from '../base/plain-memory'
import type { Taken } from '../base/call'
import { nativeCall, PaliGemmaError } from '../base/errors'
import { take } from '../base/validate'
import type { ImageInput } from '../images/image-input'
import { asMask } from '../output/mask-json'
import { maskBox } from '../output/parse'
import { findObjects, type Part, type PictureObject } from './find-objects'
import type { ModelHost } from './host'
import { objectList, type Detection, type ObjectList, type Segmentation } from './objects'
import { defaults, labelsRule, type DetectOptions } from './options'

/**
 * The `minScore` that best tells what is there from what is not, calibrated on the demo model: 0.7 for one label (99 %
 * of the right boxes stay, 93 % of those of absent things go), divided by the number of labels, whose order is open:
 * they share the probability of the first location. The command's default; models differ, see docs/constraints.md.
 */
export function recommendedMinScore(labels: string | readonly string[]): number {
  const taken = take('labels', labels, labelsRule)
  return 0.7 / (typeof taken === 'string' ? 1 : new Set(taken.map((label) => label.trim())).size)
}

export async function detect(
  host: ModelHost,
  image: ImageInput,
  labels: string | string[],
  options: Taken<DetectOptions>
): Promise<ObjectList<Detection>> {
  const finding = await findObjects(host, 'detect', image, labels, options)
  return objectList(
    finding.found.map(({ parts: _, ...detection }) => detection),
    finding
  )
}

export async function segment(
  host: ModelHost,
  image: ImageInput,
  labels: string | string[],
  options: Taken<DetectOptions>
): Promise<ObjectList<Segmentation>> {
  host.throwIfDisposed()
  if (!host.info.hasMaskDecoder) {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      "The model file has no mask decoder; pass one as loadModel({ model, maskDecoder: 'vae-oid.npz' }) or convert " +
        'with --mask-decoder'
    )
  }
  const finding = await findObjects(host, 'segment', image, labels, options)
  const { found, width, height } = finding
  const results: Segmentation[] = []
  for (const { parts, ...detection } of found) {
    options.signal.throwIfAborted()
    const data = await joinedMask(host, parts, width, height)
    results.push({ ...detection, mask: asMask({ width, height, data }), codes: parts[0]!.object.codes ?? [] })
  }
  return objectList(results, finding)
}

/** Of all parts, where several tiles show one object. */
async function joinedMask(
  host: ModelHost,
  parts: PictureObject['parts'],
  width: number,
  height: number
): Promise<PlainBytes> {
  let joined: PlainBytes | undefined
  for (const part of parts) {
    const mask = await fullMask(host, part, width, height)
    if (!joined) joined = mask
    else if (mask) for (let i = 0; i < mask.length; i++) if (mask[i]! > joined[i]!) joined[i] = mask[i]!
  }
  return joined ?? new Uint8Array(width * height)
}

/** In pixels of the whole picture; undefined without usable codes. */
async function fullMask(
  host: ModelHost,
  { object, geometry, x, y }: Part,
  width: number,
  height: number
): Promise<PlainBytes | undefined> {
  const { codes } = object
  if (!codes?.every((code) => code <= 127)) return undefined
  const convention = host.options.maskConvention ?? defaults.maskConvention
  const { x0, y0, x1, y1 } = maskBox(object, geometry)
  const box = { x0: x0 + x, y0: y0 + y, x1: x1 + x, y1: y1 + y }
  return await nativeCall(async () => {
    const mask = await host.model.decodeMask(codes)
    return await host.binding.pasteMask(mask, box, width, height, convention)
  })
}
