/** Reading NumPy archives (.npz): the directory at once, the arrays on demand and in pieces. */
import { open, type FileHandle } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { PaliGemmaError } from '../base/errors'
import { type Entry, open as openArchive, type ZipFile } from './vendored'

/** The header of an .npy file: NumPy's format specification, versions 1.0 to 3.0. */
export interface NpyHeader {
  /** NumPy's spelling without the byte order: "f4", "f2", "i8", "V2" (bfloat16 as ml_dtypes writes it), ... */
  dtype: string
  /** Bytes of one item. */
  itemBytes: number
  shape: number[]
  /** Column-major data. */
  fortranOrder: boolean
  /** Bytes before the data. */
  headerBytes: number
}

// NumPy refuses headers over 10,000 characters; a structured dtype may be longer, but we read none of those.
const maxHeaderBytes = 65536
const npyMagic = Buffer.from('\x93NUMPY', 'latin1')

/** How many bytes of an .npy file the header takes, from its first 12 bytes. */
function npyHeaderBytes(start: Buffer, where: string): number {
  if (start.length < 10 || !start.subarray(0, 6).equals(npyMagic)) throw invalid(where, 'no NumPy header at byte 0')
  const version = start[6]!
  if (version < 1 || version > 3) throw invalid(where, `NumPy format version ${version} at byte 6, expected 1, 2 or 3`)
  if (version > 1 && start.length < 12) throw invalid(where, 'ends inside the NumPy header')
  const bytes = version === 1 ? 10 + start.readUInt16LE(8) : 12 + start.readUInt32LE(8)
  if (bytes > maxHeaderBytes)
    throw invalid(where, `a NumPy header of ${bytes} bytes at byte 8, expected at most ${maxHeaderBytes}`)
  return bytes
}

/** Reads the header of an .npy file; `where` names the array in errors. Throws ERR_MODEL_INVALID. */
export function parseNpyHeader(start: Buffer, where: string): NpyHeader {
  const headerBytes = npyHeaderBytes(start, where)
  if (start.length < headerBytes) throw invalid(where, 'ends inside the NumPy header')
  const text = start.toString('latin1', start[6] === 1 ? 10 : 12, headerBytes)
  // The header is a Python dict with exactly these three keys; NumPy writes it in this form only.
  const descr = /'descr'\s*:\s*'([<>|=]?)([a-zA-Z])(\d+)'/.exec(text)
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(text)
  const shape = /'shape'\s*:\s*\(([\d\s,L]*)\)/.exec(text)
  if (!descr || !order || !shape)
    throw invalid(where, `a NumPy header that is not understood: ${text.trim().slice(0, 200)}`)
  const itemBytes = Number(descr[3])
  if (descr[1] === '>' && itemBytes > 1)
    throw invalid(where, 'big-endian data, which is not supported; save it little-endian')
  if (itemBytes < 1 || itemBytes > 16) throw invalid(where, `items of ${itemBytes} bytes, expected 1 to 16`)
  const sizes = shape[1]!
    .split(',')
    .map((part) => part.trim().replace(/L$/, ''))
    .filter((part) => part !== '')
    .map(Number)
  const count = sizes.reduce((product, size) => product * size, 1)
  if (!sizes.every(Number.isSafeInteger) || !Number.isSafeInteger(count * itemBytes))
    throw invalid(where, `an impossible shape (${shape[1]})`)
  return { dtype: `${descr[2]}${descr[3]}`, itemBytes, shape: sizes, fortranOrder: order[1] === 'True', headerBytes }
}

function invalid(where: string, what: string, cause?: unknown): PaliGemmaError {
  return new PaliGemmaError('ERR_MODEL_INVALID', `${where}: ${what}`, cause === undefined ? undefined : { cause })
}

/** One array of an archive. Nothing of its data is read before `read` or `chunks`. */
export class NpzArray {
  /** Bytes of the data, without the header. */
  readonly bytes: number
  private cursor: InflateCursor | undefined

  /** @internal */
  constructor(
    /** The name without ".npy". */
    readonly name: string,
    readonly header: NpyHeader,
    private readonly source: EntrySource
  ) {
    this.bytes = header.shape.reduce((product, size) => product * size, header.itemBytes)
  }

  get shape(): number[] {
    return this.header.shape
  }
  get dtype(): string {
    return this.header.dtype
  }
  /** Not compressed: reads in any order are quick. */
  get stored(): boolean {
    return this.source.stored
  }

