/** Where on a page a query finds its matches. */
import type { PlainBuffer, PlainFloats } from '../base/plain-memory'
import { publicCall, type Taken } from '../base/call'
import { PaliGemmaError } from '../base/errors'
import { untilAborted } from '../base/signals'
import { decodeImage } from '../images/decode'
import { made } from '../images/problems'
import { loadSharp } from '../images/sharp'
import { isFloat32Array } from '../base/realms'
import type { ImageInput } from '../images/image-input'
import { takePicture } from '../images/image-rule'
import { decodingCallRules, type DecodingCallOptions } from '../images/preprocess-options'
import { takeTransform, type ImageTransform } from '../images/transform'
import { check, readFields, readOptions, rule, show, takeList, type Rules } from '../base/validate'
import { type MultiVector, takeVectors, typeOf } from './vectors'

/** Options of {@link similarityMap}. */
export interface SimilarityMapOptions {
  /**
   * Which tokens of the query, by number (see {@link MultiVector.texts}); default: all of them. Their mean is taken.
   */
  tokens?: number[] | undefined
}

/** How similar each patch of a page is to (tokens of) a query. */
export interface SimilarityMap {
  /** [rows, columns] of patches, from the top left corner: dot products, -1..1. */
  data: Float32Array
  /** Patches below each other: 32 of a model with 448 px. */
  rows: number
  /** Patches beside each other, as many. */
  columns: number
  /** Where the page lay in the square that the patches cover. */
  transform?: ImageTransform | undefined
}

/** Options of {@link drawSimilarityMap}. */
export interface DrawMapOptions extends DecodingCallOptions {
  /** Of the colours over the page, 0..1; default 0.6. */
  opacity?: number | undefined
  /** Values that get the darkest and the brightest colour; default: the least and greatest of the map. */
  range?: [number, number] | undefined
}

const mapRules: Rules<SimilarityMapOptions> = { tokens: rule.listOf('token numbers', rule.integer(0).accepts) }
const drawRules: Rules<DrawMapOptions> = {
  opacity: rule.number(0, 1),
  range: {
    expected: '[least, greatest]',
    take: (v) => takeList(v, 2),
    accepts: (v) =>
      Array.isArray(v) && v.length === 2 && v.every(Number.isFinite) && (v[0] as number) < (v[1] as number)
  },
  ...decodingCallRules
}

/**
 * The dot products of a query's tokens with the vectors of a page's patches.
 * @param pageVectors as `embedImage` gives it: neither pooled nor quantized, which lose the places
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function similarityMap(
  queryVectors: MultiVector,
  pageVectors: MultiVector,
  options: SimilarityMapOptions = {}
): SimilarityMap & { data: PlainFloats } {
  const given = readOptions<SimilarityMapOptions>('similarityMap', options, mapRules)
  const query = takeFloats('query', queryVectors)
  const page = takeFloats('page', pageVectors)
  const { imageTokens, dims } = page
  const side = Math.sqrt(imageTokens ?? 0)
  if (imageTokens === undefined || !Number.isInteger(side) || side === 0 || imageTokens > page.tokens) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected a page with imageTokens, as embedImage gives it; pooled vectors belong to no place of the page'
    )
  }
  if (query.dims !== dims)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected vectors of ${query.dims} values for page but received ${dims}`
    )
  const tokens = given.tokens ?? Array.from({ length: query.tokens }, (_, i) => i)
  const wrong = tokens.find((token) => token >= query.tokens)
  if (tokens.length === 0 || wrong !== undefined) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected numbers below ${query.tokens} for tokens but received ${wrong ?? 'none'}`
    )
  }
  // the mean of dot products is the dot product with the mean
  const mean = new Float64Array(dims)
  for (const token of tokens) for (let i = 0; i < dims; i++) mean[i]! += query.data[token * dims + i]! / tokens.length
  const data = new Float32Array(imageTokens)
  for (let t = 0; t < imageTokens; t++) {
    let sum = 0
    for (let i = 0; i < dims; i++) sum += mean[i]! * page.data[t * dims + i]!
    data[t] = sum
  }
  return { data, rows: side, columns: side, ...(page.transform && { transform: page.transform }) }
}

function takeFloats(name: string, given: MultiVector): MultiVector {
  const vectors = takeVectors(name, given)
  if (typeOf(vectors) === 'f32') return vectors
  throw new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `Expected vectors of type "f32" for ${name} but received ${show(vectors.type)}`
  )
}

// Dark to bright over purple, red and orange; brightness grows evenly, so that it reads without colours too.
const ramp = [
  [0, 0, 4],
  [66, 10, 104],
  [147, 38, 103],
  [221, 81, 58],
  [252, 165, 10],
  [252, 255, 164]
] as const

function colour(value: number): [number, number, number] {
  const at = Math.min(Math.max(value, 0), 1) * (ramp.length - 1)
  const below = Math.min(Math.floor(at), ramp.length - 2)
  const [from, to] = [ramp[below]!, ramp[below + 1]!]
  return [0, 1, 2].map((i) => Math.round(from[i]! + (to[i]! - from[i]!) * (at - below))) as [number, number, number]
}

/**
 * The page under a heat map, dark where the query finds nothing and bright where it matches, as a PNG in the page's own
 * size. Patches are interpolated (bicubic).
 * @throws PaliGemmaError ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_INVALID_OPTION; an abort rejects at once with the
 * signal's reason
 */
