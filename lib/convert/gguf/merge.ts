/** One or two GGUFs as one: a text file and its vision file merged, a mask decoder added, types changed if asked. */
import { PaliGemmaError } from '../../base/errors'
import type { Metadata } from '../../formats/gguf-writer'
import { padVocabulary } from '../../formats/sentencepiece'
import { applyAddedTokens, readAddedTokens } from '../checkpoint/added-tokens'
import { vocabularyKeys } from '../checkpoint/metadata'
import { vocabularyOf } from '../checkpoint/vocabulary'
import { type GgufTensors, modelTensors, pairGgufs, planGguf } from './plan'
import { checkImportance } from '../imatrix'
import { GgufSource, readFloats, scaledTensor } from './source'
import { mergeIntoGguf } from './adapters'
import { type AdapterToMerge, readAdaptersToMerge } from '../adapters/merge'
import type { AdapterList } from '../adapters/option'
import { type MaskSource, maskTensors } from '../checkpoint/plan'
import type { SourceTensor } from '../../formats/source'
import { nativeQuantizeRows, type QuantizeRows } from '../stream'
import { untiedBecause } from '../checkpoint/tied-head'
import { type FileType, isBlockType, type StorageType } from '../../formats/types'
import { type ConvertResult, countParameters, writeModel, type WriteOptions } from '../write'

export interface GgufOptions extends WriteOptions {
  out: string
  type?: FileType | undefined
  visionType?: StorageType | undefined
  imatrix?: string | undefined
  unfoldProjector?: boolean | undefined
  adapters?: AdapterList | undefined
}

export async function openGgufs(paths: string[]): Promise<GgufSource[]> {
  const opened = await Promise.allSettled(paths.map(async (path) => await GgufSource.open(path)))
  const files = opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  const failed = opened.find((result) => result.status === 'rejected')
  if (!failed) return files
  await Promise.all(
    files.map(async (file) => {
      await file.close()
    })
  )
  throw failed.reason
}

/** A complete PaliGemma from one file, or from text and vision files. */
export async function mergeGgufs(
  paths: string[],
  mask: MaskSource | undefined,
  options: GgufOptions
): Promise<ConvertResult> {
  const files = await openGgufs(paths)
  try {
    const { text, vision } = pairGgufs(files)
    const notes: string[] = []
    const found = modelTensors(text, vision)
    const { tensors: stored, expected } = found
    notes.push(...(await checkExtra(found, options.quantizeRows ?? nativeQuantizeRows)))
    let tensors = await unfolded(stored, text.integer(`${text.architecture}.embedding_length`), options, notes)
    if (mask) tensors = tensors.filter(({ name }) => !name.startsWith('mask.'))
    const plan = planGguf(text, vision, tensors, options)
    const plain = options.type !== undefined && !isBlockType(options.type.base) && options.type.base !== 'F16'
    const adapters = await readAdaptersToMerge(options.adapters ?? [])
    const merged = mergeIntoGguf(text.path, plan.tensors, expected, adapters, notes)
    const planned = [...merged, ...maskTensors(mask, plain ? 'F32' : 'F16')]
    if (options.importance) notes.push(...checkImportance(options.imatrix!, options.importance, planned))
    const metadata = await withAddedTokens(plan.metadata, text, adapters, notes)
    const sources = [...(options.sources ?? []), ...files.flatMap((file) => file.files)]
    const bytes = await writeModel(options.out, metadata, planned, { ...options, sources })
    return {
      path: options.out,
      bytes,
      type: options.type?.name ?? 'as stored',
      tensors: planned.length,
      parameters: countParameters(planned),
      notes: [...notes, ...plan.notes]
    }
  } finally {
    await Promise.all(
      files.map(async (file) => {
        await file.close()
      })
    )
  }
}

/** Tokens that were added for an adapter get their names in the vocabulary. */
async function withAddedTokens(
  metadata: Metadata,
  text: GgufSource,
  adapters: readonly AdapterToMerge[],
  notes: string[]
): Promise<Metadata> {
  if (adapters.length === 0) return metadata
  const vocabulary = vocabularyOf(text)
  const rows = vocabulary.tokens.length
  for (const { dir } of adapters) {
    const added = await readAddedTokens(dir)
    const tokens = added.tokens.filter(({ text: name, id }) => name !== '<image>' || id < rows)
    applyAddedTokens(vocabulary, { ...added, tokens })
  }
  padVocabulary(text.path, vocabulary, rows)
  notes.push(...(vocabulary.notes ?? []))
  const changed = vocabularyKeys(vocabulary)
  const names = new Set(changed.map(([key]) => key))
  return [...metadata.filter(([key]) => !names.has(key)), ...changed]
}

/** What has no place in a PaliGemma is left out only where it says nothing; the engine's reader does the same. */
async function checkExtra({ tensors, head, ropeFactors }: GgufTensors, quantizeRows: QuantizeRows): Promise<string[]> {
  const embedding = tensors.find(({ name }) => name === 'token_embd.weight')
  if (head && embedding) {
    const why = await untiedBecause(head, embedding, quantizeRows)
    if (why !== undefined)
      throw new PaliGemmaError(
        'ERR_MODEL_UNSUPPORTED',
        `${head.file}: tensor ${head.name} ${why} ${embedding.name}, but PaliGemma's LM head is its embedding`
      )
  }
  if (ropeFactors && (await readFloats(ropeFactors, quantizeRows)).some((factor) => factor !== 1))
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${ropeFactors.file}: tensor ${ropeFactors.name} scales rotary positions, but PaliGemma uses plain ones`
    )
  return [head && 'left out, as it is a copy of the embedding: output.weight'].filter((note) => note !== undefined)
}

// Of a projector that is used as it is: rms * sqrt(inputs) is the gain of its output, of the order of 1; folding
// 1/sqrt(hidden) in makes it 45 to 68 times smaller.
const leastGain = 0.1

/**
 * Files for graphs that multiply every row by sqrt(hidden) have the inverse in the projector; this engine, like newer
 * graphs, scales text rows only.
 */
async function unfolded(
  tensors: SourceTensor[],
  hidden: number,
  options: GgufOptions,
  notes: string[]
): Promise<SourceTensor[]> {
  const quantizeRows = options.quantizeRows ?? nativeQuantizeRows
  const weight = tensors.find(({ name }) => name === 'mm.0.weight')
  if (!weight || options.unfoldProjector === false) return tensors
  if (options.unfoldProjector === undefined) {
    const values = await readFloats(weight, quantizeRows)
    const gain = Math.sqrt((values.reduce((sum, value) => sum + value * value, 0) / values.length) * weight.shape[1]!)
    // All zeros is a test's file, not a folded one.
    if (gain >= leastGain || gain === 0) return tensors
    notes.push(
      `the projector's weights are small (gain ${gain.toPrecision(2)}), so 1/sqrt(${hidden}) seems to be folded in: ` +
        'multiplied by its inverse; --projector keep leaves them'
    )
  }
  return await Promise.all(
    tensors.map(async (tensor) =>
      /^mm\.0\.(?:weight|bias)$/.test(tensor.name)
        ? await scaledTensor(tensor, Math.sqrt(hidden), quantizeRows)
        : tensor
    )
  )
}