  /**
   * `length` bytes of the data from byte `offset`. Any order for stored archives (numpy.savez); compressed ones
   * (numpy.savez_compressed) are quick when read front to back and start over otherwise. One read at a time per array.
   */
  async read(offset = 0, length = this.bytes - offset): Promise<Buffer> {
    if (offset < 0 || length < 0 || offset + length > this.bytes) {
      throw new RangeError(`${this.source.where}: bytes ${offset} to ${offset + length} of ${this.bytes}`)
    }
    const start = this.header.headerBytes + offset
    if (this.source.stored) return await this.source.readStored(start, length)
    if (!this.cursor || this.cursor.position > start) {
      this.cursor?.close()
      this.cursor = new InflateCursor(await this.source.stream(), this.source.where)
    }
    const cursor = this.cursor
    try {
      await cursor.skipTo(start)
      const data = await cursor.take(length)
      if (cursor.position === this.header.headerBytes + this.bytes) this.release()
      return data
    } catch (error) {
      this.release()
      throw error
    }
  }

  /** The data in pieces of at most `size` bytes, in order. */
  async *chunks(size = 4 << 20): AsyncGenerator<Buffer> {
    try {
      for (let offset = 0; offset < this.bytes; offset += size)
        yield await this.read(offset, Math.min(size, this.bytes - offset))
    } finally {
      this.release()
    }
  }

  /** Closes the decompressor that sequential reads keep open. */
  release(): void {
    this.cursor?.close()
    this.cursor = undefined
  }

  /** All values as float32 in row-major order. For "f4", "f2" and "V2" (bfloat16) arrays; for small ones. */
  async toFloat32(): Promise<Float32Array> {
    const data = await this.read()
    const count = this.bytes / this.header.itemBytes
    const values = new Float32Array(count)
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    if (this.dtype === 'f4') for (let i = 0; i < count; i++) values[i] = view.getFloat32(4 * i, true)
    else if (this.dtype === 'f8') for (let i = 0; i < count; i++) values[i] = view.getFloat64(8 * i, true)
    else if (this.dtype === 'f2') for (let i = 0; i < count; i++) values[i] = halfToFloat(view.getUint16(2 * i, true))
    else if (this.dtype === 'V2') {
      const bits = new Uint32Array(values.buffer)
      for (let i = 0; i < count; i++) bits[i] = view.getUint16(2 * i, true) << 16
    } else throw invalid(this.source.where, `items of type ${this.dtype}, expected f4, f2, f8 or V2 (bfloat16)`)
    return this.header.fortranOrder ? toRowMajor(values, this.shape) : values
  }
}

function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

function toRowMajor(values: Float32Array, shape: number[]): Float32Array {
  const result = new Float32Array(values.length)
  const strides: number[] = []
  shape.reduce((stride, size, i) => {
    strides[i] = stride
    return stride * size
  }, 1)
  const index = new Array<number>(shape.length).fill(0)
  for (let i = 0, from = 0; i < values.length; i++) {
    result[i] = values[from]!
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!
      if (++index[axis]! < shape[axis]!) break
      from -= strides[axis]! * shape[axis]!
      index[axis] = 0
    }
  }
  return result
}

/** Where the bytes of one zip entry (its .npy file) come from. */
class EntrySource {
  readonly stored: boolean
  private dataStart: number | undefined

  constructor(
    private readonly zip: ZipFile,
    private readonly file: FileHandle,
    private readonly entry: Entry,
    readonly where: string
  ) {
    this.stored = entry.compressionMethod === 0
  }

  get size(): number {
    return this.entry.uncompressedSize
  }

  async stream(): Promise<Readable> {
    return await new Promise((resolve, reject) => {
      this.zip.openReadStream(this.entry, (error, stream) => {
        if (error) reject(invalid(this.where, error.message, error))
        else resolve(stream)
      })
    })
  }

  async readStored(offset: number, length: number): Promise<Buffer> {
    this.dataStart ??= await new Promise<number>((resolve, reject) => {
      this.zip.readLocalFileHeader(this.entry, { minimal: true }, (error, header) => {
        if (error) reject(invalid(this.where, error.message, error))
        else resolve(header.fileDataStart)
      })
    })
    const buffer = Buffer.allocUnsafeSlow(length)
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.file.read(buffer, done, length - done, this.dataStart + offset + done)
      if (bytesRead === 0)
        throw invalid(this.where, `the file ends at byte ${this.dataStart + offset + done}, inside this array`)
      done += bytesRead
    }
    return buffer
  }

  /** The first bytes, as many as there are up to `length`. */
  async head(length: number): Promise<Buffer> {
    const wanted = Math.min(length, this.size)
    if (this.stored) return await this.readStored(0, wanted)
    const cursor = new InflateCursor(await this.stream(), this.where)
    try {
      return await cursor.take(wanted)
    } finally {
      cursor.close()
    }
  }
}

/** A compressed entry read front to back. */
class InflateCursor {
  /** Of the next byte, in the uncompressed entry. */
  position = 0
  private readonly pieces: AsyncIterator<Buffer>
  private rest: Buffer = Buffer.alloc(0)

