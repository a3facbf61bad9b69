/** A PaliGemma checkpoint of any kind to one GGUF. */
import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type AdapterList, adaptersRule, type TakenAdapter } from './adapters/option'
import { publicCall } from '../base/call'
import { PaliGemmaError } from '../base/errors'
import { firstBytes } from '../base/first-bytes'
import { checkOutput } from '../base/output-file'
import { check, rule, takeList, type Rules, type WithPaths } from '../base/validate'
import { readMaskTensors } from '../output/masks/mask-file'
import { looksLikeZip } from '../formats/npz'
import { readConfig, type SourceConfig } from './checkpoint/config'
import { readJson } from '../formats/fields'
import { mergeGgufs } from './gguf/merge'
import { filesRead } from './inputs'
import { checkImportance, readImportance } from './imatrix'
import { readAdaptersToMerge } from './adapters/merge'
import { modelMetadata } from './checkpoint/metadata'
import { openNpz } from './checkpoint/npz-source'
import { type MaskSource, type NamedTensors, namedTensors, planConversion } from './checkpoint/plan'
import { quantizedError, quantizedTensors } from './checkpoint/quantized'
import { Safetensors } from '../formats/safetensors'
import type { WeightSource } from '../formats/source'
import { nativeQuantizeRows, type QuantizeRows } from './stream'
import { untiedBecause } from './checkpoint/tied-head'
import { fileTypeNames, parseFileType, parseVisionType } from '../formats/types'
import { openVocabulary } from './checkpoint/vocabulary'
import { type ConvertResult, countParameters, writeModel } from './write'

export { fileTypeNames, type ConvertResult }

/** Options of `convertModel`. */
export interface ConvertOptions {
  /**
   * A Hugging Face model directory (config.json, tokenizer.model and safetensors weights, in one file or in shards), an
   * original `.npz` checkpoint (Kaggle, the `-jax` repositories), or a text GGUF with its vision GGUF, in any order.
   */
  source: string | URL | (string | URL)[]
  /** The GGUF to write; replaced if it exists. It appears only when it is complete. */
  out: string | URL
  /** See {@link fileTypeNames}, in any case; default Q8_0, for GGUFs: as they are. */
  type?: string | undefined
  /** Type of SigLIP's matrices and the projector; default Q8_0 in quantized files, else `type`. */
  visionType?: string | undefined
  /** `vae-oid.npz`: its decoder goes into the file, so that `segment` works without it. */
  maskDecoder?: string | URL | undefined
  /** `tokenizer.model`, a directory or a GGUF that holds one; npz checkpoints need it, unless it lies beside them. */
  tokenizer?: string | URL | undefined
  /** What each weight matters to the model, a file that `paligemma imatrix` wrote: better 2-4 bit types. */
  imatrix?: string | URL | undefined
  /**
   * GGUFs only: multiply the projector by sqrt(hidden), for files that have the inverse folded in. Default: decided by
   * its magnitude.
   */
  unfoldProjector?: boolean | undefined
  /**
   * PEFT LoRA directories, or names of pulled ones, to merge into the weights, with scales (default 1). Quantized GGUFs
   * are rounded a second time.
   */
  adapters?: AdapterList | undefined
  /** Called with the share that is done, 0..1. */
  onProgress?: ((fraction: number) => void) | undefined
  /** Rejects with the signal's reason; nothing is left on the disk. */
  signal?: AbortSignal | undefined
}

/** What lies above, and what tests replace: the addon's row conversion and its reader. @internal */
export interface ConvertHooks {
  /** The folder of an adapter, from what was given and the file that it would be. */
  resolveAdapter?: ((given: string, file: string) => Promise<string>) | undefined
  quantizeRows?: QuantizeRows | undefined
  verify?: boolean | undefined
}

/**
 * Converts a checkpoint. Memory stays under 400 MB whatever the model's size.
 *
 * @throws {PaliGemmaError} `ERR_INVALID_OPTION`, `ERR_MODEL_NOT_FOUND` (a file is missing), `ERR_MODEL_INVALID` (a file
 * is damaged, or weights and config do not fit), `ERR_MODEL_UNSUPPORTED` (no PaliGemma), `ERR_DISK_FULL`,
 * `ERR_ACCESS_DENIED`, `ERR_WRITE_FAILED`.
 */
