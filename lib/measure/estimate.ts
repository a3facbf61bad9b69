/** How much memory a model will take, before it is loaded. */
import { stat } from 'node:fs/promises'
import { fitBytes, type FitEstimateOptions, type FitShape } from './estimate-fit'
import { parseSize, syntheticSizes } from './sizes'
import { tensorBytes } from '../formats/gguf-writer'
import { expectedTensors } from '../convert/checkpoint/names'
import { planConversion } from '../convert/checkpoint/plan'
import { parseFileType } from '../formats/types'
import { PaliGemmaError } from '../base/errors'
import { resolveModel } from '../hub/resolve'
import { anyNative } from '../engine/native'
import { inspectModel, type ModelInfo } from '../api/inspect'
import { defaults, modelRule } from '../api/options/options'
import { readOptions, rule, take, type Rules, wrongOption } from '../base/validate'

/** Options of {@link estimateMemory}; those of `loadModel` mean the same. */
export interface EstimateOptions {
  /** The separate vision GGUF. */
  vision?: string | URL | undefined
  /** Of a published size: a type of `convert`; default Q8_0. */
  type?: string | undefined
  /** Tokens per sequence at most, pictures included; default: what the model was trained for. */
  contextSize?: number | undefined
  /** Sequences decoded together; default 4. */
  maxSequences?: number | undefined
  /** Type of the attention cache; default "f16". */
  kvCacheType?: 'f16' | 'q8_0' | 'f32' | undefined
  /** Compute threads; default 8. */
  threads?: number | undefined
  /** As for `loadModel`; default "mapped". */
  weights?: 'mapped' | 'copy' | undefined
  /** Pictures of a usual request, up to 64; default 1. */
  images?: number | undefined
  /** Tokens of a usual request's prompt; default 32. */
  promptTokens?: number | undefined
  /** Tokens of a usual request's answer; default 256. */
  maxTokens?: number | undefined
  /** What `fit` takes on top, for examples with the same pictures and prompts. */
  fit?: FitEstimateOptions | undefined
}

/** In bytes. */
export interface MemoryEstimate {
  /**
   * Of the model files, mapped: the system may drop pages and read them again, so less memory works, slowly. Several
   * models of one file share them. With `weights: 'copy'` they are this process's own, and must fit.
   */
  weights: number
  /** Of `total`, what must fit: all but mapped weights. */
  own: number
  /** The attention cache, of which `total` has one usual request for each of `maxSequences`. */
  kv: {
    /** Keys and values of all layers. */
    perToken: number
    /** A usual request's, in whole pages of 64 tokens. */
    perSequence: number
    /** One sequence's that fills the context. */
    perFullSequence: number
    /** Prefixes kept for further requests about the same pictures with the same prompt. */
    keptPrefixes: number
  }
  /** Buffers of work; `total` has all of them at once. */
  scratch: {
    /** Pictures that pass the vision tower together, a few of a batch. */
    vision: number
    /** Usual requests that pass the text model together, a few of a batch. */
    prefill: number
    /** The step in which all sequences gain a token. */
    decode: number
    /** Weights and activations unpacked by the kernels, for all threads. */
    kernels: number
  }
  /**
   * Picture features: of a request on its way into the text model, and of recent pictures (64 MiB at most, but always
   * one).
   */
  features: number
  /** Vocabulary, logits, rotation angles. */
  other: number
  /** With `fit`: of the adapter, its optimizer, and an example on its way forward and back. In `total`. */
  fit?: number
  /** On a GPU, of its memory: weights, caches of all sequences and work. The host then takes little. */
  gpu: number
  /** All of it, with `maxSequences` usual requests. Node itself (50 to 100 MB) comes on top. */
  total: number
  /** The same with every sequence as long as the context, and the features full. */
  most: number
}

const positive = rule.integer(1)
const fitRules: Rules<FitEstimateOptions> = {
  rank: positive,
  targets: rule.listOf('strings', (v) => typeof v === 'string', { least: 1 }),
  responseTokens: positive,
  dropout: rule.number(0, 0.99)
}
const estimateRules: Rules<EstimateOptions> = {
  vision: rule.file,
  type: rule.name,
  contextSize: positive,
  maxSequences: positive,
  kvCacheType: rule.oneOf('f16', 'q8_0', 'f32'),
  threads: positive,
  weights: rule.oneOf('mapped', 'copy'),
  images: rule.integer(0, 64),
  promptTokens: rule.integer(0),
  maxTokens: rule.integer(1),
  fit: {
    expected: '{ rank?, targets?, responseTokens?, dropout? }',
    take: (v) => readOptions<FitEstimateOptions>('fit', v, fitRules),
    accepts: () => true
  }
}

