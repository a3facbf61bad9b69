/** The options of every call: types, defaults and the rules that check them. */
import { adaptersRule, type AdapterOption } from '../../convert/adapters/option'
import type { TrainedAdapter } from '../../convert/adapters/trained'
import { samplingRules, type SamplingOptions } from './sampling'
import type { DeviceName } from '../../base/device-name'
import { deviceRule } from './device'
import type { Detection } from './objects'
import { nativeBindingRule } from './engine'
import { choicesRule, constraintRule, type ChoicesConstraint, type Constraint } from '../../output/constraint'
import type { ImageInput } from '../../images/image-input'
import { imageRule, imagesRule } from '../../images/image-rule'
import { pictureRules } from '../../images/preprocess-options'
import { tilesRule, type TileOption } from '../../images/tile-plan'
import type { RetrievalFlavour } from '../../retrieval/vectors'
import { copyRecord, isRecord, isUrl } from '../../base/realms'
import { rule, takeList, type Rule, type Rules } from '../../base/validate'

/** Options of {@link loadModel}. */
export interface LoadOptions {
  /**
   * One GGUF with everything, or the text GGUF; or the name of a hub model that {@link pull} put into the cache:
   * "google/paligemma2-3b-mix-224", optionally with "@revision" and ":type". A path that exists wins. "demo": the small
   * model that ships with the package.
   */
  model: string | URL
  /** The separate vision GGUF ("mmproj"), where the text GGUF has no vision tensors. */
  vision?: string | URL | undefined
  /** `vae-oid.npz`, or a GGUF that holds the mask decoder, where the model file has none. `segment` needs one. */
  maskDecoder?: string | URL | undefined
  /**
   * LoRA adapters: PEFT directories or GGUF adapters, with the scale that requests get which choose none (default 1).
   * Weights stay as they are, quantized or not; what the adapters add is computed beside them.
   */
  adapters?: (string | URL | TrainedAdapter | AdapterOption)[] | undefined
  /**
   * The engine of a bundled application: the path or file: URL of its `.node` file, or what requiring that file gave.
   * Default: the variable PALIGEMMA_NATIVE, else the package's own. The first one loaded also serves calls that take
   * no such option.
   */
  nativeBinding?: string | URL | object | undefined
  /**
   * "mapped" (default): weights stay in the file, shared with other processes; a file that is cut or written to ends
   * requests with ERR_MODEL_CHANGED. "copy": read into memory once, safe from whatever happens to the file afterwards.
   */
  weights?: 'mapped' | 'copy' | undefined
  /**
   * Where the model runs; "auto" (the default) takes the best there is that holds the model. "cuda:1": the second card
   * of `listDevices()`.
   */
  device?: DeviceName | undefined
  /** Compute threads; default: the physical cores this process may use. Results do not depend on it. */
  threads?: number | undefined
  /** Tokens per sequence, images included; default: what the model was trained for. */
  contextSize?: number | undefined
  /** Sequences decoded together (default 4); more requests queue. */
  maxSequences?: number | undefined
  /** Requests that may be under way or waiting at once; one more is refused with ERR_BUSY. Default: no limit. */
  maxQueue?: number | undefined
  /** Type of the attention cache; default "f16". */
  kvCacheType?: 'f16' | 'q8_0' | 'f32' | undefined
  /**
   * How Gemma 2's sliding layers (window 4096) treat the prefix; matters only beyond 4096 positions. "none" (default):
   * no window, as the code that trained the weights; "suffix": only generated tokens are windowed (Hugging Face 4.57
   * and later); "causal": the past is limited everywhere (older Hugging Face, gemma.cpp).
   */
  attentionWindow?: 'none' | 'suffix' | 'causal' | undefined
  /** false: logits are not capped whatever the file says. Greedy output is the same, probabilities differ. */
  finalSoftcap?: boolean | undefined
  /** 1023 (default) inverts the training code's `<loc>` exactly; 1024 is what published demo code divides by. */
  locScale?: 1023 | 1024 | undefined
  /** Default: what the file states, else "bicubic". Both as Pillow computes them. */
  resize?: 'bicubic' | 'bilinear' | undefined
  /** "squash" (default) ignores the aspect ratio, as in training; "pad" keeps it. Boxes are mapped back either way. */
  fit?: 'squash' | 'pad' | undefined
  /**
   * "training" (default): masks are 0 or 255, as the training code's evaluator; "demo": soft edges, as published demos.
   */
  maskConvention?: 'training' | 'demo' | undefined
  /** Pictures with more pixels are refused with ERR_IMAGE_TOO_LARGE before decoding; default 200 million. */
  maxImagePixels?: number | undefined
  /**
   * Milliseconds that a picture may take whose decoding cannot be foreseen (SVG, JPEGs of many scans, very large ones);
   * then it is refused with ERR_IMAGE_INVALID. They are decoded in a process of their own. Default 10,000.
   */
  decodeTimeoutMs?: number | undefined
  /**
   * Whether pictures' URLs may lead to addresses of this machine and its networks, by name, number or redirect;
   * default: what the variable PALIGEMMA_ALLOW_PRIVATE_ADDRESSES says, else false: strangers may have chosen the URL.
   */
  allowPrivateAddresses?: boolean | undefined
  /** Called with 0 when loading starts and with 1 when the model is ready. */
  onProgress?: ((fraction: number) => void) | undefined
  /** Aborting rejects with the signal's reason and frees what was loaded. */
  signal?: AbortSignal | undefined
}

