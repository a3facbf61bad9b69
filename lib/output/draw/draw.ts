/** Drawing boxes, masks and labels onto a picture. */
import type { PlainBuffer } from '../../base/plain-memory'
import type Sharp from 'sharp'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { publicCall, type Taken } from '../../base/call'
import { untilAborted } from '../../base/signals'
import { rule, take, wrongOption, type Rules } from '../../base/validate'
import { decodeImage } from '../../images/decode'
import type { DecodedImage, ImageInput } from '../../images/image-input'
import { takePicture } from '../../images/image-rule'
import { decodingCallRules, type DecodingCallOptions } from '../../images/preprocess-options'
import { made } from '../../images/problems'
import { loadSharp } from '../../images/sharp'
import type { Tile } from '../../images/tile-plan'
import { blendMask, checkMaskSize } from './blend'
import { coloursOf, coloursRule, type Colours } from '../colour'
import { type Drawable, hasArea, resultsRule, takeDrawable } from '../drawable'
import { polygonsOf } from '../masks/polygons'
import { boxSvg, labelsSvg, maskSvg, type Sheet, sheetOf, svgDocument } from './sheet'
import { drawnTilesRule, tilesOf, tilesSvg } from './tile-lines'

/** Options of {@link drawDetections}. */
export interface DrawOptions extends DecodingCallOptions {
  /** Names at the boxes; default true. */
  labels?: boolean | undefined
  /** Scores after the names, where there are any; default true. */
  scores?: boolean | undefined
  /** Frames around objects; default true. */
  boxes?: boolean | undefined
  /** Translucent masks, where there are any; default true. */
  masks?: boolean | undefined
  /** "#rrggbb" colours: in turn for labels as they come, or an object with one for each label. */
  colors?: Colours | undefined
  /** Of boxes, in pixels of the result; default: by the picture's size. */
  lineWidth?: number | undefined
  /** Of labels, in pixels of the result; default: by the picture's size. */
  fontSize?: number | undefined
  /** 0..1, default 0.45; 0 leaves their outlines. */
  maskOpacity?: number | undefined
  /** The tiles that objects were looked for in, as dashed lines below all else: those that results of a call with
   * `tiles` know, or these. Default false. */
  tiles?: boolean | readonly Tile[] | undefined
  /** Enlarges the picture by a whole factor first, for readable labels on small pictures; default 1. */
  scale?: number | undefined
  /** false: the drawing alone, on nothing, to lie over the picture; not as "jpeg". Default true. */
  picture?: boolean | undefined
  /** Default "png". "svg" is a text: the picture, unless left out, with a drawing that stays sharp at any size. */
  format?: 'png' | 'jpeg' | 'webp' | 'svg' | undefined
}

const drawRules: Rules<DrawOptions> = {
  labels: rule.flag,
  scores: rule.flag,
  boxes: rule.flag,
  masks: rule.flag,
  colors: coloursRule,
  lineWidth: rule.number(0.5, 1000),
  fontSize: rule.number(4, 1000),
  maskOpacity: rule.number(0, 1),
  tiles: drawnTilesRule,
  scale: rule.integer(1, 32),
  picture: rule.flag,
  format: rule.oneOf('png', 'jpeg', 'webp', 'svg'),
  ...decodingCallRules
}

/**
 * The picture with boxes, translucent masks and labels in its own size (times `scale`): encoded bytes, or with
 * `format: 'svg'` a text. Every label has one colour. An object that is there twice, such as from `detect` and from
 * `segment`, is drawn once. Boxes without area are left out.
 * @throws PaliGemmaError ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_INVALID_OPTION, ERR_DEPENDENCY_MISSING; an
 * abort rejects at once with the signal's reason
 */
export async function drawDetections(
  picture: ImageInput,
  objects: readonly Drawable[],
  options: DrawOptions & { format: 'svg' }
): Promise<string>
/** As bytes of a PNG, or of the `format` that is asked for. @throws as with "svg" */
export async function drawDetections(
  picture: ImageInput,
  objects: readonly Drawable[],
  options?: DrawOptions & { format?: 'png' | 'jpeg' | 'webp' | undefined }
): Promise<PlainBuffer>
/** With a `format` that is known only when it runs: a text for "svg", else bytes. @throws as with "svg" */
export async function drawDetections(
  picture: ImageInput,
  objects: readonly Drawable[],
  options?: DrawOptions
): Promise<PlainBuffer | string>
export async function drawDetections(
  picture: ImageInput,
  objects: readonly Drawable[],
  options: DrawOptions = {}
): Promise<PlainBuffer | string> {
  return await publicCall<DrawOptions, PlainBuffer | string>(
    'drawDetections',
    options,
    drawRules,
    [],
    async (taken) => await untilAborted(made('the drawing', draw(picture, objects, taken)), taken.signal)
  )
}

