/** The tiles of a picture in its drawing: which ones, and their lines. */
import { rule, take, takeList, type Rule } from '../../base/validate'
import { mostTiles, type Tile } from '../../images/tile-plan'
import { takeBox } from '../drawable'
import type { Sheet } from './sheet'

/** Tiles of all sizes and the whole picture: `auto` looks at larger ones beside the fine ones. */
const mostDrawn = 2 * mostTiles

const isObject = (v: unknown): boolean => typeof v === 'object' && v !== null
const listRule = rule.listOf('tiles ({ x, y, width, height })', isObject, { most: mostDrawn })

export const drawnTilesRule: Rule = {
  expected: `boolean or ${listRule.expected}`,
  take: (v) => takeList(v, mostDrawn),
  accepts: (v) => typeof v === 'boolean' || listRule.accepts(v)
}

/** What `shown` names; `true`: of a list all that was looked at, of other objects the tiles that each came from. */
export function tilesOf(results: unknown, shown: boolean | readonly Tile[] = false): Tile[] {
  if (shown === false) return []
  if (shown !== true) return takeTiles('tiles', shown)
  const { tiles } = results as { tiles?: unknown }
  if (tiles !== undefined) return takeTiles('results.tiles', tiles)
  return take(
    'results',
    results as readonly { info?: { tiles?: unknown } }[],
    rule.listOf('detections', isObject)
  ).flatMap(({ info }, i) => (info?.tiles === undefined ? [] : takeTiles(`results[${i}].info.tiles`, info.tiles)))
}

function takeTiles(name: string, given: unknown): Tile[] {
  return (take(name, given, listRule) as unknown[]).map((tile, i) => takeBox(`${name}[${i}]`, tile))
}

/** Dark dashes on light lines, which show on any picture; each tile once, the whole picture not at all. */
export function tilesSvg(tiles: readonly Tile[], picture: { width: number; height: number }, sheet: Sheet): string[] {
  const { scale, stroke } = sheet
  const line = Math.max(stroke / 2, 1)
  const isPart = ({ width, height }: Tile): boolean => width < picture.width || height < picture.height
  const rectangles = tiles.filter(isPart).map(({ x, y, width, height }) => {
    const place = `x="${x * scale + line / 2}" y="${y * scale + line / 2}"`
    const [across, down] = [width, height].map((side) => Math.max(side * scale - line, 0.5))
    return `<rect ${place} width="${across}" height="${down}"/>`
  })
  const shown = [...new Set(rectangles)].join('')
  if (shown === '') return []
  const group = (attributes: string): string => `<g fill="none" stroke-width="${line}" ${attributes}>${shown}</g>`
  return [
    group('stroke="#fff" stroke-opacity="0.8"'),
    group(`stroke="#111" stroke-opacity="0.8" stroke-dasharray="${4 * line}"`)
  ]
}
