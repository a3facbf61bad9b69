/** Importance matrices: the mean square of every input of every matrix, in llama.cpp's GGUF layout. */
import { nativeCall, PaliGemmaError } from '../base/errors'
import { native } from '../engine/native'
import { GgufSource, readFloats } from './gguf/source'
import type { PlannedTensor } from './checkpoint/plan'
import { memoryTensor, someOf } from '../formats/source'
import type { QuantizeRows } from './stream'
import { isBlockType } from '../formats/types'
import { writeModel } from './write'

/** What was observed of one matrix. */
export interface ImportanceEntry {
  /** The matrix's name in model files, "blk.0.ffn_down.weight". */
  name: string
  /** Rows (tokens, image patches) seen. */
  count: number
  /** Per input column, the sum of squares over these rows. */
  sums: Float32Array
}

const sumSuffix = '.in_sum2'
const countSuffix = '.counts'

/** Writes entries as a GGUF; `datasets` says where they come from, `chunks` how many pictures and prompts that were. */
export async function writeImportance(
  out: string,
  entries: ImportanceEntry[],
  datasets: string[],
  chunks: number
): Promise<number> {
  const tensors = entries.flatMap(({ name, count, sums }) => [
    memoryTensor(name + sumSuffix, [1, sums.length], sums),
    memoryTensor(name + countSuffix, [1, 1], Float32Array.of(count))
  ])
  const planned = tensors.map(
    (source): PlannedTensor => ({
      name: source.name,
      type: 'F32',
      shape: source.shape,
      source,
      rows: 1,
      cols: source.shape[1]!,
      plusOne: false
    })
  )
  return await writeModel(
    out,
    [
      ['general.type', { type: 'string', value: 'imatrix' }],
      ['general.alignment', { type: 'u32', value: 32 }],
      ['imatrix.datasets', { type: 'strings', value: datasets }],
      ['imatrix.chunk_count', { type: 'u32', value: chunks }],
      ['imatrix.chunk_size', { type: 'u32', value: 1 }]
    ],
    planned,
    {}
  )
}

const nativeQuantizeRows: QuantizeRows = (data, from, to, cols) =>
  nativeCall(() => native().quantizeRows(data, from, to, cols))

/** Mean squares by the matrix's name. Throws ERR_MODEL_NOT_FOUND or ERR_MODEL_INVALID. */
export async function readImportance(
  path: string,
  quantizeRows: QuantizeRows = nativeQuantizeRows
): Promise<Map<string, Float32Array>> {
  const source = await GgufSource.open(path)
  const invalid = (what: string): never => {
    throw new PaliGemmaError('ERR_MODEL_INVALID', `${path}: ${what}`)
  }
  try {
    const byName = new Map(source.tensors.map((tensor) => [tensor.name, tensor]))
    const result = new Map<string, Float32Array>()
    for (const [key, tensor] of byName) {
      if (!key.endsWith(sumSuffix)) continue
      const name = key.slice(0, -sumSuffix.length)
      const counts = byName.get(name + countSuffix) ?? invalid(`tensor ${name}${countSuffix} is missing`)
      const [sums, [count]] = [await readFloats(tensor, quantizeRows), await readFloats(counts, quantizeRows)]
      if (counts.shape.some((n) => n !== 1)) invalid(`tensor ${key} is of a mixture of experts, which PaliGemma is not`)
      if (count === undefined || !(count >= 0) || !sums.every((value) => value >= 0 && value < Infinity))
        invalid(`tensor ${key} holds numbers that are no sums of squares`)
      if (count! > 0)
        result.set(
          name,
          sums.map((sum) => sum / count!)
        )
    }
    if (result.size === 0) invalid('no importance matrix: it has no tensors *.in_sum2; "paligemma imatrix" makes one')
    return result
  } finally {
    await source.close()
  }
}

/** Refuses a matrix of another model; the notes name what it does not cover. */
export function checkImportance(
  path: string,
  importance: ReadonlyMap<string, Float32Array>,
  tensors: PlannedTensor[]
): string[] {
  const wanted = tensors.filter(
    ({ type, source, updates }) => isBlockType(type) && (type !== source.type || updates !== undefined)
  )
  const wrong = wanted.flatMap(({ name, cols, shape }) => {
    const length = importance.get(name)?.length
    return length === undefined || length === cols || length === shape.at(-1)
      ? []
      : [`${name} has ${cols} columns, not ${length}`]
  })
  if (wrong.length > 0) {
    throw new PaliGemmaError('ERR_MODEL_INVALID', `${path} is the importance matrix of another model: ${someOf(wrong)}`)
  }
  const without = wanted.filter(({ name }) => !importance.has(name)).map(({ name }) => name)
  if (wanted.length > 0 && without.length === wanted.length) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${path} is the importance matrix of another model: it knows none of ${someOf(without)}`
    )
  }
  return without.length === 0 ? [] : [`quantized without importance, which ${path} does not hold: ${someOf(without)}`]
}
