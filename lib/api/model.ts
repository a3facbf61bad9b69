/** A loaded model and everything it can do. */
import { type AdapterInfo, toAdapterInfo } from './adapters'
import { nativeCall, PaliGemmaError, fromNative, incomplete } from '../base/errors'
import { runGeneration, toToken } from './generation'
import type { ChoiceResult, GeneratedToken, GenerateResult } from './results'
import { definedOnly, ModelHost } from '../engine/host'
import { resolveModel } from '../hub/cache'
import type { ImageEmbedding, ImageInput } from '../images/image-input'
import { codesRule } from '../engine/mask-decoder'
import { native, type NativeBinding, type NativeModelInfo } from '../engine/native'
import {
  answerRules,
  batchRules,
  captionRules,
  defaults,
  embedRules,
  encodeImageRules,
  generateRules,
  loadRules,
  scoreRules,
  taskRules,
  type AnswerOptions,
  type BatchOptions,
  type CaptionOptions,
  type ChoiceOptions,
  type DetectOptions,
  type EmbedOptions,
  type EncodeImageOptions,
  type GenerateOptions,
  type LoadOptions,
  type ScoreOptions,
  type TaskOptions
} from './options'
import { embedRequest, type MultiVector, queryTexts, type RetrievalFlavour } from '../retrieval/vectors'
import { generateObject, type ObjectOptions } from './object'
import type { SchemaValue } from '../output/standard-schema'
import { prompts, withoutPlaceholders } from './prompts'
import { anySignal, untilAborted } from '../base/signals'
import { GenerateStream } from './stream'
import { detect, segment, type Detection, type Segmentation } from './tasks'
import { encodeRules, idsRule, type EncodeOptions } from './tokenizer'
import { check, checkOptions, rule, wrongOption } from '../base/validate'

// Node 20's first releases lack the symbol; compiled `await using` looks it up here.
if (!Symbol.asyncDispose) Object.defineProperty(Symbol, 'asyncDispose', { value: Symbol('Symbol.asyncDispose') })

/** What a loaded model is. */
export interface LoadedModelInfo {
  architecture: 'paligemma' | 'paligemma2'
  /** "3b-224", "10b-448", "28b-896"; other sizes: "custom". */
  variant: string
  /** The file's own name, or ''. */
  name: string
  /** The type that holds most of the weights: "Q4_K", "BF16", ... */
  quantization: string
  /** Sum of all tensor elements. */
  parameters: number
  /** Of the model files. */
  bytes: number
  /** Width and height in pixels that pictures are resized to; 0 without vision. */
  imageSize: number
  /** Tokens per picture. */
  imageTokens: number
  textLayers: number
  textHidden: number
  visionLayers: number
  visionHidden: number
  vocab: number
  /** Tokens per sequence, images included. */
  contextSize: number
  hasVision: boolean
  hasMaskDecoder: boolean
  /** `embedImage` and `embedText` work. */
  hasRetrieval: boolean
  /** Whose prompts these calls write unless told otherwise: what the file says, else "colpali-engine". */
  retrievalFlavour: RetrievalFlavour
  /** LoRA adapters that were loaded with the model. */
  adapters: AdapterInfo[]
  /** How pictures are resized. */
  resize: 'bicubic' | 'bilinear'
  /** "cpu", "cuda" or "metal". */
  device: string
  /** Instruction set in use, such as "avx2". */
  isa: string
  threads: number
}

// Published sizes (transformers' conversion scripts).
const sizes: Record<string, string> = {
  'gemma 18 2048': '3b',
  'gemma2 26 2304': '3b',
  'gemma2 42 3584': '10b',
  'gemma2 46 4608': '28b'
}

