/** Importance matrices: which inputs of a model's matrices matter, measured on the user's own pictures and prompts. */
import { type ImportanceEntry, writeImportance } from '../convert/imatrix'
import { filesRead } from '../convert/inputs'
import { publicCall, type Taken } from '../base/call'
import { PaliGemmaError } from '../base/errors'
import { checkOutput } from '../base/output-file'
import { definedOnly, ModelHost } from '../api/request/host'
import type { ImageInput } from '../images/image-input'
import { native } from '../engine/native'
import { resolveModel } from '../hub/resolve'
import type { LoadOptions } from '../api/options/options'
import { sampledRules, samplesOf, type SamplePrompt } from './samples'
import { rule, type Rules, type WithPaths } from '../base/validate'

/** Options of {@link collectImportance}. */
export interface ImportanceOptions
  extends Pick<
    LoadOptions,
    'model' | 'vision' | 'device' | 'threads' | 'contextSize' | 'attentionWindow' | 'resize' | 'fit' | 'signal'
  > {
  /** The GGUF to write. */
  out: string | URL
  /** Pictures of the kind the model will see. */
  images: ImageInput[]
  /**
   * What is asked about each of them; with `answer`, that text is run through the model, else what it generates.
   * Default: "caption en".
   */
  prompts?: (string | SamplePrompt)[]
  /** Tokens generated for prompts without an answer; default 32. */
  maxTokens?: number | undefined
  /** Called with the share of samples that are done, 0..1; loading is before 0. */
  onProgress?: ((fraction: number) => void) | undefined
}

/** What {@link collectImportance} wrote. */
export interface ImportanceResult {
  /** Of the file, absolute. */
  path: string
  /** Its size. */
  bytes: number
  /** Matrices observed. */
  matrices: number
  /** Pictures times prompts. */
  samples: number
  /** Rows the first layer of the text model has seen: image and text tokens. */
  tokens: number
}

const importanceRules: Rules<ImportanceOptions> = {
  ...sampledRules,
  out: rule.file,
  maxTokens: rule.integer(1)
}

export const defaultPrompts: SamplePrompt[] = [{ prompt: 'caption en' }]

/**
 * Runs the model over pictures and prompts and writes the mean square of every input column of its matrices (text,
 * vision and projector), in llama.cpp's GGUF layout. `convert` and `quantize` take the file as `imatrix`: blocks of 2-4
 * bits are then rounded so that what matters is exact first.
 * @throws PaliGemmaError as `loadModel` and `generate` do
 */
export async function collectImportance(options: ImportanceOptions): Promise<ImportanceResult> {
  return await publicCall<WithPaths<ImportanceOptions>, ImportanceResult>(
    'collectImportance',
    options,
    importanceRules,
    ['model', 'out', 'images'],
    collect
  )
}

async function collect(options: Taken<WithPaths<ImportanceOptions>>): Promise<ImportanceResult> {
  const { out, images, prompts = defaultPrompts, maxTokens = 32, onProgress, signal, ...load } = options
  const files = await resolveModel(load.model)
  const { path: model } = files
  const vision = load.vision ?? files.vision
  const pictures = images.filter((image) => typeof image === 'string')
  const sources = [...(await filesRead({ source: [model, vision] })), ...pictures]
  await checkOutput(out, { sources })
  const host = await ModelHost.open(native(), definedOnly({ ...load, model, vision, signal, maxSequences: 1 }), {
    importance: true
  })
  try {
    const samples = samplesOf(images, prompts)
    for (const [i, { image, prompt, answer }] of samples.entries()) {
      onProgress?.(i / samples.length)
      const [prepared] = await host.prepareImages({ image }, signal)
      const request = { images: [prepared!.native], prompt }
      await host.run(
        answer === undefined
          ? { kind: 'generate', ...request, maxTokens }
          : { kind: 'score', ...request, suffix: answer },
        { signal }
      )
    }
    const end = await host.run({ kind: 'importance', images: [], prompt: '' }, { signal })
    const entries = (end?.stages ?? []).map(
      ({ name, rows, data }): ImportanceEntry => ({ name, count: rows, sums: data })
    )
    const broken = entries.find(({ sums }) => !sums.every(Number.isFinite))
    if (broken)
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${model}: the inputs of ${broken.name} are not finite; the file is damaged`
      )
    const bytes = await writeImportance(
      out,
      entries,
      images.map((image) => (typeof image === 'string' ? image : 'picture')),
      samples.length
    )
    onProgress?.(1)
    const tokens = entries.find(({ name }) => name === 'blk.0.attn_q.weight')?.count ?? 0
    return { path: out, bytes, matrices: entries.length, samples: samples.length, tokens }
  } finally {
    await host.dispose()
  }
}
