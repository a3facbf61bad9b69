/** How well a model answers examples whose answers are known. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import type { ObjectList, Detection } from '../api/options/objects'
import { loadModel } from '../api/load-model'
import { PaliGemma } from '../api/model'
import { loadRules, type LoadOptions } from '../api/options/options'
import type { TakenAdapter } from '../convert/adapters/option'
import { publicCall, type Taken } from '../base/call'
import { PaliGemmaError } from '../base/errors'
import { rule, type Rule, type Rules } from '../base/validate'
import { type FileExample, readDataFile } from '../train/data-file'
import { anls } from './metrics/anls'
import { ciderScores } from './metrics/cider'
import { CocoEvaluation, type CocoScores } from './metrics/coco'
import { askedLabels, compareObjects } from './metrics/objects'
import { vqaAccuracy } from './metrics/vqa'

/** What {@link evaluateModel} can measure. */
export type Metric = 'exact' | 'vqa' | 'cider' | 'anls' | 'detection' | 'mask'

/** What the model said about a row. */
export interface EvaluatedRow {
  /** Of the file, from 1. */
  line: number
  /** Absolute paths and URLs; empty where the row has none. */
  images: string[]
  /** The row's `prefix`. */
  prompt: string
  /** The text; of detection and mask the objects, with boxes in pixels. */
  prediction: string | { label: string; score: number; box: Detection['box'] }[]
  /** 0..1 (CIDEr 0..10); of detection and mask the mean overlap with what is there. */
  score?: number | undefined
}

/** Options of {@link evaluateModel}. */
export interface EvaluateOptions
  extends Pick<
    LoadOptions,
    | 'vision'
    | 'maskDecoder'
    | 'adapters'
    | 'device'
    | 'threads'
    | 'contextSize'
    | 'maxSequences'
    | 'kvCacheType'
    | 'attentionWindow'
    | 'finalSoftcap'
    | 'resize'
    | 'fit'
    | 'signal'
  > {
  /**
   * A file, the name of a pulled model, or a loaded one, which stays loaded and takes none of the load options but
   * `adapters`.
   */
  model: string | URL | PaliGemma
  /** JSON lines as `fit` takes them, with `answers` or `objects` where there are. */
  data: string | URL
  /** Where relative pictures lie; default: beside the data. */
  images?: string | URL | undefined
  /**
   * Texts: "exact" match, "vqa" accuracy, "cider", "anls". Objects: COCO's by box ("detection") or by "mask"; rows
   * then ask "detect a ; b" or "segment a" of one picture. See docs/evaluate.md.
   */
  metric: Metric
  /** Only the first rows. */
  limit?: number | undefined
  /** Tokens of an answer; default 256, of objects as `detect` has it. */
  maxTokens?: number | undefined
  /** Detection and mask: leave out lower scores; default 0, since COCO's metrics weigh them. */
  minScore?: number | undefined
  /** Called for each row, in their order; with "cider", which compares all of them, at the end. */
  onRow?: ((row: EvaluatedRow) => void) | undefined
  /** Called with the share of rows that are answered, 0..1, after each of them. */
  onProgress?: ((fraction: number) => void) | undefined
}

/** What {@link evaluateModel} finds. */
export interface EvaluateResult {
  /** As asked for. */
  metric: Metric
  /** Rows that were answered; with "cider" those of one picture and prompt are one. */
  rows: number
  /** One number for the whole: accuracy, ANLS (0..1), CIDEr (0..10), AP (0..1); null where there is nothing to find. */
  score: number | null
  /** Detection and mask: COCO's twelve numbers, and the mean overlap where what is missed counts 0. */
  coco?: CocoScores & { meanIoU: number | null }
  /** Detection and mask: AP of each label; null where there is nothing to find. */
  labels?: Record<string, number | null>
}

const modelRule: Rule = {
  expected: 'path, file: URL, name of a pulled model or a loaded model',
  take: (v, folder) => (v instanceof PaliGemma ? v : loadRules.model.take!(v, folder)),
  accepts: (v) => v instanceof PaliGemma || loadRules.model.accepts(v)
}