function toInfo(info: NativeModelInfo, resize: 'bicubic' | 'bilinear' | undefined): LoadedModelInfo {
  const size = sizes[`${info.architecture} ${info.textLayers} ${info.textHidden}`]
  return {
    architecture: info.architecture === 'gemma' ? 'paligemma' : 'paligemma2',
    variant: size ? `${size}${info.imageSize ? `-${info.imageSize}` : ''}` : 'custom',
    name: info.name,
    quantization: info.quantization,
    parameters: info.parameters,
    bytes: info.bytes,
    imageSize: info.imageSize,
    imageTokens: info.imageTokens,
    textLayers: info.textLayers,
    textHidden: info.textHidden,
    visionLayers: info.visionLayers,
    visionHidden: info.visionHidden,
    vocab: info.vocab,
    contextSize: info.contextSize,
    hasVision: info.hasVision,
    hasMaskDecoder: info.hasMaskDecoder,
    hasRetrieval: info.hasRetrieval,
    retrievalFlavour: info.retrievalFlavour === 'transformers' ? 'transformers' : 'colpali-engine',
    adapters: info.adapters.map(toAdapterInfo),
    resize: resize ?? info.resizeFilter,
    device: info.device,
    isa: info.isa,
    threads: info.threads
  }
}

/** What `score` gives: one entry per token of the suffix, the end token last. */
export interface ScoreResult {
  tokens: GeneratedToken[]
  /** Natural logarithms. */
  logProbs: number[]
  /** Their sum. */
  total: number
  /** Per token. */
  mean: number
}

type TaskSampling = Omit<GenerateOptions, 'prompt' | 'image' | 'images'>

/** A loaded PaliGemma. All methods may be called at any time and together; requests beyond `maxSequences` queue. */
export class PaliGemma {
  readonly info: Readonly<LoadedModelInfo>
  readonly #host: ModelHost

  /** @internal */
  constructor(host: ModelHost) {
    this.#host = host
    this.info = Object.freeze(toInfo(host.info, host.options.resize))
  }

