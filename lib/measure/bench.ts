/** Measures a model through the public library, and the machine beside it. */
import { randomFillSync } from 'node:crypto'
import { PaliGemmaError } from '../base/errors'
import { resolveModel } from '../hub/resolve'
import type { RawPixels } from '../images/image-input'
import type { LoadedModelInfo } from '../api/info'
import { inspectModel } from '../api/inspect'
import { deviceRule } from '../api/options/device'
import { loadModel } from '../api/load-model'
import type { PaliGemma } from '../api/model'
import type { LoadOptions } from '../api/options/options'
import { anySignal } from '../base/signals'
import { checkOptions, rule, type Rules } from '../base/validate'
import { type Costs, costsOf } from './costs'
import { type Limits, measureLimits } from './limits'
import { peakMemory, resetPeakMemory } from './memory'
import { median, medians, rounded } from './statistics'

export interface BenchOptions {
  /** As in `loadModel`. */
  model: string
  vision?: string | undefined
  device?: LoadOptions['device'] | undefined
  threads?: number | undefined
  kvCacheType?: LoadOptions['kvCacheType'] | undefined
  /** Measured runs after a warm-up; every figure is their median. Default 5. */
  runs?: number | undefined
  /** Tokens of the prefill, image included; default: the image, `<bos>`, two tokens and the newline, 260 at 224 px. */
  depth?: number | undefined
  /** Generated per run; default 32. */
  tokens?: number | undefined
  /** Streams at once, for the aggregate rate; default 1: not measured. */
  concurrency?: number | undefined
  /** Also with twice as many threads, in turns with the usual number. Default false. */
  oversubscribe?: boolean | undefined
  /** The PaliGemma 2 paper's protocol: 224 px, 260 tokens of prefill, 11 generated. */
  paper?: boolean | undefined
  /** 0..1 */
  onProgress?: ((fraction: number, what: string) => void) | undefined
  signal?: AbortSignal | undefined
}

/** Milliseconds, 10^9 bytes (GB) and 10^9 multiplications and additions (GOP); medians. */
export interface BenchResult {
  model: string
  /** "paligemma2 3b-224 Q4_0" */
  variant: string
  device: string
  isa: string
  threads: number
  runs: number
  /** Of the model files. */
  modelBytes: number
  /** With the file in the system's cache. */
  loadMs: number
  imageTokens: number
  /** null without vision. */
  visionMs: number | null
  visionGops: number | null
  prefillTokens: number
  prefillMs: number
  prefillTokensPerSecond: number
  prefillGops: number
  decodeTokens: number
  decodeTokensPerSecond: number
  /** Weights, keys and values that the generated tokens needed. */
  decodeGBps: number
  /** From the call to the first token: a picture not seen before. */
  firstTokenMs: number
  /** The same of a second question about that picture. null without vision. */
  secondQuestionMs: number | null
  /** From the call to the result. */
  totalMs: number
  /**
   * Processor time of the runs over time x threads. Well below 1 for a large model, other programs had the cores: then
   * compare nothing but figures of the same run.
   */
  cpuShare: number
  /** Largest resident size of the process, mapped weights included. */
  peakRssBytes: number
  limits: Limits
  /** Of the limits: vision and prefill of int8Gops, decode of readGBps; null where there is no such limit. */
  shares: { vision: number | null; prefill: number | null; decode: number | null }
  /** peakRssBytes / modelBytes */
  memoryFactor: number
  /** With `concurrency`: all streams together, while all of them decode. */
  concurrent?:
    | { streams: number; decodeTokensPerSecond: number; decodeGBps: number; allFirstTokensMs: number }
    | undefined
  /**
   * With `oversubscribe`: times with `threads` threads, twice the usual number, over times with the usual number, both
   * measured in turns. `vision` is null without vision.
   */
  oversubscribed?: {
    threads: number
    ratios: { vision: number | null; prefill: number; decode: number; total: number }
  }
}

const defaults = { runs: 5, tokens: 32, concurrency: 1 }
const paper = { imageTokens: 256, depth: 260, tokens: 11 }
const loads = 3

const rules: Rules<BenchOptions> = {
  model: rule.path,
  vision: rule.path,
  device: deviceRule,
  threads: rule.integer(1, 1024),
  kvCacheType: rule.oneOf('f16', 'q8_0', 'f32'),
  runs: rule.integer(1, 1000),
  depth: rule.integer(2),
  tokens: rule.integer(2),
  concurrency: rule.integer(1, 256),
  oversubscribe: rule.flag,
  paper: rule.flag,
  onProgress: rule.callback,
  signal: rule.signal
}

