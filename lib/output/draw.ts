/** Drawing boxes, masks and labels onto a picture. */
import type Sharp from 'sharp'
import { PaliGemmaError } from '../base/errors'
import { canDraw, cell, textPath } from './font'
import { decodeImage } from '../images/decode'
import { loadSharp } from '../images/sharp'
import { isUint8Array } from '../base/realms'
import { isEmbedding, type DecodedImage, type ImageInput } from '../images/image-input'
import type { Box } from './parse'
import { check, checkOptions, rule, type Rules } from '../base/validate'

/** What can be drawn: results of `detect`, `segment` and `parseOutput`. */
export interface Drawable {
  label: string
  /** In pixels of the image. */
  box: Box
  score?: number
  /** In pixels of the whole image, 0..255. */
  mask?: { width: number; height: number; data: Uint8Array }
}

export interface DrawOptions {
  /** Names at the boxes; default true. */
  labels?: boolean
  /** Scores after the names, where there are any; default true. */
  scores?: boolean
  /** Enlarges the picture by a whole factor first, for readable labels on small pictures; default 1. */
  scale?: number
  maxImagePixels?: number
  /** As for `loadModel`. */
  decodeTimeoutMs?: number | undefined
}

const drawRules: Rules<DrawOptions> = {
  labels: rule.flag,
  scores: rule.flag,
  scale: rule.integer(1, 32),
  maxImagePixels: rule.integer(1),
  decodeTimeoutMs: rule.integer(1, 2 ** 31 - 1)
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

function escapeXml(text: string): string {
  return (
    text
      .replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
      // eslint-disable-next-line no-control-regex -- these are not allowed in XML even when escaped
      .replace(
        /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
        '\ufffd'
      )
  )
}

/**
 * The picture with boxes, translucent masks and labels, as a PNG in its own size (times `scale`). Every label has one
 * colour. Boxes without area are left out.
 * @throws PaliGemmaError ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_INVALID_OPTION, ERR_DEPENDENCY_MISSING
 */
export async function drawDetections(
  image: ImageInput,
  results: readonly Drawable[],
  options: DrawOptions = {}
): Promise<Buffer> {
  checkOptions<DrawOptions>('drawDetections', options, drawRules)
  check('results', results, rule.listOf('detections ({ label, box, score?, mask? })', isDrawable))
  if (isEmbedding(image))
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected a picture for image but received an ImageEmbedding, which has no pixels'
    )
  const decoded = await decodeImage(image, options)
  const sharp = await loadSharp()
  const { labels = true, scores = true, scale = 1 } = options
  const drawn = results.filter(({ box }) => box.width > 0 && box.height > 0)
  const colours = new Map<string, string>()
  for (const { label } of drawn) if (!colours.has(label)) colours.set(label, palette[colours.size % palette.length]!)

  let canvas = decoded
  for (const { label, mask } of drawn) if (mask) canvas = await blendMask(sharp, canvas, mask, colours.get(label)!)
  const width = canvas.width * scale
  const height = canvas.height * scale
  const svg = renderSvg(drawn, colours, width, height, scale, labels, scores)
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

function isDrawable(value: unknown): boolean {
  const { label, box, mask } = (value ?? {}) as Drawable
  return (
    typeof label === 'string' &&
    typeof box === 'object' &&
    box !== null &&
    [box.x, box.y, box.width, box.height].every(Number.isFinite) &&
    (mask === undefined || (isUint8Array(mask?.data) && mask.data.length === mask.width * mask.height))
  )
}

/** Colours the picture where the mask is set; all pixel work is sharp's, off the event loop. */
async function blendMask(
  sharp: typeof Sharp,
  canvas: DecodedImage,
  mask: NonNullable<Drawable['mask']>,
  colour: string
): Promise<DecodedImage> {
  const { width, height } = canvas
  if (mask.width !== width || mask.height !== height) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected masks of ${width} x ${height} pixels, as the picture, but received ${mask.width} x ${mask.height}`
    )
  }
  const alpha = await sharp(Buffer.from(mask.data.buffer, mask.data.byteOffset, mask.data.byteLength), {
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

function renderSvg(
  drawn: readonly Drawable[],
  colours: Map<string, string>,
  width: number,
  height: number,
  scale: number,
  labels: boolean,
  scores: boolean
): string {
  const unit = Math.max(1, Math.round(Math.min(width, height) / 350)) // pixels per font pixel: text about 2 % of the picture
  const stroke = Math.max(1, Math.round(unit * 1.5))
  const parts: string[] = []
  for (const { label, box } of drawn) {
    // the line lies inside the box, so that boxes at the border show
    const inset = stroke / 2
    parts.push(
      `<rect x="${box.x * scale + inset}" y="${box.y * scale + inset}" width="${Math.max(box.width * scale - stroke, 0.5)}" height="${Math.max(box.height * scale - stroke, 0.5)}" fill="none" stroke="${colours.get(label)!}" stroke-width="${stroke}"/>`
    )
  }
  const taken: Area[] = []
  for (const { label, box, score } of labels ? drawn : []) {
    const text = [label, scores && score !== undefined ? score.toFixed(2) : ''].filter((part) => part !== '').join(' ')
    if (text === '') continue
    const drawnText = fitText(text, Math.floor((width / unit - 2) / cell.width))
    const area: Area = {
      x: 0,
      y: 0,
      width: (textCells(drawnText) * cell.width + 3) * unit,
      height: (cell.height + 3) * unit
    }
    area.x = Math.round(Math.min(Math.max(box.x * scale, 0), Math.max(width - area.width, 0)))
    // above the box, else just inside it, and below labels that are there already
    const above = Math.round(box.y * scale - area.height)
    area.y = above >= 0 ? above : Math.max(Math.round(box.y * scale), 0)
    for (let tries = 0; tries < taken.length && taken.some((other) => overlaps(area, other)); tries++)
      area.y += area.height
    area.y = Math.max(Math.min(area.y, height - area.height), 0)
    taken.push(area)
    const colour = colours.get(label)!
    parts.push(
      `<rect x="${area.x}" y="${area.y}" width="${area.width}" height="${area.height}" fill="${colour}"/>`,
      renderText(drawnText, area, unit, inkOn(colour))
    )
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">${parts.join('')}</svg>`
}

function renderText(text: string, area: Area, unit: number, ink: string): string {
  if (canDraw(text))
    return `<path shape-rendering="crispEdges" fill="${ink}" d="${textPath(text, area.x + 2 * unit, area.y + 2 * unit, unit)}"/>`
  // other scripts need a font of the machine
  return `<text x="${area.x + 2 * unit}" y="${area.y + 9 * unit}" font-family="sans-serif" font-size="${9 * unit}" fill="${ink}">${escapeXml(text)}</text>`
}

/** Widths in character cells; the wide scripts of East Asia take about two. */
function textCells(text: string): number {
  let cells = 0
  for (const char of text) cells += char.codePointAt(0)! >= 0x1100 ? 2 : 1
  return cells
}

function fitText(text: string, cells: number): string {
  if (textCells(text) <= cells) return text
  const chars = Array.from(text)
  while (chars.length > 1 && textCells(chars.join('')) > cells - 2) chars.pop()
  return `${chars.join('')}..`
}
