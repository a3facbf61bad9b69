/** The options of every call: types, defaults and the rules that check them. */
import { adaptersRule, type AdapterOption } from './adapters'
import { choicesRule, constraintRule, type ChoicesConstraint, type Constraint } from '../output/constraint'
import type { ImageInput } from '../images/image-input'
import type { RetrievalFlavour } from '../retrieval/vectors'
import type { Chunk } from './results'
import { rule, type Rule, type Rules } from '../base/validate'

/** Options of {@link loadModel}. */
export interface LoadOptions {
  /**
   * One GGUF with everything, or the text GGUF; or the name of a hub model that {@link pull} put into the cache:
   * "google/paligemma2-3b-mix-224", optionally with "@revision" and ":type". A path that exists wins.
   */
  model: string
  /** The separate vision GGUF ("mmproj"), where the text GGUF has no vision tensors. */
  vision?: string
  /** `vae-oid.npz`, or a GGUF that holds the mask decoder, where the model file has none. `segment` needs one. */
  maskDecoder?: string
  /**
   * LoRA adapters: PEFT directories or GGUF adapters, with the scale that requests get which choose none (default 1).
   * Weights stay as they are, quantized or not; what the adapters add is computed beside them.
   */
  adapters?: (string | AdapterOption)[]
  /** Where the model runs; "auto" (the default) takes the best there is. */
  device?: 'auto' | 'cpu' | 'cuda' | 'metal'
  /** Compute threads; default: the physical cores this process may use. Results do not depend on it. */
  threads?: number
  /** Tokens per sequence, images included; default: what the model was trained for. */
  contextSize?: number
  /** Sequences decoded together (default 4); more requests queue. */
  maxSequences?: number
  /** Requests that may be under way or waiting at once; one more is refused with ERR_BUSY. Default: no limit. */
  maxQueue?: number
  /** Type of the attention cache; default "f16". */
  kvCacheType?: 'f16' | 'q8_0' | 'f32'
  /**
   * How Gemma 2's sliding layers (window 4096) treat the prefix; matters only beyond 4096 positions. "none" (default):
   * no window, as the code that trained the weights; "suffix": only generated tokens are windowed (Hugging Face 4.57
   * and later); "causal": the past is limited everywhere (older Hugging Face, gemma.cpp).
   */
  attentionWindow?: 'none' | 'suffix' | 'causal'
  /** false: logits are not capped whatever the file says. Greedy output is the same, probabilities differ. */
  finalSoftcap?: boolean
  /** 1023 (default) inverts the training code's `<loc>` exactly; 1024 is what published demo code divides by. */
  locScale?: 1023 | 1024
  /** Default: what the file states, else "bicubic". Both as Pillow computes them. */
  resize?: 'bicubic' | 'bilinear'
  /** "squash" (default) ignores the aspect ratio, as in training; "pad" keeps it. Boxes are mapped back either way. */
  fit?: 'squash' | 'pad'
  /** "training" (default): masks are 0 or 255, as the training code's evaluator; "demo": soft edges, as published demos. */
  maskConvention?: 'training' | 'demo'
  /** Pictures with more pixels are refused with ERR_IMAGE_TOO_LARGE before decoding; default 200 million. */
  maxImagePixels?: number
  /** Called with 0 when loading starts and with 1 when the model is ready. */
  onProgress?: (fraction: number) => void
  /** Aborting rejects with the signal's reason and frees what was loaded. */
  signal?: AbortSignal
}

/** How to generate; shared by all generating calls. */
export interface SamplingOptions {
  /** At most so many tokens; default 256. */
  maxTokens?: number
  /** 0 (default): always the most probable token. */
  temperature?: number
  /** Sample among the k most probable tokens; 0 (default): off. */
  topK?: number
  /** Sample among the most probable tokens that together reach this probability; 1 (default): off. */
  topP?: number
  /** Sample among tokens at least this probable, relative to the best; 0 (default): off. */
  minP?: number
  /** Divides the score of tokens that occurred; 1 (default): off. */
  repeatPenalty?: number
  /**
   * Beam search (Hugging Face's rules): follows so many hypotheses and takes the one with the best log-probability per
   * token. 1 (default): off. At most `maxSequences`; greedy only, unconstrained, and all tokens come at the end.
   */
  beams?: number
  /** Of beams: a hypothesis scores log-probability / length^lengthPenalty, its end token counted; default 1. */
  lengthPenalty?: number
  /**
   * Samples so many outputs (seeds `seed`, `seed` + 1, ...) over one shared prefix and returns the one with the best
   * mean log-probability. 1 (default): off. Needs `temperature` > 0; its tokens come at the end.
   */
  bestOf?: number
  /** 0 .. 2^53 - 1, default 0. The same seed and request give the same text. */
  seed?: number
  /** Generation ends before the first of these texts, which is not part of the result. */
  stop?: string[]
  /** Log-probabilities (natural log) of the chosen tokens; a number: also of the n best alternatives. Default false. */
  logProbs?: boolean | number
  /**
   * Which of the loaded adapters to use, by path or name, with scales; `[]`: the bare model. Default: all, with the
   * scales they were loaded with.
   */
  adapters?: (string | AdapterOption)[]
  /** Do not stop at the end token; for tests and benchmarks. */
  ignoreEos?: boolean
  /** Milliseconds from the call; after them the request ends with ERR_DEADLINE. Default: none. */
  deadlineMs?: number
  /** Aborting rejects at once with the signal's reason. */
  signal?: AbortSignal
  /** Called for every token, in order. What it throws ends the generation and rejects it. */
  onToken?: (chunk: Chunk) => void
}