  /**
   * Generates text for a prompt and pictures.
   * @throws PaliGemmaError ERR_INVALID_OPTION, ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_PROMPT_TOO_LONG,
   * ERR_OUT_OF_MEMORY, ERR_DISPOSED; an abort rejects with the signal's reason
   */
  async generate<const Choice extends string>(options: ChoiceOptions<Choice>): Promise<ChoiceResult<Choice>>
  async generate(options: GenerateOptions): Promise<GenerateResult>
  async generate(options: GenerateOptions): Promise<GenerateResult> {
    checkOptions<GenerateOptions>('generate', options, generateRules, ['prompt'])
    return (await runGeneration(this.#host, options)).result
  }

  /**
   * The same, chunk by chunk: `for await (const chunk of model.stream(...)) process.stdout.write(chunk.text)`.
   * Errors, also of options, come out of the loop and of `.result`.
   */
  stream(options: GenerateOptions): GenerateStream {
    return new GenerateStream(
      async (emit, stop) => {
        checkOptions<GenerateOptions>('stream', options, generateRules, ['prompt'])
        return (await runGeneration(this.#host, options, emit, stop)).result
      },
      options?.signal instanceof AbortSignal ? options.signal : undefined
    )
  }

  /**
   * An object of a schema: `await model.generateObject({ image, prompt, schema: z.object({ animal: z.string() }) })`. The
   * schema is a JSON Schema or any Standard Schema (zod, valibot, arktype, ...), and types the result. Default `maxTokens` 512.
   * @throws as {@link generate}; ERR_OUTPUT_INCOMPLETE where `maxTokens` or `stop` ends the text too early (its `text` is
   * what there is), ERR_OUTPUT_INVALID where checks of the schema that JSON Schema cannot express fail
   */
  async generateObject<const Schema>(options: ObjectOptions<Schema>): Promise<SchemaValue<Schema>> {
    return await generateObject(this.#host, options)
  }

  /**
   * Many requests, decoded together. The result has one entry per request, in order: its result, or the error that
   * ended it. Pictures are decoded just ahead of the work, so memory does not grow with the number of requests.
   */
  async generateBatch<const Choice extends string>(
    requests: ChoiceOptions<Choice>[],
    options?: BatchOptions<ChoiceResult<Choice> | Error>
  ): Promise<(ChoiceResult<Choice> | Error)[]>
  async generateBatch(
    requests: GenerateOptions[],
    options?: BatchOptions<GenerateResult | Error>
  ): Promise<(GenerateResult | Error)[]>
  async generateBatch(
    requests: GenerateOptions[],
    options: BatchOptions<GenerateResult | Error> = {}
  ): Promise<(GenerateResult | Error)[]> {
    check('requests', requests, { expected: 'array of generate options', accepts: Array.isArray })
    checkOptions<BatchOptions<unknown>>('generateBatch', options, batchRules)
    const stopAll = new AbortController()
    const results = new Array<GenerateResult | Error>(requests.length)
    let next = 0
    const work = async (): Promise<void> => {
      while (next < requests.length) {
        const index = next++
        const result = await this.#batchItem(requests[index]!, [options.signal, stopAll.signal])
        if (options.signal?.aborted || stopAll.signal.aborted) return
        results[index] = result
        options.onResult?.(result, index)
      }
    }
    const lookAhead = Math.min(this.#host.maxSequences + 2, this.#host.options.maxQueue ?? Infinity, requests.length)
    try {
      await untilAborted(Promise.all(Array.from({ length: lookAhead }, work)), options.signal)
    } catch (error) {
      stopAll.abort(error)
      throw error
    }
    return results
  }

  async #batchItem(request: GenerateOptions, outer: (AbortSignal | undefined)[]): Promise<GenerateResult | Error> {
    try {
      checkOptions<GenerateOptions>('generateBatch', request, generateRules, ['prompt'])
      const { signal, release } = anySignal([request.signal, ...outer])
      try {
        return (await runGeneration(this.#host, { ...request, ...(signal && { signal }) })).result
      } finally {
        release()
      }
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error), { cause: error })
    }
  }

  /**
   * How probable a suffix is after pictures and prompt (teacher forcing): log-probabilities of its tokens and of the
   * end token.
   * @throws as {@link generate}
   */
  async score(options: ScoreOptions): Promise<ScoreResult> {
    checkOptions<ScoreOptions>('score', options, scoreRules, ['prompt', 'suffix'])
    const { prompt, suffix, allowControlTokens, signal } = options
    const adapters = this.#host.adapterUses(options.adapters)
    const end = await this.#host.admit(async () => {
      const images = await this.#prepare(options, signal)
      return await this.#host.run(
        definedOnly({
          kind: 'score' as const,
          images: images.map((image) => image.native),
          prompt,
          suffix,
          allowControlTokens,
          adapters
        }),
        { signal }
      )
    })
    const tokens = (end?.scored ?? []).map(toToken)
    const logProbs = tokens.map((token) => token.logProb ?? NaN)
    const total = logProbs.reduce((sum, logProb) => sum + logProb, 0)
    return { tokens, logProbs, total, mean: total / logProbs.length }
  }

  async #prepare(
    options: { image?: ImageInput; images?: ImageInput[] },
    signal?: AbortSignal
  ): ReturnType<ModelHost['prepareImages']> {
    signal?.throwIfAborted()
    this.#host.throwIfDisposed()
    return await untilAborted(this.#host.prepareImages(options, signal), signal)
  }

  /** A caption. `style` "short" needs a pretrained ("pt") checkpoint. Options as for `generate`. */
  async caption(image: ImageInput, options: CaptionOptions = {}): Promise<string> {
    checkOptions<CaptionOptions>('caption', options, captionRules)
    const { style = defaults.style, lang = defaults.lang, ...sampling } = options
    const write = { short: prompts.shortCaption, coco: prompts.caption, long: prompts.describe }[style]
    return await this.#text(image, write(lang), sampling)
  }

  /**
   * The answer to a question about the picture; with `choices` exactly one of them, and typed so.
   * @throws as {@link generate}; ERR_OUTPUT_INCOMPLETE where `maxTokens` or `stop` ends the text inside a choice
   */
  async answer<const Choice extends string>(
    image: ImageInput,
    question: string,
    options: AnswerOptions<Choice> & { choices: readonly Choice[] }
  ): Promise<Choice>
  async answer(image: ImageInput, question: string, options?: AnswerOptions): Promise<string>
  async answer(image: ImageInput, question: string, options: AnswerOptions = {}): Promise<string> {
    checkOptions<AnswerOptions>('answer', options, answerRules)
    check('question', question, rule.text)
    const { lang = defaults.lang, choices, ...sampling } = options
    const { text, finishReason } = await this.#result(image, prompts.answer(withoutPlaceholders(question, 1), lang), {
      ...sampling,
      ...(choices && { constrain: { choices } })
    })
    const cut = finishReason === 'length' || sampling.stop !== undefined
    if (choices && cut && !choices.includes(text)) throw incomplete('one of the choices', text)
    return text
  }

