/** Finding objects: in one pass over the picture, or in its tiles. */
import { PaliGemmaError } from '../../base/errors'
import type { Taken } from '../../base/call'
import { isEmbedding, type ImageInput } from '../../images/image-input'
import { planTiles, type Tile } from '../../images/tile-plan'
import type { ImageTransform } from '../../images/transform'
import { mergeSightings } from '../../output/merge-tiles'
import { suppressOverlaps } from '../../output/nms'
import { runGeneration } from '../request/generation'
import type { ModelHost } from '../request/host'
import type { GenerationOptions } from '../request/job'
import { ObjectStream } from './object-stream'
import { readObjects, type Found, type Geometry, type ListFacts } from '../options/objects'
import { defaults, type DetectOptions } from '../options/options'
import { prompts } from '../options/prompts'
import { runTiles } from './tile-run'

export type Kind = 'detect' | 'segment'

/** An object of the picture, and the outputs that it comes from: of several tiles where no one shows it whole. */
export type PictureObject = Omit<Found, 'object'> & { parts: Part[] }

export interface Part {
  object: Found['object']
  /** Of the tile. */
  geometry: Geometry
  /** Of the tile in the picture, in pixels. */
  x: number
  y: number
}

export interface Finding extends ListFacts {
  found: PictureObject[]
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

/** Told of each object of the finding, in its order, as early as it is sure to be in it. */
export type TellObject = (object: PictureObject, picture: { width: number; height: number }) => void

/** In tiles where `options.tiles` asks for them, else in one pass. */
export async function findObjects(
  host: ModelHost,
  kind: Kind,
  image: ImageInput,
  labels: string | string[],
  options: Taken<DetectOptions<never>>,
  tell?: TellObject
): Promise<Finding> {
  host.throwIfDisposed()
  checkEmbedding(kind, image)
  const names = [...new Set((typeof labels === 'string' ? [labels] : labels).map((label) => label.trim()))]
  const finding =
    options.tiles === undefined
      ? await findInPicture(host, kind, image, names, options, options.nms === undefined ? tell : undefined)
      : await findInTiles(host, kind, image, names, options)
  const { iou, classAgnostic } =
    typeof options.nms === 'object' ? options.nms : { iou: options.nms, classAgnostic: false }
  const found = iou === undefined ? finding.found : suppressOverlaps(finding.found, iou, { classAgnostic })
  if (options.tiles !== undefined || iou !== undefined) for (const object of found) tell?.(object, finding)
  return { ...finding, found }
}

export function checkEmbedding(kind: Kind | 'parse', image: ImageInput): void {
  if (isEmbedding(image) && !image.transform) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected an ImageEmbedding with its transform for ${kind}, which gives boxes in pixels; use what encodeImage ` +
        'returned, unchanged'
    )
  }
}

/** The task as a generation that lacks its picture. */
function request(
  host: ModelHost,
  kind: Kind,
  names: string[],
  options: Taken<DetectOptions<never>>
): Taken<GenerationOptions> {
  const {
    constrain = true,
    maxObjects,
    minScore: _,
    nms: __,
    tiles: ___,
    onTile: ____,
    onObject: _____,
    logProbs,
    ...sampling
  } = options
  return {
    ...sampling,
    maxTokens: sampling.maxTokens ?? defaultMaxTokens(host, kind, names),
    prompt: prompts[kind](names),
    logProbs: typeof logProbs === 'number' ? logProbs : true,
    // onToken and bestOf see all tokens
    scoredOnly: !logProbs && (sampling.bestOf ?? 1) === 1,
    ...(constrain && { constrain: { kind, labels: names, ...(maxObjects !== undefined && { maxObjects }) } })
  }
}

async function findInPicture(
  host: ModelHost,
  kind: Kind,
  image: ImageInput,
  names: string[],
  options: Taken<DetectOptions<never>>,
  tell: TellObject | undefined
): Promise<Finding> {
  const objects = new ObjectStream<PictureObject>(
    names,
    options,
    ([picture]) => geometryOf(host, picture!.transform!),
    ({ object, ...detection }, geometry) => ({ ...detection, parts: [{ object, geometry, x: 0, y: 0 }] }),
    tell && ((object) => tell(object, object.parts[0]!.geometry))
  )
  const call = request(host, kind, names, options)
  const { result, images } = await runGeneration(host, { ...call, image }, objects.streaming)
  const { sourceWidth: width, sourceHeight: height } = images[0]!.transform!
  return { found: objects.finish(result), width, height, finishReason: result.finishReason, seed: result.seed }
}

/** What leads from a view's locations to its pixels. */
export function geometryOf(host: ModelHost, transform: ImageTransform): Geometry {
  const { sourceWidth: width, sourceHeight: height } = transform
  return { width, height, locScale: host.options.locScale ?? defaults.locScale, transform }
}

async function findInTiles(
  host: ModelHost,
  kind: Kind,
  image: ImageInput,
  names: string[],
  options: Taken<DetectOptions<never>>
): Promise<Finding> {
  const square = host.info.imageSize
  const plan = (picture: Tile): Tile[] => [picture, ...planTiles(picture, square, options.tiles!)]
  const outputs = await runTiles(host, image, request(host, kind, names, options), plan, options)
  const picture = outputs[0]!.view.tile
  const tiles = outputs.map(({ view }) => view.tile)
  const { minScore = 0, maxObjects = Infinity } = options
  const unfinished = new Set<number>()
  const all = outputs.flatMap(({ view, result }, index) => {
    const { tile, transform } = view
    const geometry = geometryOf(host, transform)
    const seen = readObjects(result, geometry, names).slice(0, maxObjects)
    if (result.finishReason === 'length' || seen.length === maxObjects) unfinished.add(index)
    return seen.map(({ object, ...detection }) => ({
      detection,
      view: index,
      part: { object, geometry, x: tile.x, y: tile.y },
      ...detection,
      box: shifted(detection.box, tile)
    }))
  })
  const sightings = all.filter(({ score }) => score >= minScore)
  const doubtful = all.filter(({ score }) => score < minScore)
  const found = mergeSightings(sightings, tiles, { doubtful, unfinished }).map(({ box, parts }) => {
    const members = parts.map((index) => sightings[index]!)
    const best = members.reduce((a, b) => (b.score > a.score ? b : a))
    return {
      ...best.detection,
      box,
      normalized: normalizedIn(picture, box),
      parts: members.map(({ part }) => part),
      info: { tiles: members.map(({ view }) => tiles[view]!) }
    }
  })
  return {
    found: found.slice(0, options.maxObjects),
    ...picture,
    finishReason: outputs.some(({ result }) => result.finishReason === 'length') ? 'length' : 'stop',
    seed: outputs[0]!.result.seed,
    tiles
  }
}

function shifted(box: Tile, { x, y }: Tile): Tile {
  return { ...box, x: box.x + x, y: box.y + y }
}

function normalizedIn({ width, height }: Tile, box: Tile): Found['normalized'] {
  return {
    yMin: box.y / height,
    xMin: box.x / width,
    yMax: (box.y + box.height) / height,
    xMax: (box.x + box.width) / width
  }
}
