/** LoRA adapters merged into the tensors of a GGUF, whatever their types: dequantized, added, quantized again. */
import { PaliGemmaError } from '../../base/errors'
import { type AdapterToMerge, checkWholeScale, mergeNote, planRows, planUpdates } from '../adapters/merge'
import type { ExpectedTensor } from '../checkpoint/names'
import type { PlannedTensor } from '../checkpoint/plan'
import { someOf } from '../../formats/source'
import { isBlockType, storage } from '../../formats/types'

/** Adds what the adapters change to the plan, and to its notes what that means. */
export function mergeIntoGguf(
  where: string,
  tensors: readonly PlannedTensor[],
  expected: readonly ExpectedTensor[],
  adapters: readonly AdapterToMerge[],
  notes: string[]
): PlannedTensor[] {
  if (adapters.length === 0) return [...tensors]
  const names = new Map(expected.map(({ source, gguf }) => [source, gguf]))
  const updates = new Map(
    [...planUpdates(expected, adapters, true)].map(([source, list]) => [names.get(source)!, list])
  )
  const replaced = replacements(expected, adapters)
  const embedding = expected.find(({ role }) => role === 'embedding')
  const newRows = embedding && planRows(embedding.shape as [number, number], adapters)
  const fixed: string[] = []
  const again = new Set<string>()
  const merged = tensors.map((tensor): PlannedTensor => {
    const [added, whole] = [updates.get(tensor.name), replaced.get(tensor.name)]
    const rows = tensor.name === embedding?.gguf ? newRows : undefined
    if (!added && !whole && !rows) return tensor
    if (!Object.hasOwn(storage, tensor.type)) fixed.push(`${tensor.name} (${tensor.type})`)
    if (!whole && isBlockType(tensor.source.type)) again.add(tensor.source.type)
    return { ...tensor, ...whole, ...(added && { updates: added }), ...(rows && { newRows: rows }) }
  })
  if (fixed.length > 0) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected a type to store the merged weights in, but ${where} has them in types that are only read: ` +
        `${someOf(fixed)}; give --type`
    )
  }
  notes.push(...adapters.map(mergeNote))
  if (again.size > 0) {
    notes.push(
      `the changed matrices were quantized before (${[...again].join(', ')}) and are rounded a second time; merge ` +
        'into the original where you can, or use the adapter beside the weights'
    )
  }
  return merged
}

type Replacement = Pick<PlannedTensor, 'source' | 'rows' | 'cols' | 'plusOne'>

/** Whole tensors that adapters bring, by GGUF name. */
function replacements(
  expected: readonly ExpectedTensor[],
  adapters: readonly AdapterToMerge[]
): Map<string, Replacement> {
  const bySource = new Map(expected.map((tensor) => [tensor.source, tensor]))
  const result = new Map<string, Replacement>()
  for (const adapter of adapters) {
    checkWholeScale(adapter)
    const wrong: string[] = []
    for (const [name, source] of adapter.replaced) {
      const { shape } = source
      const tensor = bySource.get(name)
      // a GGUF's vision feed-forward may be wider than the model's, with zeros
      const fits =
        tensor?.role === 'visionFfnBias'
          ? shape.length === 1 && shape[0]! <= tensor.shape[0]!
          : String(shape) === String(tensor?.shape)
      if (!tensor || !fits) {
        wrong.push(`${name} [${shape.join(', ')}]${tensor ? ` instead of [${tensor.shape.join(', ')}]` : ''}`)
        continue
      }
      const cols = shape.at(-1)!
      result.set(tensor.gguf, {
        source,
        rows: shape.reduce((product, n) => product * n, 1) / cols,
        cols,
        plusOne: tensor.role === 'textNorm'
      })
    }
    if (wrong.length > 0) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${adapter.dir}: the adapter replaces tensors that this model does not have or has in another shape: ` +
          `${someOf(wrong)}`
      )
    }
  }
  return result
}