export async function convert(options: ConvertOptions, hooks: ConvertHooks = {}): Promise<ConvertResult> {
  check('hooks', hooks, rule.object)
  return await publicCall<WithPaths<ConvertOptions>, ConvertResult>(
    'convertModel',
    options,
    convertRules,
    ['source', 'out'],
    async (options) => {
      const { resolveAdapter = async (_: string, file: string) => file } = hooks
      const given = options.adapters as TakenAdapter[] | undefined
      const adapters = given?.map(async ({ path, file, trained, scale }) => ({
        path: trained ?? (await resolveAdapter(path, file)),
        scale
      }))
      return await convertTaken({ ...options, adapters: adapters && (await Promise.all(adapters)) }, hooks)
    }
  )
}

const isFile = (v: unknown): boolean => rule.file.accepts(v)
const takeFile = rule.file.take!

const convertRules: Rules<ConvertOptions> = {
  source: {
    expected: 'path or array of paths',
    take: (v, folder) => {
      const list = takeList(v)
      return Array.isArray(list) ? list.map((path) => takeFile(path, folder)) : takeFile(list, folder)
    },
    accepts: (v) => isFile(v) || (Array.isArray(v) && v.every(isFile))
  },
  out: rule.file,
  type: rule.name,
  visionType: rule.name,
  maskDecoder: rule.file,
  tokenizer: rule.file,
  imatrix: rule.file,
  unfoldProjector: rule.flag,
  adapters: adaptersRule,
  onProgress: rule.callback,
  signal: rule.signal
}

async function convertTaken(options: WithPaths<ConvertOptions>, hooks: ConvertHooks): Promise<ConvertResult> {
  const type = options.type === undefined ? undefined : parseFileType(options.type)
  const visionType = options.visionType === undefined ? undefined : parseVisionType(options.visionType)
  const sources = withoutParts(Array.isArray(options.source) ? options.source : [options.source])
  const read = await filesRead(options)
  await checkOutput(options.out, { sources: read })
  const kind = await sourceKind(sources)
  const mask =
    options.maskDecoder === undefined ? undefined : await readMaskTensors(options.maskDecoder, ['decoder', 'encoder'])
  const importance =
    options.imatrix === undefined ? undefined : await readImportance(options.imatrix, hooks.quantizeRows)
  const write = { ...options, ...hooks, importance, sources: read }
  if (kind === 'gguf') return await mergeGgufs(sources, mask, { ...write, type, visionType })
  return await convertCheckpoint(sources[0]!, kind, mask, { ...write, type: type ?? parseFileType('Q8_0'), visionType })
}

type ParsedOptions = Omit<WithPaths<ConvertOptions>, 'type' | 'visionType'> &
  ConvertHooks & {
    type: ReturnType<typeof parseFileType>
    visionType: ReturnType<typeof parseVisionType> | undefined
    sources: string[]
    importance: ReadonlyMap<string, Float32Array> | undefined
  }

async function convertCheckpoint(
  path: string,
  kind: 'directory' | 'npz',
  mask: MaskSource | undefined,
  options: ParsedOptions
): Promise<ConvertResult> {
  const adapters = await readAdaptersToMerge(options.adapters ?? [])
  const { config, source } = await openCheckpoint(path, kind, dirname(options.out))
  try {
    const plan = planConversion(config, source.tensors, {
      dir: path,
      type: options.type,
      visionType: options.visionType,
      mask,
      adapters
    })
    plan.notes.push(...(await checkTiedHead(namedTensors(path, source.tensors), path, options.quantizeRows)))
    const vocabulary = await openVocabulary({
      tokenizer: options.tokenizer,
      source: path,
      kind,
      rows: plan.vocab,
      imageTokenId: config.imageTokenId,
      adapters: adapters.map(({ dir }) => dir)
    })
    plan.notes.push(...(vocabulary.notes ?? []))
    const metadata = modelMetadata(config, plan, vocabulary, options.type)
    if (options.importance) plan.notes.push(...checkImportance(options.imatrix!, options.importance, plan.tensors))
    const bytes = await writeModel(options.out, metadata, plan.tensors, options)
    return {
      path: options.out,
      bytes,
      type: options.type.name,
      tensors: plan.tensors.length,
      parameters: countParameters(plan.tensors),
      notes: plan.notes
    }
  } finally {
    await source.close()
  }
}

