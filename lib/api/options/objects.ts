/** Objects in a model's output: what they are, and how sure the model is of them. */
import type { PlainBytes } from '../../base/plain-memory'
import type { Tile } from '../../images/tile-plan'
import type { Mask } from '../../output/masks/mask'
import {
  parsePieces,
  visibleBox,
  type Box,
  type NormalizedBox,
  type OutputPiece,
  type ParsedObject
} from '../../output/parse'
import type { FinishReason, GeneratedToken, GenerateResult } from './results'

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
  /** With the option `tiles`: the tiles that it was taken from, several where no one shows it whole. */
  info?: { tiles: Tile[] }
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

/** How the model's locations lead to pixels. */
export type Geometry = Parameters<typeof parsePieces>[1]

/** An object of one output. */
export type Found = Detection & { object: ParsedObject }

export function readObjects(
  { text, tokens }: Pick<GenerateResult, 'text' | 'tokens'>,
  geometry: Geometry,
  names: string[]
): Found[] {
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

/**
 * Objects in the order of the model's text, with `tiles` the best score first. An ordinary array with more properties,
 * which JSON and copies leave out.
 */
export type ObjectList<T> = T[] & {
  /** "length": `maxTokens` or the context cut the list, there may be more; "stop": the model ended it. */
  readonly finishReason: Exclude<FinishReason, 'abort'>
  /** As {@link GenerateResult.seed}. */
  readonly seed: number
  /** Of the picture as given (after EXIF orientation), in pixels. */
  readonly width: number
  /** Of the picture as given, in pixels. */
  readonly height: number
  /** With the option `tiles`: what was looked at, in pixels; the whole picture first. */
  readonly tiles?: readonly Tile[]
}

/** What a list says beside its objects. */
export interface ListFacts extends Pick<GenerateResult, 'finishReason' | 'seed'> {
  width: number
  height: number
  tiles?: readonly Tile[] | undefined
}

/** Not enumerable: an array of objects stays equal to its copy, in loops and in comparisons of tests. */
export function objectList<T>(objects: T[], { finishReason, seed, width, height, tiles }: ListFacts): ObjectList<T> {
  return Object.defineProperties(objects, {
    finishReason: { value: finishReason },
    seed: { value: seed },
    width: { value: width },
    height: { value: height },
    ...(tiles && { tiles: { value: tiles } })
  }) as ObjectList<T>
}
