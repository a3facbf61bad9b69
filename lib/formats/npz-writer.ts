/** Writing NumPy archives (.npz) array by array, as numpy.savez does: uncompressed. */
import { OutputFile, type OutputOptions } from '../base/output-file'

export type NpyDtype = '<f4' | '|i1' | '|u1'

const zip64From = 0xffffffff // sizes and offsets that 32 bits do not hold
const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1
  return n >>> 0
})

// zlib has crc32 from Node 20.15 on only
function crc32(parts: readonly Uint8Array[]): number {
  let crc = 0xffffffff
  for (const part of parts) for (let i = 0; i < part.length; i++) crc = crcTable[(crc ^ part[i]!) & 255]! ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}

/** The data begins at a multiple of 64 bytes. */
function npyHeader(dtype: NpyDtype, shape: readonly number[]): Buffer {
  const dict =
    `{'descr': '${dtype}', 'fortran_order': False, 'shape': ` +
    `(${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`
  const text = `${dict.padEnd(Math.ceil((10 + dict.length + 1) / 64) * 64 - 11)}\n`
  const header = Buffer.alloc(10 + text.length)
  header.write('\x93NUMPY\x01\x00', 'latin1')
  header.writeUInt16LE(text.length, 8)
  header.write(text, 10, 'latin1')
  return header
}

/** It appears under its name only when it is complete. */
export class NpzWriter {
  readonly #directory: Buffer[] = []
  #offset = 0

  private constructor(private readonly file: OutputFile) {}

  static async create(path: string, options?: OutputOptions): Promise<NpzWriter> {
    return new NpzWriter(await OutputFile.create(path, options))
  }

  /** `data` in row-major order, little-endian. */
  async add(name: string, dtype: NpyDtype, shape: readonly number[], data: Uint8Array): Promise<void> {
    const header = npyHeader(dtype, shape)
    const size = header.length + data.length
    if (size >= zip64From)
      throw new RangeError(`${name} has ${size} bytes, more than an entry of this archive may have`)
    const entry = Buffer.from(`${name}.npy`)
    const common = Buffer.alloc(26)
    common.writeUInt16LE(45, 0) // version 4.5: zip64
    common.writeUInt16LE(0x0800, 2) // the name is UTF-8
    common.writeUInt16LE(0x21, 8) // 1 January 1980: the same vectors make the same file
    common.writeUInt32LE(crc32([header, data]), 10)
    common.writeUInt32LE(size, 14)
    common.writeUInt32LE(size, 18)
    common.writeUInt16LE(entry.length, 22)
    const central = Buffer.alloc(14)
    central.writeUInt32LE(Math.min(this.#offset, zip64From), 10)
    let extra = Buffer.alloc(0)
    const directoryCommon = Buffer.from(common)
    if (this.#offset >= zip64From) {
      extra = Buffer.alloc(12)
      extra.writeUInt16LE(1, 0)
      extra.writeUInt16LE(8, 2)
      extra.writeBigUInt64LE(BigInt(this.#offset), 4)
      directoryCommon.writeUInt16LE(extra.length, 24)
    }
    this.#directory.push(
      Buffer.concat([Buffer.from('PK\x01\x02\x2d\x00', 'latin1'), directoryCommon, central, entry, extra])
    )
    await this.#write(Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, entry, header]))
    await this.#write(data)
  }

  async close(): Promise<void> {
    const [start, entries] = [this.#offset, this.#directory.length]
    const directory = Buffer.concat(this.#directory)
    const far = Buffer.alloc(76) // zip64 end of the directory, and where that is
    far.write('PK\x06\x06', 'latin1')
    far.writeBigUInt64LE(44n, 4)
    far.writeUInt16LE(45, 12)
    far.writeUInt16LE(45, 14)
    far.writeBigUInt64LE(BigInt(entries), 24)
    far.writeBigUInt64LE(BigInt(entries), 32)
    far.writeBigUInt64LE(BigInt(directory.length), 40)
    far.writeBigUInt64LE(BigInt(start), 48)
    far.write('PK\x06\x07', 56, 'latin1')
    far.writeBigUInt64LE(BigInt(start + directory.length), 64)
    far.writeUInt32LE(1, 72)
    const end = Buffer.alloc(22)
    end.write('PK\x05\x06', 'latin1')
    end.writeUInt16LE(Math.min(entries, 0xffff), 8)
    end.writeUInt16LE(Math.min(entries, 0xffff), 10)
    end.writeUInt32LE(Math.min(directory.length, zip64From), 12)
    end.writeUInt32LE(Math.min(start, zip64From), 16)
    await this.#write(Buffer.concat([directory, far, end]))
    await this.file.commit()
  }

  /** Leaves nothing on the disk. */
  async abandon(): Promise<void> {
    await this.file.discard()
  }

  async #write(data: Uint8Array): Promise<void> {
    await this.file.write(data, this.#offset)
    this.#offset += data.length
  }
}
