/** Models of the AI SDK over a loaded one. */
import type { PaliGemma } from '../api/model'
import type { GenerateResult } from '../api/options/results'
import type { GenerateStream } from '../api/tasks/stream'
import { isText, readFields, readOptions, rule, take, type Rules } from '../base/validate'
import { requestOf } from './request'
import type {
  CallOptions,
  EmbeddingModel,
  FinishReason,
  GeneratedText,
  LanguageModel,
  Metadata,
  Specification,
  StreamPart,
  Usage,
  Warning
} from './types'

/** Options of {@link createPaliGemma}. */
export interface ProviderOptions<Version extends Specification = Specification> {
  /** A loaded model; it is not disposed of by the provider. */
  model: PaliGemma
  /** The specification of models: "v4" (default) of AI SDK 7, "v3" of AI SDK 6. */
  specification?: Version | undefined
  /** What results call the model; default: its name in the file, else its variant. */
  modelId?: string | undefined
}

/** What {@link createPaliGemma} makes. */
export interface PaliGemmaProvider<Version extends Specification = Specification> {
  /** As `specification` says. */
  readonly specificationVersion: Version
  /** For `generateText`, `streamText`, `generateObject` and the like; `modelId` is what results call it. */
  languageModel: (modelId?: string) => LanguageModel<Version>
  /**
   * Of a ColPali model: the mean of a query's vectors, of length 1, since the SDK knows one vector per text. For the
   * late interaction that such models are made for, use `embedText`, `embedImage` and `PageIndex`.
   */
  embeddingModel: (modelId?: string) => EmbeddingModel<Version>
}

const rules: Rules<ProviderOptions> = {
  model: { expected: 'a loaded model', accepts: (v) => rule.function.accepts((v as PaliGemma).generate) },
  specification: rule.oneOf('v3', 'v4'),
  modelId: rule.name
}

/**
 * A loaded model for the AI SDK: `generateText({ model: createPaliGemma({ model }).languageModel(), messages })`. The
 * prompt is the last user message; its image parts are the pictures, and schemas of objects constrain the output. What
 * the SDK has no name for goes as `providerOptions: { paligemma: { constrain: 'detect' } }`. The model stays its
 * owner's.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function createPaliGemma<Version extends Specification = 'v4'>(
  options: ProviderOptions<Version>
): PaliGemmaProvider<Version> {
  const given = readOptions<ProviderOptions<Version>>('createPaliGemma', options, rules, ['model'])
  const { model } = given
  const specificationVersion = (given.specification ?? 'v4') as Version
  const own = given.modelId ?? (model.info.name || model.info.variant)
  const common = (modelId = own) => ({ specificationVersion, provider: 'paligemma', modelId })
  return {
    specificationVersion,
    languageModel: (modelId) => ({
      ...common(modelId),
      // fetched by us, who refuse private addresses
      supportedUrls: { 'image/*': [/^https?:/] },
      doGenerate: async (call) => await generate(model, call),
      doStream: async (call) => stream(model, call)
    }),
    embeddingModel: (modelId) => ({
      ...common(modelId),
      maxEmbeddingsPerCall: 64,
      supportsParallelCalls: true,
      doEmbed: async (call) => await embed(model, call)
    })
  }
}

async function generate(model: PaliGemma, call: CallOptions): Promise<GeneratedText> {
  const { options, warnings } = requestOf(call)
  const result = await model.generate(options)
  return { content: [{ type: 'text', text: result.text }], ...endOf(result), warnings }
}

function stream(model: PaliGemma, call: CallOptions): { stream: ReadableStream<StreamPart> } {
  const { options, warnings } = requestOf(call)
  const generation = model.stream(options)
  const parts = partsOf(generation, warnings)
  const readable = new ReadableStream<StreamPart>(
    {
      async pull(controller) {
        const { done, value } = await parts.next()
        if (done) controller.close()
        else controller.enqueue(value)
      },
      cancel: () => generation.cancel()
    },
    { highWaterMark: 0 }
  )
  return { stream: readable }
}

const id = '0'

async function* partsOf(generation: GenerateStream, warnings: Warning[]): AsyncGenerator<StreamPart, void, void> {
  yield { type: 'stream-start', warnings }
  try {
    yield { type: 'text-start', id }
    for await (const { text } of generation) if (text !== '') yield { type: 'text-delta', id, delta: text }
    yield { type: 'text-end', id }
    yield { type: 'finish', ...endOf(await generation.result) }
  } catch (error) {
    yield { type: 'error', error }
  }
}

function endOf(result: GenerateResult): { finishReason: FinishReason; usage: Usage; providerMetadata: Metadata } {
  const { finishReason, usage, seed, timings } = result
  const input = usage.imageTokens + usage.promptTokens
  const output = usage.completionTokens
  return {
    finishReason: { unified: finishReason === 'abort' ? 'other' : finishReason, raw: finishReason },
    usage: {
      inputTokens: { total: input, noCache: input, cacheRead: undefined, cacheWrite: undefined },
      outputTokens: { total: output, text: output, reasoning: undefined }
    },
    providerMetadata: { paligemma: { seed, imageTokens: usage.imageTokens, ...timings } }
  }
}

async function embed(
  model: PaliGemma,
  call: { values: readonly string[]; abortSignal?: AbortSignal | undefined }
): Promise<{ embeddings: number[][]; usage: { tokens: number }; warnings: Warning[] }> {
  const { values, abortSignal } = readFields('the call', call, ['values', 'abortSignal'])
  const signal = abortSignal as AbortSignal | undefined
  const texts = take('values', values as string[], rule.listOf('strings', isText))
  const found = await Promise.all(texts.map(async (text) => await model.embedText(text, { signal })))
  return {
    embeddings: found.map(({ data, tokens, dims }) => meanOf(data, tokens, dims)),
    usage: { tokens: found.reduce((sum, { tokens }) => sum + tokens, 0) },
    warnings: []
  }
}

/** Of length 1. */
function meanOf(data: Float32Array, tokens: number, dims: number): number[] {
  const sum = new Array<number>(dims).fill(0)
  for (let i = 0; i < tokens * dims; i++) sum[i % dims]! += data[i]!
  const length = Math.hypot(...sum) || 1
  return sum.map((value) => value / length)
}
