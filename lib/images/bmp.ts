/** Windows bitmaps, which libvips' portable build does not read: uncompressed, 1 to 32 bits per pixel. */

/** RGB8, rows of width * 3 bytes. Throws a plain Error that says what is wrong, at which byte. */
export interface Bitmap {
  width: number
  height: number
  data: Buffer
}

export interface BitmapHeader {
  width: number
  height: number
  topDown: boolean
  bits: number
  dataOffset: number
  /** Of the colour table, in bytes from the start. */
  tableOffset: number
  tableEntries: number
  tableEntryBytes: number
  masks: [red: number, green: number, blue: number] | undefined
}

export function looksLikeBmp(file: Uint8Array): boolean {
  return file.length >= 26 && file[0] === 0x42 && file[1] === 0x4d
}

/** Microsoft's BITMAPFILEHEADER and the BITMAP*HEADERs; sizes are checked against the file. */
export function readBmpHeader(file: Buffer): BitmapHeader {
  if (!looksLikeBmp(file)) throw new Error('not a bitmap')
  const headerBytes = file.readUInt32LE(14)
  const old = headerBytes === 12
  if (!old && (headerBytes < 40 || headerBytes > 1024))
    throw new Error(`a bitmap header of ${headerBytes} bytes at byte 14`)
  if (file.length < 14 + headerBytes) throw new Error('the file ends inside the bitmap header')
  const width = old ? file.readUInt16LE(18) : file.readInt32LE(18)
  const rawHeight = old ? file.readUInt16LE(20) : file.readInt32LE(22)
  const bits = file.readUInt16LE(old ? 24 : 28)
  const compression = old ? 0 : file.readUInt32LE(30)
  if (width <= 0 || rawHeight === 0) throw new Error(`a size of ${width} x ${rawHeight} at byte 18`)
  if (![1, 4, 8, 16, 24, 32].includes(bits)) throw new Error(`${bits} bits per pixel at byte ${old ? 24 : 28}`)
  const fields = compression === 3 || compression === 6
  if (compression !== 0 && !(fields && bits >= 16)) {
    throw new Error(
      `compression ${compression} at byte 30; only uncompressed bitmaps are read, save the picture as PNG`
    )
  }
  if (fields && file.length < 66) throw new Error('the file ends inside the bitmap header')
  const tableOffset = 14 + headerBytes + (fields && headerBytes === 40 ? 12 : 0)
  return {
    width,
    height: Math.abs(rawHeight),
    topDown: rawHeight < 0,
    bits,
    dataOffset: file.readUInt32LE(10),
    tableOffset,
    tableEntries: bits > 8 ? 0 : (!old && file.readUInt32LE(46)) || 1 << bits,
    tableEntryBytes: old ? 3 : 4,
    masks: fields ? [file.readUInt32LE(54), file.readUInt32LE(58), file.readUInt32LE(62)] : undefined
  }
}

/** Decodes in slices, giving the event loop a turn between them. */
export async function decodeBmp(file: Buffer, header: BitmapHeader): Promise<Bitmap> {
  const { width, height, bits, dataOffset } = header
  const stride = Math.floor((width * bits + 31) / 32) * 4
  if (dataOffset + stride * height > file.length) {
    throw new Error(
      `${width} x ${height} pixels of ${bits} bits need ${stride * height} bytes from byte ${dataOffset}, the file ` +
        `has ${file.length}`
    )
  }
  const tableBytes = header.tableEntries * header.tableEntryBytes
  if (header.tableEntries > 256 || header.tableOffset + tableBytes > file.length)
    throw new Error(`a colour table of ${header.tableEntries} entries`)
  const data = Buffer.alloc(width * height * 3)
  const writeRow = rowWriter(file, header, data)
  const slice = Math.max(1, Math.floor(262144 / width))
  for (let y = 0; y < height; y++) {
    if (y > 0 && y % slice === 0) await new Promise(setImmediate)
    writeRow(dataOffset + (header.topDown ? y : height - 1 - y) * stride, y * width * 3)
  }
  return { width, height, data }
}

type RowWriter = (from: number, to: number) => void

function rowWriter(file: Buffer, header: BitmapHeader, data: Buffer): RowWriter {
  const { width, bits } = header
  if (bits <= 8) {
    const { tableOffset, tableEntries, tableEntryBytes } = header
    return (from, to) => {
      for (let x = 0; x < width; x++, to += 3) {
        const index =
          bits === 8
            ? file[from + x]!
            : (file[from + ((x * bits) >> 3)]! >> (8 - bits - ((x * bits) & 7))) & ((1 << bits) - 1)
        if (index >= tableEntries) continue // black, as other readers have it
        const colour = tableOffset + index * tableEntryBytes
        data[to] = file[colour + 2]!
        data[to + 1] = file[colour + 1]!
        data[to + 2] = file[colour]!
      }
    }
  }
  const bytes = bits >> 3
  if (!header.masks && bits !== 16) {
    return (from, to) => {
      for (let x = 0; x < width; x++, from += bytes, to += 3) {
        data[to] = file[from + 2]!
        data[to + 1] = file[from + 1]!
        data[to + 2] = file[from]!
      }
    }
  }
  // 16 bits without masks are 5-5-5
  const masks = (header.masks ?? [0x7c00, 0x3e0, 0x1f]).map((mask) => {
    const shift = mask === 0 ? 0 : 31 - Math.clz32(mask & -mask)
    return { mask, shift, max: mask >>> shift || 1 }
  })
  return (from, to) => {
    for (let x = 0; x < width; x++, from += bytes, to += 3) {
      const pixel = bits === 16 ? file.readUInt16LE(from) : file.readUInt32LE(from)
      for (let c = 0; c < 3; c++) {
        const { mask, shift, max } = masks[c]!
        data[to + c] = Math.floor((((pixel & mask) >>> shift) * 255) / max)
      }
    }
  }
}
