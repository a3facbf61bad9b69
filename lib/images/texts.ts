/** Pictures that are written as text: base64, with or without `data:` in front. */
import { invalid } from './problems'
import { formatOf } from './formats'

/** The bytes of a `data:` URL. */
export function fromDataUrl(url: string, name: string): Buffer {
  const comma = url.indexOf(',')
  if (comma < 0) throw invalid(name, 'a data: URL without a comma')
  // Escapes are bytes, which need not be text: %89PNG
  const plain = Buffer.from(url.slice(comma + 1), 'utf8')
    .toString('latin1')
    .replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  const base64 = /;\s*base64\s*$/i.test(url.slice(0, comma))
  // In plain text it may stand for itself: the width="100%" of an SVG
  if (base64 && plain.includes('%')) throw invalid(name, 'a data: URL with broken % escapes')
  const bytes = Buffer.from(plain, base64 ? 'base64' : 'latin1')
  if (bytes.length === 0) throw invalid(name, 'a data: URL without data')
  return bytes
}

// what is left of a data: URL where somebody cut off its beginning
const cutPrefix = /^\s*(?:image\/[\w.+-]+)?;?\s*base64,/i
const alphabet = /^[A-Za-z0-9+/_\-\s]+={0,2}\s*$/
const examined = 1400

const looksLikeBase64 = (text: string): boolean =>
  alphabet.test(text.length > examined ? text.slice(0, examined) : text)

/** Whether a text begins as a picture in base64 does. */
export function isBase64Picture(text: string): boolean {
  return fromBase64(text.slice(0, 2 * examined)) !== undefined
}

/** The bytes of a picture in base64 (or base64url, or broken into lines); undefined where the text is none. */
export function fromBase64(text: string): Buffer | undefined {
  const body = text.slice(cutPrefix.exec(text.slice(0, 100))?.[0].length ?? 0)
  if (!looksLikeBase64(body)) return undefined
  const head = Buffer.from(body.slice(0, examined), 'base64')
  return head.length >= 8 && formatOf(head) ? Buffer.from(body, 'base64') : undefined
}

/** Why a text that is no path and no picture might be meant as one, for the message. */
export function base64Hint(text: string): string {
  // a call may have put its working folder in front
  return /[\w+/-]{100}/.test(text.slice(0, 10_000))
    ? '; nor is it base64 of a JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG, BMP, PPM or PGM'
    : ''
}
