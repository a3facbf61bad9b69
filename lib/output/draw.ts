/** Drawing boxes, masks and labels onto a picture. */
import type { PlainBuffer } from '../base/plain-memory'
import type Sharp from 'sharp'
import { PaliGemmaError } from '../base/errors'
import { capHeight } from './font'
import { labelText } from './label-text'
import { decodeImage } from '../images/decode'
import { loadSharp } from '../images/sharp'
import type { DecodedImage, ImageInput } from '../images/image-input'
import { takePicture } from '../images/image-rule'
import { type Drawable, hasArea, resultsRule, takeDrawable } from './drawable'
import type { Mask } from './mask'
import { readOptions, rule, take, type Rules } from '../base/validate'

export interface DrawOptions {
  /** Names at the boxes; default true. */
  labels?: boolean | undefined
  /** Scores after the names, where there are any; default true. */
  scores?: boolean | undefined
  /** Enlarges the picture by a whole factor first, for readable labels on small pictures; default 1. */
  scale?: number | undefined
  maxImagePixels?: number | undefined
  /** As for `loadModel`. */
  decodeTimeoutMs?: number | undefined
  /** As for `loadModel`. */
  allowPrivateAddresses?: boolean | undefined
}

const drawRules: Rules<DrawOptions> = {
  labels: rule.flag,
  scores: rule.flag,
  scale: rule.integer(1, 32),
  maxImagePixels: rule.integer(1),
  decodeTimeoutMs: rule.integer(1, 2 ** 31 - 1),
  allowPrivateAddresses: rule.flag
}

// Ten hues of like strength that stay apart for colour-blind eyes too, strongest contrasts first.
const palette = [
  '#e6194b',
  '#3cb44b',
  '#4363d8',
  '#f58231',
  '#911eb4',
  '#42d4f4',
  '#f032e6',
  '#bfef45',
  '#9a6324',
  '#ffe119'
] as const
const maskOpacity = 0.45

/** Black or white, whichever reads better (relative luminance as WCAG defines it, with its gamma as a square). */
function inkOn(colour: string): string {
  const [r, g, b] = [1, 3, 5].map((i) => (parseInt(colour.slice(i, i + 2), 16) / 255) ** 2) as [number, number, number]
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.3 ? '#000000' : '#ffffff'
}

/**
 * The picture with boxes, translucent masks and labels, as a PNG in its own size (times `scale`). Every label has one
 * colour. Boxes without area are left out.
 * @throws PaliGemmaError ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_INVALID_OPTION, ERR_DEPENDENCY_MISSING
 */
export async function drawDetections(
  picture: ImageInput,
  objects: readonly Drawable[],
  options: DrawOptions = {}
): Promise<PlainBuffer> {
  const { labels = true, scores = true, scale = 1, ...decoding } = readOptions('drawDetections', options, drawRules)
  const results = take('results', objects, resultsRule).map((object, i) => takeDrawable(`results[${i}]`, object))
  const decoded = await decodeImage(takePicture(picture), decoding)
  const sharp = await loadSharp()
  const drawn = results.filter(hasArea)
  const colours = new Map<string, string>()
  for (const { label } of drawn) if (!colours.has(label)) colours.set(label, palette[colours.size % palette.length]!)

  let canvas = decoded
  for (const { label, mask } of drawn) if (mask) canvas = await blendMask(sharp, canvas, mask, colours.get(label)!)
  const width = canvas.width * scale
  const height = canvas.height * scale
  const svg = await renderSvg(drawn, colours, sheetOf(width, height, scale), labels, scores)
  const base = sharp(canvas.data, {
    raw: { width: canvas.width, height: canvas.height, channels: 3 },
    limitInputPixels: false
  })
  const large =
    scale === 1
      ? base
      : sharp(await base.resize(width, height, { kernel: 'nearest', fit: 'fill' }).raw().toBuffer(), {
          raw: { width, height, channels: 3 },
          limitInputPixels: false
        })
  return await large
    .composite([{ input: Buffer.from(svg), top: 0, left: 0, limitInputPixels: false }])
    .removeAlpha()
    .png()
    .toBuffer()
}