/** Throws ERR_INVALID_OPTION for what is wrong whatever the model. */
export function checkBenchOptions(options: BenchOptions): void {
  checkOptions<BenchOptions>('bench', options, rules, ['model'])
  if (options.paper && (options.depth !== undefined || options.tokens !== undefined)) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected no depth and tokens with paper: its protocol fixes both (260 and 11)'
    )
  }
}

/**
 * Runs the measurement. The weights' and the machine's figures come from the same minutes: the limits are measured
 * before, between and after the runs.
 *
 * @throws PaliGemmaError as `loadModel`; ERR_INVALID_OPTION for sizes that do not fit the model
 */
export async function bench(options: BenchOptions): Promise<BenchResult> {
  checkBenchOptions(options)
  const { signal, onProgress = () => {}, runs = defaults.runs, concurrency = defaults.concurrency } = options
  const pulled = await resolveModel(options.model)
  const files = await Promise.all(
    [pulled.path, options.vision ?? pulled.vision]
      .filter((path) => path !== undefined)
      .map(async (path) => await inspectModel(path, { maxArray: 0 }))
  )
  const costs = costsOf(files, options.kvCacheType)

  resetPeakMemory()
  const { model, loadMs } = await load(options)
  try {
    const { info } = model
    const request = requestFor(model, options)
    const limits: Limits[] = []
    const steps = 1 + runs * (1 + Number(concurrency > 1) + Number(options.oversubscribe ?? false))
    let step = 0
    const next = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
      onProgress(step / steps, what)
      const result = await work()
      limits.push(await measureLimits(info.threads, signal))
      onProgress(++step / steps, what)
      return result
    }
    await next('warming up', async () => {
      await warmUp(model, request, signal)
    })
    const singles: Run[] = []
    for (let i = 0; i < runs; i++)
      singles.push(await next(`run ${i + 1} of ${runs}`, async () => await runOnce(model, request, signal)))
    const together: ConcurrentRun[] = []
    for (let i = 0; concurrency > 1 && i < runs; i++) {
      together.push(
        await next(
          `${concurrency} streams, run ${i + 1} of ${runs}`,
          async () => await runTogether(model, request, concurrency, signal)
        )
      )
    }

    // before another model of the same file takes memory of its own
    const peakRssBytes = peakMemory()
    const oversubscribed = options.oversubscribe ? await oversubscribe(model, request, options, next) : undefined

    const loaded = { loadMs, peakRssBytes, modelBytes: files.reduce((sum, { bytes }) => sum + bytes, 0) }
    return {
      ...results({ model: options.model, info, request, costs, runs, loaded, singles, limits }),
      ...(together.length > 0 && { concurrent: aggregate(medians(together), concurrency, request, costs) }),
      ...(oversubscribed && { oversubscribed })
    }
  } finally {
    await model.dispose()
  }
}

interface Measured {
  model: string
  info: LoadedModelInfo
  request: BenchRequest
  costs: Costs
  runs: number
  loaded: { loadMs: number; peakRssBytes: number; modelBytes: number }
  singles: Run[]
  limits: Limits[]
}

/** The figures of single runs, beside what the machine can do. */
function results({ model, info, request, costs, runs, loaded, singles, limits }: Measured): BenchResult {
  const { loadMs, peakRssBytes, modelBytes } = loaded
  const run = medians(singles)
  const machine = medians(limits.map(({ readGBps, int8Gops }) => ({ readGBps, int8Gops })))
  const prefillGops = costs.prefillOps(request.depth) / run.prefillMs / 1e6
  const visionGops = info.hasVision ? costs.visionOps / run.visionMs / 1e6 : null
  const decodeGBps = (costs.decodeBytes(request.depth + request.tokens / 2) * run.decodeTokensPerSecond) / 1e9
  // The limits are the CPU's.
  const share = (value: number | null, limit: number) =>
    value === null || limit === 0 || info.device !== 'cpu' ? null : rounded(value / limit, 3)
  return {
    model,
    variant: `${info.architecture} ${info.variant} ${info.quantization}`,
    device: info.device,
    isa: info.isa,
    threads: info.threads,
    runs,
    modelBytes,
    loadMs: rounded(loadMs),
    imageTokens: info.imageTokens,
    visionMs: info.hasVision ? rounded(run.visionMs) : null,
    visionGops: visionGops === null ? null : rounded(visionGops),
    prefillTokens: request.depth,
    prefillMs: rounded(run.prefillMs),
    prefillTokensPerSecond: rounded((request.depth / run.prefillMs) * 1000),
    prefillGops: rounded(prefillGops),
    decodeTokens: request.tokens,
    decodeTokensPerSecond: rounded(run.decodeTokensPerSecond),
    decodeGBps: rounded(decodeGBps),
    firstTokenMs: rounded(run.firstTokenMs),
    secondQuestionMs: info.hasVision ? rounded(run.secondQuestionMs) : null,
    totalMs: rounded(run.totalMs),
    cpuShare: rounded(run.cpuMs / run.totalMs / info.threads, 3),
    peakRssBytes,
    limits: { readGBps: rounded(machine.readGBps), int8Gops: rounded(machine.int8Gops) },
    shares: {
      vision: share(visionGops, machine.int8Gops),
      prefill: share(prefillGops, machine.int8Gops),
      decode: share(decodeGBps, machine.readGBps)
    },
    memoryFactor: rounded(peakRssBytes / modelBytes, 3)
  }
}

