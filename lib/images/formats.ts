/** Which format bytes are, and what decoding them will cost. */
import { Turns } from '../base/turns'

export type PictureFormat = 'jpeg' | 'png' | 'gif' | 'webp' | 'tiff' | 'heif' | 'bmp' | 'pnm' | 'svg'

const startsWith = (head: Uint8Array, text: string, at = 0): boolean =>
  Array.from(text).every((char, i) => head[at + i] === char.charCodeAt(0))

/** By the first bytes, 1024 of them where there are so many; undefined: none of those known here. */
export function formatOf(head: Uint8Array): PictureFormat | undefined {
  if (startsWith(head, '\xff\xd8\xff')) return 'jpeg'
  if (startsWith(head, '\x89PNG\r\n\x1a\n')) return 'png'
  if (startsWith(head, 'GIF87a') || startsWith(head, 'GIF89a')) return 'gif'
  if (startsWith(head, 'RIFF') && startsWith(head, 'WEBP', 8)) return 'webp'
  if (/^(?:II[*+]\0|MM\0[*+])/.test(text(head, 4))) return 'tiff'
  if (startsWith(head, 'ftyp', 4)) return 'heif'
  if (head.length >= 26 && startsWith(head, 'BM')) return 'bmp'
  if (/^P[2356][\s#]/.test(text(head, 3))) return 'pnm'
  // gzip: libvips unpacks SVG from it, and nothing else
  if (startsWith(head, '\x1f\x8b') || /<svg/i.test(text(head, 1024))) return 'svg'
  return undefined
}

const text = (head: Uint8Array, length: number): string =>
  Buffer.from(head.buffer, head.byteOffset, Math.min(length, head.byteLength)).toString('latin1')

const jpegStart = Buffer.from([0xff, 0xd8, 0xff])
const startOfScan = Buffer.from([0xff, 0xda])
const manyScans = 4096

/** Scans of a JPEG, up to 4096: a decoder goes over all pixels once for each. Thumbnails inside count too. */
export async function countScans(file: Buffer): Promise<number> {
  return await countOf(startOfScan, file, manyScans)
}

const sliceBytes = 1 << 20

/** How often a pattern occurs, up to `most`. In slices: in a file full of its first byte the search is slow. */
async function countOf(pattern: Buffer, file: Buffer, most: number): Promise<number> {
  const turns = new Turns()
  let count = 0
  for (let from = 0; from < file.length && count < most; from += sliceBytes) {
    if (turns.due) await turns.next()
    const slice = file.subarray(from, from + sliceBytes + pattern.length - 1)
    for (let at = slice.indexOf(pattern); at >= 0 && count < most; at = slice.indexOf(pattern, at + pattern.length))
      count++
  }
  return count
}

/** No picture has more bytes of each pixel; what a file has beyond is something else. */
const mostPixelBytes = 8
/** Of markers, texts and profiles, which may be compressed a thousand times: 200 ns a byte were seen. */
const costOfOtherByte = 20

/** Work to decode, in pixels of a plain picture: about 10 ns each on a core of today. */
export async function decodingCost(format: PictureFormat | undefined, pixels: number, file: Buffer): Promise<number> {
  const others = costOfOtherByte * Math.max(0, file.length - mostPixelBytes * pixels)
  switch (format) {
    case 'png':
      return pixels + others
    case 'jpeg':
      return others + pixels * Math.max(1, (await countScans(file)) / 4)
    case 'tiff': // may hold JPEGs
      return (await countOf(jpegStart, file, 1)) > 0 ? pixels * Math.max(1, (await countScans(file)) / 4) : pixels
    case 'webp':
      return 2 * pixels
    case 'heif':
      return 4 * pixels
    default:
      return pixels
  }
}