const loading = {
  ...{ vision: loadRules.vision, maskDecoder: loadRules.maskDecoder, device: loadRules.device },
  ...{ threads: loadRules.threads, contextSize: loadRules.contextSize, maxSequences: loadRules.maxSequences },
  ...{ kvCacheType: loadRules.kvCacheType, attentionWindow: loadRules.attentionWindow },
  ...{ finalSoftcap: loadRules.finalSoftcap, resize: loadRules.resize, fit: loadRules.fit }
}
const evaluateRules: Rules<EvaluateOptions> = {
  ...loading,
  model: modelRule,
  adapters: loadRules.adapters,
  data: rule.file,
  images: rule.file,
  metric: rule.oneOf('exact', 'vqa', 'cider', 'anls', 'detection', 'mask'),
  limit: rule.integer(1),
  maxTokens: rule.integer(1),
  minScore: rule.number(0, 1),
  onRow: rule.callback,
  onProgress: rule.callback,
  signal: rule.signal
}

/**
 * Lets a model answer every row of a file and compares. Rows go through `batch`, so that several are decoded together.
 * @throws PaliGemmaError as `loadModel` and `generate` do; ERR_INVALID_OPTION that names file and line of a bad row
 */
export async function evaluateModel(options: EvaluateOptions): Promise<EvaluateResult> {
  return await publicCall<EvaluateOptions, EvaluateResult>(
    'evaluateModel',
    options,
    evaluateRules,
    ['model', 'data', 'metric'],
    evaluate
  )
}

type Own = Omit<Taken<EvaluateOptions>, 'data' | 'images'> & { data: string; images?: string | undefined }

async function evaluate(given: Taken<EvaluateOptions>): Promise<EvaluateResult> {
  const options = given as Own
  const { metric, data, images, limit, adapters, signal } = options
  const model = asOfNow(options.model)
  let examples = (await readDataFile(data, images)).slice(0, limit)
  if (metric === 'cider') examples = joined(examples)
  checkRows(examples, options)
  const load = Object.fromEntries(
    Object.entries(options).filter(([name, value]) => Object.hasOwn(loading, name) && value !== undefined)
  )
  if (model instanceof PaliGemma) {
    const [name] = Object.keys(load)
    if (name !== undefined)
      throw new PaliGemmaError('ERR_INVALID_OPTION', `Expected no ${name} beside a loaded model but received both`)
    return await judge(model, examples, options, adapters && { adapters: adaptersAgain(adapters, 'path') })
  }
  const own = adapters && { adapters: adaptersAgain(adapters, 'file') }
  const opened = await loadModel({ model, ...load, ...own, signal })
  try {
    return await judge(opened, examples, options)
  } finally {
    await opened.dispose()
  }
}

/** A file by its whole path: the working folder may change while the data are read. */
function asOfNow<T>(model: T): T | string {
  return typeof model === 'string' && model !== 'demo' && existsSync(model) ? resolve(model) : model
}

/** As they were given, but for relative paths: the calls that get them read them anew. */
function adaptersAgain(taken: unknown, name: 'path' | 'file'): NonNullable<EvaluateOptions['adapters']> {
  return (taken as TakenAdapter[]).map(({ trained, scale, ...one }) => ({ path: trained ?? one[name], scale }))
}

const answersOf = ({ answers, response }: FileExample): string[] => answers ?? [response]

/** Rows about one picture with one prompt are one, with several answers. */
function joined(examples: FileExample[]): FileExample[] {
  const rows = new Map<string, FileExample>()
  for (const example of examples) {
    const key = JSON.stringify([example.images, example.prompt])
    const before = rows.get(key)
    if (before) before.answers!.push(...answersOf(example))
    else rows.set(key, { ...example, answers: [...answersOf(example)] })
  }
  return [...rows.values()]
}

const isOfObjects = (metric: Metric): metric is 'detection' | 'mask' => metric === 'detection' || metric === 'mask'

function checkRows(examples: readonly FileExample[], { metric, data }: Own): void {
  for (const { line, prompt, images } of examples) {
    const wrong = (text: string): PaliGemmaError => new PaliGemmaError('ERR_INVALID_OPTION', `${data}:${line}: ${text}`)
    if (!isOfObjects(metric)) continue
    if (!askedLabels(prompt)) throw wrong(`expected a prompt "detect a ; b" or "segment a" but found "${prompt}"`)
    if (images.length !== 1) throw wrong(`expected one picture but found ${images.length}`)
  }
}