  constructor(
    private readonly stream: Readable,
    private readonly where: string
  ) {
    // Errors arrive through the iterator; the listener only keeps one that comes after close() from being uncaught.
    stream.on('error', () => {})
    this.pieces = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  private async fill(): Promise<void> {
    let next: IteratorResult<Buffer>
    try {
      next = await this.pieces.next()
    } catch (error) {
      throw invalid(this.where, `cannot be decompressed: ${(error as Error).message}`, error)
    }
    if (next.done)
      throw invalid(this.where, `the data ends at byte ${this.position + this.rest.length}, inside this array`)
    this.rest = next.value
  }

  async skipTo(position: number): Promise<void> {
    while (this.position < position) {
      if (this.rest.length === 0) await this.fill()
      const step = Math.min(this.rest.length, position - this.position)
      this.rest = this.rest.subarray(step)
      this.position += step
    }
  }

  async take(length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(length)
    for (let done = 0; done < length; ) {
      if (this.rest.length === 0) await this.fill()
      const step = this.rest.copy(buffer, done, 0, Math.min(this.rest.length, length - done))
      this.rest = this.rest.subarray(step)
      this.position += step
      done += step
    }
    return buffer
  }

  close(): void {
    this.stream.destroy()
  }
}

/** An open .npz file. Archives over 4 GB (zip64) are fine. Close it when done. */
export class NpzArchive {
  private constructor(
    readonly path: string,
    /** By name without ".npy", in the order of the archive. */
    readonly arrays: ReadonlyMap<string, NpzArray>,
    private readonly zip: ZipFile,
    private readonly file: FileHandle
  ) {}

  /** Reads the directory and the header of each array. Throws ERR_MODEL_NOT_FOUND or ERR_MODEL_INVALID. */
  static async open(path: string): Promise<NpzArchive> {
    let file: FileHandle
    try {
      file = await open(path, 'r')
    } catch (cause) {
      throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${path}: ${(cause as Error).message}`, { cause })
    }
    let zip: ZipFile | undefined
    try {
      const directory = (zip = await openZip(path))
      const arrays = new Map<string, NpzArray>()
      const fileBytes = (await file.stat()).size
      for (const entry of await listEntries(directory, path)) {
        if (!entry.fileName.endsWith('.npy')) continue
        const name = entry.fileName.slice(0, -4)
        const where = `${path}: array ${name}`
        if (arrays.has(name)) throw invalid(where, 'appears twice')
        if (entry.isEncrypted()) throw invalid(where, 'is encrypted')
        // A directory may claim any size; deflate cannot expand more than 1032 times.
        if (entry.compressedSize > fileBytes || entry.uncompressedSize > entry.compressedSize * 1032 + 64) {
          throw invalid(
            where,
            `claims ${entry.compressedSize} bytes that expand to ${entry.uncompressedSize}, in a file of ${fileBytes}`
          )
        }
        const source = new EntrySource(directory, file, entry, where)
        let head = await source.head(1024)
        const needed = npyHeaderBytes(head, where)
        if (needed > head.length) head = await source.head(needed)
        const array = new NpzArray(name, parseNpyHeader(head, where), source)
        if (array.header.headerBytes + array.bytes !== source.size) {
          throw invalid(
            where,
            `shape [${array.shape.join(', ')}] of ${array.dtype} needs ${array.bytes} bytes but there are ` +
              `${source.size - array.header.headerBytes}`
          )
        }
        arrays.set(name, array)
      }
      return new NpzArchive(path, arrays, directory, file)
    } catch (error) {
      zip?.close()
      await file.close()
      throw error
    }
  }

  /** Throws ERR_MODEL_INVALID naming the archive where there is no such array. */
  get(name: string): NpzArray {
    const array = this.arrays.get(name)
    if (!array) throw invalid(this.path, `there is no array ${name}`)
    return array
  }

  async close(): Promise<void> {
    for (const array of this.arrays.values()) array.release()
    this.zip.close()
    await this.file.close()
  }
}

async function openZip(path: string): Promise<ZipFile> {
  return await new Promise((resolve, reject) => {
    openArchive(path, { lazyEntries: true, autoClose: false }, (error, zip) => {
      if (error) reject(invalid(path, `not a readable npz (zip) archive: ${error.message}`, error))
      else resolve(zip)
    })
  })
}

async function listEntries(zip: ZipFile, path: string): Promise<Entry[]> {
  return await new Promise((resolve, reject) => {
    const entries: Entry[] = []
    zip.on('error', (error: Error) => reject(invalid(path, `the zip directory is damaged: ${error.message}`, error)))
    zip.on('entry', (entry: Entry) => {
      entries.push(entry)
      zip.readEntry()
    })
    zip.on('end', () => resolve(entries))
    zip.readEntry()
  })
}

/** Whether the file starts as a zip archive does. False where it cannot be read: the caller's open explains that. */
export async function looksLikeZip(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'r')
    try {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(4), 0, 4, 0)
      return bytesRead === 4 && buffer.readUInt32LE(0) === 0x04034b50
    } finally {
      await file.close()
    }
  } catch {
    return false
  }
}
