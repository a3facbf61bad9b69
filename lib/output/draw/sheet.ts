/** The drawing over a picture, as SVG: boxes, outlines of masks, labels and where they go. */
import { inkOn } from '../colour'
import type { Drawable } from '../drawable'
import { capHeight } from './font'
import { labelText } from './label-text'
import { pathOf } from '../masks/mask-svg'
import type { MaskPolygon } from '../masks/polygons'

/** All sizes in pixels of the result. */
export interface Sheet {
  width: number
  height: number
  /** Pixels of the result per pixel of the picture. */
  scale: number
  fontSize: number
  stroke: number
}

const smallestFont = 11 // pixels: readable
const fontShare = 1 / 32 // of the picture's shorter side

export function sheetOf(
  width: number,
  height: number,
  scale: number,
  given: { fontSize?: number | undefined; lineWidth?: number | undefined }
): Sheet {
  const fontSize = given.fontSize ?? Math.max(smallestFont, Math.round(Math.min(width, height) * fontShare))
  const stroke =
    given.lineWidth ?? Math.max(1, Math.round(Math.max(Math.min(width, height) * fontShare, smallestFont) / 7))
  return { width, height, scale, fontSize, stroke }
}

export function boxSvg({ box }: Drawable, colour: string, { scale, stroke }: Sheet): string {
  // the line lies inside the box, so that boxes at the border show
  const inset = stroke / 2
  const [width, height] = [box.width, box.height].map((side) => Math.max(side * scale - stroke, 0.5))
  return (
    `<rect x="${box.x * scale + inset}" y="${box.y * scale + inset}" width="${width}" height="${height}" ` +
    `fill="none" stroke="${colour}" stroke-width="${stroke}" stroke-linejoin="round"/>`
  )
}

/** A mask as a shape with an outline. */
export function maskSvg(polygons: MaskPolygon[], colour: string, opacity: number, { scale, stroke }: Sheet): string {
  const fill = `fill="${colour}" fill-opacity="${opacity}" fill-rule="evenodd"`
  return (
    `<path transform="scale(${scale})" d="${pathOf(polygons)}" ${fill} stroke="${colour}" ` +
    `stroke-width="${stroke / 2 / scale}" stroke-linejoin="round"/>`
  )
}

interface Area {
  x: number
  y: number
  width: number
  height: number
}

/** Shared pixels. */
function overlap(a: Area, b: Area): number {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x)
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y)
  return width > 0 && height > 0 ? width * height : 0
}

/**
 * Where a label goes: above its box, else just inside it, below it, at its right corners, at its bottom; the first
 * place that is free, else the one that hides least of other labels.
 */
function placeLabel({ box }: Drawable, textWidth: number, taken: Area[], sheet: Sheet): Area {
  const { width: sheetWidth, height: sheetHeight, scale, fontSize } = sheet
  const width = Math.ceil(textWidth + 0.6 * fontSize)
  const height = Math.round(1.3 * fontSize)
  const [left, top] = [box.x * scale, box.y * scale]
  const [right, bottom] = [left + box.width * scale, top + box.height * scale]
  const within = (value: number, most: number): number => Math.round(Math.min(Math.max(value, 0), Math.max(most, 0)))
  const at = (x: number, y: number): Area => ({
    x: within(x, sheetWidth - width),
    y: within(y, sheetHeight - height),
    width,
    height
  })
  const above = top - height
  const places = [
    ...(above >= 0 ? [at(left, above)] : []),
    at(left, top),
    at(left, bottom),
    ...(above >= 0 ? [at(right - width, above)] : []),
    at(right - width, top),
    at(left, bottom - height),
    at(right - width, bottom),
    at(right, top)
  ]
  const hidden = (place: Area): number => taken.reduce((sum, other) => sum + overlap(place, other), 0)
  const best = places.find((place) => hidden(place) === 0) ?? [...places].sort((a, b) => hidden(a) - hidden(b))[0]!
  taken.push(best)
  return best
}

/** What the label of an object says: its name and its score. */
export function captionOf({ label, score }: Drawable, scores: boolean): string {
  return [label, scores && score !== undefined ? score.toFixed(2) : ''].filter((part) => part !== '').join(' ')
}

/** SVG of all labels, those of large boxes first below the others. */
export async function labelsSvg(
  drawn: readonly Drawable[],
  colours: ReadonlyMap<string, string>,
  sheet: Sheet,
  scores: boolean
): Promise<string[]> {
  const { width, fontSize } = sheet
  const numbers = [...colours.keys()]
  const taken: Area[] = []
  const parts: string[] = []
  for (const result of drawn) {
    const text = captionOf(result, scores)
    if (text === '') continue
    const number = numbers.indexOf(result.label) + 1
    const shown = await labelText(text, fontSize, width - 0.6 * fontSize, number, noteNumber)
    const area = placeLabel(result, shown.width, taken, sheet)
    const colour = colours.get(result.label)!
    const baseline = area.y + Math.round((area.height + capHeight * fontSize) / 2)
    parts.push(
      `<rect x="${area.x}" y="${area.y}" width="${area.width}" height="${area.height}" rx="${fontSize / 8}" ` +
        `fill="${colour}"/>`,
      shown.svg(area.x + 0.3 * fontSize, baseline, inkOn(colour))
    )
  }
  return parts
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

export function svgDocument({ width, height }: Sheet, parts: readonly string[]): string {
  const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${parts.join('')}</svg>`
}
