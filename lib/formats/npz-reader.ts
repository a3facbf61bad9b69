/** Parts of stacked arrays in the order in which the engine wants their rows, in bounded memory. */
import { randomBytes } from 'node:crypto'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFailure } from '../base/output-file'
import type { NpzArray } from './npz'
import { readFully } from './source'

/** Where an archive keeps a tensor. */
export interface ArrayPlace {
  array: string
  /** The whole array's. */
  shape: number[]
  /** The tensor is this one of `parts` equal parts of the array. */
  part: number
  parts: number
  /**
   * Missing: row-major as the engine wants it. Else the part is `groups` matrices [inputs, outputs] that become rows
   * of one matrix [groups * outputs, inputs].
   */
  transposed?: { groups: number; inputs: number; outputs: number }
  /** The patch embedding's [y, x, channel] become [channel, y, x]. */
  patch?: boolean
}

/** Rows of a transposed matrix that are made at a time; larger matrices are read several times. */
const defaultWindowBytes = 64 << 20
/** Of the source at a time. */
const defaultBlockBytes = 4 << 20

interface Window {
  array: NpzArray
  part: number
  firstRow: number
  rows: number
  data: Buffer
}

export interface PartReaderOptions {
  /** A folder for a file that holds one part at a time, of compressed arrays whose parts are larger than a window. */
  scratchDir: string
  windowBytes?: number
  blockBytes?: number
}

/**
 * Transposing needs rows from all over a matrix: a window of them is made at once and serves the reads that follow.
 * One read at a time, in the order asked for, so that compressed archives are read front to back and one window is
 * alive.
 */
export class PartReader {
  private window: Window | undefined
  /** Of the windows: one after the other uses it. */
  private buffer: Buffer = Buffer.alloc(0)
  private last: Promise<unknown> = Promise.resolve()
  private readonly windowBytes: number
  private readonly blockBytes: number
  private readonly spill: Spill

  constructor({ scratchDir, windowBytes = defaultWindowBytes, blockBytes = defaultBlockBytes }: PartReaderOptions) {
    this.windowBytes = windowBytes
    this.blockBytes = blockBytes
    this.spill = new Spill(scratchDir)
  }

  /** Removes what is in the scratch folder. No read is under way. */
  async close(): Promise<void> {
    this.window = undefined
    this.buffer = Buffer.alloc(0)
    await this.spill.close()
  }

  /** As SourceTensor.read. */
  async read(array: NpzArray, place: ArrayPlace, start: number, target: Uint8Array): Promise<void> {
    const mine = this.last.then(async () => {
      await this.readNow(array, place, start, target)
    })
    this.last = mine.catch(() => {})
    await mine
  }

  private async readNow(array: NpzArray, place: ArrayPlace, start: number, target: Uint8Array): Promise<void> {
    const { part, parts, transposed } = place
    if (!transposed) {
      target.set(await array.read(part * (array.bytes / parts) + start, target.length))
      return
    }
    const rowBytes = transposed.inputs * array.header.itemBytes
    for (let done = 0; done < target.length; ) {
      const row = (start + done) / rowBytes
      const window = this.holds(array, part, row) ? this.window! : await this.makeWindow(array, place, row)
      const from = (row - window.firstRow) * rowBytes
      const bytes = Math.min(target.length - done, window.rows * rowBytes - from)
      target.set(window.data.subarray(from, from + bytes), done)
      done += bytes
    }
  }

  private holds(array: NpzArray, part: number, row: number): boolean {
    const window = this.window
    return (
      window !== undefined &&
      window.array === array &&
      window.part === part &&
      row >= window.firstRow &&
      row < window.firstRow + window.rows
    )
  }

