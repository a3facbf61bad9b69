/** Any GGUF with its matrices in another type. */
import { publicCall } from '../base/call'
import { checkOutput } from '../base/output-file'
import { check, rule, type Rules, type WithPaths } from '../base/validate'
import { GgufSource } from './gguf/source'
import { planGguf } from './gguf/plan'
import { checkImportance, readImportance } from './imatrix'
import { filesRead } from './inputs'
import type { ConvertHooks, ConvertResult } from './index'
import { parseFileType, parseVisionType } from '../formats/types'
import { countParameters, writeModel } from './write'

/** Options of `quantizeModel`. */
export interface QuantizeOptions {
  /** A GGUF: a whole PaliGemma, its text or its vision file; tensors of unknown names are copied. */
  source: string | URL
  /** The GGUF to write; replaced if it exists. It appears only when it is complete. */
  out: string | URL
  /** As for `convert`. */
  type: string
  /** Type of SigLIP's matrices and the projector; default Q8_0 in quantized files, else `type`. */
  visionType?: string | undefined
  /** A file that `paligemma imatrix` wrote (or llama.cpp, in its GGUF format): what each input of a matrix matters. */
  imatrix?: string | URL | undefined
  /** Called with the share that is done, 0..1. */
  onProgress?: ((fraction: number) => void) | undefined
  /** Rejects with the signal's reason; nothing is left on the disk. */
  signal?: AbortSignal | undefined
}

/**
 * Stores a GGUF's matrices in another type, row by row; memory stays under 400 MB. Norms, biases, positions, the mask
 * decoder and the metadata stay as they are.
 *
 * @throws {PaliGemmaError} `ERR_INVALID_OPTION`, `ERR_MODEL_NOT_FOUND`, `ERR_MODEL_INVALID`, `ERR_DISK_FULL`,
 * `ERR_ACCESS_DENIED`, `ERR_WRITE_FAILED`.
 */
export async function quantize(options: QuantizeOptions, hooks: ConvertHooks = {}): Promise<ConvertResult> {
  check('hooks', hooks, rule.object)
  return await publicCall<WithPaths<QuantizeOptions>, ConvertResult>(
    'quantizeModel',
    options,
    quantizeRules,
    ['source', 'out', 'type'],
    async (options) => await quantizeTaken(options, hooks)
  )
}

const quantizeRules: Rules<QuantizeOptions> = {
  source: rule.file,
  out: rule.file,
  type: rule.name,
  visionType: rule.name,
  imatrix: rule.file,
  onProgress: rule.callback,
  signal: rule.signal
}

async function quantizeTaken(options: WithPaths<QuantizeOptions>, hooks: ConvertHooks): Promise<ConvertResult> {
  const type = parseFileType(options.type)
  const visionType = options.visionType === undefined ? undefined : parseVisionType(options.visionType)
  const sources = await filesRead(options)
  await checkOutput(options.out, { sources })
  const importance =
    options.imatrix === undefined ? undefined : await readImportance(options.imatrix, hooks.quantizeRows)
  const source = await GgufSource.open(options.source)
  try {
    const plan = planGguf(source, undefined, source.tensors, { type, visionType })
    if (importance) plan.notes.push(...checkImportance(options.imatrix!, importance, plan.tensors))
    const bytes = await writeModel(options.out, plan.metadata, plan.tensors, {
      ...options,
      ...hooks,
      importance,
      sources
    })
    return {
      path: options.out,
      bytes,
      type: type.name,
      tensors: plan.tensors.length,
      parameters: countParameters(plan.tensors),
      notes: plan.notes
    }
  } finally {
    await source.close()
  }
}