async function draw(
  picture: ImageInput,
  objects: readonly Drawable[],
  taken: Taken<DrawOptions>
): Promise<PlainBuffer | string> {
  const { scale = 1, format = 'png', masks = true, picture: shown = true } = taken
  if (!shown && format === 'jpeg')
    throw wrongOption('format', '"png", "webp" or "svg", which can be transparent, with picture: false', format)
  const tiles = tilesOf(objects, taken.tiles)
  const results = take('results', objects, resultsRule).map((object, i) => takeDrawable(`results[${i}]`, object))
  const decoded = await decodeImage(takePicture(picture), taken)
  taken.signal.throwIfAborted()
  const drawn = withoutRepeats(results.filter(hasArea))
  const colours = coloursOf(
    drawn.map(({ label }) => label),
    taken.colors
  )
  const withMask = masks ? drawn.filter(({ mask }) => mask !== undefined) : []
  for (const { mask } of withMask) checkMaskSize(mask!, decoded)
  const sharp = await loadSharp()
  const sheet = sheetOf(decoded.width * scale, decoded.height * scale, scale, taken)
  // Blended pixel by pixel where there are pixels: soft edges stay, and all of the work is off the event loop.
  const blended = shown && format !== 'svg'
  const overlay = [
    ...tilesSvg(tiles, decoded, sheet),
    ...(await overlayParts(drawn, blended ? [] : withMask, colours, sheet, taken))
  ]
  if (format === 'svg') {
    const under = shown ? [pictureSvg(await encoded(sharp, decoded), sheet)] : []
    return svgDocument(sheet, [...under, ...overlay])
  }
  let canvas = decoded
  if (blended)
    for (const { label, mask } of withMask) {
      taken.signal.throwIfAborted()
      canvas = await blendMask(sharp, canvas, mask!, colours.get(label)!, taken.maskOpacity ?? maskOpacity)
    }
  return await raster(sharp, shown ? canvas : undefined, svgDocument(sheet, overlay), sheet, format)
}

const maskOpacity = 0.45

async function overlayParts(
  drawn: readonly Drawable[],
  withMask: readonly Drawable[],
  colours: ReadonlyMap<string, string>,
  sheet: Sheet,
  options: DrawOptions
): Promise<string[]> {
  const { boxes = true, labels = true, scores = true, maskOpacity: opacity = maskOpacity } = options
  const outlines: string[] = []
  for (const { label, mask } of withMask) {
    await nextTurn() // an outline of a large mask takes milliseconds
    outlines.push(maskSvg(polygonsOf(mask!), colours.get(label)!, opacity, sheet))
  }
  return [
    ...outlines,
    ...(boxes ? drawn.map((result) => boxSvg(result, colours.get(result.label)!, sheet)) : []),
    ...(labels ? await labelsSvg(drawn, colours, sheet, scores) : [])
  ]
}

const sameFrom = 0.8 // intersection over union

/** Of objects of one label and nearly one box the first, with the best score and the mask of any. */
function withoutRepeats(results: readonly Drawable[]): Drawable[] {
  const kept: Drawable[] = []
  for (const result of results) {
    const at = kept.findIndex((other) => other.label === result.label && overlapOf(other, result) >= sameFrom)
    const first = kept[at]
    if (!first) {
      kept.push(result)
      continue
    }
    const score = Math.max(first.score ?? -Infinity, result.score ?? -Infinity)
    kept[at] = { ...first, mask: first.mask ?? result.mask, ...(Number.isFinite(score) && { score }) }
  }
  return kept
}

function overlapOf({ box: a }: Drawable, { box: b }: Drawable): number {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x)
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y)
  const both = Math.max(width, 0) * Math.max(height, 0)
  return both / (a.width * a.height + b.width * b.height - both)
}

const rawOf = ({ width, height }: { width: number; height: number }) =>
  ({ raw: { width, height, channels: 3 }, limitInputPixels: false }) as const

/** For an SVG: photographs as PNG would be ten times as large. */
async function encoded(sharp: typeof Sharp, image: DecodedImage): Promise<string> {
  const jpeg = await sharp(image.data, rawOf(image)).jpeg({ quality: 92, chromaSubsampling: '4:4:4' }).toBuffer()
  return `data:image/jpeg;base64,${jpeg.toString('base64')}`
}

function pictureSvg(url: string, { width, height, scale }: Sheet): string {
  const style = scale === 1 ? '' : ' style="image-rendering:pixelated"'
  return `<image href="${url}" width="${width}" height="${height}" preserveAspectRatio="none"${style}/>`
}

async function raster(
  sharp: typeof Sharp,
  canvas: DecodedImage | undefined,
  svg: string,
  { width, height, scale }: Sheet,
  format: 'png' | 'jpeg' | 'webp'
): Promise<PlainBuffer> {
  const over = [{ input: Buffer.from(svg), top: 0, left: 0, limitInputPixels: false }]
  if (!canvas) {
    const background = { r: 0, g: 0, b: 0, alpha: 0 }
    const empty = sharp({ create: { width, height, channels: 4, background }, limitInputPixels: false })
    return await empty.composite(over).toFormat(format).toBuffer()
  }
  const base = sharp(canvas.data, rawOf(canvas))
  const large =
    scale === 1
      ? base
      : sharp(
          await base.resize(width, height, { kernel: 'nearest', fit: 'fill' }).raw().toBuffer(),
          rawOf({ width, height })
        )
  return await large.composite(over).removeAlpha().toFormat(format).toBuffer()
}