  private async makeWindow(array: NpzArray, place: ArrayPlace, row: number): Promise<Window> {
    const { groups, inputs, outputs } = place.transposed!
    const { itemBytes } = array.header
    const rowBytes = inputs * itemBytes
    const rows = Math.min(groups * outputs - row, Math.max(1, Math.floor(this.windowBytes / rowBytes)))
    this.window = undefined
    if (this.buffer.length < rows * rowBytes) this.buffer = Buffer.allocUnsafeSlow(rows * rowBytes)
    const data = this.buffer.subarray(0, rows * rowBytes)
    const partBytes = array.bytes / place.parts
    const partStart = place.part * partBytes
    // Compressed arrays can only be read front to back, and a part that needs several windows is read several times.
    const onDisk = !array.stored && partBytes > this.windowBytes
    if (onDisk) await this.spill.fill(array, place.part, partStart, partBytes, this.blockBytes)
    const readPart = async (offset: number, length: number): Promise<Buffer> =>
      onDisk ? await this.spill.read(offset, length) : await array.read(partStart + offset, length)
    const blockRows = Math.max(1, Math.floor(this.blockBytes / (outputs * itemBytes)))
    const column = place.patch ? patchColumn(Math.sqrt(inputs / 3)) : undefined
    for (let group = Math.floor(row / outputs); group * outputs < row + rows; group++) {
      const from = Math.max(row, group * outputs)
      const to = Math.min(row + rows, (group + 1) * outputs)
      for (let input = 0; input < inputs; input += blockRows) {
        const count = Math.min(blockRows, inputs - input)
        const block = await readPart((group * inputs + input) * outputs * itemBytes, count * outputs * itemBytes)
        scatter(block, data, itemBytes, {
          count,
          stride: outputs,
          firstColumn: from - group * outputs,
          columns: to - from,
          firstRow: from - row,
          inputs,
          input,
          column
        })
      }
    }
    this.window = { array, part: place.part, firstRow: row, rows, data }
    return this.window
  }
}

/** One part of a compressed array, decompressed, in a file that is gone when the process is. */
class Spill {
  private handle: FileHandle | undefined
  private path = ''
  private holds: { array: NpzArray; part: number } | undefined

  constructor(private readonly dir: string) {}

  async fill(array: NpzArray, part: number, start: number, bytes: number, blockBytes: number): Promise<void> {
    if (this.holds?.array === array && this.holds.part === part) return
    this.holds = undefined
    const file = (this.handle ??= await this.create())
    for (let done = 0; done < bytes; ) {
      const block = await array.read(start + done, Math.min(blockBytes, bytes - done))
      await this.write(file, block, done)
      done += block.length
    }
    this.holds = { array, part }
  }

  private async write(file: FileHandle, block: Buffer, position: number): Promise<void> {
    try {
      for (let done = 0; done < block.length; )
        done += (await file.write(block, done, block.length - done, position + done)).bytesWritten
    } catch (error) {
      throw writeFailure(error, this.path)
    }
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const block = Buffer.allocUnsafeSlow(length)
    await readFully(this.handle!, { name: this.holds!.array.name, file: this.path }, offset, block)
    return block
  }

  async close(): Promise<void> {
    this.holds = undefined
    await this.handle?.close()
    this.handle = undefined
    if (this.path !== '') await rm(this.path, { force: true })
  }

  private async create(): Promise<FileHandle> {
    this.path = join(this.dir, `.paligemma-${randomBytes(8).toString('hex')}.part`)
    const file = await open(this.path, 'wx+').catch((error: Error) => {
      throw writeFailure(error, this.path)
    })
    // Without a name it is gone even if the process is killed; where a file in use cannot be removed, close() does it.
    await rm(this.path, { force: true }).catch(() => {})
    return file
  }
}

interface Scatter {
  /** Rows of the block, and values in each. */
  count: number
  stride: number
  /** Columns of the block that become rows of the window from `firstRow` on. */
  firstColumn: number
  columns: number
  firstRow: number
  /** Width of the window's rows, and the block's first column there. */
  inputs: number
  input: number
  /** Where an input goes, if not to its own index. */
  column: ((input: number) => number) | undefined
}

/** Tiles that fit the first-level cache make this three times as fast as whole columns. */
const tile = 32

function scatter(
  block: Buffer,
  data: Buffer,
  itemBytes: number,
  { count, stride, firstColumn, columns, firstRow, inputs, input, column }: Scatter
): void {
  const values = (bytes: Buffer) =>
    itemBytes === 4
      ? new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
      : new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
  const source = values(block)
  const target = values(data)
  for (let rowTile = 0; rowTile < count; rowTile += tile) {
    const rowEnd = Math.min(count, rowTile + tile)
    for (let columnTile = 0; columnTile < columns; columnTile += tile) {
      const columnEnd = Math.min(columns, columnTile + tile)
      for (let c = columnTile; c < columnEnd; c++) {
        const base = (firstRow + c) * inputs
        for (let r = rowTile; r < rowEnd; r++) {
          const index = input + r
          target[base + (column ? column(index) : index)] = source[r * stride + firstColumn + c]!
        }
      }
    }
  }
}

/** [y, x, channel] -> [channel, y, x] of patches with this side. */
function patchColumn(side: number): (input: number) => number {
  return (input) => (input % 3) * side * side + Math.floor(input / 3)
}