/** All streams together. */
function aggregate(
  run: ConcurrentRun,
  streams: number,
  request: BenchRequest,
  costs: Costs
): BenchResult['concurrent'] {
  return {
    streams,
    decodeTokensPerSecond: rounded(run.tokensPerSecond),
    // one pass over the weights serves a token of every stream
    decodeGBps: rounded(
      ((costs.decodeBytes(0) + streams * (costs.decodeBytes(request.depth) - costs.decodeBytes(0))) *
        run.tokensPerSecond) /
        streams /
        1e9
    ),
    allFirstTokensMs: rounded(run.allFirstTokensMs)
  }
}

/** Loads several times, so that the figure is not the disk's, and keeps the last one. */
async function load(options: BenchOptions): Promise<{ model: PaliGemma; loadMs: number }> {
  const times: number[] = []
  for (let i = 0; ; i++) {
    const start = performance.now()
    const model = await open(options)
    times.push(performance.now() - start)
    if (i === loads - 1) return { model, loadMs: median(times) }
    await model.dispose()
  }
}

async function open({
  model,
  vision,
  device,
  threads,
  kvCacheType,
  concurrency = defaults.concurrency,
  signal
}: BenchOptions): Promise<PaliGemma> {
  return await loadModel({
    model,
    maxSequences: Math.max(4, concurrency),
    ...(vision !== undefined && { vision }),
    ...(device !== undefined && { device }),
    ...(threads !== undefined && { threads }),
    ...(kvCacheType !== undefined && { kvCacheType }),
    ...(signal && { signal })
  })
}

interface BenchRequest {
  promptTokens: number
  depth: number
  tokens: number
}

