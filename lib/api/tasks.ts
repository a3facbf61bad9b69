/** `detect` and `segment`: prompt, constrained generation, parsing, scores and masks. */
import type { PlainBytes } from '../base/plain-memory'
import { nativeCall, PaliGemmaError } from '../base/errors'
import type { Taken } from '../base/call'
import { runGeneration } from './generation'
import type { FinishReason, GeneratedToken, GenerateResult } from './results'
import type { ModelHost } from './host'
import { isEmbedding, type ImageInput } from '../images/image-input'
import type { Mask } from '../output/mask'
import { asMask } from '../output/mask-json'
import { suppressOverlaps } from '../output/nms'
import { defaults, labelsRule, type DetectOptions } from './options'
import { take } from '../base/validate'
import {
  maskBox,
  parsePieces,
  visibleBox,
  type Box,
  type NormalizedBox,
  type OutputPiece,
  type ParsedObject
} from '../output/parse'
import { prompts } from './prompts'

/** An object found by `detect`. */
export interface Detection {
  /**
   * The place of `label` among the different labels that were asked for, from 0 on; -1 for another name (`constrain:
   * false`).
   */
  classId: number
  /** The name the model gave; with a single label and a model that gives none, that label. */
  label: string
  /**
   * Top left corner and size in pixels of the image as given (after EXIF orientation); at least one pixel where the
   * object has an extent.
   */
  box: Box
  /** 0..1 of height and width. */
  normalized: NormalizedBox
  /**
   * 0..1: `boxScore` times `labelScore`. Probabilities are among the whole vocabulary: with `constrain: false` and the
   * same output they are the same.
   */
  score: number
  /** 0..1: probability of the name after the location; 1 where the model gave none. */
  labelScore: number
  /** 0..1: probability of the four location tokens, each counted together with those within 1/64 of the picture. */
  boxScore: number
}

/** An object found by `segment`. */
export interface Segmentation extends Detection {
  /**
   * In pixels of the whole image, row-major, 0..255; "training" convention: 0 or 255. All 0 where the box is empty or
   * the model wrote no mask.
   */
  mask: Mask & { data: PlainBytes }
  /** The model's 16 mask codes; empty where it wrote none. */
  codes: number[]
}

/**
 * The `minScore` that best tells what is there from what is not, calibrated on the demo model: 0.7 for one label (99 %
 * of the right boxes stay, 93 % of those of absent things go), divided by the number of labels, whose order is open:
 * they share the probability of the first location. The command's default; models differ, see docs/constraints.md.
 */
export function recommendedMinScore(labels: string | readonly string[]): number {
  const taken = take('labels', labels, labelsRule)
  return 0.7 / (typeof taken === 'string' ? 1 : new Set(taken.map((label) => label.trim())).size)
}

type Scores = Pick<Detection, 'score' | 'labelScore' | 'boxScore'>

/**
 * Probabilities of the tokens that make an object's location and name. Mask codes are left out: there are 16 of them
 * and neighbouring codes mean nearly the same mask.
 */
export function objectScores(tokens: GeneratedToken[], object: ParsedObject, nameSpan?: [number, number]): Scores {
  const [start, end] = object.span
  const locationEnd = Math.min(start + 4 * '<loc0000>'.length, end)
  const within = (from: number, to: number, a: number, b: number): boolean => from < b && to > a
  let at = 0
  const box: number[] = []
  const name: number[] = []
  for (const token of tokens) {
    const from = at
    at += token.text.length
    if (from === at || token.logProb === undefined) continue
    if (within(from, at, start, locationEnd)) box.push(token.nearLogProb ?? token.logProb)
    else if (nameSpan && within(from, at, ...nameSpan)) name.push(token.logProb)
  }
  const product = (logProbs: number[]): number => Math.min(Math.exp(logProbs.reduce((a, b) => a + b, 0)), 1)
  const labelScore = product(name)
  const boxScore = box.length === 0 ? 0 : product(box)
  return { score: boxScore * labelScore, labelScore, boxScore }
}

type Found = Detection & { object: ParsedObject }
type Geometry = Parameters<typeof parsePieces>[1]
type Kind = 'detect' | 'segment'

/**
 * Objects in the order of the model's text. An ordinary array with four more properties, which JSON and copies leave
 * out.
 */
export type ObjectList<T> = T[] & {
  /** "length": `maxTokens` or the context cut the list, there may be more; "stop": the model ended it. */
  readonly finishReason: Exclude<FinishReason, 'abort'>
  /** As {@link GenerateResult.seed}. */
  readonly seed: number
  /** Of the picture, in pixels. */
  readonly width: number
  readonly height: number
}

