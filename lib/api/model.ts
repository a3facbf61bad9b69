/** A loaded model and everything it can do. Each method checks what it is given; the work is in the files beside it. */
import type { PlainFloats } from '../base/plain-memory'
import { publicCall } from '../base/call'
import { incomplete, nativeCall, nativeSync } from '../base/errors'
import { workingFolder } from '../base/paths'
import { check, readOptions, rule, take, takeList, type WithPaths } from '../base/validate'
import { ModelHost } from './request/host'
import { codesRule } from '../output/masks/mask-decoder'
import type { ImageEmbedding, ImageInput } from '../images/image-input'
import { takeImage } from '../images/image-rule'
import type { SchemaValue } from '../output/schema/standard-schema'
import type { MultiVector } from '../retrieval/vectors'
import type { FitExamples } from '../train/examples'
import { fitRules, type FitOptions, type FitResult } from '../train/options'
import { generateBatch } from './many/batch'
import { runBatch } from './many/batch-stream'
import type { BatchItem, BatchResult, BatchRunOptions, BatchTask } from './many/batch-tasks'
import {
  describeVideo,
  describeVideoRules,
  type DescribeVideoOptions,
  type VideoDescription
} from './many/describe-video'
import { embed, encodeImage } from './tasks/embed'
import { takeSource, type VideoSource } from '../video/source'
import type { LiveSource } from '../video/live'
import { watch, type Seen, type WatchOptions } from './many/watch'
import { fitAdapter } from './fit/fit'
import { runGeneration } from './request/generation'
import { toInfo, type LoadedModelInfo, type ModelStats } from './info'
import { generateObject, type ObjectOptions } from './tasks/object'
import { ocr } from './tasks/ocr'
import type { Detection, ObjectList, Segmentation } from './options/objects'
import {
  answerRules,
  batchRules,
  captionRules,
  defaults,
  detectRules,
  embedRules,
  encodeImageRules,
  generateRules,
  labelsRule,
  ocrRules,
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
  type OcrOptions,
  type ScoreOptions,
  type TaskOptions
} from './options/options'
import { withDeadline } from './options/deadline'
import { prompts, withoutPlaceholders } from './options/prompts'
import type { ChoiceResult, GenerateResult } from './options/results'
import { score, type ScoreResult } from './tasks/score'
import { GenerateStream } from './tasks/stream'
import { detect, parseText, segment, type ParsedMask } from './tasks/tasks'
import { encodeRules, idsRule, textRule, type EncodeOptions } from './tokenizer'

// Node 20's first releases lack the symbol; compiled `await using` looks it up here.
if (!Symbol.asyncDispose) Object.defineProperty(Symbol, 'asyncDispose', { value: Symbol('Symbol.asyncDispose') })

interface ParseTextOptions {
  /** Aborting rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

// Larger batches are better cut: their results are all in memory at the end.
const mostRequests = 1_000_000
const requestsRule = {
  expected: `array of at most ${mostRequests} generate options`,
  take: (v: unknown) => takeList(v, mostRequests),
  accepts: Array.isArray
}

/**
 * A loaded PaliGemma. All methods may be called at any time and together; requests beyond `maxSequences` queue.
 * Callbacks run in the AsyncLocalStorage context of the call that they were given to; what they throw ends that call
 * and rejects it, unchanged. Relative paths begin in the working folder of the moment of the call.
 */
export class PaliGemma {
  /** What the model is and how it runs: sizes, type, device, kernel table, threads. */
  readonly info: Readonly<LoadedModelInfo>
  readonly #host: ModelHost

  /** @internal */
  constructor(host: ModelHost) {
    check('a new PaliGemma', host, { expected: 'what loadModel makes', accepts: (v) => v instanceof ModelHost })
    this.#host = host
    this.info = Object.freeze(toInfo(host.info, host.options.resize))
  }