/** Options of `generate` and `stream`. */
export interface GenerateOptions extends SamplingOptions {
  /**
   * The task prompt, such as "caption en"; a newline is added. See {@link prompts}. `<image>` (once per picture) and
   * `<bos>` in front, as Hugging Face's processors want them, change nothing.
   */
  prompt: string
  /** The picture. Either this or `images`. */
  image?: ImageInput
  /** Several pictures or video frames, in order. */
  images?: ImageInput[]
  /** Only output of this form can be generated: a task's grammar, one of several texts, a regular expression, JSON. */
  constrain?: 'detect' | 'segment' | Constraint
  /** `<bos>`, `<eos>` and the like inside the prompt become control tokens; default false: they stay text. */
  allowControlTokens?: boolean
}

/** With `choices` and nothing else that ends the text: what comes back is typed as one of them. */
export type ChoiceOptions<Choice extends string> = Omit<GenerateOptions, 'constrain' | 'stop'> & {
  constrain: ChoicesConstraint<Choice>
  stop?: undefined
}

/** Options of `score`. */
export interface ScoreOptions {
  prompt: string
  /** The text whose probability is asked for; the end token is scored after it. */
  suffix: string
  image?: ImageInput
  images?: ImageInput[]
  allowControlTokens?: boolean
  /** As for `generate`. */
  adapters?: (string | AdapterOption)[]
  signal?: AbortSignal
}

/** Options of `generateBatch`. */
export interface BatchOptions<Result> {
  /** Called as each item ends, in the order they end. */
  onResult?: (result: Result, index: number) => void
  /** Aborting rejects the whole batch with the signal's reason. */
  signal?: AbortSignal
}

/** Options of `caption`, `answer`, `ask` and `ocr`. */
export interface TaskOptions extends SamplingOptions {
  /** ISO code of the answer's language; default "en". See {@link prompts.languages}. */
  lang?: string
}

/** Options of `answer`. */
export interface AnswerOptions<Choice extends string = string> extends TaskOptions {
  /** The answer is exactly one of these: at each token, what the model finds most probable among what is left of them. */
  choices?: readonly Choice[]
}

export interface CaptionOptions extends TaskOptions {
  /** "short": raw alt-text like; "coco" (default): one plain sentence; "long": several sentences. */
  style?: 'short' | 'coco' | 'long'
}

/** Options of `detect` and `segment`. */
export interface DetectOptions extends SamplingOptions {
  /** false: the model may write anything, and what can be parsed is returned. Default true: only the task's grammar. */
  constrain?: boolean
  /** Stop after so many objects; default: no limit but `maxTokens` (512 for these calls). */
  maxObjects?: number
  /** Leave out objects with a lower `score`; 0..1, default 0. {@link recommendedMinScore} leaves out what is not there. */
  minScore?: number
  /**
   * Of objects with the same label whose boxes overlap more than this (intersection over union, 0..1), keep only the one
   * with the highest score; `{ iou, classAgnostic: true }`: of objects with any labels. Default: keep all; the model
   * rarely repeats itself when it is greedy.
   */
  nms?: number | { iou: number; classAgnostic?: boolean | undefined }
}

export interface EncodeImageOptions {
  /** As for `generate`; the embedding holds what they make of the picture. */
  adapters?: (string | AdapterOption)[]
  signal?: AbortSignal
}

/** Options of `embedImage` and `embedText`. */
export interface EmbedOptions {
  /** Default: as the file says (`info.retrievalFlavour`); queries and pages of one index need the same. */
  flavour?: RetrievalFlavour
  /** As for `generate`. */
  adapters?: (string | AdapterOption)[]
  signal?: AbortSignal
}

/** Options of {@link preprocessImage}. */
export interface PreprocessOptions {
  /** Width and height of the result in pixels. */
  size: number
  resize?: 'bicubic' | 'bilinear'
  fit?: 'squash' | 'pad'
  maxImagePixels?: number
  signal?: AbortSignal
}

export const defaults = {
  maxTokens: 256,
  detectMaxTokens: 512,
  maxSequences: 4,
  locScale: 1023,
  fit: 'squash',
  resize: 'bicubic',
  maskConvention: 'training',
  lang: 'en',
  style: 'coco'
} as const

