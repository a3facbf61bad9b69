/**
 * Weights from source to file, chunk by chunk: read, widen or pad, quantize, write. Memory does not grow with the
 * model.
 */
import { availableParallelism } from 'node:os'
import { native } from '../engine/native'
import { nativeCall, PaliGemmaError } from '../base/errors'
import type { OutputFile } from '../base/output-file'
import { tensorBytes } from '../formats/gguf-writer'
import { addUpdates, type MatrixUpdate } from './adapters/merge'
import type { PlannedTensor } from './checkpoint/plan'
import { toFloat32 } from '../formats/source'
import { bytesOf, holdsWeights, isBlockType, storage } from '../formats/types'

/** Rows of one type to the same rows of another; the addon's, unless a test brings its own. */
export type QuantizeRows = (
  data: Uint8Array,
  from: string,
  to: string,
  cols: number,
  importance?: Float32Array,
  /** The number of the first row, for messages. */
  firstRow?: number
) => Promise<Uint8Array>

export const nativeQuantizeRows: QuantizeRows = (data, from, to, cols, importance, firstRow) =>
  nativeCall(() => native().quantizeRows(data, from, to, cols, importance, firstRow))

/**
 * Of a chunk counted as float32, to which the quantizer widens: large enough to hide the calls, small enough for
 * several in flight.
 */
const chunkBytes = 8 << 20

interface Chunk {
  tensor: PlannedTensor
  fileOffset: number
  firstRow: number
  rows: number
}

export interface StreamOptions {
  /** 0..1, after every chunk. */
  onProgress?: ((fraction: number) => void) | undefined
  signal?: AbortSignal | undefined
  quantizeRows?: QuantizeRows | undefined
  /** What each column of a tensor matters to the model, by the tensor's name in the file that is written. */
  importance?: ReadonlyMap<string, Float32Array> | undefined
}

/**
 * Writes every tensor at its offset. Two to four chunks are in flight, so that reading, quantizing and writing overlap.
 */
export async function streamTensors(
  tensors: PlannedTensor[],
  offsets: number[],
  file: OutputFile,
  options: StreamOptions
): Promise<void> {
  const quantize = options.quantizeRows ?? nativeQuantizeRows
  const total = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0)
  const chunks = chunksOf(tensors, offsets)
  let done = 0
  let failed = false
  const worker = async (): Promise<void> => {
    const reader = new ChunkReader()
    try {
      while (!failed) {
        options.signal?.throwIfAborted()
        const { value: chunk, done: finished } = chunks.next()
        if (finished) return
        const output = await convertChunk(chunk, reader, quantize, options.importance?.get(chunk.tensor.name))
        await file.write(output, chunk.fileOffset)
        done += output.length
        options.onProgress?.(Math.min(1, done / total))
      }
    } catch (error) {
      failed = true
      throw error
    }
  }
  // The file may be closed only when no worker writes any more: wait for all, then report the first failure.
  const results = await Promise.allSettled(
    Array.from({ length: Math.max(2, Math.min(4, availableParallelism())) }, worker)
  )
  for (const result of results) if (result.status === 'rejected') throw result.reason
  options.signal?.throwIfAborted()
}

