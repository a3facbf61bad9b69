/** Reading `<loc>`/`<seg>` output. Pure functions; see the grammar at `objectPattern`. */
import { takeTransform, type ImageTransform } from '../images/transform'
import { check, readOptions, rule, wrongOption, type Rule, type Rules } from '../base/validate'

/** A rectangle in pixels of the image as given (after EXIF orientation), from its top left corner. */
export interface Box {
  /** Of the left edge. */
  x: number
  /** Of the top edge. */
  y: number
  /** To the right. */
  width: number
  /** Downwards. */
  height: number
}

/** A rectangle in 0..1 of the image's height and width, in the order of the model's output. */
export interface NormalizedBox {
  /** Of the top edge, of the height. */
  yMin: number
  /** Of the left edge, of the width. */
  xMin: number
  /** Of the bottom edge, of the height. */
  yMax: number
  /** Of the right edge, of the width. */
  xMax: number
}

/** Options of {@link parseOutput}. */
export interface ParseOptions {
  /** Of the original picture, in pixels. */
  width: number
  /** Of the original picture, in pixels. */
  height: number
  /** 1023 (default): as the training code writes and its evaluator reads; 1024: as published demo code reads. */
  locScale?: 1023 | 1024 | undefined
  /** From {@link preprocessImage}, for pictures preprocessed with `fit: 'pad'`. */
  transform?: ImageTransform | undefined
}

/** One object that the model's text names. */
export interface ParsedObject {
  /** The object's name without surrounding spaces; '' where the text gives none. */
  label: string
  /**
   * Whole pixels. With `locScale` 1023 coordinates are truncated as in the training code's evaluator, with 1024 rounded
   * (half to even) as in published demo code. Inverted boxes have negative sizes and `valid: false`.
   */
  box: Box
  /** The same in 0..1, not rounded. */
  normalized: NormalizedBox
  /** The four raw `<loc>` values: y0, x0, y1, x1. */
  locations: [number, number, number, number]
  /** The 16 raw `<seg>` values, or null where the text has no complete mask. */
  codes: number[] | null
  /** The box has an area, all `<loc>` values are at most 1023 and all `<seg>` values at most 127. */
  valid: boolean
  /** Where the object stands in the text: [start, end). */
  span: [number, number]
}

interface Size {
  width: number
  height: number
}

/** A piece of output: an object, or text around objects. */
export interface OutputPiece {
  content: string
  object: ParsedObject | null
  nameSpan?: [number, number] | undefined
}

// The grammar of published demo code: four locations, spaces, 16 codes if they are there, spaces, a name without ";<>",
// one space, "; ". Two things differ where text has several lines: objects are looked for on all of them, and a name
// ends with its line. Nothing after the locations can fail, so the time is in proportion to the text.
const objectPattern = /((?:<loc[0-9]{4}>){4})\s*((?:<seg[0-9]{3}>){16})?\s*([^;<>\r\n]+)?(?:[\r\n]\s*)? ?(?:; )?/g
const locPattern = /<loc([0-9]{4})>/g
const segPattern = /<seg([0-9]{3})>/g

const transformRule: Rule = {
  expected: 'the transform of preprocessImage',
  take: (v) => takeTransform('transform', v),
  accepts: () => true
}

const parseRules: Rules<ParseOptions> = {
  width: rule.above(0),
  height: rule.above(0),
  locScale: rule.oneOf(1023, 1024),
  transform: transformRule
}

/** Text and objects, in order; together they are the whole text. */
export function parsePieces(text: string, options: ParseOptions): OutputPiece[] {
  const pieces: OutputPiece[] = []
  let at = 0
  for (const match of text.matchAll(objectPattern)) {
    const [whole, locs = '', segs, name] = match
    const start = match.index
    const end = start + whole.length
    if (start > at) pieces.push({ content: text.slice(at, start), object: null })
    const locations = numbers(locs, locPattern) as [number, number, number, number]
    const codes = segs === undefined ? null : numbers(segs, segPattern)
    const { box, normalized } = toPixels(locations, options)
    const [y0, x0, y1, x1] = locations
    pieces.push({
      content: text.slice(start, end),
      object: {
        label: (name ?? '').trim(),
        box,
        normalized,
        locations,
        codes,
        valid: y1 > y0 && x1 > x0 && Math.max(...locations) <= 1023 && (codes === null || Math.max(...codes) <= 127),
        span: [start, end]
      },
      ...(name === undefined ? {} : { nameSpan: nameSpan(text, name, end) })
    })
    at = end
  }
  if (at < text.length) pieces.push({ content: text.slice(at), object: null })
  return pieces
}

/**
 * The name without the spaces after it: they are the separator's. It is the last thing of its object but for spaces and
 * "; ".
 */
function nameSpan(text: string, name: string, end: number): [number, number] {
  const from = text.lastIndexOf(name, end - name.length)
  return [from, from + name.trimEnd().length]
}

function numbers(text: string, pattern: RegExp): number[] {
  return Array.from(text.matchAll(pattern), (match) => Number(match[1]))
}

/** The pixels of a `<loc>` value: exactly big_vision's evaluator (1023) or published demo code (1024). */
function toPixel(location: number, scale: number, size: number): number {
  const value = (location / scale) * size
  return scale === 1023 ? Math.trunc(value) : roundHalfEven(value)
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor
}

