/** `contextSize` beyond what a model was trained for: it works, but nobody knows how well. */
import type { NativeBinding } from '../../engine/native'
import { readStructure } from '../../engine/structure'

/** Files that were warned about: once each is enough. */
const warned = new Set<string>()

/** Warns with the code PALIGEMMA_CONTEXT_SIZE. Never fails: the model is loaded already. */
export async function warnBeyondTraining(
  binding: NativeBinding,
  { model, contextSize }: { model: string; contextSize?: number | undefined }
): Promise<void> {
  if (contextSize === undefined || warned.has(model)) return
  const trained = await trainedContext(binding, model).catch(() => undefined)
  if (trained === undefined || contextSize <= trained) return
  warned.add(model)
  process.emitWarning(
    `contextSize is ${contextSize}, but ${model} was trained for ${trained} tokens; answers beyond those are guesses`,
    { type: 'PaliGemmaWarning', code: 'PALIGEMMA_CONTEXT_SIZE' }
  )
}

async function trainedContext(binding: NativeBinding, path: string): Promise<number | undefined> {
  const { metadata } = await readStructure(path, 0, binding)
  const value = metadata.find(({ key }) => /^gemma2?\.context_length$/.test(key))?.value
  return typeof value === 'bigint' || typeof value === 'number' ? Number(value) : undefined
}
