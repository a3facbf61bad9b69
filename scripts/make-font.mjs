// Writes lib/output/draw/font-data.ts: the outlines that labels are drawn with. Run it when the font is to change:
//   npm install --no-save @fontsource/noto-sans opentype.js && node scripts/make-font.mjs
// Noto Sans is licensed under the SIL Open Font License 1.1 (see NOTICE).
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { brotliCompressSync, constants } from 'node:zlib'

const from = createRequire(process.env.FONT_MODULES ? path.join(process.env.FONT_MODULES, 'x.js') : import.meta.url)
const opentype = from('opentype.js')
const files = path.dirname(from.resolve('@fontsource/noto-sans/package.json'))
const subsets = ['latin', 'latin-ext', 'vietnamese', 'greek', 'cyrillic', 'cyrillic-ext']
const unitsPerEm = 500 // coordinates are whole numbers of these: 0.05 pixels at 25 pixels

const glyphs = new Map()
for (const subset of subsets) {
  const bytes = readFileSync(path.join(files, 'files', `noto-sans-${subset}-500-normal.woff`))
  const font = opentype.parse(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
  const scale = unitsPerEm / font.unitsPerEm
  for (const [code, index] of Object.entries(font.tables.cmap.glyphIndexMap)) {
    const glyph = font.glyphs.get(index)
    if (index > 0 && !glyphs.has(Number(code)))
      glyphs.set(Number(code), [Math.round(glyph.advanceWidth * scale), outline(glyph, scale)])
  }
}

/** A relative SVG path, y downwards from the base line. */
function outline(glyph, scale) {
  let [atX, atY] = [0, 0]
  const step = (x, y, move = false) => {
    const [toX, toY] = [Math.round(x * scale), Math.round(-y * scale)]
    const written = [toX - atX, toY - atY]
    if (move) [atX, atY] = [toX, toY]
    return written
  }
  let [startX, startY] = [0, 0]
  let text = ''
  for (const { type, x, y, x1, y1 } of glyph.path.commands) {
    if (type === 'Z') {
      text += 'z'
      ;[atX, atY] = [startX, startY]
    } else if (type === 'Q') text += `q${[...step(x1, y1), ...step(x, y, true)]}`
    else if (type === 'M' || type === 'L') text += `${type.toLowerCase()}${step(x, y, true)}`
    else throw new Error(`a command ${type}, which this font was not known to have`)
    if (type === 'M') [startX, startY] = [atX, atY]
  }
  return text.replaceAll(',-', '-')
}

const lines = [...glyphs]
  .sort(([a], [b]) => a - b)
  .map(([code, [advance, text]]) => `${code.toString(36)} ${advance} ${text}`)
const packed = brotliCompressSync(lines.join('\n'), {
  params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 }
})
const rows = packed
  .toString('base64')
  .match(/.{1,110}/g)
  .map((row) => `  '${row}'`)
writeFileSync(
  new URL('../lib/output/draw/font-data.ts', import.meta.url),
  `// Made by scripts/make-font.mjs from Noto Sans Medium (SIL Open Font License 1.1): brotli, base64
export const unitsPerEm = ${unitsPerEm}

export const packedGlyphs = [
${rows.join(',\n')}
].join('')
`
)
console.log(`${glyphs.size} glyphs, ${packed.length} bytes`)
