/** What `batch` can do with each item: the calls of a model by name, their options and results. */
import type { PlainFloats } from '../../base/plain-memory'
import type { forThroughput } from '../../base/call'
import { rule, type Rules } from '../../base/validate'
import {
  hasBytes,
  isBytes,
  isIterable,
  isSharp,
  isWebStream,
  type ImageEmbedding,
  type ImageInput
} from '../../images/image-input'
import { takeImage } from '../../images/image-rule'
import type { MultiVector } from '../../retrieval/vectors'
import type { Detection, ObjectList, Segmentation } from '../options/objects'
import {
  answerRules,
  captionRules,
  detectRules,
  embedRules,
  encodeImageRules,
  generateRules,
  labelsRule,
  ocrRules,
  scoreRules,
  taskRules,
  type AnswerOptions,
  type CaptionOptions,
  type DetectOptions,
  type EmbedOptions,
  type EncodeImageOptions,
  type GenerateOptions,
  type OcrOptions,
  type ScoreOptions,
  type TaskOptions
} from '../options/options'
import type { GenerateResult } from '../options/results'
import type { ScoreResult } from '../tasks/score'

type Labels = { labels: string | string[] }

/** Options and result of each task: those of the call of that name. */
export interface BatchTasks {
  /** Text for a prompt of your own; an item needs `prompt`, of the run or of its own. */
  generate: { options: GenerateOptions; result: GenerateResult }
  /** What a picture shows. */
  caption: { options: CaptionOptions; result: string }
  /** The answer to `question`, which must be given. */
  answer: { options: AnswerOptions & { question: string }; result: string }
  /** A question that has this `answer`, which must be given. */
  ask: { options: TaskOptions & { answer: string }; result: string }
  /** The text in a picture. */
  ocr: { options: OcrOptions; result: string }
  /** Objects with boxes; `labels` must be given. */
  detect: { options: DetectOptions & Labels; result: ObjectList<Detection> }
  /** Objects with masks; `labels` must be given. */
  segment: { options: DetectOptions<Segmentation> & Labels; result: ObjectList<Segmentation> }
  /** How probable `suffix` is after `prompt`; both must be given. */
  score: { options: ScoreOptions; result: ScoreResult }
  /** A picture as the decoder sees it. */
  encodeImage: { options: EncodeImageOptions; result: ImageEmbedding & { data: PlainFloats } }
  /** A page's vectors, of a ColPali checkpoint. */
  embedImage: { options: EmbedOptions; result: MultiVector & { data: PlainFloats } }
}

/** The name of a call. */
export type BatchTask = keyof BatchTasks

type Own<T extends BatchTask> = Omit<
  BatchTasks[T]['options'],
  'signal' | 'image' | 'images' | 'onToken' | 'onTile' | 'onObject'
>

/** Options of `batch`: of the run, and of the task for all items. */
export type BatchRunOptions<T extends BatchTask> = {
  /** The call that each item is given to. */
  task: T
  /**
   * Items in work at once; default twice `maxSequences` (at most `maxQueue`): pictures of the next ones are decoded
   * while the engine works.
   */
  concurrency?: number | undefined
  /** Whether results come in the order of their items; default false: as they are ready. */
  ordered?: boolean | undefined
  /** Aborting ends the loop with the signal's reason. */
  signal?: AbortSignal | undefined
} & { [K in keyof Own<T>]?: Own<T>[K] | undefined }

/** A picture, or an object with `image` and options of the task for this item alone. */
export type BatchItem<T extends BatchTask> =
  | ImageInput
  | ({ image?: ImageInput | undefined } & {
      [K in keyof Omit<BatchTasks[T]['options'], 'image'>]?: BatchTasks[T]['options'][K] | undefined
    })

/** What became of an item: `result` as the call gives it, or the `error` that ended it; the other one is undefined. */
export type BatchResult<T extends BatchTask, Item = unknown> = {
  /** The place of the item in the source, from 0 on. */
  index: number
  /** The item itself, as the source gave it. */
  item: Item
} & ({ result: BatchTasks[T]['result']; error?: undefined } | { result?: undefined; error: Error })

type Run = { signal: AbortSignal; [forThroughput]?: true }

