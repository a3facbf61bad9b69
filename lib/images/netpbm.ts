/** Netpbm's grey and colour pictures (PGM, PPM), which libvips' portable build does not read: P2, P3, P5, P6. */
import type { DecodedImage } from './image-input'

export interface NetpbmHeader {
  width: number
  height: number
  /** Samples are 0..max, up to 65535. */
  max: number
  channels: 1 | 3
  /** Samples as decimal numbers. */
  plain: boolean
  dataOffset: number
}

/** The format's own page (netpbm.sourceforge.net/doc/ppm.html); throws a plain Error that says what is wrong. */
export function readNetpbmHeader(file: Buffer): NetpbmHeader {
  const kind = file.toString('latin1', 0, 2)
  let at = 2
  const next = (what: string): number => {
    at = skipSpace(file, at)
    const start = at
    while (at < file.length && isDigit(file[at]!)) at++
    const value = Number(file.toString('latin1', start, at))
    if (at === start || at - start > 9 || value < 1) throw new Error(`no ${what} at byte ${start}`)
    return value
  }
  const [width, height, max] = [next('width'), next('height'), next('largest value')]
  if (max > 65535) throw new Error(`a largest value of ${max}, more than 65535`)
  const plain = kind === 'P2' || kind === 'P3'
  const channels = kind === 'P2' || kind === 'P5' ? 1 : 3
  return { width, height, max, channels, plain, dataOffset: at + 1 } // one white space ends the header
}

/** In slices, giving the event loop a turn between them. */
export async function decodeNetpbm(file: Buffer, header: NetpbmHeader): Promise<DecodedImage> {
  const { width, height, max, channels, plain, dataOffset } = header
  const samples = width * height * channels
  const bytes = max > 255 ? 2 : 1
  if (plain ? dataOffset + 2 * samples - 1 > file.length : dataOffset + bytes * samples > file.length) {
    throw new Error(`${width} x ${height} pixels do not fit the ${file.length} bytes of the file`)
  }
  const data = Buffer.alloc(width * height * 3)
  const read = plain ? plainReader(file, dataOffset) : rawReader(file, dataOffset, bytes)
  const levels = levelsOf(header)
  const repeat = 3 / channels
  for (let i = 0, to = 0; i < samples; i++) {
    if (i > 0 && i % 131072 === 0) await new Promise(setImmediate)
    const value = read()
    if (value > max) throw new Error(`sample ${i} is ${value}, the largest value is ${max}`)
    for (let copy = 0; copy < repeat; copy++) data[to++] = levels[value]!
  }
  return { data, width, height }
}

/**
 * Of each sample: round(value * 255 / max) as Pillow has it; the high byte of grey with more than 8 bits, as of PNGs.
 */
function levelsOf({ max, channels }: NetpbmHeader): Uint8Array {
  const high = channels === 1 && max > 255
  return Uint8Array.from({ length: max + 1 }, (_, value) =>
    high ? Math.round((value * 65535) / max) >> 8 : Math.round((value * 255) / max)
  )
}

function rawReader(file: Buffer, from: number, bytes: 1 | 2): () => number {
  let at = from
  if (bytes === 1) return () => file[at++]!
  return () => {
    at += 2
    return file.readUInt16BE(at - 2)
  }
}

function plainReader(file: Buffer, from: number): () => number {
  let at = from
  return () => {
    at = skipSpace(file, at)
    const start = at
    let value = 0
    while (at < file.length && isDigit(file[at]!) && at - start < 6) value = value * 10 + file[at++]! - 48
    if (at === start) throw new Error(`no number at byte ${start}`)
    return value
  }
}

const isDigit = (byte: number): boolean => byte >= 48 && byte <= 57
const isSpace = (byte: number): boolean => byte === 32 || (byte >= 9 && byte <= 13)

/** Past white space, and comments from "#" to the end of their line. */
function skipSpace(file: Buffer, from: number): number {
  let at = from
  while (at < file.length) {
    if (file[at] === 35) {
      const end = file.indexOf(10, at)
      at = end < 0 ? file.length : end + 1
    } else if (isSpace(file[at]!)) at++
    else break
  }
  return at
}