/** Not enumerable: an array of objects stays equal to its copy, in loops and in comparisons of tests. */
function objectList<T>(
  objects: T[],
  { finishReason, seed }: GenerateResult,
  { width, height }: Geometry
): ObjectList<T> {
  return Object.defineProperties(objects, {
    finishReason: { value: finishReason },
    seed: { value: seed },
    width: { value: width },
    height: { value: height }
  }) as ObjectList<T>
}

// Room for four objects of each name: four locations, a name of some tokens and the separator; segment: 16 codes more.
const tokensPerLabel = { detect: 4 * 12, segment: 4 * 28 }

/** Grows with what is looked for, as far as the context allows. */
function defaultMaxTokens(host: ModelHost, kind: Kind, names: string[]): number {
  const wanted = Math.max(defaults.detectMaxTokens, tokensPerLabel[kind] * names.length)
  if (wanted === defaults.detectMaxTokens) return wanted
  // <bos> and the newline around the prompt
  const prompt = host.model.tokenize(prompts[kind](names), false).length + 2
  const room = host.info.contextSize - host.info.imageTokens - prompt
  return Math.max(Math.min(wanted, room), defaults.detectMaxTokens)
}

async function findObjects(
  host: ModelHost,
  kind: Kind,
  image: ImageInput,
  labels: string | string[],
  options: Taken<DetectOptions>
): Promise<{ found: Found[]; geometry: Geometry; result: GenerateResult }> {
  host.throwIfDisposed()
  if (isEmbedding(image) && !image.transform) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected an ImageEmbedding with its transform for ${kind}, which gives boxes in pixels; use what encodeImage ` +
        'returned, unchanged'
    )
  }
  const names = [...new Set((typeof labels === 'string' ? [labels] : labels).map((label) => label.trim()))]
  const { constrain = true, maxObjects, minScore = 0, nms, logProbs, ...sampling } = options
  const { result, images } = await runGeneration(host, {
    ...sampling,
    maxTokens: sampling.maxTokens ?? defaultMaxTokens(host, kind, names),
    image,
    prompt: prompts[kind](names),
    logProbs: typeof logProbs === 'number' ? logProbs : true,
    // onToken and bestOf see all tokens
    scoredOnly: !logProbs && (sampling.bestOf ?? 1) === 1,
    ...(constrain && { constrain: { kind, labels: names, ...(maxObjects !== undefined && { maxObjects }) } })
  })
  const transform = images[0]!.transform!
  const geometry = {
    width: transform.sourceWidth,
    height: transform.sourceHeight,
    locScale: host.options.locScale ?? defaults.locScale,
    transform
  }
  const all = readObjects(result, geometry, names)
    .slice(0, maxObjects)
    .filter(({ score }) => score >= minScore)
  const { iou, classAgnostic } = typeof nms === 'object' ? nms : { iou: nms, classAgnostic: false }
  return { geometry, result, found: iou === undefined ? all : suppressOverlaps(all, iou, { classAgnostic }) }
}

function readObjects({ text, tokens }: GenerateResult, geometry: Geometry, names: string[]): Found[] {
  return parsePieces(text, geometry)
    .filter((piece): piece is OutputPiece & { object: ParsedObject } => piece.object !== null)
    .map(({ object, nameSpan }) => {
      const label = object.label === '' && names.length === 1 ? names[0]! : object.label
      return { label, classId: names.indexOf(label), object, nameSpan }
    })
    .map(({ object, nameSpan, ...named }) => ({
      ...named,
      box: visibleBox(object, geometry),
      normalized: object.normalized,
      ...objectScores(tokens, object, nameSpan),
      object
    }))
}

export async function detect(
  host: ModelHost,
  image: ImageInput,
  labels: string | string[],
  options: Taken<DetectOptions>
): Promise<ObjectList<Detection>> {
  const { found, result, geometry } = await findObjects(host, 'detect', image, labels, options)
  return objectList(
    found.map(({ object: _, ...detection }) => detection),
    result,
    geometry
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
  const { found, geometry, result } = await findObjects(host, 'segment', image, labels, options)
  const { width, height } = geometry
  const results: Segmentation[] = []
  for (const { object, ...detection } of found) {
    options.signal.throwIfAborted()
    const { codes } = object
    const usable = codes?.every((code) => code <= 127) ? codes : undefined
    const data = usable ? await fullMask(host, usable, object, geometry) : new Uint8Array(width * height)
    results.push({ ...detection, mask: asMask({ width, height, data }), codes: codes ?? [] })
  }
  return objectList(results, result, geometry)
}

async function fullMask(
  host: ModelHost,
  codes: number[],
  object: ParsedObject,
  geometry: Geometry
): Promise<PlainBytes> {
  const convention = host.options.maskConvention ?? defaults.maskConvention
  return await nativeCall(async () => {
    const mask = await host.model.decodeMask(codes)
    return await host.binding.pasteMask(mask, maskBox(object, geometry), geometry.width, geometry.height, convention)
  })
}