const fit = rule.oneOf('squash', 'pad')
const resize = rule.oneOf('bicubic', 'bilinear')
const pixels = rule.integer(1)

export const loadRules: Rules<LoadOptions> = {
  model: rule.path,
  vision: rule.path,
  maskDecoder: rule.path,
  adapters: adaptersRule,
  device: rule.oneOf('auto', 'cpu', 'cuda', 'metal'),
  threads: rule.integer(1, 1024),
  contextSize: rule.integer(1),
  maxSequences: rule.integer(1, 1024),
  maxQueue: rule.integer(1),
  kvCacheType: rule.oneOf('f16', 'q8_0', 'f32'),
  attentionWindow: rule.oneOf('none', 'suffix', 'causal'),
  finalSoftcap: rule.flag,
  locScale: rule.oneOf(1023, 1024),
  resize,
  fit,
  maskConvention: rule.oneOf('training', 'demo'),
  maxImagePixels: pixels,
  onProgress: rule.callback,
  signal: rule.signal
}

const samplingRules: Rules<SamplingOptions> = {
  maxTokens: rule.integer(1),
  temperature: rule.number(0),
  topK: rule.integer(0, 2 ** 31 - 1),
  topP: rule.above(0, 1),
  minP: rule.number(0, 1),
  repeatPenalty: rule.above(0),
  beams: rule.integer(1, 64),
  lengthPenalty: rule.number(-10, 10),
  bestOf: rule.integer(1, 64),
  seed: rule.integer(0),
  stop: rule.listOf('non-empty strings', (v) => typeof v === 'string' && v !== ''),
  logProbs: {
    expected: 'boolean or integer from 0 to 1000',
    accepts: (v) => typeof v === 'boolean' || rule.integer(0, 1000).accepts(v)
  },
  adapters: adaptersRule,
  ignoreEos: rule.flag,
  deadlineMs: rule.integer(1, 2 ** 31 - 1),
  signal: rule.signal,
  onToken: rule.callback
}

// What an ImageInput may be is checked where it is read, with the better message.
const images: Rule = { expected: 'array of images', accepts: Array.isArray }

export const generateRules: Rules<GenerateOptions> = {
  prompt: rule.text,
  image: rule.anything,
  images,
  ...samplingRules,
  constrain: constraintRule,
  allowControlTokens: rule.flag
}

export const scoreRules: Rules<ScoreOptions> = {
  prompt: rule.text,
  suffix: rule.text,
  image: rule.anything,
  images,
  allowControlTokens: rule.flag,
  adapters: adaptersRule,
  signal: rule.signal
}

export const batchRules: Rules<BatchOptions<unknown>> = { onResult: rule.callback, signal: rule.signal }

const lang: Rule = {
  expected: 'language code such as "en"',
  accepts: (v) => typeof v === 'string' && /^[a-zA-Z]{2,3}([-_][a-zA-Z]{2,4})?$/.test(v)
}

export const taskRules: Rules<TaskOptions> = { lang, ...samplingRules }
export const captionRules: Rules<CaptionOptions> = { style: rule.oneOf('short', 'coco', 'long'), ...taskRules }
export const answerRules: Rules<AnswerOptions> = { choices: choicesRule, ...taskRules }
const nmsRule: Rule = {
  expected: 'number from 0 to 1 or { iou: number from 0 to 1, classAgnostic?: boolean }',
  accepts: (v) => {
    const overlap = rule.number(0, 1)
    if (typeof v !== 'object' || v === null) return overlap.accepts(v)
    const { iou, classAgnostic, ...other } = v as Record<string, unknown>
    return (
      overlap.accepts(iou) &&
      (classAgnostic === undefined || typeof classAgnostic === 'boolean') &&
      Object.keys(other).length === 0
    )
  }
}

export const detectRules: Rules<DetectOptions> = {
  constrain: rule.flag,
  maxObjects: rule.integer(1, 65535),
  minScore: rule.number(0, 1),
  nms: nmsRule,
  ...samplingRules
}
export const encodeImageRules: Rules<EncodeImageOptions> = { adapters: adaptersRule, signal: rule.signal }

export const embedRules: Rules<EmbedOptions> = {
  flavour: rule.oneOf('colpali-engine', 'transformers'),
  adapters: adaptersRule,
  signal: rule.signal
}

export const preprocessRules: Rules<PreprocessOptions> = {
  size: rule.integer(1, 16384),
  resize,
  fit,
  maxImagePixels: pixels,
  signal: rule.signal
}

export const labelsRule: Rule = {
  expected: 'a non-empty string or a non-empty array of them, without ";", "<", ">" and line breaks,',
  accepts: (v) => {
    const list: unknown[] = Array.isArray(v) ? v : [v]
    return (
      list.length > 0 && list.every((item) => typeof item === 'string' && item.trim() !== '' && !/[;<>\n\r]/.test(item))
    )
  }
}