function toPixels(
  locations: [number, number, number, number],
  options: ParseOptions
): { box: Box; normalized: NormalizedBox } {
  const { width, height, transform } = options
  const scale = options.locScale ?? 1023
  const [y0, x0, y1, x1] = locations
  if (!transform || (transform.offsetX === 0 && transform.offsetY === 0)) {
    const x = toPixel(x0, scale, width)
    const y = toPixel(y0, scale, height)
    return {
      box: { x, y, width: toPixel(x1, scale, width) - x, height: toPixel(y1, scale, height) - y },
      normalized: { yMin: y0 / scale, xMin: x0 / scale, yMax: y1 / scale, xMax: x1 / scale }
    }
  }
  // Padded: locations are relative to the square. What lies in the border is moved to the picture's edge.
  const back = (location: number, offset: number, zoom: number, size: number): number =>
    Math.min(Math.max(((location / scale) * transform.size - offset) / zoom, 0), size)
  const left = back(x0, transform.offsetX, transform.scaleX, width)
  const right = back(x1, transform.offsetX, transform.scaleX, width)
  const top = back(y0, transform.offsetY, transform.scaleY, height)
  const bottom = back(y1, transform.offsetY, transform.scaleY, height)
  const whole = scale === 1023 ? Math.trunc : roundHalfEven
  return {
    box: { x: whole(left), y: whole(top), width: whole(right) - whole(left), height: whole(bottom) - whole(top) },
    normalized: { yMin: top / height, xMin: left / width, yMax: bottom / height, xMax: right / width }
  }
}

/**
 * The box, at least one pixel of the picture wide and high where the object has an extent: so it can be cut out. The
 * published rules, which {@link parseOutput} keeps to, round such a box to nothing.
 */
export function visibleBox({ box, normalized }: Pick<ParsedObject, 'box' | 'normalized'>, picture: Size): Box {
  const [x, width] = visibleSpan(box.x, box.width, normalized.xMax > normalized.xMin, picture.width)
  const [y, height] = visibleSpan(box.y, box.height, normalized.yMax > normalized.yMin, picture.height)
  return { x, y, width, height }
}

function visibleSpan(start: number, length: number, extended: boolean, size: number): [number, number] {
  return extended && length < 1 ? [Math.max(Math.min(start, size - 1), 0), 1] : [start, length]
}

/** The box of a mask, which a padded picture's border may cut: not clamped to the picture. */
export function maskBox(
  object: ParsedObject,
  options: ParseOptions
): { x0: number; y0: number; x1: number; y1: number } {
  const { transform } = options
  const { box } = object
  if (!transform || (transform.offsetX === 0 && transform.offsetY === 0)) {
    return { x0: box.x, y0: box.y, x1: box.x + box.width, y1: box.y + box.height }
  }
  const scale = options.locScale ?? 1023
  const whole = scale === 1023 ? Math.trunc : roundHalfEven
  const [y0, x0, y1, x1] = object.locations
  const backX = (location: number): number =>
    whole(((location / scale) * transform.size - transform.offsetX) / transform.scaleX)
  const backY = (location: number): number =>
    whole(((location / scale) * transform.size - transform.offsetY) / transform.scaleY)
  return { x0: backX(x0), y0: backY(y0), x1: backX(x1), y1: backY(y1) }
}

/**
 * The objects that a model's text names, in order. Never throws because of the text: what cannot be parsed is left out.
 * Grammar: four `<locNNNN>` (y0 x0 y1 x1), optionally 16 `<segNNN>`, a name up to the end of its line, " ; " or a line
 * break between objects. Other text may stand before, between and after them.
 * @throws PaliGemmaError ERR_INVALID_OPTION for wrong options
 */
export function parseOutput(text: string, options: ParseOptions): ParsedObject[] {
  check('text', text, rule.text)
  const taken = readOptions<ParseOptions>('parseOutput', options, parseRules, ['width', 'height'])
  return parsePieces(text, taken).flatMap((piece) => piece.object ?? [])
}

interface ScaleOption {
  /** As for {@link parseOutput}; default 1023. */
  locScale?: 1023 | 1024 | undefined
}
const scaleRules: Rules<ScaleOption> = { locScale: rule.oneOf(1023, 1024) }

/**
 * 0..1 of a `<loc>` value (0..1023), or of its token such as "<loc0512>".
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function decodeLocation(location: number | string, options: ScaleOption = {}): number {
  const { locScale = 1023 } = readOptions<ScaleOption>('decodeLocation', options, scaleRules)
  const value = typeof location === 'string' ? Number(/^<loc([0-9]{4})>$/.exec(location)?.[1] ?? NaN) : location
  if (!rule.integer(0, 1023).accepts(value)) {
    throw wrongOption('location', 'integer from 0 to 1023 or a token from "<loc0000>" to "<loc1023>"', location)
  }
  return value / locScale
}

/**
 * The `<locNNNN>` token of a coordinate in 0..1, as the training code writes it: round(value * 1023), half to even,
 * clipped to 0..1023 (big_vision, pp/proj/paligemma/segmentation.py). With `locScale` 1024: the token whose demo-code
 * decoding is nearest.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function encodeLocation(value: number, options: ScaleOption = {}): string {
  const { locScale = 1023 } = readOptions<ScaleOption>('encodeLocation', options, scaleRules)
  if (typeof value !== 'number' || !Number.isFinite(value)) throw wrongOption('value', 'number from 0 to 1', value)
  const location = Math.min(Math.max(roundHalfEven(value * locScale), 0), 1023)
  return `<loc${String(location).padStart(4, '0')}>`
}