/** The calls as `batch` needs them. */
export interface TaskCalls {
  generate(options: GenerateOptions): Promise<GenerateResult>
  score(options: ScoreOptions): Promise<ScoreResult>
  caption(image: ImageInput, options: CaptionOptions): Promise<string>
  answer(image: ImageInput, question: string, options: AnswerOptions): Promise<string>
  ask(image: ImageInput, answer: string, options: TaskOptions): Promise<string>
  ocr(image: ImageInput, options: OcrOptions): Promise<string>
  detect(image: ImageInput, labels: string | string[], options: DetectOptions): Promise<ObjectList<Detection>>
  segment(
    image: ImageInput,
    labels: string | string[],
    options: DetectOptions<Segmentation>
  ): Promise<ObjectList<Segmentation>>
  encodeImage(image: ImageInput, options: EncodeImageOptions): Promise<ImageEmbedding & { data: PlainFloats }>
  embedImage(image: ImageInput, options: EmbedOptions): Promise<MultiVector & { data: PlainFloats }>
}

/** What an item comes to: its options over those of all. */
type Request<T extends BatchTask> = BatchTasks[T]['options'] & { image: ImageInput } & Run

export const callTask: {
  [T in BatchTask]: (model: TaskCalls, request: Request<T>) => Promise<BatchTasks[T]['result']>
} = {
  generate: async (model, request) => await model.generate(request),
  score: async (model, request) => await model.score(request),
  caption: async (model, { image, ...options }) => await model.caption(image, options),
  answer: async (model, { image, question, ...options }) => await model.answer(image, question, options),
  ask: async (model, { image, answer, ...options }) => await model.ask(image, answer, options),
  ocr: async (model, { image, ...options }) => await model.ocr(image, options),
  detect: async (model, { image, labels, ...options }) => await model.detect(image, labels, options),
  segment: async (model, { image, labels, ...options }) => await model.segment(image, labels, options),
  encodeImage: async (model, { image, ...options }) => await model.encodeImage(image, options),
  embedImage: async (model, { image, ...options }) => await model.embedImage(image, options)
}

/** Without what belongs to one item, and callbacks, which could not tell items apart. */
function shared(rules: Rules<object>): Rules<object> {
  const {
    image: _,
    images: __,
    onToken: ___,
    onTile: ____,
    onObject: _____,
    ...rest
  } = rules as Record<string, unknown>
  return rest as Rules<object>
}

const runRules = {
  task: rule.oneOf(...Object.keys(callTask)),
  concurrency: rule.integer(1, 1024),
  ordered: rule.flag,
  signal: rule.signal
}

/** The rules of options for all items. */
export const batchTaskRules: { [T in BatchTask]: Rules<object> } = {
  generate: { ...shared(generateRules), ...runRules } as Rules<object>,
  score: { ...shared(scoreRules), ...runRules } as Rules<object>,
  caption: { ...shared(captionRules), ...runRules } as Rules<object>,
  answer: { ...shared(answerRules), question: rule.text, ...runRules } as Rules<object>,
  ask: { ...shared(taskRules), answer: rule.text, ...runRules } as Rules<object>,
  ocr: { ...shared(ocrRules), ...runRules } as Rules<object>,
  detect: { ...shared(detectRules), labels: labelsRule, ...runRules } as Rules<object>,
  segment: { ...shared(detectRules), labels: labelsRule, ...runRules } as Rules<object>,
  encodeImage: { ...shared(encodeImageRules), ...runRules } as Rules<object>,
  embedImage: { ...shared(embedRules), ...runRules } as Rules<object>
}

export const taskRule = runRules.task

/** Names of options that an item of the task may have of its own. */
export function itemKeys(task: BatchTask): string[] {
  return Object.keys(batchTaskRules[task]).filter((name) => !Object.hasOwn(runRules, name))
}

/** An item as options; a picture alone is its `image`. Relative paths begin in `folder`. */
export function itemOptions(item: unknown, folder: string): Record<string, unknown> {
  if (!isRequest(item)) return { image: takeImage(item, folder) }
  const { image, ...options } = item
  return { ...options, ...(image !== undefined && { image: takeImage(image, folder) }) }
}

function isRequest(item: unknown): item is Record<string, unknown> {
  if (typeof item !== 'object' || item === null || isBytes(item) || hasBytes(item)) return false
  if (isSharp(item) || isWebStream(item) || isIterable(item)) return false
  return 'image' in item || 'images' in item || 'prompt' in item
}
