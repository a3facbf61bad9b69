/** Merging LoRA adapters into the weights while they are converted. */
import { isUrl } from '../../base/realms'
import { PaliGemmaError } from '../../base/errors'
import { canonicalName, type ExpectedTensor } from '../checkpoint/names'
import type { AdapterList } from './option'
import { loraScale, TrainedAdapter } from './trained'
import { type Matrix, type PeftAdapter, readPeft } from './peft'
import { peftDirectory } from './peft-folder'
import { someOf, type SourceTensor } from '../../formats/source'

export interface AdapterToMerge extends PeftAdapter {
  /** 1: as trained. */
  scale: number
}

/** weight += b a, [out, rank] times [rank, in]; scales are in `b`. */
export interface MatrixUpdate {
  rank: number
  /** Columns of the matrix; convolutions are matrices of flattened patches. */
  in: number
  a: Float32Array
  b: Float32Array
}

export async function readAdaptersToMerge(list: AdapterList): Promise<AdapterToMerge[]> {
  const adapters: AdapterToMerge[] = []
  for (const item of list) {
    const alone = typeof item === 'string' || isUrl(item) || item instanceof TrainedAdapter
    const { path: named, scale = 1 } = alone ? { path: item } : item
    const path = isUrl(named) ? named.href : named
    if (path instanceof TrainedAdapter) {
      adapters.push({ dir: 'the trained adapter', updates: trainedUpdates(path), replaced: new Map(), scale })
      continue
    }
    if (!Number.isFinite(scale))
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected a finite number for the scale of adapter ${path} but received ${String(scale)}`
      )
    const dir = await peftDirectory(path)
    if (dir === undefined) {
      throw new PaliGemmaError(
        'ERR_MODEL_UNSUPPORTED',
        `${path} is no PEFT directory; only those can be merged. A GGUF adapter can be given to loadModel`
      )
    }
    adapters.push({ ...(await readPeft(dir)), scale })
  }
  return adapters
}

function trainedUpdates(adapter: TrainedAdapter): PeftAdapter['updates'] {
  const scale = loraScale(adapter)
  return adapter.modules.map((module) => {
    const [a, b] = [adapter.tensors.get(`${module}.lora_A`)!, adapter.tensors.get(`${module}.lora_B`)!]
    const target = canonicalName(`${module}.weight`) ?? module
    return { target, a, b: { shape: b.shape, data: b.data.map((value) => value * scale) } }
  })
}

/** Puts the tensors that adapters replace whole in the place of the base's. */
export function replaceTensors(found: Map<string, SourceTensor>, adapters: readonly AdapterToMerge[]): void {
  for (const adapter of adapters) {
    checkWholeScale(adapter)
    for (const [name, tensor] of adapter.replaced) found.set(name, tensor)
  }
}

/** What an adapter replaces, for messages; empty where it only adds. */
export function replacedBy({ replaced, tokens }: PeftAdapter): string {
  const rows = tokens && `${tokens.indices.length} rows of the embedding (${tokens.field})`
  return someOf([...replaced.keys(), ...(rows === undefined ? [] : [rows])])
}

export function checkWholeScale(adapter: AdapterToMerge): void {
  const what = replacedBy(adapter)
  if (what !== '' && adapter.scale !== 1) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `${adapter.dir} replaces whole tensors (${what}), which have no scale; merge it with scale 1`
    )
  }
}

/** What merging an adapter did, as a note. */
export function mergeNote({ dir, updates, replaced, tokens }: PeftAdapter): string {
  return [
    `${dir} is merged: ${updates.length} matrices changed`,
    ...(replaced.size > 0 ? [`${replaced.size} tensors replaced`] : []),
    ...(tokens ? [`${tokens.indices.length} rows of the embedding replaced`] : [])
  ].join(', ')
}

/** Rows of the embedding that adapters replace, by token; `shape` is the embedding's, [vocab, hidden]. */
export function planRows(
  [vocab, hidden]: readonly [number, number],
  adapters: readonly AdapterToMerge[]
): ReadonlyMap<number, Float32Array> | undefined {
  const planned = new Map<number, Float32Array>()
  for (const { dir, tokens, replaced } of adapters) {
    // A later adapter's whole embedding replaces what earlier ones did to rows.
    if (replaced.has('text.embed_tokens.weight')) planned.clear()
    if (!tokens) continue
    const { indices, field, rows } = tokens
    const outside = indices.find((index) => index >= vocab)
    const wrong =
      outside !== undefined
        ? `${field} names token ${outside}, but the embedding has ${vocab} rows`
        : rows.shape[1] !== hidden
          ? `its rows for ${field} have ${rows.shape[1]} values, but the embedding's have ${hidden}`
          : undefined
    if (wrong !== undefined)
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${dir}: the adapter does not fit this model: ${wrong}; merge it into the model that it was trained on`
      )
    for (const [i, index] of indices.entries()) planned.set(index, rows.data.subarray(i * hidden, (i + 1) * hidden))
  }
  return planned.size === 0 ? undefined : planned
}

/**
 * What is added to which matrix, by canonical name. Everything that does not fit is listed in one error. `padded`:
 * SigLIP's feed-forward may be wider than the adapter's, with zeros, as block types want it.
 */
export function planUpdates(
  expected: readonly ExpectedTensor[],
  adapters: readonly AdapterToMerge[],
  padded = false
): Map<string, MatrixUpdate[]> {
  const byName = new Map(expected.filter(({ shape }) => shape.length > 1).map((tensor) => [tensor.source, tensor]))
  const planned = new Map<string, MatrixUpdate[]>()
  for (const { dir, updates, scale } of adapters) {
    const unknown: string[] = []
    const unpaired: string[] = []
    const misshapen: string[] = []
    for (const { target, a, b } of updates) {
      const tensor = byName.get(target)
      if (!tensor || tensor.role === 'embedding' || tensor.role === 'position') unknown.push(target)
      else if (!a || !b) unpaired.push(target)
      else {
        const update = matrixUpdate(tensor, a, b, scale, padded)
        if (typeof update === 'string') misshapen.push(`${target}: ${update}`)
        else planned.set(target, [...(planned.get(target) ?? []), update])
      }
    }
    refuseMisfits(dir, [
      ['no such matrix in this model', unknown],
      ['only one of lora_A and lora_B', unpaired],
      ['wrong shape', misshapen]
    ])
  }
  return planned
}

/** What a pair of matrices adds to a tensor, or the shapes that do not fit it. */
function matrixUpdate(
  { role, shape }: ExpectedTensor,
  a: Matrix,
  b: Matrix,
  scale: number,
  padded: boolean
): MatrixUpdate | string {
  const [out, ...rest] = shape as [number, ...number[]]
  const inputs = rest.reduce((product, n) => product * n, 1)
  const rank = a.shape[0]!
  const fits = (have: number, wanted: number, mayPad: boolean) => have === wanted || (padded && mayPad && have < wanted)
  if (
    !fits(a.shape[1]!, inputs, role === 'visionFfnDown') ||
    !fits(b.shape[0]!, out, role === 'visionFfnUp') ||
    b.shape[1] !== rank ||
    !(rank > 0)
  )
    return `[${b.shape.join(', ')}] x [${a.shape.join(', ')}] for [${out}, ${inputs}]`
  const scaled = b.data.map((value) => value * scale)
  return { rank, in: inputs, a: widened(a.data, rank, inputs), b: widened(scaled, 1, out * rank) }
}

function refuseMisfits(dir: string, found: readonly (readonly [what: string, names: string[]])[]): void {
  const problems = found.filter(([, names]) => names.length > 0).map(([what, names]) => `${what}: ${someOf(names)}`)
  if (problems.length === 0) return
  throw new PaliGemmaError(
    'ERR_MODEL_INVALID',
    `${dir}: the adapter does not fit this model (${problems.join('; ')}); merge it into the model that it was ` +
      'trained on'
  )
}

/** Rows with zeros at their ends. */
function widened(data: Float32Array, rows: number, cols: number): Float32Array {
  const width = data.length / rows
  if (width === cols) return data
  const wide = new Float32Array(rows * cols)
  for (let row = 0; row < rows; row++) wide.set(data.subarray(row * width, (row + 1) * width), row * cols)
  return wide
}

/** Adds the updates to elements [first, first + values.length) of a matrix; sums are formed in float64. */
export function addUpdates(values: Float32Array, first: number, updates: readonly MatrixUpdate[]): void {
  for (const { rank, in: width, a, b } of updates) {
    const row = new Float64Array(width)
    for (let at = 0; at < values.length; ) {
      const out = Math.floor((first + at) / width)
      const begin = (first + at) % width
      const end = Math.min(width, begin + values.length - at)
      row.fill(0, begin, end)
      for (let r = 0; r < rank; r++) {
        const factor = b[out * rank + r]!
        for (let i = begin, j = r * width + begin; i < end; i++, j++) row[i]! += factor * a[j]!
      }
      for (let i = begin; i < end; i++) values[at++]! += row[i]!
    }
  }
}