export async function drawSimilarityMap(
  picture: ImageInput,
  similarities: SimilarityMap,
  options: DrawMapOptions = {}
): Promise<PlainBuffer> {
  return await publicCall<DrawMapOptions, PlainBuffer>(
    'drawSimilarityMap',
    options,
    drawRules,
    [],
    async (taken) => await untilAborted(drawMap(picture, similarities, taken), taken.signal)
  )
}

async function drawMap(
  picture: ImageInput,
  similarities: SimilarityMap,
  { opacity = 0.6, range, ...decoding }: Taken<DrawMapOptions>
): Promise<PlainBuffer> {
  const map = takeMap(similarities)
  const image = takePicture(picture)
  const { data, width, height } = await decodeImage(image, decoding)
  const [least, greatest] =
    range ??
    map.data.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)] as [number, number], [
      Infinity,
      -Infinity
    ] as [number, number])
  const pixels = new Uint8Array(map.data.length * 4)
  map.data.forEach((x, i) =>
    pixels.set([...colour(greatest > least ? (x - least) / (greatest - least) : 0), Math.round(opacity * 255)], i * 4)
  )
  decoding.signal.throwIfAborted()
  const drawing = async (): Promise<PlainBuffer> => {
    const heat = await overPage(pixels, map, width, height)
    const sharp = await loadSharp()
    return await sharp(data, { raw: { width, height, channels: 3 } })
      .composite([{ input: heat, raw: { width, height, channels: 4 } }])
      .removeAlpha()
      .png()
      .toBuffer()
  }
  return await made('the drawing', drawing())
}

// Larger squares of patches no model has.
const mostSide = 4096

function takeMap(given: unknown): SimilarityMap {
  const expected = 'similarity map ({ data, rows, columns })'
  const map = readFields('map', given, ['data', 'rows', 'columns', 'transform'], expected)
  for (const name of ['rows', 'columns']) check(`map.${name}`, map[name], rule.integer(1, mostSide))
  const { data, rows, columns } = map as unknown as SimilarityMap
  const fits = isFloat32Array(data) && data.length === rows * columns && data.every(Number.isFinite)
  check('map.data', data, { expected: `Float32Array of ${rows} x ${columns} finite values`, accepts: () => fits })
  const transform = map['transform']
  return {
    data,
    rows,
    columns,
    ...(transform !== undefined && { transform: takeTransform('map.transform', transform) })
  }
}

/** The map's colours as large as the page: the square that patches cover, less what was padded around the page. */
async function overPage(
  pixels: Uint8Array,
  { rows, columns, transform }: SimilarityMap,
  width: number,
  height: number
): Promise<Buffer> {
  const sharp = await loadSharp()
  const raw = { width: columns, height: rows, channels: 4 as const }
  const padded = transform !== undefined && (transform.offsetX > 0 || transform.offsetY > 0)
  if (!padded)
    return await sharp(pixels, { raw }).resize(width, height, { fit: 'fill', kernel: 'cubic' }).raw().toBuffer()
  // in patches; a first enlargement puts the edges of the page on pixels nearly enough
  const fine = 16
  const area = {
    left: (transform.offsetX / transform.size) * columns * fine,
    top: (transform.offsetY / transform.size) * rows * fine,
    right: ((transform.size - transform.offsetX) / transform.size) * columns * fine,
    bottom: ((transform.size - transform.offsetY) / transform.size) * rows * fine
  }
  const [left, top] = [Math.floor(area.left), Math.floor(area.top)]
  const enlarged = await sharp(pixels, { raw })
    .resize(columns * fine, rows * fine, { fit: 'fill', kernel: 'cubic' })
    .raw()
    .toBuffer()
  return await sharp(enlarged, { raw: { width: columns * fine, height: rows * fine, channels: 4 } })
    .extract({
      left,
      top,
      width: Math.max(1, Math.ceil(area.right) - left),
      height: Math.max(1, Math.ceil(area.bottom) - top)
    })
    .resize(width, height, { fit: 'fill', kernel: 'cubic' })
    .raw()
    .toBuffer()
}