type Adapters = Pick<EvaluateOptions, 'adapters'>

async function judge(
  model: PaliGemma,
  examples: readonly FileExample[],
  options: Own,
  adapters: Adapters = {}
): Promise<EvaluateResult> {
  const { metric } = options
  const done = isOfObjects(metric)
    ? await judgeObjects(model, examples, options, adapters)
    : await judgeTexts(model, examples, options, adapters)
  return { metric, rows: examples.length, ...done }
}

type Done = Omit<EvaluateResult, 'metric' | 'rows'>

/** Results in the order of rows; what fails names its row. */
async function* answers<T>(
  run: AsyncIterable<{ index: number; result?: T | undefined; error?: Error | undefined }>,
  examples: readonly FileExample[],
  { data, onProgress }: Own
): AsyncGenerator<{ example: FileExample; result: T }> {
  for await (const { index, result, error } of run) {
    const example = examples[index]!
    if (error instanceof PaliGemmaError && error.code !== 'ERR_DISPOSED')
      throw new PaliGemmaError(error.code, `${data}:${example.line}: ${error.message}`, { cause: error })
    if (error) throw error
    yield { example, result: result! }
    onProgress?.((index + 1) / examples.length)
  }
}

async function judgeTexts(
  model: PaliGemma,
  examples: readonly FileExample[],
  options: Own,
  { adapters }: Adapters
): Promise<Done> {
  const { metric, maxTokens, signal, onRow } = options
  const items = examples.map(({ images, prompt }) => ({ prompt, ...(images.length > 0 && { images }) }))
  const common = { ...(maxTokens !== undefined && { maxTokens }), ...(adapters && { adapters }), signal }
  const run = model.batch(items as never, { task: 'generate', ordered: true, ...common })
  const said: string[] = []
  const scores: number[] = []
  const report = (example: FileExample, prediction: string, score: number): void =>
    onRow?.({ line: example.line, images: example.images, prompt: example.prompt, prediction, score })
  for await (const { example, result } of answers(run, examples, options)) {
    said.push(result.text)
    if (metric === 'cider') continue
    scores.push(scoreOf(metric, result.text, answersOf(example)))
    report(example, result.text, scores.at(-1)!)
  }
  if (metric === 'cider') {
    scores.push(...ciderScores(examples.map((one, i) => ({ prediction: said[i]!, references: answersOf(one) }))))
    for (const [i, example] of examples.entries()) report(example, said[i]!, scores[i]!)
  }
  return { score: meanOf(scores) }
}

function scoreOf(metric: Metric, prediction: string, expected: readonly string[]): number {
  if (metric === 'vqa') return vqaAccuracy(prediction, expected)
  if (metric === 'anls') return anls(prediction, expected)
  return Number(expected.some((answer) => answer.trim() === prediction.trim()))
}

const meanOf = (values: readonly number[]): number | null =>
  values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length

async function judgeObjects(
  model: PaliGemma,
  examples: readonly FileExample[],
  options: Own,
  { adapters }: Adapters
): Promise<Done> {
  const { metric, maxTokens, minScore, signal, onRow, data } = options
  const items = examples.map(({ images, prompt }) => ({ image: images[0]!, labels: askedLabels(prompt)! }))
  const given = { maxTokens, minScore, adapters }
  const common = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const task = metric === 'mask' ? 'segment' : 'detect'
  const run = model.batch(items as never, { task, ordered: true, signal, ...common })
  const decode = metric === 'mask' ? async (codes: number[]) => await model.decodeMask(codes) : undefined
  const evaluation = new CocoEvaluation()
  const best: number[] = []
  for await (const { example, result } of answers<ObjectList<Detection>>(run as never, examples, options)) {
    const compared = await compareObjects(example, result, decode, `${data}:${example.line}`)
    for (const { label, group } of compared.groups) evaluation.add(label, group)
    best.push(...compared.best)
    const prediction = result.map(({ label, score, box }) => ({ label, score, box }))
    const { line, images, prompt } = example
    onRow?.({ line, images, prompt, prediction, score: meanOf(compared.best) ?? undefined })
  }
  const coco = evaluation.scores()
  return { score: coco.AP, coco: { ...coco, meanIoU: meanOf(best) }, labels: evaluation.labels() }
}