async function openCheckpoint(
  path: string,
  kind: 'directory' | 'npz',
  scratchDir: string
): Promise<{ config: SourceConfig; source: WeightSource }> {
  if (kind === 'npz') return await openNpz(path, scratchDir)
  await refuseAdapter(path)
  const config = await readConfig(path)
  const source = await Safetensors.open(path)
  const method = quantizedTensors(source.tensors)
  if (method === undefined) return { config, source }
  await source.close()
  throw quantizedError(path, method)
}

/** An adapter alone is no model: say what to convert. */
async function refuseAdapter(dir: string): Promise<void> {
  const [config, adapter] = await Promise.all(
    ['config.json', 'adapter_config.json'].map(async (name) => await readJson(join(dir, name), true))
  )
  if (config || !adapter) return
  const base = adapter.string('base_model_name_or_path', '')
  throw new PaliGemmaError(
    'ERR_MODEL_UNSUPPORTED',
    `${dir} is a LoRA adapter${base === '' ? '' : `, trained on ${base}`}; ` +
      `convert the model that it was trained on with this adapter merged: paligemma convert BASE --adapter ${dir} ` +
      '--out MODEL.gguf'
  )
}

/** Parts of a split GGUF, as a shell's glob lists them, are one source: any of them opens the whole. */
function withoutParts(sources: string[]): string[] {
  const seen = new Set<string>()
  return sources.filter((source) => {
    const whole = typeof source === 'string' ? source.replace(/-\d+(-of-\d+(?:\.[^./\\]*)?)$/, '$1') : source
    if (whole !== source && seen.has(whole)) return false
    seen.add(whole)
    return true
  })
}

async function sourceKind(sources: string[]): Promise<'directory' | 'npz' | 'gguf'> {
  const kinds = await Promise.all(
    sources.map(async (source) => {
      const info = await stat(source).catch((cause: NodeJS.ErrnoException) => {
        throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${source} cannot be read: ${cause.message}`, { cause })
      })
      if (info.isDirectory()) return 'directory'
      if (await looksLikeZip(source)) return 'npz'
      if ((await firstBytes(source, 4)) === 'GGUF') return 'gguf'
      const whatItIs = /\.safetensors$/i.test(source)
        ? `holds weights alone; give its folder, ${dirname(source)}, with config.json and the tokenizer`
        : 'is neither a Hugging Face model directory (config.json, tokenizer.model, *.safetensors) nor an .npz ' +
          'checkpoint nor a GGUF'
      throw new PaliGemmaError('ERR_MODEL_UNSUPPORTED', `${source} ${whatItIs}`)
    })
  )
  const [first] = kinds
  if (first === undefined || kinds.length > 2 || (kinds.length === 2 && kinds.some((kind) => kind !== 'gguf'))) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected a model directory, an .npz file or one or two GGUFs for source but received ' +
        `${sources.length === 0 ? 'nothing' : sources.join(', ')}`
    )
  }
  return first
}

/** An LM head that is not the embedding would be lost: only a copy may be left out. */
async function checkTiedHead(
  { head, found }: NamedTensors,
  dir: string,
  quantizeRows: QuantizeRows | undefined
): Promise<string[]> {
  const embedding = found.get('text.embed_tokens.weight')
  if (!head || !embedding) return []
  const why = await untiedBecause(head, embedding, quantizeRows ?? nativeQuantizeRows)
  if (why === undefined) return [`left out, as it is a copy of ${embedding.name}: ${head.name}`]
  throw new PaliGemmaError(
    'ERR_MODEL_UNSUPPORTED',
    `${dir}: ${head.name} ${why} ${embedding.name}, but PaliGemma's LM head is its embedding; where that is meant ` +
      '(tie_word_embeddings, the default), leave the head out when saving'
  )
}
