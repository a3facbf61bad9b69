/** Pictures that are written as text: base64, with or without `data:` in front. */
import { Turns } from '../base/turns'
import { invalid } from './problems'
import { formatOf } from './formats'

// a media type and its parameters
const longestHead = 4096

/** The bytes of a `data:` URL. Rejects with ERR_IMAGE_INVALID. */
export async function fromDataUrl(url: string, name: string, signal?: AbortSignal): Promise<Buffer> {
  const comma = url.slice(0, longestHead).indexOf(',')
  if (comma < 0) throw invalid(name, 'a data: URL without a comma')
  const base64 = /;\s*base64\s*$/i.test(url.slice(0, comma))
  const data = url.slice(comma + 1)
  const plain = base64 && !data.includes('%') ? undefined : await withoutEscapes(data, signal)
  // In plain text it may stand for itself: the width="100%" of an SVG
  if (base64 && plain?.includes(percent)) throw invalid(name, 'a data: URL with broken % escapes')
  const bytes = base64 ? await decodeBase64(plain?.toString('latin1') ?? data, signal) : plain!
  if (bytes.length === 0) throw invalid(name, 'a data: URL without data')
  return bytes
}

const percent = 0x25
const digits = new Int8Array(256).fill(-1)
for (const [value, digit] of [...'0123456789abcdef'].entries())
  digits[digit.charCodeAt(0)] = digits[digit.toUpperCase().charCodeAt(0)] = value

/** Escapes are bytes, which need not be text: %89PNG */
async function withoutEscapes(text: string, signal: AbortSignal | undefined): Promise<Buffer> {
  const turns = new Turns()
  const bytes = Buffer.from(text, 'utf8')
  let to = 0
  for (let at = 0; at < bytes.length; to++) {
    if ((to & 0xffff) === 0 && turns.due) await turns.next(signal)
    const [high, low] = bytes[at] === percent ? [digits[bytes[at + 1] ?? 0]!, digits[bytes[at + 2] ?? 0]!] : [-1, -1]
    const escaped = high >= 0 && low >= 0
    bytes[to] = escaped ? high * 16 + low : bytes[at]!
    at += escaped ? 3 : 1
  }
  return bytes.subarray(0, to)
}

const sliceLength = 1 << 18

/** In slices: a picture of 200 MB may come as text. Ends at the first "="; skips what base64 has no meaning for. */
async function decodeBase64(text: string, signal: AbortSignal | undefined): Promise<Buffer> {
  const turns = new Turns()
  const bytes = Buffer.allocUnsafeSlow(Math.ceil((text.length * 3) / 4))
  let [filled, rest] = [0, '']
  for (let at = 0; at < text.length; at += sliceLength) {
    if (turns.due) await turns.next(signal)
    const clean = rest + text.slice(at, at + sliceLength).replace(/[^A-Za-z0-9+/_=-]+/g, '')
    const end = clean.indexOf('=')
    const whole = end < 0 ? clean.length - (clean.length % 4) : end
    filled += bytes.write(clean.slice(0, whole), filled, 'base64')
    if (end >= 0) return bytes.subarray(0, filled)
    rest = clean.slice(whole)
  }
  filled += bytes.write(rest, filled, 'base64')
  return bytes.subarray(0, filled)
}

// what is left of a data: URL where somebody cut off its beginning
const cutPrefix = /^\s*(?:image\/[\w.+-]+)?;?\s*base64,/i
const alphabet = /^[A-Za-z0-9+/_\-\s]+={0,2}\s*$/
const examined = 1400

const looksLikeBase64 = (text: string): boolean =>
  alphabet.test(text.length > examined ? text.slice(0, examined) : text)

/** Whether a text begins as a picture in base64 (or base64url, or broken into lines) does. */
export function isBase64Picture(text: string): boolean {
  const start = bodyOf(text.slice(0, 2 * examined))
  if (!looksLikeBase64(start)) return false
  const head = Buffer.from(start.slice(0, examined), 'base64')
  return head.length >= 8 && formatOf(head) !== undefined
}

const bodyOf = (text: string): string => text.slice(cutPrefix.exec(text.slice(0, 100))?.[0].length ?? 0)

/** The bytes of a picture in base64; undefined where the text is none. */
export async function fromBase64(text: string, signal?: AbortSignal): Promise<Buffer | undefined> {
  return isBase64Picture(text) ? await decodeBase64(bodyOf(text), signal) : undefined
}

/** Why a text that is no path and no picture might be meant as one, for the message. */
export function textHint(text: string): string {
  // a call may have put its working folder in front
  const start = text.slice(0, 10_000)
  if (/<(?:svg|\?xml)[\s>]/i.test(start)) return '; an SVG as text is read from its bytes: pass Buffer.from(text)'
  return /[\w+/-]{100}/.test(start)
    ? '; nor is it base64 of a JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG, BMP, PPM or PGM'
    : ''
}