/** What the engine's buffers depend on. */
interface Shape extends FitShape {
  weights: number
  /** Bytes a packed activation takes: 4 where weights are plain numbers, about 1 where they are blocks. */
  packedBytes: number
  context: number
  vision: (NonNullable<FitShape['vision']> & { patchValues: number }) | undefined
}

/** The same with what depends on the processor. */
interface Work extends Shape {
  /** Rows of several requests that may pass together; 0: none may. */
  jointRows: number
}

/**
 * The memory that a model takes on this machine, without loading it: on processors with AVX-512 or AMX short requests
 * pass together, which takes more scratch.
 *
 * @param from a GGUF, the name of a pulled model, or a published size such as "3b-224" (PaliGemma 2 3B at 224 px),
 * "10b-448", "pg1-3b-896"
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED (no PaliGemma),
 * ERR_INVALID_OPTION
 */
export async function estimateMemory(from: string | URL, given: EstimateOptions = {}): Promise<MemoryEstimate> {
  return await estimateOn(isaHere(), from, given)
}

/** The same on a processor with this kernel table. */
export async function estimateOn(
  isa: string | undefined,
  from: string | URL,
  given: EstimateOptions = {}
): Promise<MemoryEstimate> {
  const source = take('source', from, modelRule) as string
  const options = readOptions<EstimateOptions>('estimateMemory', given, estimateRules)
  const isSize =
    /^(pg1-)?\d+b-\d+$/i.test(source) &&
    (await stat(source).then(
      () => false,
      () => true
    ))
  if (isSize && !syntheticSizes.includes(source.toLowerCase())) {
    throw wrongOption(
      'source',
      'a GGUF, the name of a pulled model, or a published size ' +
        `(${syntheticSizes.filter((name) => /\d+b-/.test(name)).join(', ')})`,
      source
    )
  }
  const shape = isSize ? publishedShape(source, options.type ?? 'Q8_0') : await fileShape(source, options)
  return estimate({ ...shape, jointRows: jointRowsOn(isa) }, options)
}

/** The same of a file that was inspected already (metadata and tensors). */
export function estimateOf(model: ModelInfo, options: EstimateOptions = {}): MemoryEstimate {
  return estimate({ ...shapeOf(model, model), jointRows: jointRowsOn(isaHere()) }, options)
}

/** The kernel table of this machine; undefined: there is no engine to ask. */
const isaHere = (): string | undefined => anyNative()?.cpuInfo?.().isa