/** Options of `generate` and `stream`. */
export interface GenerateOptions extends SamplingOptions {
  /**
   * The task prompt, such as "caption en"; a newline is added. See {@link prompts}. `<image>` (once per picture) and
   * `<bos>` in front, as Hugging Face's processors want them, change nothing.
   */
  prompt: string
  /** The picture. Either this or `images`. */
  image?: ImageInput | undefined
  /** Several pictures or video frames, in order. */
  images?: ImageInput[] | undefined
  /** Only output of this form can be generated: a task's grammar, one of several texts, a regular expression, JSON. */
  constrain?: 'detect' | 'segment' | Constraint | undefined
  /** `<bos>`, `<eos>` and the like inside the prompt become control tokens; default false: they stay text. */
  allowControlTokens?: boolean | undefined
}

/** With `choices` and nothing else that ends the text: what comes back is typed as one of them. */
export type ChoiceOptions<Choice extends string> = Omit<GenerateOptions, 'constrain' | 'stop'> & {
  /** `{ choices: [...] }`: the text is one of these. */
  constrain: ChoicesConstraint<Choice>
  stop?: undefined
}

/** Options of `score`. */
export interface ScoreOptions {
  /** What comes before the suffix, as for `generate`; its newline is added. */
  prompt: string
  /** The text whose probability is asked for; the end token is scored after it. */
  suffix: string
  /** The picture. Either this or `images`; none: the text alone. */
  image?: ImageInput | undefined
  /** Several pictures or video frames, in order. */
  images?: ImageInput[] | undefined
  /** `<bos>`, `<eos>` and the like are tokens, not text; default false. */
  allowControlTokens?: boolean | undefined
  /** As for `generate`. */
  adapters?: (string | URL | TrainedAdapter | AdapterOption)[] | undefined
  /** Aborting rejects at once with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** Options of `generateBatch`. */
export interface BatchOptions<Result> {
  /** Called as each item ends, in the order they end. What it throws ends the batch and rejects it, unchanged. */
  onResult?: ((result: Result, index: number) => void) | undefined
  /** Aborting rejects the whole batch with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** Options of `caption`, `answer`, `ask` and `ocr`. */
export interface TaskOptions extends SamplingOptions {
  /** ISO code of the answer's language; default "en". See {@link prompts.languages}. */
  lang?: string | undefined
}

/** Options of `answer`. */
export interface AnswerOptions<Choice extends string = string> extends TaskOptions {
  /**
   * The answer is exactly one of these: at each token, what the model finds most probable among what is left of them.
   */
  choices?: readonly Choice[] | undefined
}

/** Options of `caption`. */
export interface CaptionOptions extends TaskOptions {
  /** "short": raw alt-text like; "coco" (default): one plain sentence; "long": several sentences. */
  style?: 'short' | 'coco' | 'long' | undefined
}

/** Of `detect`, `segment` and `ocr`, for large pictures. */
export interface TileOptions {
  /**
   * Looks at overlapping tiles of a large picture, all together, and makes one result of what they show: small things
   * keep their pixels. `detect` and `segment` look at the whole too. Not with `onToken`. Default: one pass over the
   * whole picture. See docs/tiles.md.
   */
  tiles?: TileOption | undefined
  /** With `tiles`: called as each view of the picture is done. */
  onTile?: ((done: number, all: number) => void) | undefined
}

/** Options of `ocr`. */
export interface OcrOptions extends SamplingOptions, TileOptions {}

/** Options of `detect` and `segment`. */
export interface DetectOptions<Object = Detection> extends SamplingOptions, TileOptions {
  /** false: the model may write anything, and what can be parsed is returned. Default true: only the task's grammar. */
  constrain?: boolean | undefined
  /** Stop after so many objects; default: no limit but `maxTokens`. */
  maxObjects?: number | undefined
  /** At most so many tokens; default 512, with many labels more as far as the context allows. */
  maxTokens?: number | undefined
  /**
   * Leave out objects with a lower `score`; 0..1, default 0. {@link recommendedMinScore} leaves out what is not there.
   */
  minScore?: number | undefined
  /**
   * Of objects with the same label whose boxes overlap more than this (intersection over union, 0..1), keep only the
   * one with the highest score; `{ iou, classAgnostic: true }`: of objects with any labels. Default: keep all; the
   * model rarely repeats itself when it is greedy.
   */
  nms?: number | { iou: number; classAgnostic?: boolean | undefined } | undefined
  /**
   * Called with each object of the result, in its order: as soon as the model has written it; with `tiles` and `nms`,
   * which decide at the end what stays, when all are there.
   */
  onObject?: ((object: Object) => void) | undefined
}

/** Options of `encodeImage`. */
export interface EncodeImageOptions {
  /** As for `generate`; the embedding holds what they make of the picture. */
  adapters?: (string | URL | TrainedAdapter | AdapterOption)[] | undefined
  /** Aborting rejects at once with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** Options of `embedImage` and `embedText`. */
export interface EmbedOptions {
  /** Default: as the file says (`info.retrievalFlavour`); queries and pages of one index need the same. */
  flavour?: RetrievalFlavour | undefined
  /** As for `generate`. */
  adapters?: (string | URL | TrainedAdapter | AdapterOption)[] | undefined
  /** Aborting rejects at once with the signal's reason. */
  signal?: AbortSignal | undefined
}

export const defaults = {
  maxTokens: 256,
  detectMaxTokens: 512,
  maxSequences: 4,
  locScale: 1023,
  maskConvention: 'training',
  lang: 'en',
  style: 'coco'
} as const

/** Of a model, as `resolveModel` takes it. */
export const modelRule: Rule = {
  expected: 'path, file: URL or name of a pulled model',
  take: (v) => (isUrl(v) ? v.href : v),
  accepts: rule.path.accepts
}

export const loadRules: Rules<LoadOptions> = {
  model: modelRule,
  vision: rule.file,
  maskDecoder: rule.file,
  adapters: adaptersRule,
  nativeBinding: nativeBindingRule,
  weights: rule.oneOf('mapped', 'copy'),
  device: deviceRule,
  threads: rule.integer(1, 1024),
  contextSize: rule.integer(1, 2 ** 31 - 1),
  maxSequences: rule.integer(1, 1024),
  maxQueue: rule.integer(1),
  kvCacheType: rule.oneOf('f16', 'q8_0', 'f32'),
  attentionWindow: rule.oneOf('none', 'suffix', 'causal'),
  finalSoftcap: rule.flag,
  locScale: rule.oneOf(1023, 1024),
  ...pictureRules,
  maskConvention: rule.oneOf('training', 'demo'),
  onProgress: rule.callback,
  signal: rule.signal
}

export const generateRules: Rules<GenerateOptions> = {
  prompt: rule.text,
  image: imageRule,
  images: imagesRule,
  ...samplingRules,
  constrain: constraintRule,
  allowControlTokens: rule.flag
}

export const scoreRules: Rules<ScoreOptions> = {
  prompt: rule.text,
  suffix: rule.text,
  image: imageRule,
  images: imagesRule,
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
  take: copyRecord,
  accepts: (v) => {
    const overlap = rule.number(0, 1)
    if (!isRecord(v)) return overlap.accepts(v)
    const { iou, classAgnostic, ...other } = v
    return (
      overlap.accepts(iou) &&
      (classAgnostic === undefined || typeof classAgnostic === 'boolean') &&
      Object.keys(other).length === 0
    )
  }
}

const tileRules: Rules<TileOptions> = { tiles: tilesRule, onTile: rule.callback }
export const ocrRules: Rules<OcrOptions> = { ...tileRules, ...samplingRules }

export const detectRules: Rules<DetectOptions<never>> = {
  constrain: rule.flag,
  maxObjects: rule.integer(1, 65535),
  minScore: rule.number(0, 1),
  nms: nmsRule,
  onObject: rule.callback,
  ...tileRules,
  ...samplingRules
}
export const encodeImageRules: Rules<EncodeImageOptions> = { adapters: adaptersRule, signal: rule.signal }

export const embedRules: Rules<EmbedOptions> = {
  flavour: rule.oneOf('colpali-engine', 'transformers'),
  adapters: adaptersRule,
  signal: rule.signal
}

const isLabel = (v: unknown): boolean => typeof v === 'string' && v.trim() !== '' && !/[;<>\n\r]/.test(v)

export const labelsRule: Rule = {
  expected: 'a non-empty string or a non-empty array of them, without ";", "<", ">" and line breaks,',
  take: (v) => takeList(v, 4096),
  accepts: (v) => isLabel(v) || (Array.isArray(v) && v.length > 0 && v.every(isLabel))
}
