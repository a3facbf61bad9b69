/** A planned model to a file: header, weights, and a look at the result through the engine's own reader. */
import { PaliGemmaError, nativeCall } from '../base/errors'
import { native } from '../engine/native'
import { readStructure } from '../engine/structure'
import { OutputFile, removeStaleParts } from '../base/output-file'
import { layoutGguf, type Metadata, tensorBytes } from '../formats/gguf-writer'
import type { PlannedTensor } from './checkpoint/plan'
import { type StreamOptions, streamTensors } from './stream'

/** What a conversion made. */
export interface ConvertResult {
  /** Of the GGUF, absolute. */
  path: string
  /** Of the file. */
  bytes: number
  /** "Q4_K_M" and the like; "as stored" where GGUFs kept their types. */
  type: string
  /** How many the file holds, the mask decoder's too. */
  tensors: number
  /** Weights of the model; the mask decoder's are not counted. */
  parameters: number
  /** What is worth knowing: types that had to be replaced, padding. */
  notes: string[]
}

export interface WriteOptions extends StreamOptions {
  /** Files that are read meanwhile: `out` must not be one of them. */
  sources?: readonly string[] | undefined
  /** Tests without the engine switch it off. */
  verify?: boolean | undefined
}

/**
 * Writes `out` under a temporary name beside it; an error or an abort leaves what was there before. Returns the file's
 * bytes.
 */
export async function writeModel(
  out: string,
  metadata: Metadata,
  tensors: PlannedTensor[],
  options: WriteOptions
): Promise<number> {
  const layout = await layoutGguf(
    metadata,
    tensors.map(({ name, type, shape }) => ({ name, type, shape }))
  )
  await removeStaleParts(out)
  const file = await OutputFile.create(out, { sources: options.sources })
  try {
    await file.truncate(layout.bytes)
    await file.write(layout.header, 0)
    await streamTensors(tensors, layout.offsets, file, options)
    await file.flush()
    if (options.verify !== false) await verify(file.part, tensors, layout.offsets)
    options.signal?.throwIfAborted()
    await file.commit()
  } catch (error) {
    await file.discard()
    throw error
  }
  return layout.bytes
}

/** The engine's own reader must see what was planned. */
async function verify(path: string, tensors: PlannedTensor[], offsets: number[]): Promise<void> {
  const seen = await readStructure(path, 0)
  const same =
    seen.tensors.length === tensors.length &&
    tensors.every((tensor, i) => {
      const other = seen.tensors[i]!
      return (
        other.name === tensor.name &&
        other.type === tensor.type &&
        other.offset === offsets[i] &&
        other.bytes === tensorBytes(tensor)
      )
    })
  if (!same)
    throw new PaliGemmaError(
      'ERR_INTERNAL',
      `${path}: the file does not read back as it was written; please report this`
    )
  if (tensors.some(({ name }) => name.startsWith('mask.'))) await nativeCall(() => native().openMaskDecoder(path))
}

/** Weights of a model without padding; the mask decoder is not counted. */
export function countParameters(tensors: PlannedTensor[]): number {
  return tensors
    .filter(({ name }) => !name.startsWith('mask.'))
    .reduce((sum, tensor) => sum + tensor.rows * tensor.cols, 0)
}