async function fileShape(source: string, options: EstimateOptions): Promise<Shape> {
  if (options.type !== undefined)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected type for a published size only but received it for ${source}, which has its types`
    )
  const resolved = await resolveModel(source)
  const vision = options.vision ?? resolved.vision
  const model = await inspectModel(resolved.path, { maxArray: 0 })
  return shapeOf(model, vision === undefined ? model : await inspectModel(vision, { maxArray: 0 }))
}

function publishedShape(name: string, type: string): Shape {
  const { config } = parseSize(name)
  const { text, vision } = config
  const fileType = parseFileType(type)
  const vocab = 257216
  const source = expectedTensors(config, vocab).map((tensor) => ({
    name: tensor.source,
    file: '',
    type: 'F32',
    shape: tensor.shape,
    bytes: 0,
    read: async () => {}
  }))
  const plan = planConversion(config, source, { dir: name, type: fileType })
  return {
    weights: plan.tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0),
    packedBytes: packedBytes(fileType.base),
    ...text,
    vocab,
    context: text.contextLength,
    vision: {
      hidden: vision.hidden,
      ffn: plan.visionFfn,
      tokens: vision.tokens,
      layers: vision.layers,
      patchValues: 3 * vision.patchSize ** 2
    }
  }
}

function shapeOf(model: ModelInfo, visionModel: ModelInfo): Shape {
  const { architecture, path } = model
  if (architecture !== 'gemma' && architecture !== 'gemma2') {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${path}: architecture "${architecture}" is not PaliGemma's (gemma, gemma2)`
    )
  }
  const number = (of: ModelInfo, key: string, fallback?: number): number => {
    const value = of.metadata.find((entry) => entry.key === key)?.value ?? fallback
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${of.path}: metadata key ${key} is ${value === undefined ? 'missing' : String(value)}, expected an integer > 0`
    )
  }
  const text = (key: string, fallback?: number): number => number(model, `${architecture}.${key}`, fallback)
  const vocab = model.tensors.find(({ name }) => name === 'token_embd.weight')?.shape[0]
  if (vocab === undefined) throw new PaliGemmaError('ERR_MODEL_INVALID', `${path}: tensor token_embd.weight is missing`)
  const heads = text('attention.head_count')
  const eyes = (key: string): number => number(visionModel, `clip.vision.${key}`)
  const hasVision = visionModel.tensors.some(({ name }) => name === 'v.patch_embd.weight')
  const files = model === visionModel ? [model] : [model, visionModel]
  return {
    weights: files.reduce((sum, file) => sum + file.tensors.reduce((bytes, tensor) => bytes + tensor.bytes, 0), 0),
    packedBytes: packedBytes(
      model.tensors.find(({ name }) => name === 'blk.0.ffn_down.weight')?.type ?? model.quantization
    ),
    hidden: text('embedding_length'),
    ffn: text('feed_forward_length'),
    layers: text('block_count'),
    heads,
    kvHeads: text('attention.head_count_kv', heads),
    headDim: text('attention.key_length', 256),
    context: text('context_length', 8192),
    vocab,
    vision: hasVision
      ? {
          hidden: eyes('embedding_length'),
          ffn: eyes('feed_forward_length'),
          tokens: (eyes('image_size') / eyes('patch_size')) ** 2,
          layers: eyes('block_count'),
          patchValues: 3 * eyes('patch_size') ** 2
        }
      : undefined
  }
}

const packedBytes = (type: string): number => (['F32', 'F16', 'BF16'].includes(type) ? 4 : 1.2)

// The engine's constants: native/device/device.h, native/model/{decoder,vision,scheduler,model}.cpp,
// native/cpu/gemm.cpp.
const pageTokens = 64
const blockRows = 512
const logitRows = 8
const keptPrefixes = 2
const keptPromptTokens = 128
const featureCacheBytes = 64 * 2 ** 20
const kernelBytesPerThread = 1 << 20

const gpuBlockRows = 1024
const gpuFixedBytes = 160 * 2 ** 20

const f32 = (rows: number, cols: number): number => Math.ceil((rows * cols * 4) / 64) * 64
const kvBytes = { f16: (n: number) => 2 * n, f32: (n: number) => 4 * n, q8_0: (n: number) => (n / 32) * 34 }

/** CpuDevice::limits. Without an engine to ask, what takes more. */
const jointRowsOn = (isa = 'avx512'): number => (/^(?:avx512|amx)/.test(isa) ? 576 : 0)
/** The rows of a pass where so many requests for throughput of at most `rows` each may pass together. */
const jointly = (count: number, rows: number, { jointRows }: Work): number =>
  rows > blockRows ? rows : Math.max(rows, Math.min(count * rows, jointRows))
/** Of so many rows those that go through wide layers together. */
const blockOf = (rows: number, { jointRows }: Work): number =>
  rows > Math.max(blockRows, jointRows) ? blockRows : rows

/** Decoder::scratchBytes */
function decoderScratch(rows: number, work: Work): number {
  const { hidden, ffn, heads, kvHeads, headDim, vocab } = work
  const block = blockOf(rows, work)
  const q = heads * headDim
  const attention = 2 * f32(block, hidden) + 2 * f32(block, kvHeads * headDim) + f32(block, q)
  const feedForward = 2 * f32(block, hidden) + f32(block, ffn)
  const head = f32(Math.min(rows, logitRows), vocab) + f32(Math.min(rows, logitRows), hidden)
  return f32(rows, hidden) + f32(rows, q) + Math.max(attention, feedForward, head, f32(rows, hidden))
}

/** VisionEncoder::begin, with the patches that it gathers first */
function visionScratch(pictures: number, shape: Work): number {
  if (!shape.vision) return 0
  const { hidden, ffn, patchValues } = shape.vision
  const each = shape.vision.tokens
  const tokens = Math.max(1, Math.floor(jointly(pictures, each, shape) / each)) * each
  const block = blockOf(tokens, shape)
  const patches = f32(shape.vision.tokens, patchValues)
  return (
    f32(tokens, hidden) +
    Math.max(
      4 * f32(tokens, hidden),
      f32(block, hidden) + f32(block, ffn),
      patches,
      f32(tokens, shape.hidden) + f32(tokens, hidden)
    ) +
    patches
  )
}

function estimate(shape: Work, options: EstimateOptions): MemoryEstimate {
  const {
    contextSize = shape.context,
    maxSequences = defaults.maxSequences,
    kvCacheType = 'f16',
    threads = 8,
    images = 1,
    promptTokens = 32,
    maxTokens = 256,
    weights = 'mapped'
  } = options
  const imageTokens = shape.vision?.tokens ?? 0
  const prefix = images * imageTokens + promptTokens + 2 // begin and newline
  checkContext(prefix, imageTokens, contextSize)
  const sequence = Math.min(contextSize, prefix + maxTokens)
  const perToken = shape.layers * 2 * shape.kvHeads * kvBytes[kvCacheType](shape.headDim)
  const pages = (tokens: number): number => Math.ceil(tokens / pageTokens) * pageTokens * perToken
  const features = f32(imageTokens, shape.hidden)
  const kv = {
    perToken,
    perSequence: pages(sequence),
    perFullSequence: pages(contextSize),
    keptPrefixes: keptPrefixes * pages(imageTokens + keptPromptTokens)
  }
  const scratchOf = (rows: number, pictures: number) =>
    scratch(shape, { rows, pictures: pictures * maxSequences, maxSequences, threads })
  // About 100 bytes for a piece of the vocabulary; logits of every sequence with what the sampler sorts.
  const otherOf = (tokens: number): number => shape.vocab * (100 + 12 * (maxSequences + 1)) + tokens * shape.headDim * 4
  const sum = (object: Record<string, number>): number => Object.values(object).reduce((a, b) => a + b, 0)
  const usual = scratchOf(Math.min(prefix, contextSize), images)
  const other = otherOf(sequence)
  const fit = options.fit && fitBytes(shape, prefix, options.fit)
  // Those on their way into the text model, and those of recent pictures; the cache keeps at least one picture's.
  const featuresOf = (pictures: number, recent: number): number =>
    pictures * features + Math.min(recent * features, Math.max(featureCacheBytes, features))
  const mostImages = shape.vision ? Math.floor(contextSize / imageTokens) : 0
  const ownFeatures = featuresOf(images, images * maxSequences)
  const work =
    maxSequences * kv.perSequence +
    Math.min(kv.keptPrefixes, keptPrefixes * pages(prefix)) +
    sum({ ...usual }) +
    ownFeatures +
    other +
    (fit ?? 0)
  return {
    weights: shape.weights,
    kv,
    scratch: usual,
    features: ownFeatures,
    other,
    ...(fit !== undefined && { fit }),
    gpu: gpuBytes(shape, maxSequences, maxSequences * kv.perFullSequence + kv.keptPrefixes),
    own: weights === 'copy' ? shape.weights + work : work,
    total: shape.weights + work,
    most:
      shape.weights +
      (fit ?? 0) +
      maxSequences * kv.perFullSequence +
      kv.keptPrefixes +
      sum({ ...scratchOf(contextSize, mostImages) }) +
      (shape.vision ? featuresOf(mostImages, Infinity) : 0) +
      otherOf(contextSize)
  }
}

/** planLoad in native/serve/load/load_plan.cpp: what a card must have free. */
function gpuBytes(shape: Shape, maxSequences: number, cache: number): number {
  const prefix = (shape.vision?.tokens ?? 0) + keptPromptTokens
  const work =
    6 * prefix * Math.max(shape.hidden, shape.vision?.hidden ?? 0) +
    2 * gpuBlockRows * Math.max(shape.ffn, shape.vision?.ffn ?? 0) +
    (maxSequences + 1) * shape.vocab
  return shape.weights + cache + 4 * work + gpuFixedBytes
}

function checkContext(prefix: number, imageTokens: number, contextSize: number): void {
  if (Math.min(prefix, imageTokens + 2) > contextSize) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected contextSize >= ${imageTokens + 2} (a picture alone takes ${imageTokens} tokens) but received ` +
        `${contextSize}`
    )
  }
}

/** Of requests of at most so many rows, and of their pictures. */
function scratch(
  shape: Work,
  { rows, pictures, maxSequences, threads }: { rows: number; pictures: number; maxSequences: number; threads: number }
): MemoryEstimate['scratch'] {
  const pass = jointly(maxSequences, rows, shape)
  const widest = Math.max(shape.hidden, shape.ffn, shape.heads * shape.headDim, shape.vision?.ffn ?? 0)
  return {
    vision: visionScratch(pictures, shape),
    prefill: decoderScratch(pass, shape),
    decode: decoderScratch(maxSequences, shape),
    kernels: Math.round(blockOf(pass, shape) * widest * shape.packedBytes) + threads * kernelBytesPerThread
  }
}
