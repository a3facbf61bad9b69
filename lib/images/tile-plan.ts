/** Cutting a large picture into overlapping tiles of equal size that cover it exactly. Pure. */
import { PaliGemmaError } from '../base/errors'
import { copyRecord, isRecord } from '../base/realms'
import { rule, type Rule } from '../base/validate'

/** A rectangle of the picture, in whole pixels. */
export interface Tile {
  /** Of its left edge, from the picture's. */
  x: number
  /** Of its top edge, from the picture's. */
  y: number
  /** To the right, at least 1. */
  width: number
  /** Downwards, at least 1. */
  height: number
}

/**
 * "auto": as the picture's size and shape against the model's suggest, one pass where tiles gain nothing. `columns` and
 * `rows`: exactly so many. `size`: tiles of about so many pixels, width and height. `overlap`: the share of a tile's
 * side that its neighbour sees too, 0 to 0.5; default 0.25.
 */
export type TileOption =
  | 'auto'
  | { columns: number; rows: number; overlap?: number | undefined }
  | { size: number; overlap?: number | undefined }

/** What is neither cut by a tile's border nor wider than this share of a tile lies whole in one of them. */
export const defaultOverlap = 0.25
/** More would keep a machine busy for minutes and hold all their pixels at once. */
export const mostTiles = 256
/** Of a picture that is thinner nothing could be known at its own shape: `auto` sees it in one pass. */
const leastTile = 16
/** How much `auto` lets a tile shrink to the model's square: what is 40 pixels wide is 20 then. */
const autoShrink = 2
const mostAutoTiles = 48
/** Fewer tiles than this need no larger ones beside them: the whole picture shows what they cut. */
const fewTiles = 6

const side = rule.integer(1, mostTiles)
const pixels = rule.integer(leastTile, 65_536)
const share = rule.number(0, 0.5)

export const tilesRule: Rule = {
  expected:
    '"auto", { columns, rows, overlap? } with integers from 1 to 256, or { size, overlap? } with pixels from 16 to ' +
    '65536; overlap from 0 to 0.5',
  take: copyRecord,
  accepts: (v) => {
    if (!isRecord(v)) return v === 'auto'
    const { columns, rows, size, overlap = 0, ...other } = v
    const grid = side.accepts(columns) && side.accepts(rows) && size === undefined
    const sized = pixels.accepts(size) && columns === undefined && rows === undefined
    return share.accepts(overlap ?? 0) && (grid || sized) && Object.keys(other).length === 0
  }
}

interface Size {
  width: number
  height: number
}

/**
 * Tiles of a picture for a model that sees `square` pixels each way, row by row; none where one pass does as well.
 * `auto` cuts again where there are many: what is too large for the small tiles larger ones, which come first, show
 * whole.
 */
export function planTiles(picture: Size, square: number, option: TileOption): Tile[] {
  if (option !== 'auto') return cutInto(picture, option, gridOf(picture, option))
  const { width, height } = picture
  if (Math.max(width, height) <= autoShrink * square || Math.min(width, height) < leastTile) return []
  const fine = autoSize(picture, square)
  const tiles: Tile[] = []
  for (let size = fine; ; size *= 2) {
    const level = cutInto(picture, option, gridOf(picture, { size }))
    tiles.unshift(...level)
    if (level.length < fewTiles) return tiles
  }
}

/** Tiles of one size for reading, row by row; the whole picture where one pass does as well. */
export function planTextTiles(picture: Tile, square: number, option: TileOption): Tile[] {
  const all = planTiles(picture, square, option)
  const finest = all.at(-1) // the last level
  return finest ? all.filter(({ width, height }) => width === finest.width && height === finest.height) : [picture]
}

interface Grid {
  columns: number
  rows: number
  overlap: number
}

function gridOf({ width, height }: Size, option: Exclude<TileOption, 'auto'>): Grid {
  const { overlap = defaultOverlap } = option
  if ('columns' in option) {
    return { columns: Math.min(option.columns, width), rows: Math.min(option.rows, height), overlap }
  }
  const { size } = option
  // a rest of some pixels makes no further tile
  const count = (length: number): number =>
    Math.max(Math.ceil((length - overlap * size) / (size * (1 - overlap)) - 0.05), 1)
  return { columns: count(width), rows: count(height), overlap }
}

/** Of a tile that `auto` takes: not smaller than gains anything, nor so small that there would be too many. */
function autoSize({ width, height }: Size, square: number): number {
  const fresh = 1 - defaultOverlap // of a tile's side
  const few = Math.max(Math.sqrt((width * height) / mostAutoTiles), Math.max(width, height) / mostAutoTiles) / fresh
  // long pictures: square tiles along the longer side
  const shorter = Math.max(Math.min(width, height), square)
  return Math.max(Math.min(autoShrink * square, shorter), few)
}

function cutInto(picture: Size, option: TileOption, { columns, rows, overlap }: Grid): Tile[] {
  if (columns * rows > mostTiles) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected at most ${mostTiles} tiles but received tiles: ${JSON.stringify(option)}, which cuts a picture of ` +
        `${picture.width} x ${picture.height} into ${columns} x ${rows}; choose larger ones`
    )
  }
  if (columns * rows === 1) return []
  const across = spans(picture.width, columns, overlap)
  const down = spans(picture.height, rows, overlap)
  return down.flatMap(([y, height]) => across.map(([x, width]) => ({ x, y, width, height })))
}

/** Start and length of `count` equal spans that cover `length` exactly and share about `overlap` of themselves. */
function spans(length: number, count: number, overlap: number): [number, number][] {
  const span = Math.min(Math.ceil(length / (count - (count - 1) * overlap)), length)
  return Array.from({ length: count }, (_, i) => [
    count === 1 ? 0 : Math.round((i * (length - span)) / (count - 1)),
    span
  ])
}