/** A chunk as it is stored; what is not finite, or beyond the stored type, is refused by the tensor's name. */
async function convertChunk(
  chunk: Chunk,
  reader: ChunkReader,
  quantize: QuantizeRows,
  importance: Float32Array | undefined
): Promise<Uint8Array> {
  const { tensor, firstRow } = chunk
  try {
    const { type, bytes, cols } = await reader.read(chunk, quantize)
    if (type !== tensor.type) {
      const weights = isBlockType(tensor.type) ? widened(importance, cols) : undefined
      return await quantize(bytes, type, tensor.type, cols, weights, firstRow)
    }
    if (isPlain(type)) checkFinite(bytes, type, cols, firstRow)
    else if (Object.hasOwn(storage, type)) await quantize(bytes, type, type, cols, undefined, firstRow)
    // only read, never written: its values are looked at all the same
    else if (holdsWeights(type)) await quantize(bytes, type, 'F32', cols, undefined, firstRow)
    return bytes
  } catch (error) {
    if (!(error instanceof PaliGemmaError) || error.code !== 'ERR_MODEL_INVALID' || !/^row /.test(error.message))
      throw error
    const { name, file } = tensor.source
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${file === '' ? '' : `${file}: `}tensor ${name}${name === tensor.name ? '' : ` (${tensor.name})`}` +
        `${tensor.updates ? ' with what the adapters add' : ''}: ${error.message}; ` +
        'the training diverged or the file is damaged. If the values are only large, choose --type F32',
      { cause: error }
    )
  }
}

/** Plain values that are copied bit for bit. */
function checkFinite(bytes: Uint8Array, type: string, cols: number, firstRow: number): void {
  const width = type === 'F32' ? 4 : 2
  const aligned = bytes.byteOffset % width === 0 ? bytes : Uint8Array.from(bytes)
  const words =
    width === 4
      ? new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4)
      : new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.length / 2)
  // all bits of the exponent set
  const special = type === 'F32' ? 0x7f800000 : type === 'BF16' ? 0x7f80 : 0x7c00
  for (let i = 0; i < words.length; i++) {
    if ((words[i]! & special) !== special) continue
    const value = toFloat32(aligned.subarray(i * width, (i + 1) * width), type)[0]!
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `row ${firstRow + Math.floor(i / cols)} holds ${Number.isNaN(value) ? 'NaN' : 'infinity'} in column ${i % cols}`
    )
  }
}

function* chunksOf(tensors: PlannedTensor[], offsets: number[]): Generator<Chunk, undefined> {
  for (const [i, tensor] of tensors.entries()) {
    const rows = storedRows(tensor)
    const rowBytes = tensor.cols * 4
    const most = tensor.plusOne ? rows : Math.max(1, Math.floor(chunkBytes / rowBytes))
    for (let first = 0; first < rows; first += most) {
      yield {
        tensor,
        firstRow: first,
        rows: Math.min(most, rows - first),
        fileOffset: offsets[i]! + first * bytesOf(tensor.type, storedCols(tensor))
      }
    }
  }
  return undefined
}

// A tensor is a matrix of rows of its last dimension here; vectors are one row.
function storedCols(tensor: PlannedTensor): number {
  return tensor.shape.at(-1)!
}

function storedRows(tensor: PlannedTensor): number {
  return tensor.shape.reduce((product, n) => product * n, 1) / storedCols(tensor)
}

/** Columns that only fill a row up matter nothing. */
function widened(importance: Float32Array | undefined, cols: number): Float32Array | undefined {
  if (importance === undefined || importance.length === cols) return importance
  const wide = new Float32Array(cols)
  wide.set(importance)
  return wide
}

/** Reads the source of chunks; its buffer is used again for the next one. */
class ChunkReader {
  private buffer = Buffer.alloc(0)

  /** The chunk's values in rows of the stored width, in the source's type or already as F32. */
  async read(
    { tensor, firstRow, rows }: Chunk,
    quantize: QuantizeRows
  ): Promise<{ bytes: Uint8Array; type: string; cols: number }> {
    const { type } = tensor.source
    const cols = storedCols(tensor)
    const rowBytes = tensor.source.bytes / tensor.rows
    // Only types of whole bytes are ever padded: the others have no width that would need it.
    const storedBytes = cols === tensor.cols ? rowBytes : (rowBytes / tensor.cols) * cols
    const sourceRows = Math.max(0, Math.min(rows, tensor.rows - firstRow))
    const bytes = this.take(rows * storedBytes)
    const packed = bytes.subarray(0, sourceRows * rowBytes)
    await tensor.source.read(firstRow * rowBytes, packed)
    const newRows = [...(tensor.newRows ?? [])].filter(([row]) => row >= firstRow && row < firstRow + rows)
    if (tensor.updates || newRows.length > 0) {
      const values = isPlain(type)
        ? toFloat32(packed, type)
        : new Float32Array(
            Uint8Array.from(await quantize(packed, type, 'F32', tensor.cols, undefined, firstRow)).buffer
          )
      for (const [row, data] of newRows) values.set(data, (row - firstRow) * tensor.cols)
      return merged(tensor, tensor.updates ?? [], values, firstRow, rows)
    }
    if (cols > tensor.cols) widen(bytes, sourceRows, rowBytes, storedBytes)
    bytes.fill(0, sourceRows * storedBytes)
    if (tensor.plusOne) return { bytes: plusOne(bytes, type), type: 'F32', cols }
    return { bytes, type, cols }
  }

  private take(bytes: number): Buffer {
    if (this.buffer.length < bytes) this.buffer = Buffer.alloc(bytes)
    return this.buffer.subarray(0, bytes)
  }
}

function isPlain(type: string): boolean {
  return type === 'F32' || type === 'F16' || type === 'BF16'
}

/**
 * A chunk with its updates, added in float32 before any rounding to the stored type; rows behind the source's are zero.
 */
function merged(
  tensor: PlannedTensor,
  updates: MatrixUpdate[],
  values: Float32Array,
  firstRow: number,
  rows: number
): { bytes: Uint8Array; type: string; cols: number } {
  addUpdates(values, firstRow * tensor.cols, updates)
  const cols = storedCols(tensor)
  const padded = new Float32Array(rows * cols)
  for (let row = 0; row * tensor.cols < values.length; row++)
    padded.set(values.subarray(row * tensor.cols, (row + 1) * tensor.cols), row * cols)
  return { bytes: new Uint8Array(padded.buffer), type: 'F32', cols }
}

/**
 * Spreads packed rows of `from` bytes to rows of `to` bytes, zeros at their ends; last row first, so that none is
 * overwritten.
 */
function widen(bytes: Buffer, rows: number, from: number, to: number): void {
  for (let row = rows - 1; row >= 0; row--) {
    bytes.copyWithin(row * to, row * from, (row + 1) * from)
    bytes.fill(0, row * to + from, (row + 1) * to)
  }
}

/** weight + 1 in float32, as the reference computes it. */
function plusOne(bytes: Buffer, type: string): Uint8Array {
  const result = toFloat32(bytes, type)
  for (let i = 0; i < result.length; i++) result[i]! += 1
  return new Uint8Array(result.buffer)
}
