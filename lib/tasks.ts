/** `detect` and `segment`: prompt, constrained generation, parsing, scores and masks. */
import { nativeCall, PaliGemmaError } from './errors'
import { runGeneration, type GeneratedToken } from './generation'
import type { ModelHost } from './host'
import { isEmbedding, type ImageInput } from './image-input'
import { defaults, detectRules, labelsRule, type DetectOptions } from './options'
import { maskBox, parsePieces, type Box, type NormalizedBox, type OutputPiece, type ParsedObject } from './parse'
import { prompts } from './prompts'
import { check, checkOptions } from './validate'

/** An object found by `detect`. */
export interface Detection {
  /** The name the model gave; with a single label and a model that gives none, that label. */
  label: string
  /** Top left corner and size in pixels of the image as given (after EXIF orientation). */
  box: Box
  /** 0..1 of height and width. */
  normalized: NormalizedBox
  /** 0..1: geometric mean of the probabilities of the object's location and name tokens. */
  score: number
}

/** An object found by `segment`. */
export interface Segmentation extends Detection {
  /** In pixels of the whole image, row-major, 0..255; "training" convention: 0 or 255. All 0 where the box is empty or the model wrote no mask. */
  mask: { width: number, height: number, data: Uint8Array }
  /** The model's 16 mask codes; empty where it wrote none. */
  codes: number[]
}

/**
 * Geometric mean of the probabilities of the tokens that make an object's location and name. Mask codes are left out:
 * there are 16 of them and neighbouring codes mean nearly the same mask.
 */
export function objectScore (tokens: GeneratedToken[], object: ParsedObject, nameSpan?: [number, number]): number {
  const [start, end] = object.span
  const locationEnd = Math.min(start + 4 * '<loc0000>'.length, end)
  const within = (from: number, to: number, a: number, b: number): boolean => from < b && to > a
  let at = 0
  let sum = 0
  let count = 0
  for (const token of tokens) {
    const from = at
    at += token.text.length
    if (from === at || token.logProb === undefined) continue
    if (within(from, at, start, locationEnd) || (nameSpan && within(from, at, ...nameSpan))) {
      sum += token.logProb
      count++
    }
  }
  return count === 0 ? 0 : Math.min(Math.exp(sum / count), 1)
}

async function findObjects (host: ModelHost, kind: 'detect' | 'segment', image: ImageInput, labels: string | string[], options: DetectOptions):
Promise<{ pieces: (OutputPiece & { object: ParsedObject })[], found: Detection[], geometry: Parameters<typeof parsePieces>[1] }> {
  checkOptions<DetectOptions>(kind, options, detectRules)
  check('labels', labels, labelsRule)
  if (image === undefined) throw new PaliGemmaError('ERR_INVALID_OPTION', 'Expected an image but received undefined')
  if (isEmbedding(image) && !image.transform) {
    throw new PaliGemmaError('ERR_INVALID_OPTION', `Expected an ImageEmbedding with its transform for ${kind}, which gives boxes in pixels; use what encodeImage returned, unchanged`)
  }
  const names = [...new Set((typeof labels === 'string' ? [labels] : labels).map(label => label.trim()))]
  const { constrain = true, maxObjects, logProbs, ...sampling } = options
  const { result, images } = await runGeneration(host, {
    maxTokens: defaults.detectMaxTokens,
    ...sampling,
    image,
    prompt: prompts[kind](names),
    logProbs: typeof logProbs === 'number' ? logProbs : true,
    ...(constrain && { constrain: { kind, labels: names, ...(maxObjects !== undefined && { maxObjects }) } })
  })
  const transform = images[0]!.transform!
  const geometry = { width: transform.sourceWidth, height: transform.sourceHeight, locScale: host.options.locScale ?? defaults.locScale, transform }
  const pieces = parsePieces(result.text, geometry)
    .filter((piece): piece is OutputPiece & { object: ParsedObject } => piece.object !== null)
    .slice(0, maxObjects)
  return {
    pieces,
    geometry,
    found: pieces.map(({ object, nameSpan }) => ({
      label: object.label === '' && names.length === 1 ? names[0]! : object.label,
      box: object.box,
      normalized: object.normalized,
      score: objectScore(result.tokens, object, nameSpan)
    }))
  }
}

export async function detect (host: ModelHost, image: ImageInput, labels: string | string[], options: DetectOptions): Promise<Detection[]> {
  return (await findObjects(host, 'detect', image, labels, options)).found
}

export async function segment (host: ModelHost, image: ImageInput, labels: string | string[], options: DetectOptions): Promise<Segmentation[]> {
  host.throwIfDisposed()
  if (!host.info.hasMaskDecoder) {
    throw new PaliGemmaError('ERR_MODEL_UNSUPPORTED',
      'The model file has no mask decoder; pass one as loadModel({ model, maskDecoder: \'vae-oid.npz\' }) or convert with --mask-decoder')
  }
  const { pieces, found, geometry } = await findObjects(host, 'segment', image, labels, options)
  const { width, height } = geometry
  const results: Segmentation[] = []
  for (const [i, { object }] of pieces.entries()) {
    options.signal?.throwIfAborted()
    const codes = object.codes
    const usable = codes !== null && codes.every(code => code <= 127)
    const data = usable
      ? await nativeCall(async () => {
        const mask = await host.model.decodeMask(codes)
        return await host.binding.pasteMask(mask, maskBox(object, geometry), width, height, host.options.maskConvention ?? defaults.maskConvention)
      })
      : new Uint8Array(width * height)
    results.push({ ...found[i]!, mask: { width, height, data }, codes: codes ?? [] })
  }
  return results
}
