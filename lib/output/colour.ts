/** Colours that people choose. */
import type { Rule } from '../base/validate'

/** Nothing else: the text goes into SVG as it is. */
export const isColour = (value: unknown): value is string => typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value)

export const colourRule: Rule = { expected: 'colour of the form "#rrggbb"', accepts: isColour }
