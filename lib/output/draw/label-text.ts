/**
 * What a label says, as it can be drawn here: by the package's outlines, else by a font of the machine, else its
 * number.
 */
import { canDraw, missingFrom, textPaths, textWidth } from './font'
import { isStarved, loadSharp } from '../../images/sharp'

export interface LabelText {
  /** In pixels. */
  width: number
  /** SVG, the base line beginning at (x, y). */
  svg: (x: number, y: number, colour: string) => string
}

// Control characters and halves of surrogate pairs, which XML does not allow either.
const unprintable = /[\p{Cc}\p{Cs}\ufffe\uffff]/gu

/** In plainer characters: ligatures and wide forms taken apart, without marks that show nothing. */
function plainer(text: string): string {
  return text
    .normalize('NFKC')
    .replace(/[\p{Cf}\p{Variation_Selector}]/gu, '')
    .replace(/[\u2010\u2011]/g, '-')
}

/**
 * @param number of the label, shown where nothing on this machine can draw it
 * @param note is called with what the number stands for
 */
export async function labelText(
  text: string,
  size: number,
  most: number,
  number: number,
  note: (shown: string, label: string) => void
): Promise<LabelText> {
  const printable = text.normalize('NFC').replace(unprintable, '\ufffd')
  const clean = [printable, plainer(printable)].find(canDraw) ?? printable
  if (canDraw(clean) || (await lacksFont(clean))) {
    let shown = clean
    if (!canDraw(clean)) {
      shown = `#${number}`
      note(shown, text)
    }
    const fitted = shorten(shown, size, most)
    return {
      width: textWidth(fitted, size),
      svg: (x, y, colour) => textPaths(fitted, x, y, size, colour)
    }
  }
  const fitted = shorten(clean, size, most)
  return {
    width: await systemWidth(fitted, size),
    svg: (x, y, colour) =>
      `<text x="${x}" y="${y}" font-family="sans-serif" font-size="${size}" ` +
      `fill="${colour}">${escapeXml(fitted)}</text>`
  }
}

function shorten(text: string, size: number, most: number): string {
  if (textWidth(text, size) <= most) return text
  const end = textWidth('...', size)
  let shown = ''
  let width = 0
  for (const char of text) {
    width += textWidth(char, size)
    if (width + end > most && shown !== '') break
    shown += char
  }
  return `${shown}...`
}

const escapeXml = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)

// By no font, ever: what a machine shows for it is what it shows for a missing glyph.
const noncharacter = '\ufdd0'
const lacking = new Map<string, Promise<boolean>>()

/** Whether a character of the text has neither an outline here nor a glyph in the machine's fonts. */
async function lacksFont(text: string): Promise<boolean> {
  for (const char of missingFrom(text).slice(0, 100)) {
    if (/\s/.test(char)) continue
    let known = lacking.get(char)
    if (!known) {
      known = looksMissing(char)
      if (lacking.size < 10_000) lacking.set(char, known)
      known.catch(() => lacking.delete(char))
    }
    if (await known) return true
  }
  return false
}

/** A missing glyph is a box, perhaps with the character's number in it: of one size, and with one frame. */
async function looksMissing(char: string): Promise<boolean> {
  const [seen, box] = await Promise.all([render(char), render(noncharacter)])
  if (!seen) return true
  if (!box || seen.width !== box.width || seen.height !== box.height) return false
  const row = seen.width * seen.channels
  return (
    seen.data.subarray(0, row).equals(box.data.subarray(0, row)) &&
    seen.data.subarray(-row).equals(box.data.subarray(-row))
  )
}

async function render(
  text: string,
  size = 20
): Promise<{ data: Buffer; width: number; height: number; channels: number } | undefined> {
  try {
    const sharp = await loadSharp()
    const { data, info } = await sharp({ text: { text: escapeXml(text), font: `sans ${size}`, dpi: 72 } })
      .raw()
      .toBuffer({ resolveWithObject: true })
    return { data, width: info.width, height: info.height, channels: info.channels }
  } catch (error) {
    if (isStarved(error)) throw error
    return undefined // white space alone, or no text at all
  }
}

async function systemWidth(text: string, size: number): Promise<number> {
  return (await render(text, size))?.width ?? textWidth(text, size)
}
