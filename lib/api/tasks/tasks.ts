/** `detect` and `segment`: finding, then masks. */
import type { PlainBytes } from '../../base/plain-memory'
import type { Taken } from '../../base/call'
import { nativeCall, PaliGemmaError } from '../../base/errors'
import { anySignal, ownController, untilAborted } from '../../base/signals'
import { take } from '../../base/validate'
import type { ImageInput } from '../../images/image-input'
import { asMask } from '../../output/masks/mask-json'
import type { Mask } from '../../output/masks/mask'
import { maskBox, parsePieces, type ParsedObject } from '../../output/parse'
import { checkEmbedding, findObjects, geometryOf, type Part, type PictureObject, type TellObject } from './find-objects'
import type { ModelHost } from '../request/host'
import { objectList, type Detection, type ObjectList, type Segmentation } from '../options/objects'
import { defaults, labelsRule, type DetectOptions } from '../options/options'

/**
 * The `minScore` that best tells what is there from what is not, calibrated on the demo model: 0.5 for one label (99 %
 * of the right boxes stay, and none of absent things), divided by the number of labels, whose order is open:
 * they share the probability of the first location. The command's default; models differ, see docs/constraints.md.
 */
export function recommendedMinScore(labels: string | readonly string[]): number {
  const taken = take('labels', labels, labelsRule)
  return 0.5 / (typeof taken === 'string' ? 1 : new Set(taken.map((label) => label.trim())).size)
}

export async function detect(
  host: ModelHost,
  image: ImageInput,
  labels: string | string[],
  options: Taken<DetectOptions>
): Promise<ObjectList<Detection>> {
  const { onObject } = options
  const tell = onObject && (({ parts: _, ...detection }: PictureObject) => onObject(detection))
  const finding = await findObjects(host, 'detect', image, labels, options, tell)
  return objectList(
    finding.found.map(({ parts: _, ...detection }) => detection),
    finding
  )
}

export async function segment(
  host: ModelHost,
  image: ImageInput,
  labels: string | string[],
  options: Taken<DetectOptions<Segmentation>>
): Promise<ObjectList<Segmentation>> {
  host.throwIfDisposed()
  if (!host.info.hasMaskDecoder) {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      "The model file has no mask decoder; pass one as loadModel({ model, maskDecoder: 'vae-oid.npz' }) or convert " +
        'with --mask-decoder'
    )
  }
  const { onObject, signal } = options
  if (onObject) return await segmentTelling(host, image, labels, options, onObject)
  const finding = await findObjects(host, 'segment', image, labels, options)
  const results: Segmentation[] = []
  for (const object of finding.found) results.push(await untilAborted(withMask(host, object, finding), signal))
  return objectList(results, finding)
}

async function segmentTelling(
  host: ModelHost,
  image: ImageInput,
  labels: string | string[],
  options: Taken<DetectOptions<Segmentation>>,
  onObject: (object: Segmentation) => void
): Promise<ObjectList<Segmentation>> {
  const told = new Told(host, onObject)
  const { signal, release } = anySignal([options.signal, told.failed.signal])
  try {
    const finding = await findObjects(host, 'segment', image, labels, { ...options, signal: signal! }, told.tell)
    return objectList(await untilAborted(told.settled(), signal), finding)
  } finally {
    release()
  }
}

/** Objects whose masks are made while the model goes on writing. */
class Told {
  private readonly made: Promise<Segmentation>[] = []
  private last: Promise<void> = Promise.resolve()
  /** Aborts with what making a mask or the callback throws. */
  readonly failed = ownController()

  constructor(
    private readonly host: ModelHost,
    private readonly onObject: (object: Segmentation) => void
  ) {}

  readonly tell: TellObject = (object, picture) => {
    const made = withMask(this.host, object, picture)
    this.made.push(made)
    this.last = this.last.then(async () => this.onObject(await made))
    for (const promise of [made, this.last]) promise.catch((error: unknown) => this.failed.abort(error))
  }

  async settled(): Promise<Segmentation[]> {
    await this.last
    return await Promise.all(this.made)
  }
}

async function withMask(
  host: ModelHost,
  { parts, ...detection }: PictureObject,
  { width, height }: { width: number; height: number }
): Promise<Segmentation> {
  const data = await joinedMask(host, parts, width, height)
  return { ...detection, mask: asMask({ width, height, data }), codes: parts[0]!.object.codes ?? [] }
}

/** An object that a text of the model names, with its mask where it wrote one. */
export interface ParsedMask extends ParsedObject {
  /** In pixels of the whole picture; where the text has all codes and the model its decoder. */
  mask?: (Mask & { data: PlainBytes }) | undefined
}

/** What a text says about a picture: boxes in its pixels, and masks. */
export async function parseText(
  host: ModelHost,
  text: string,
  image: ImageInput,
  { signal }: { signal: AbortSignal }
): Promise<ParsedMask[]> {
  host.throwIfDisposed()
  checkEmbedding('parse', image)
  const [picture] = await untilAborted(host.prepareImages({ image }, signal), signal)
  const geometry = geometryOf(host, picture!.transform!)
  const { width, height } = geometry
  const objects: ParsedMask[] = []
  for (const { object } of parsePieces(text, geometry)) {
    signal.throwIfAborted()
    if (!object) continue
    const usable = object.valid && host.info.hasMaskDecoder
    const mask = usable ? fullMask(host, { object, geometry, x: 0, y: 0 }, width, height) : Promise.resolve(undefined)
    const data = await untilAborted(mask, signal)
    objects.push(data ? { ...object, mask: asMask({ width, height, data }) } : object)
  }
  return objects
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