/** Colours the picture where the mask is set; all pixel work is sharp's, off the event loop. */
async function blendMask(sharp: typeof Sharp, canvas: DecodedImage, mask: Mask, colour: string): Promise<DecodedImage> {
  const { width, height } = canvas
  if (mask.width !== width || mask.height !== height) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected masks of ${width} x ${height} pixels, as the picture, but received ${mask.width} x ${mask.height}`
    )
  }
  if (mask.data.length !== width * height)
    throw new PaliGemmaError('ERR_INVALID_OPTION', 'The buffer of a mask was transferred or shrunk while it was drawn')
  // a copy, whose buffer nobody transfers
  const alpha = await sharp(Buffer.from(mask.data), {
    raw: { width, height, channels: 1 },
    limitInputPixels: false
  })
    .linear(maskOpacity, 0)
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

interface Area {
  x: number
  y: number
  width: number
  height: number
}

const overlaps = (a: Area, b: Area): boolean =>
  a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height

/** All sizes in pixels of the result. */
interface Sheet {
  width: number
  height: number
  scale: number
  /** Of text, about 3.4 % of the picture's shorter side: readable from 11 pixels on. */
  fontSize: number
  stroke: number
}

function sheetOf(width: number, height: number, scale: number): Sheet {
  const fontSize = Math.max(11, Math.round(Math.min(width, height) / 30))
  return { width, height, scale, fontSize, stroke: Math.max(1, Math.round(fontSize / 7)) }
}

function boxSvg({ box }: Drawable, colour: string, { scale, stroke }: Sheet): string {
  // the line lies inside the box, so that boxes at the border show
  const inset = stroke / 2
  const [width, height] = [box.width, box.height].map((side) => Math.max(side * scale - stroke, 0.5))
  return (
    `<rect x="${box.x * scale + inset}" y="${box.y * scale + inset}" width="${width}" height="${height}" ` +
    `fill="none" stroke="${colour}" stroke-width="${stroke}"/>`
  )
}

/** Where a label goes: above its box, else just inside it, and below labels that are there already. */
function placeLabel({ box }: Drawable, textWidth: number, taken: Area[], sheet: Sheet): Area {
  const { width, height, scale, fontSize } = sheet
  const area: Area = { x: 0, y: 0, width: Math.ceil(textWidth + 0.6 * fontSize), height: Math.round(1.3 * fontSize) }
  area.x = Math.round(Math.min(Math.max(box.x * scale, 0), Math.max(width - area.width, 0)))
  const above = Math.round(box.y * scale - area.height)
  area.y = above >= 0 ? above : Math.max(Math.round(box.y * scale), 0)
  for (let tries = 0; tries < taken.length && taken.some((other) => overlaps(area, other)); tries++)
    area.y += area.height
  area.y = Math.max(Math.min(area.y, height - area.height), 0)
  taken.push(area)
  return area
}

async function renderSvg(
  drawn: readonly Drawable[],
  colours: Map<string, string>,
  sheet: Sheet,
  labels: boolean,
  scores: boolean
): Promise<string> {
  const { width, height, fontSize } = sheet
  const parts = drawn.map((result) => boxSvg(result, colours.get(result.label)!, sheet))
  const numbers = [...colours.keys()]
  const taken: Area[] = []
  for (const result of labels ? drawn : []) {
    const { label, score } = result
    const text = [label, scores && score !== undefined ? score.toFixed(2) : ''].filter((part) => part !== '').join(' ')
    if (text === '') continue
    const number = numbers.indexOf(label) + 1
    const shown = await labelText(text, fontSize, width - 0.6 * fontSize, number, noteNumber)
    const area = placeLabel(result, shown.width, taken, sheet)
    const colour = colours.get(label)!
    const baseline = area.y + Math.round((area.height + capHeight * fontSize) / 2)
    parts.push(
      `<rect x="${area.x}" y="${area.y}" width="${area.width}" height="${area.height}" fill="${colour}"/>`,
      shown.svg(area.x + 0.3 * fontSize, baseline, inkOn(colour))
    )
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ` +
    `${height}">${parts.join('')}</svg>`
  )
}

const noted = new Set<string>()

/** Says once for each label what its number stands for. */
function noteNumber(shown: string, label: string): void {
  if (noted.size >= 100 || noted.has(label)) return
  noted.add(label)
  process.emitWarning(
    `No font of this machine can draw the label ${JSON.stringify(label)}; the picture shows ${shown}`,
    {
      type: 'PaliGemmaWarning',
      code: 'PALIGEMMA_LABEL_FONT',
      detail: 'Install a font for its script (such as Noto), or translate the label.'
    }
  )
}