  /**
   * Generates text for a prompt and pictures.
   * @throws PaliGemmaError ERR_INVALID_OPTION, ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_PROMPT_TOO_LONG,
   * ERR_OUT_OF_MEMORY, ERR_MODEL_CHANGED, ERR_DISPOSED; an abort rejects with the signal's reason
   */
  async generate<const Choice extends string>(options: ChoiceOptions<Choice>): Promise<ChoiceResult<Choice>>
  /** Text of any form. @throws as with `choices` */
  async generate(options: GenerateOptions): Promise<GenerateResult>
  async generate(options: GenerateOptions): Promise<GenerateResult> {
    return await publicCall<GenerateOptions, GenerateResult>(
      'generate',
      options,
      generateRules,
      ['prompt'],
      async (options) => (await runGeneration(this.#host, options)).result
    )
  }

  /**
   * The same, chunk by chunk: `for await (const chunk of model.stream(...)) process.stdout.write(chunk.text)`.
   * Errors, also of options, come out of the loop and of `.result`.
   */
  stream(options: GenerateOptions): GenerateStream {
    return new GenerateStream(
      async (emit, stop, onAbort) =>
        await publicCall<GenerateOptions, GenerateResult>(
          'stream',
          options,
          generateRules,
          ['prompt'],
          async (options) => {
            options.signal.addEventListener('abort', onAbort, { once: true })
            return (await runGeneration(this.#host, options, { emit, stop })).result
          }
        )
    )
  }

  /**
   * An object of a schema: `await model.generateObject({ image, prompt, schema: z.object({ animal: z.string() }) })`.
   * The schema is a JSON Schema or any Standard Schema (zod, valibot, arktype, ...), and types the result. Default
   * `maxTokens` 512.
   * @throws as {@link generate}; ERR_OUTPUT_INCOMPLETE where `maxTokens` or `stop` ends the text too early (its `text`
   * is what there is), ERR_OUTPUT_INVALID where checks of the schema that JSON Schema cannot express fail
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
  /** Requests of any form; otherwise the same. */
  async generateBatch(
    requests: GenerateOptions[],
    options?: BatchOptions<GenerateResult | Error>
  ): Promise<(GenerateResult | Error)[]>
  async generateBatch(
    requests: GenerateOptions[],
    options: BatchOptions<GenerateResult | Error> = {}
  ): Promise<(GenerateResult | Error)[]> {
    const list = take('requests', requests, requestsRule)
    const folder = workingFolder()
    return await publicCall<BatchOptions<GenerateResult | Error>, (GenerateResult | Error)[]>(
      'generateBatch',
      options,
      batchRules,
      [],
      async (options) => await generateBatch(this.#host, list, options, folder)
    )
  }

  /**
   * Any number of items through one task: `for await (const { item, result, error } of model.batch(paths, { task:
   * 'detect', labels: 'cow' }))`. Items are pictures or `{ image, ...options of the task }`, read from any iterable
   * just ahead of their work; an item's failure is its `error` and the others go on. No more is read than what is in
   * work and a few results, so memory does not grow. Leaving the loop cancels what is in work and closes the source.
   * @throws PaliGemmaError out of the loop: ERR_INVALID_OPTION for options of the run, ERR_DISPOSED, ERR_MODEL_CHANGED;
   * the source's own error once what was read before it is done; an abort's reason
   */
  batch<const T extends BatchTask, Item extends BatchItem<T>>(
    items: AsyncIterable<Item> | Iterable<Item>,
    options: BatchRunOptions<T>
  ): AsyncGenerator<BatchResult<T, Item>, void, undefined> {
    return runBatch(this, this.#host, items, options) as AsyncGenerator<BatchResult<T, Item>, void, undefined>
  }

  /**
   * How probable a suffix is after pictures and prompt (teacher forcing): log-probabilities of its tokens and of the
   * end token.
   * @throws as {@link generate}
   */
  async score(options: ScoreOptions): Promise<ScoreResult> {
    return await publicCall<ScoreOptions, ScoreResult>(
      'score',
      options,
      scoreRules,
      ['prompt', 'suffix'],
      async (options) => await score(this.#host, options)
    )
  }

  /** A caption. `style` "short" needs a pretrained ("pt") checkpoint. Options as for `generate`. */
  async caption(image: ImageInput, options: CaptionOptions = {}): Promise<string> {
    const write = { short: prompts.shortCaption, coco: prompts.caption, long: prompts.describe }
    return await publicCall<CaptionOptions, string>(
      'caption',
      options,
      captionRules,
      [],
      async ({ style = defaults.style, lang = defaults.lang, ...sampling }) =>
        await this.#text({ ...sampling, image, prompt: write[style](lang) })
    )
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
  /** The answer in the model's own words. @throws as {@link generate} */
  async answer(image: ImageInput, question: string, options?: AnswerOptions): Promise<string>
  async answer(image: ImageInput, question: string, options: AnswerOptions = {}): Promise<string> {
    check('question', question, rule.text)
    return await publicCall<AnswerOptions, string>(
      'answer',
      options,
      answerRules,
      [],
      async ({ lang = defaults.lang, choices, ...sampling }) => {
        const prompt = prompts.answer(withoutPlaceholders(question, 1), lang)
        const constrain = choices && { choices }
        const { text, finishReason } = await this.#result({ ...sampling, image, prompt, constrain })
        const cut = finishReason === 'length' || sampling.stop !== undefined
        if (choices && cut && !choices.includes(text)) throw incomplete('one of the choices', text)
        return text
      }
    )
  }

  /** A question that has this answer. Pretrained ("pt") checkpoints only. */
  async ask(image: ImageInput, answer: string, options: TaskOptions = {}): Promise<string> {
    check('answer', answer, rule.text)
    return await publicCall<TaskOptions, string>(
      'ask',
      options,
      taskRules,
      [],
      async ({ lang = defaults.lang, ...sampling }) =>
        await this.#text({ ...sampling, image, prompt: prompts.question(withoutPlaceholders(answer, 1), lang) })
    )
  }

  /** The text in the picture; with `tiles` of a large one, in reading order. */
  async ocr(image: ImageInput, options: OcrOptions = {}): Promise<string> {
    return await publicCall<OcrOptions, string>(
      'ocr',
      options,
      ocrRules,
      [],
      async (options) => await ocr(this.#host, takeImage(image), options)
    )
  }

  async #text(options: GenerateOptions & { signal: AbortSignal }): Promise<string> {
    return (await this.#result(options)).text
  }

  async #result(options: GenerateOptions & { signal: AbortSignal }): Promise<GenerateResult> {
    return (await runGeneration(this.#host, { ...options, image: takeImage(options.image) })).result
  }

  /**
   * Finds objects. Boxes are in pixels of the image as given (after EXIF orientation). Generation is constrained to the
   * task's grammar and the labels unless `constrain: false`. The list says with `finishReason` whether it was cut.
   * @throws as {@link generate}
   */
  async detect(
    image: ImageInput,
    labels: string | string[],
    options: DetectOptions = {}
  ): Promise<ObjectList<Detection>> {
    return await publicCall<DetectOptions, ObjectList<Detection>>(
      'detect',
      options,
      detectRules,
      [],
      async (options) => await detect(this.#host, takeImage(image), take('labels', labels, labelsRule), options)
    )
  }

  /**
   * Finds objects with their masks.
   * @throws as {@link generate}; ERR_MODEL_UNSUPPORTED without a mask decoder
   */
  async segment(
    image: ImageInput,
    labels: string | string[],
    options: DetectOptions<Segmentation> = {}
  ): Promise<ObjectList<Segmentation>> {
    return await publicCall<DetectOptions<Segmentation>, ObjectList<Segmentation>>(
      'segment',
      options,
      detectRules,
      [],
      async (options) => {
        const [picture, names] = [takeImage(image), take('labels', labels, labelsRule)]
        return await withDeadline(options, async (taken) => await segment(this.#host, picture, names, taken))
      }
    )
  }

  /**
   * The objects that a text of this model names, such as one of `generate`, in pixels of the picture that it is about:
   * {@link parseOutput} with masks, as this model was loaded (`fit`, `locScale`, `maskConvention`).
   * @throws PaliGemmaError ERR_INVALID_OPTION, ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE, ERR_DISPOSED
   */
  async parse(text: string, image: ImageInput, options: ParseTextOptions = {}): Promise<ParsedMask[]> {
    check('text', text, rule.text)
    return await publicCall<ParseTextOptions, ParsedMask[]>(
      'parse',
      options,
      { signal: rule.signal },
      [],
      async (options) => await parseText(this.#host, text, takeImage(image), options)
    )
  }

  /**
   * What happens in a video: frames of it, or of each part of `segmentSeconds`, are the pictures of one request. Needs
   * ffmpeg, see {@link videoFrames}.
   * @throws as {@link generate}; ERR_DEPENDENCY_MISSING, and ERR_IMAGE_INVALID where the video cannot be read
   */
  async describeVideo(source: VideoSource, options: DescribeVideoOptions = {}): Promise<VideoDescription> {
    const video = takeSource(source, workingFolder())
    return await publicCall<DescribeVideoOptions, VideoDescription>(
      'describeVideo',
      options,
      describeVideoRules,
      [],
      async (options) => await withDeadline(options, async (taken) => await describeVideo(this.#host, video, taken))
    )
  }

  /**
   * A task on what a camera, stream or any iterable of pictures shows: `for await (const { result } of
   * model.watch('/dev/video0', { task: 'detect', labels: 'person', tracks: true }))`. The latest picture wins: there is
   * no queue, and memory does not grow. Cameras and streams are opened anew when they fail after they worked. Needs
   * ffmpeg for all but iterables. Leaving the loop, or `signal`, ends it.
   * @throws PaliGemmaError out of the loop: ERR_INVALID_OPTION, ERR_DEPENDENCY_MISSING, ERR_IMAGE_INVALID for a source
   * that never worked, ERR_DISPOSED, ERR_MODEL_CHANGED
   */
  watch<const T extends BatchTask>(
    source: LiveSource,
    options: WatchOptions<T>
  ): AsyncGenerator<Seen<T>, void, undefined> {
    return watch(this, this.#host, source, options) as AsyncGenerator<Seen<T>, void, undefined>
  }

  /** A picture as the decoder sees it, reusable as `image` in any call of this model. */
  async encodeImage(
    image: ImageInput,
    options: EncodeImageOptions = {}
  ): Promise<ImageEmbedding & { data: PlainFloats }> {
    return await publicCall<EncodeImageOptions, ImageEmbedding & { data: PlainFloats }>(
      'encodeImage',
      options,
      encodeImageRules,
      [],
      async (options) => await encodeImage(this.#host, takeImage(image), options)
    )
  }

  /**
   * A page's vectors for {@link maxSim}, with a ColPali checkpoint.
   * @throws as {@link generate}; ERR_MODEL_UNSUPPORTED without the retrieval head
   */
  async embedImage(image: ImageInput, options: EmbedOptions = {}): Promise<MultiVector & { data: PlainFloats }> {
    return await publicCall<EmbedOptions, MultiVector & { data: PlainFloats }>(
      'embedImage',
      options,
      embedRules,
      [],
      async (options) => await embed(this.#host, { image: takeImage(image) }, options, this.info.retrievalFlavour)
    )
  }

  /** A query's vectors for {@link maxSim}. @throws as {@link embedImage} */
  async embedText(query: string, options: EmbedOptions = {}): Promise<MultiVector & { data: PlainFloats }> {
    check('query', query, rule.text)
    return await publicCall<EmbedOptions, MultiVector & { data: PlainFloats }>(
      'embedText',
      options,
      embedRules,
      [],
      async (options) => await embed(this.#host, { query }, options, this.info.retrievalFlavour)
    )
  }

  /**
   * Teaches the model by examples: trains a LoRA adapter over its weights, which stay as they are, quantized or not.
   * `await model.fit({ images, prompts, responses })`, or a list of `{ image, prompt, response }`. Other calls go on
   * meanwhile. The adapter can be used at once (`generate({ adapters: [adapter] })`) and saved.
   * @throws as {@link generate}; ERR_TRAINING_DIVERGED where numbers stop being finite; of checkpoints ERR_DISK_FULL
   * and ERR_ACCESS_DENIED
   */
  async fit(examples: FitExamples, options: FitOptions = {}): Promise<FitResult> {
    return await publicCall<WithPaths<FitOptions>, FitResult>(
      'fit',
      options,
      fitRules,
      [],
      async (options) => await fitAdapter(this.#host, examples, options)
    )
  }

  /** Token ids of a text of at most 2^20 characters; nothing is added. */
  tokenize(text: string, options: EncodeOptions = {}): number[] {
    check('text', text, textRule)
    const { allowControlTokens = false } = readOptions<EncodeOptions>('tokenize', options, encodeRules)
    this.#host.throwIfDisposed()
    return nativeSync(() => this.#host.model.tokenize(text, allowControlTokens))
  }

  /** The text of token ids; control tokens give nothing. */
  detokenize(ids: number[]): string {
    const list = take('ids', ids, idsRule)
    this.#host.throwIfDisposed()
    return nativeSync(() => this.#host.model.detokenize(list))
  }

  /**
   * The mask decoder's raw output for 16 codes: [64, 64] row-major, about -1..1, relative to the object's box.
   * @throws PaliGemmaError ERR_MODEL_UNSUPPORTED without a mask decoder
   */
  async decodeMask(codes: number[]): Promise<PlainFloats> {
    const list = take('codes', codes, codesRule)
    this.#host.throwIfDisposed()
    return await nativeCall(() => this.#host.model.decodeMask(list))
  }

  /** What is in use at this moment. */
  stats(): ModelStats {
    this.#host.throwIfDisposed()
    const { used, most, pageTokens } = nativeSync(() => this.#host.model.kvUse())
    return { requests: this.#host.runningRequests, kvPagesUsed: used, kvPages: most, kvPageTokens: pageTokens }
  }

  /**
   * Ends running work with ERR_DISPOSED and frees the native memory; resolves when nothing runs any more. Idempotent.
   */
  async dispose(): Promise<void> {
    await this.#host.dispose()
  }

  /** `await using` calls {@link dispose}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }
}
