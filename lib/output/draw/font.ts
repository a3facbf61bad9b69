/** The typeface of labels: outlines that travel with the package, so that they look the same on every machine. */
import { brotliDecompressSync } from 'node:zlib'
import { packedGlyphs, unitsPerEm } from './font-data'

interface Glyph {
  /** In units of the font. */
  advance: number
  /** An SVG path from the base line, in units of the font. */
  path: string
}

let glyphs: Map<string, Glyph> | undefined

function allGlyphs(): Map<string, Glyph> {
  glyphs ??= new Map(
    brotliDecompressSync(Buffer.from(packedGlyphs, 'base64'))
      .toString('latin1')
      .split('\n')
      .map((line) => {
        const [code = '', advance = '', path = ''] = line.split(' ')
        return [String.fromCodePoint(Number.parseInt(code, 36)), { advance: Number(advance), path }]
      })
  )
  return glyphs
}

/** Of capital letters and of what hangs below the line, in parts of the font size. */
export const capHeight = 0.714
export const descent = 0.24

/** The characters of a text that have no outline here, each once. */
export function missingFrom(text: string): string[] {
  return [...new Set(text)].filter((char) => !allGlyphs().has(char))
}

/** Whether every character has an outline: Latin, Greek and Cyrillic letters, digits, punctuation. */
export const canDraw = (text: string): boolean => missingFrom(text).length === 0

/** In pixels. */
export function textWidth(text: string, size: number): number {
  let units = 0
  for (const char of text) units += allGlyphs().get(char)?.advance ?? unitsPerEm
  return (units * size) / unitsPerEm
}

/** SVG of the text, its base line beginning at (x, y). */
export function textPaths(text: string, x: number, y: number, size: number, colour: string): string {
  const parts: string[] = []
  let at = 0
  for (const char of text) {
    const glyph = allGlyphs().get(char)
    if (glyph?.path) parts.push(`<path transform="translate(${at})" d="${glyph.path}"/>`)
    at += glyph?.advance ?? unitsPerEm
  }
  return `<g fill="${colour}" transform="translate(${x} ${y}) scale(${size / unitsPerEm})">${parts.join('')}</g>`
}