/** The sizes of every run, with everything checked that would make one differ from what it says. */
function requestFor(model: PaliGemma, options: BenchOptions): BenchRequest {
  const { imageTokens, contextSize, hasVision } = model.info
  if (options.paper && imageTokens !== paper.imageTokens) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected a model for 224 px (${paper.imageTokens} image tokens) with paper, but ${options.model} has ` +
        `${hasVision ? `${imageTokens} image tokens` : 'no vision'}`
    )
  }
  // <bos> and the newline surround the prompt.
  const around = imageTokens + 2
  const depth = options.paper ? paper.depth : (options.depth ?? around + 2)
  const tokens = options.paper ? paper.tokens : (options.tokens ?? defaults.tokens)
  if (depth < around || depth + tokens > contextSize) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected a depth from ${around} (the picture, <bos> and a newline) to ${contextSize - tokens} ` +
        `(the context of ${contextSize} without the ${tokens} tokens to generate) but received ${depth}`
    )
  }
  if (model.tokenize('<loc0000>').length !== 1) {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${options.model}: the vocabulary has no location tokens, so this is no PaliGemma`
    )
  }
  return { promptTokens: depth - around, depth, tokens }
}

let prompts = 0

/** As {@link newPicture}: the engine keeps recent prefixes. A location is one token in every PaliGemma vocabulary. */
function newPrompt(tokens: number): string {
  const number = prompts++
  return Array.from(
    { length: tokens },
    (_, i) => `<loc${String(Math.floor(number / 1024 ** i) % 1024).padStart(4, '0')}>`
  ).join('')
}

/** Noise that no run before has seen: the engine keeps recent pictures' features. */
function newPicture(model: PaliGemma): { image?: RawPixels } {
  const { hasVision, imageSize } = model.info
  if (!hasVision) return {}
  return {
    image: {
      data: randomFillSync(new Uint8Array(imageSize * imageSize * 3)),
      width: imageSize,
      height: imageSize,
      channels: 3
    }
  }
}

type Run = Record<
  'visionMs' | 'prefillMs' | 'firstTokenMs' | 'decodeTokensPerSecond' | 'totalMs' | 'cpuMs' | 'secondQuestionMs',
  number
>

async function runOnce(model: PaliGemma, { promptTokens, tokens }: BenchRequest, signal?: AbortSignal): Promise<Run> {
  const request = { ...newPicture(model), ignoreEos: true, ...(signal && { signal }) }
  const start = performance.now()
  const cpuBefore = process.cpuUsage()
  const { timings } = await model.generate({ ...request, prompt: newPrompt(promptTokens), maxTokens: tokens })
  const totalMs = performance.now() - start
  const cpu = process.cpuUsage(cpuBefore)
  const second = model.info.hasVision
    ? await model.generate({ ...request, prompt: newPrompt(promptTokens), maxTokens: 1 })
    : undefined
  return {
    visionMs: timings.visionMs,
    prefillMs: timings.prefillMs,
    firstTokenMs: timings.firstTokenMs,
    decodeTokensPerSecond: timings.decodeTokensPerSecond,
    totalMs,
    cpuMs: (cpu.user + cpu.system) / 1000,
    secondQuestionMs: second?.timings.firstTokenMs ?? 0
  }
}

/** Two pictures: with the second the engine unpacks the vision weights for good. */
async function warmUp(model: PaliGemma, request: BenchRequest, signal?: AbortSignal): Promise<void> {
  await runOnce(model, request, signal)
  const { image } = newPicture(model)
  if (image) await model.encodeImage(image)
}

/** The same work with twice the threads, in turns, so that both meet the machine in the same moods. */
async function oversubscribe(
  model: PaliGemma,
  request: BenchRequest,
  options: BenchOptions,
  next: <T>(what: string, work: () => Promise<T>) => Promise<T>
): Promise<NonNullable<BenchResult['oversubscribed']>> {
  const { runs = defaults.runs, signal } = options
  const threads = 2 * model.info.threads
  const crowded = await open({ ...options, threads })
  try {
    await warmUp(crowded, request, signal)
    const pairs: { usual: Run; twice: Run }[] = []
    for (let i = 0; i < runs; i++) {
      pairs.push(
        await next(`${threads} threads, run ${i + 1} of ${runs}`, async () => ({
          usual: await runOnce(model, request, signal),
          twice: await runOnce(crowded, request, signal)
        }))
      )
    }
    const [usual, twice] = [medians(pairs.map((pair) => pair.usual)), medians(pairs.map((pair) => pair.twice))]
    return {
      threads,
      ratios: {
        vision: model.info.hasVision ? rounded(twice.visionMs / usual.visionMs) : null,
        prefill: rounded(twice.prefillMs / usual.prefillMs),
        decode: rounded(usual.decodeTokensPerSecond / twice.decodeTokensPerSecond),
        total: rounded(twice.totalMs / usual.totalMs)
      }
    }
  } finally {
    await crowded.dispose()
  }
}

type ConcurrentRun = Record<'tokensPerSecond' | 'allFirstTokensMs', number>

/**
 * Counts tokens from the moment when the last stream has its first one; then every stream decodes and none prefills.
 */
async function runTogether(
  model: PaliGemma,
  { promptTokens, depth, tokens }: BenchRequest,
  streams: number,
  signal?: AbortSignal
): Promise<ConcurrentRun> {
  const enough = new AbortController()
  const { signal: ending, release } = anySignal([signal, enough.signal])
  const start = performance.now()
  let waiting = streams
  let counted = 0
  let begin = 0
  let end = 0
  await Promise.all(
    Array.from({ length: streams }, async () => {
      let first = true
      await model
        .generate({
          ...newPicture(model),
          prompt: newPrompt(promptTokens),
          ignoreEos: true,
          maxTokens: model.info.contextSize - depth,
          ...(ending && { signal: ending }),
          onToken: () => {
            const now = performance.now()
            if (first) {
              first = false
              if (--waiting === 0) begin = now
            } else if (waiting === 0 && ++counted === streams * tokens) {
              end = now
              enough.abort()
            }
          }
        })
        .catch((error: unknown) => {
          if (!enough.signal.aborted) throw error
        })
    })
  ).finally(release)
  if (end === 0)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `The context of ${model.info.contextSize} tokens ends before ${streams} streams decode together; lower depth ` +
        'or concurrency'
    )
  return { tokensPerSecond: (counted / (end - begin)) * 1000, allFirstTokensMs: begin - start }
}
