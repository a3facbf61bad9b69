/** Colours of labels: ours, and those that people choose. */
import { isRecord } from '../base/realms'
import { everyItem, takeList, type Rule } from '../base/validate'

/** Nothing else: the text goes into SVG as it is. */
export const isColour = (value: unknown): value is string => typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value)

export const colourRule: Rule = { expected: 'colour of the form "#rrggbb"', accepts: isColour }

// Ten hues of like strength that stay apart for colour-blind eyes too, strongest contrasts first.
const palette = [
  '#e6194b',
  '#3cb44b',
  '#4363d8',
  '#f58231',
  '#911eb4',
  '#42d4f4',
  '#f032e6',
  '#bfef45',
  '#9a6324',
  '#ffe119'
] as const

/** In turn for labels as they come, or one for each label by name. */
export type Colours = readonly string[] | Readonly<Record<string, string>>

export const coloursRule: Rule = {
  expected: 'non-empty array of colours "#rrggbb", or an object with one for each label,',
  take: (v) => (isRecord(v) ? { ...v } : takeList(v)),
  accepts: (v) =>
    Array.isArray(v) ? v.length > 0 && everyItem(v, isColour) : isRecord(v) && Object.values(v).every(isColour)
}

/** A colour for every label; of an object, ours for the labels that it does not name. */
export function coloursOf(labels: Iterable<string>, chosen: Colours | undefined): Map<string, string> {
  const isList = Array.isArray(chosen)
  const row = isList ? (chosen as readonly string[]) : palette
  const named = chosen === undefined || isList ? {} : (chosen as Record<string, string>)
  const colours = new Map<string, string>()
  for (const label of labels) {
    if (colours.has(label)) continue
    colours.set(label, Object.hasOwn(named, label) ? named[label]! : row[colours.size % row.length]!)
  }
  return colours
}

/** Black or white, whichever reads better (relative luminance as WCAG defines it, with its gamma as a square). */
export function inkOn(colour: string): string {
  const [r, g, b] = [1, 3, 5].map((i) => (parseInt(colour.slice(i, i + 2), 16) / 255) ** 2) as [number, number, number]
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.3 ? '#000000' : '#ffffff'
}
