/** A mask as an SVG. */
import { readOptions, rule, wrongOption, type Rules } from '../../base/validate'
import { colourRule } from '../colour'
import { type Mask, takeMask } from './mask'
import { polygonRules, polygonsOf, type MaskPolygon, type PolygonOptions } from './polygons'

/** Options of {@link maskToSvg}. */
export interface MaskSvgOptions extends PolygonOptions {
  /** "svg" (default): a document in the picture's size; "path": what stands in the `d` of a path. */
  form?: 'svg' | 'path' | undefined
  /** "#rrggbb", default "#e6194b"; not of a path. */
  color?: string | undefined
  /** 0..1, default 1; not of a path. */
  opacity?: number | undefined
}

const svgRules: Rules<MaskSvgOptions> = {
  ...polygonRules,
  form: rule.oneOf('svg', 'path'),
  color: colourRule,
  opacity: rule.number(0, 1)
}

/** The `d` of a path; holes need the fill rule "evenodd" (or "nonzero": they turn the other way). */
export function pathOf(polygons: readonly MaskPolygon[]): string {
  return polygons
    .flatMap(({ outer, holes }) => [outer, ...holes])
    .map((ring) => `M${ring.join(' ')}Z`)
    .join('')
}

/**
 * A mask (over 127 is inside) as an SVG whose path follows its pixels, or as that path alone. `tolerance` and `minArea`
 * as for {@link maskToPolygons}.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function maskToSvg(mask: Mask, options: MaskSvgOptions = {}): string {
  const { form = 'svg', color, opacity, tolerance, minArea } = readOptions('maskToSvg', options, svgRules)
  if (form === 'path' && (color ?? opacity) !== undefined)
    throw wrongOption(color === undefined ? 'opacity' : 'color', 'nothing with form "path"', color ?? opacity)
  const { width, height, data } = takeMask('mask', mask)
  const path = pathOf(polygonsOf({ width, height, data }, tolerance, minArea))
  if (form === 'path') return path
  const seen = opacity === undefined ? '' : ` fill-opacity="${opacity}"`
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
    `<path fill="${color ?? '#e6194b'}"${seen} fill-rule="evenodd" d="${path}"/></svg>`
  )
}