  /** A question that has this answer. Pretrained ("pt") checkpoints only. */
  async ask(image: ImageInput, answer: string, options: TaskOptions = {}): Promise<string> {
    checkOptions<TaskOptions>('ask', options, taskRules)
    check('answer', answer, rule.text)
    const { lang = defaults.lang, ...sampling } = options
    return await this.#text(image, prompts.question(withoutPlaceholders(answer, 1), lang), sampling)
  }

  /** The text in the picture. */
  async ocr(image: ImageInput, options: Omit<TaskOptions, 'lang'> = {}): Promise<string> {
    checkOptions<TaskOptions>('ocr', options, taskRules)
    const { lang: _, ...sampling }: TaskOptions = options
    return await this.#text(image, prompts.ocr(), sampling)
  }

  async #text(image: ImageInput, prompt: string, sampling: TaskSampling): Promise<string> {
    return (await this.#result(image, prompt, sampling)).text
  }

  async #result(image: ImageInput, prompt: string, sampling: TaskSampling): Promise<GenerateResult> {
    if (image === undefined) throw wrongOption('image', 'a picture', image)
    return (await runGeneration(this.#host, { ...sampling, image, prompt })).result
  }

  /**
   * Finds objects. Boxes are in pixels of the image as given (after EXIF orientation). Generation is constrained to the
   * task's grammar and the labels unless `constrain: false`.
   * @throws as {@link generate}
   */
  async detect(image: ImageInput, labels: string | string[], options: DetectOptions = {}): Promise<Detection[]> {
    return await detect(this.#host, image, labels, options)
  }

  /**
   * Finds objects with their masks.
   * @throws as {@link generate}; ERR_MODEL_UNSUPPORTED without a mask decoder
   */
  async segment(image: ImageInput, labels: string | string[], options: DetectOptions = {}): Promise<Segmentation[]> {
    return await segment(this.#host, image, labels, options)
  }

  /** A picture as the decoder sees it, reusable as `image` in any call of this model. */
  async encodeImage(image: ImageInput, options: EncodeImageOptions = {}): Promise<ImageEmbedding> {
    checkOptions<EncodeImageOptions>('encodeImage', options, encodeImageRules)
    if (image === undefined) throw wrongOption('image', 'a picture', image)
    const adapters = this.#host.adapterUses(options.adapters)
    const [prepared] = await this.#prepare({ image }, options.signal)
    const { transform, native: source } = prepared!
    const data =
      source.embedding ??
      (
        await this.#host.run(definedOnly({ kind: 'encodeImage' as const, images: [source], prompt: '', adapters }), {
          signal: options.signal
        })
      )?.embedding
    if (!data) throw new PaliGemmaError('ERR_INTERNAL', 'The engine gave no embedding')
    return { data, tokens: this.info.imageTokens, hidden: this.info.textHidden, ...(transform && { transform }) }
  }

  /**
   * A page's vectors for {@link maxSim}, with a ColPali checkpoint.
   * @throws as {@link generate}; ERR_MODEL_UNSUPPORTED without the retrieval head
   */
  async embedImage(image: ImageInput, options: EmbedOptions = {}): Promise<MultiVector> {
    checkOptions<EmbedOptions>('embedImage', options, embedRules)
    if (image === undefined) throw wrongOption('image', 'a picture', image)
    return await this.#embed(options, image)
  }

  /** A query's vectors for {@link maxSim}. @throws as {@link embedImage} */
  async embedText(query: string, options: EmbedOptions = {}): Promise<MultiVector> {
    checkOptions<EmbedOptions>('embedText', options, embedRules)
    check('query', query, rule.text)
    return await this.#embed(options, undefined, query)
  }

  async #embed(options: EmbedOptions, image?: ImageInput, query?: string): Promise<MultiVector> {
    const { flavour = this.info.retrievalFlavour, signal } = options
    const adapters = this.#host.adapterUses(options.adapters)
    const request = embedRequest(flavour, query)
    return await this.#host.admit(async () => {
      const images = await this.#prepare(image === undefined ? {} : { image }, signal)
      const end = await this.#host.run(
        definedOnly({ kind: 'embed' as const, images: images.map(({ native }) => native), ...request, adapters }),
        { signal }
      )
      if (!end?.embedding) throw new PaliGemmaError('ERR_INTERNAL', 'The engine gave no embedding')
      const dims = this.#host.info.retrievalDims
      const vectors = { data: end.embedding, tokens: end.embedding.length / dims, dims }
      const [page] = images
      if (page)
        return { ...vectors, imageTokens: this.info.imageTokens, ...(page.transform && { transform: page.transform }) }
      return {
        ...vectors,
        texts: queryTexts(
          request,
          this.tokenize(request.prompt).map((id) => this.detokenize([id]))
        )
      }
    })
  }

  /** Token ids of a text; nothing is added. */
  tokenize(text: string, options: EncodeOptions = {}): number[] {
    check('text', text, rule.text)
    checkOptions<EncodeOptions>('tokenize', options, encodeRules)
    this.#host.throwIfDisposed()
    return this.#sync(() => this.#host.model.tokenize(text, options.allowControlTokens ?? false))
  }

  /** The text of token ids; control tokens give nothing. */
  detokenize(ids: number[]): string {
    check('ids', ids, idsRule)
    this.#host.throwIfDisposed()
    return this.#sync(() => this.#host.model.detokenize(ids))
  }

  #sync<T>(call: () => T): T {
    try {
      return call()
    } catch (error) {
      throw fromNative(error)
    }
  }

  /**
   * The mask decoder's raw output for 16 codes: [64, 64] row-major, about -1..1, relative to the object's box.
   * @throws PaliGemmaError ERR_MODEL_UNSUPPORTED without a mask decoder
   */
  async decodeMask(codes: number[]): Promise<Float32Array> {
    check('codes', codes, codesRule)
    this.#host.throwIfDisposed()
    return await nativeCall(() => this.#host.model.decodeMask(codes))
  }

  /** Ends running work with ERR_DISPOSED and frees the native memory; resolves when nothing runs any more. Idempotent. */
  async dispose(): Promise<void> {
    await this.#host.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }
}

/** {@link loadModel} over a given binding. */
export async function openModel(binding: () => NativeBinding, source: string | LoadOptions): Promise<PaliGemma> {
  const options = typeof source === 'string' ? { model: source } : source
  checkOptions<LoadOptions>('loadModel', options, loadRules, ['model'])
  options.signal?.throwIfAborted()
  const { path, vision } = await resolveModel(options.model)
  return new PaliGemma(
    await ModelHost.open(binding(), { ...(vision !== undefined && { vision }), ...definedOnly(options), model: path })
  )
}

/**
 * Loads a model: `await loadModel('paligemma2-3b-mix-224-Q4_K_M.gguf')`, or by the name of one that {@link pull} fetched
 * (`'google/paligemma2-3b-mix-224'`); a path that exists wins. Weights stay memory-mapped; several models
 * from one file share them. Free it with `dispose()` or `await using`; an unreachable idle model is collected too.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_INVALID_OPTION,
 * ERR_OUT_OF_MEMORY, ERR_DEVICE_UNAVAILABLE, ERR_NATIVE_MISSING; an abort rejects with the signal's reason
 */
export async function loadModel(source: string | LoadOptions): Promise<PaliGemma> {
  return await openModel(native, source)
}
