/** The typed surface of the addon and the only file that loads it. */
import type { PlainBytes, PlainDoubles, PlainFloats } from '../base/plain-memory'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { isInstalled, leaveOutside } from '../base/package-files'
import { refuseDenied } from '../base/permission'
import { expandPath } from '../base/expand-path'
import { toPath } from '../base/paths'
import type { EngineSampling } from './sampling'
import { notItsFault } from './load-failure'
import { candidates, isInArchive, isThere, meant, usesMusl } from './locate'
import type { NativeGgufFile } from './native-gguf'

/** How the vectors of pages are stored. */
export type VectorType = 'f32' | 'int8' | 'binary'

export interface NativeTensorSource {
  [name: string]: { shape: number[]; data: Float32Array }
}

/**
 * A LoRA adapter: a GGUF, or tensors "<gguf name>.lora_a" [rank, in] and ".lora_b" [out, rank], the latter times alpha
 * / rank.
 */
export interface NativeAdapter {
  name: string
  scale: number
  path?: string
  tensors?: NativeTensorSource
}

/** A name for a reserved or padding entry of the vocabulary. */
export interface NativeAddedToken {
  /** -1: the first free one at the end. */
  id: number
  text: string
  special: boolean
  flags: number
  /** The file that names it, for messages. */
  from: string
}

export interface NativeAdapterInfo {
  name: string
  scale: number
  rank: number
  targets: number
  parameters: number
}

/** One of {@link listDevices}. */
export interface NativeDevice {
  /** What `device` of `loadModel` takes: "cuda:0", "cpu". */
  device: string
  /** Of the card; of a CPU its instruction set. */
  name: string
  /** Of a GPU: "compute capability 9.0", "Metal". */
  detail?: string
  /** Of a GPU: all of its memory. */
  memoryBytes?: number
  /** Of a GPU: what of it is free now. */
  freeBytes?: number
  /** Why it cannot be used. */
  problem?: string
}

export interface NativeLoadOptions {
  path: string
  visionPath?: string
  /** A GGUF with mask tensors, or tensors already read from an npz, in PyTorch layout under vae-oid's names. */
  maskDecoder?: string | NativeTensorSource
  weights?: 'mapped' | 'copy'
  device?: string
  threads?: number
  /** What prebuilds/cuda/kernels.br holds; undefined where no NVIDIA card is meant. */
  cudaKernels?: Uint8Array
  /** Of the CPU's kernels; default: the best. */
  isa?: string
  contextSize?: number
  maxSequences?: number
  kvCacheType?: 'f16' | 'q8_0' | 'f32'
  attentionWindow?: 'none' | 'suffix' | 'causal'
  finalSoftcap?: boolean
  adapters?: NativeAdapter[]
  /** Names that come with the adapters. */
  tokens?: NativeAddedToken[]
  /** Inputs of all matrices are observed, for requests of kind importance. */
  importance?: boolean
}

export interface NativeModelInfo extends ModelFacts {
  architecture: string
  /** Width of embed's vectors; 0 without the head. */
  retrievalDims: number
  /** "colpali-engine" or "transformers" as the file says; '' where it says nothing. */
  retrievalFlavour: string
  /** In the order of the load options. */
  adapters: NativeAdapterInfo[]
  resizeFilter: 'bicubic' | 'bilinear'
}

/** Of a loaded model, as the engine says it and as users see it. */
export interface ModelFacts {
  /** The file's own name, or ''. */
  name: string
  /** The type that holds most of the weights: "Q4_K", "BF16", ... */
  quantization: string
  /** Weights of the model, the mask decoder's not counted. */
  parameters: number
  /** Of the model files. */
  bytes: number
  /** Width and height in pixels that pictures are resized to; 0 without vision. */
  imageSize: number
  /** Tokens per picture; 0 without vision. */
  imageTokens: number
  /** Layers of the text model: 18 of PaliGemma 1, 26 of PaliGemma 2 3B. */
  textLayers: number
  /** Width of the text model: 2048 of PaliGemma 1, 2304 of PaliGemma 2 3B. */
  textHidden: number
  /** Layers of the vision tower; 0 without vision. */
  visionLayers: number
  /** Width of the vision tower; 0 without vision. */
  visionHidden: number
  /** Rows of the embedding table: tokens, and the padding after them. */
  vocab: number
  /** Tokens per sequence, images included. */
  contextSize: number
  /** Pictures can be given. */
  hasVision: boolean
  /** `segment` and `decodeMask` work. */
  hasMaskDecoder: boolean
  /** `embedImage` and `embedText` work. */
  hasRetrieval: boolean
  /** "cpu", "cuda" or "metal". */
  device: string
  /** Instruction set in use, such as "avx2"; of a GPU its name. */
  isa: string
  /** With `device: 'auto'` on the CPU: why no GPU was taken. */
  deviceNote?: string
  /** Compute threads; 0 on a GPU. */
  threads: number
}

/** Exactly one of the two. Copied before `submit` returns. */
export interface NativeImage {
  /** [imageSize, imageSize, 3] RGB8, already resized. */
  pixels?: Uint8Array
  /** [imageTokens, textHidden]. */
  embedding?: Float32Array
}

/** Sampling: as the options of the same names; beams: greedy only, at most maxSequences, tokens come at the end. */
export interface NativeRequest extends EngineSampling {
  /**
   * trace: one prefill that returns every stage's values, to compare with a reference implementation. importance:
   * nothing runs; what a model loaded with `importance` has gathered.
   */
  kind: 'generate' | 'score' | 'encodeImage' | 'trace' | 'importance' | 'embed' | 'fit' | 'addAdapter'
  images: NativeImage[]
  prompt: string
  /** score, and examples of fit */
  suffix?: string
  allowControlTokens?: boolean
  /** -1 none, 0 of the chosen token, n also of the n best */
  logProbs?: number
  /** score only: also the stage "logits", a row per token of the suffix; at most 256 */
  logits?: boolean
  constraint?:
    | { kind: 'detect' | 'segment'; labels: string[]; maxObjects?: number }
    | { kind: 'choices'; choices: string[] }
    | { kind: 'regex' | 'schema'; pattern: string }
  /** Log-probabilities only of tokens that the constraint counts: not of mask codes. */
  scoredOnly?: boolean
  /** embed only: tokens around the prompt. */
  embed?: { bosTokens: number; padTokens: number; newline: boolean }
  fit?: NativeFit
  /** addAdapter only: one more to choose from; its index is the first of `values`. */
  adapter?: NativeAdapter
  /** Its tokens are not waited for one by one, only its end together with others'. */
  throughput?: boolean
  /** Where not given: all, with the scales they were loaded with. */
  adapters?: { index: number; scale: number }[]
}

/** Training: a session holds the adapter. Examples and optimizer steps are requests of their own. */
export type NativeFit = { session: number } & (
  | { action: 'begin'; scale: number; tensors: NativeTensorSource }
  | { action: 'begin'; scale: number; targets: string[]; rank: number; seed: number }
  /**
   * `values`: the sum of its tokens' losses; `usage.completionTokens`: how many these are. What is dropped follows from
   * the seed and the example's number in the run.
   */
  | { action: 'example'; train: boolean; dropout?: number; seed?: number; number?: number }
  /** Over the examples since the last one; `step` from 1. `values`: the gradient's norm. */
  | { action: 'update'; step: number; rate: number; decay: number; clip: number }
  /** `stages`: A and B without the scale; with moments also "….m" and "….v", with gradients "….gradient". */
  | { action: 'read'; moments?: boolean; gradients?: boolean }
  | { action: 'end' }
)

export interface NativeToken {
  id: number
  /** The characters this token completed. */
  tokenText: string
  logProb?: number
  /** A location: of it and those within 16 steps of it. */
  nearLogProb?: number
  top?: { id: number; text: string; logProb: number }[]
}

export type NativeEvent =
  | { kind: 'ready'; job: 0; info: NativeModelInfo }
  | { kind: 'stopped'; job: 0 }
  /** `text`: what may be shown now (held back while a stop string may be forming). */
  | { kind: 'token'; job: number; text: string; token: NativeToken }
  | {
      kind: 'end'
      job: number
      /** What was still held back. */
      text: string
      finishReason: 'stop' | 'length'
      usage: { imageTokens: number; promptTokens: number; completionTokens: number }
      timings: { queueMs: number; visionMs: number; prefillMs: number; firstTokenMs: number; decodeMs: number }
      /** score: one entry per suffix token, eos last. */
      scored?: NativeToken[]
      /** fit and addAdapter */
      values?: number[]
      /** encodeImage: [imageTokens, textHidden]. */
      embedding?: PlainFloats
      /**
       * trace: "vision" and "projector" per picture, "hidden" per layer (0 = input, last = after the final norm),
       * "logits". importance: a matrix each, [cols] sums of squares over `rows` rows.
       */
      stages?: { name: string; rows: number; cols: number; data: PlainFloats }[]
    }
  /** code ERR_ABORTED after cancel(); job 0: the load failed. */
  | { kind: 'error'; job: number; code: string; message: string }

/** Created at once; the first event says `ready` or `error` with job 0. */
export interface NativeModel {
  /** Queues a request and returns its job number (from 1). Throws an Error with `.code` on malformed requests. */
  submit(request: NativeRequest): number
  /** The job ends with an `error` event of code ERR_ABORTED. */
  cancel(job: number): void
  /** Returns at once: jobs end with ERR_DISPOSED, then `stopped` comes. Idempotent. */
  dispose(): void
  /** After `ready`. */
  tokenize(text: string, allowControlTokens: boolean): number[]
  detokenize(ids: number[]): string
  /** [64, 64]; rejects with ERR_MODEL_UNSUPPORTED without a mask decoder. */
  decodeMask(codes: number[]): Promise<PlainFloats>
  /** Pages of the KV cache; kept prefixes count as used. */
  kvUse(): { used: number; most: number; pageTokens: number }
}

export interface NativeTokenizer {
  encode(text: string, allowControlTokens: boolean): number[]
  decode(ids: number[]): string
  /** The bytes of one token; empty for control tokens. */
  pieceBytes(id: number): PlainBytes
  /** The vocabulary's spelling. */
  pieceText(id: number): string
  readonly size: number
}

export interface NativeMaskDecoder {
  /** 16 codes in 0..127 -> [64, 64], about -1..1. */
  decode(codes: number[]): Promise<PlainFloats>
}

export interface NativeMaskEncoder {
  /** [height, width], 0..255, what is inside a box -> 16 codes in 0..127. */
  encode(mask: Uint8Array, width: number, height: number): Promise<number[]>
}

/** Pages' vectors; see PageIndex. */
export interface NativePageStore {
  /** Rows of the store's type; scales with int8 only. Copied. The page's number. */
  add(rows: Uint8Array, scales: Float32Array | undefined): number
  remove(page: number): void
  clear(): void
  /** Numbers given; of these removed; bytes of memory. */
  readonly pages: number
  readonly removed: number
  readonly bytes: number
  /** The best of pages [begin, end), best first. One call of search or score at a time. */
  search(
    query: Uint8Array,
    scales: Float32Array | undefined,
    begin: number,
    end: number,
    limit: number
  ): Promise<{ pages: PlainDoubles; scores: PlainDoubles }>
  /** NaN for removed pages. */
  score(query: Uint8Array, scales: Float32Array | undefined, pages: readonly number[]): Promise<PlainDoubles>
}

export interface NativeBinding {
  Model: new (options: NativeLoadOptions, onEvents: (events: NativeEvent[]) => void) => NativeModel
  openTokenizer(path: string, tokens?: NativeAddedToken[]): Promise<NativeTokenizer>
  openMaskDecoder(source: string | NativeTensorSource): Promise<NativeMaskDecoder>
  openMaskEncoder(source: string | NativeTensorSource): Promise<NativeMaskEncoder>
  /** Structure and metadata only; no weight is read. */
  inspect(path: string): Promise<NativeGgufFile>
  /** What is wrong with tensors [first, first + count), in file order: NaN or infinity, also as scales of blocks. */
  checkWeights(path: string, first: number, count: number): Promise<string[]>
  dequantizeTensor(path: string, name: string): Promise<{ shape: number[]; data: PlainFloats }>
  /**
   * Rows of `cols` values of type `from` -> the same rows in type `to`. Types as GGUF names them, any case. Refuses
   * what is not finite, or beyond what `to` holds, naming the row; `firstRow` is the number of the first.
   */
  quantizeRows(
    data: Uint8Array,
    from: string,
    to: string,
    cols: number,
    importance?: Float32Array,
    firstRow?: number
  ): Promise<PlainBytes>
  /**
   * RGB8 [height, width, 3] -> RGB8 [size, size, 3], bit-equal to Pillow. `data` is read in place by another thread:
   * nobody may detach or shrink its buffer until the promise settles.
   */
  resize(
    data: Uint8Array,
    width: number,
    height: number,
    size: number,
    filter: 'bicubic' | 'bilinear',
    fit: 'squash' | 'pad'
  ): Promise<{
    data: PlainBytes
    transform: { scaleX: number; scaleY: number; offsetX: number; offsetY: number }
  }>
  /** mask: [64, 64]; box in pixels, x0 <= x < x1; result [height, width], 0..255. */
  pasteMask(
    mask: Float32Array,
    box: { x0: number; y0: number; x1: number; y1: number },
    width: number,
    height: number,
    convention: 'training' | 'demo'
  ): Promise<PlainBytes>
  /** isa: in use. broken: better tables that compute wrongly here, found at start-up, with the kernels that do. */
  cpuInfo(): {
    isa: string
    supported: string[]
    threads: number
    broken?: { isa: string; kernels: string[] }[]
  }
  /** Whether NVIDIA's driver shows any card. */
  hasCudaCards(): Promise<boolean>
  /** `hasCudaKernels`: cards are of no use without. `problem`: why there is no GPU. */
  listDevices(hasCudaKernels: boolean): Promise<{ devices: NativeDevice[]; problem?: string }>
  /** Every kernel of a supported table against the scalar one; `error` and `allowed` relative to the largest value. */
  checkKernels(isa: string): Promise<{ kernel: string; error: number; allowed: number }[]>
  /**
   * What this machine can do at best with so many threads (default: as `cpuInfo`), measured in a third of a second:
   * memory reads in 10^9 bytes a second, multiplications and additions of the 8-bit kernels in 10^9 a second (0 where
   * the instruction set has none). Takes 256 MB meanwhile.
   */
  machineLimits(threads?: number): Promise<{ readGBps: number; int8Gops: number }>
  /** How many of so many more threads the system gives this process now; those called `idle` count as given. */
  threadRoom(want: number, idle: string): Promise<number>
  /** States of the automaton of a constraint's pattern; rejects with what is wrong with it, as a request would. */
  checkPattern(kind: 'regex' | 'schema', pattern: string): Promise<number>
  /**
   * Rows as in PageVectors, as bytes: [tokens][dims] float32 or int8, [tokens][dims / 8 rounded up] bits. Scales with
   * int8 only.
   */
  maxSim(
    type: VectorType,
    dims: number,
    query: Uint8Array,
    scales: Float32Array | undefined,
    pages: Uint8Array[],
    pageScales: Float32Array[] | undefined
  ): PlainDoubles
  createPageStore(type: VectorType, dims: number, threads?: number): NativePageStore
  /** [tokens, dims] of length 1 -> at most `clusters` of them; for every token its cluster. */
  poolTokens(vectors: Float32Array, dims: number, clusters: number): Promise<{ data: PlainFloats; clusters: number[] }>
}

/** The addon itself (or a module namespace around it), or the path or file: URL of its file. */
export type NativeChoice = string | URL | object

let loaded: NativeBinding | undefined
let loadedFrom = ''

/** The file of the addon; '' where the application loaded it itself. Throws as {@link native}. */
export function nativePath(): string {
  native()
  return loadedFrom
}

/**
 * The addon, loaded on first use: what `choice` (the load option `nativeBinding`) or PALIGEMMA_NATIVE names, else the
 * first that the package or its surroundings hold. What was loaded first serves every call that names none.
 * Throws ERR_NATIVE_MISSING with what to do.
 */
export function native(choice?: NativeChoice): NativeBinding {
  if (choice === undefined) return loaded ?? remember(...byDefault())
  return remember(...chosen(choice))
}

/** An engine for questions about the machine, which do not settle who serves later calls; undefined: there is none. */
export function anyNative(): NativeBinding | undefined {
  if (loaded) return loaded
  try {
    asked ??= { binding: byDefault()[0] }
  } catch {
    asked = { binding: undefined }
  }
  return asked.binding
}

let asked: { binding: NativeBinding | undefined } | undefined

/** From now on this one serves the calls that name none. */
export function useNative(choice: NativeChoice): void {
  const [binding, path] = chosen(choice)
  if (binding !== loaded) [loaded, loadedFrom] = [binding, path]
}

function chosen(choice: NativeChoice): [NativeBinding, string] {
  if (isBinding(choice)) return ['default' in choice ? choice.default : choice, '']
  return loadFirst(meant(toPath(String(choice))), 'nativeBinding')
}

function byDefault(): [NativeBinding, string] {
  const named = process.env.PALIGEMMA_NATIVE
  return named ? loadFirst(meant(expandPath(named, 'PALIGEMMA_NATIVE')), 'PALIGEMMA_NATIVE') : loadFirst(candidates())
}

function remember(binding: NativeBinding, path: string): NativeBinding {
  if (!loaded) [loaded, loadedFrom] = [binding, path]
  return binding
}

export function isBinding(value: unknown): value is NativeBinding | { default: NativeBinding } {
  const module = value as Partial<NativeBinding> & { default?: Partial<NativeBinding> }
  return [module, module?.default].some((one) => typeof one?.Model === 'function' && typeof one.inspect === 'function')
}

/** Of any realm, so by its shape. */
export function isFileUrl(value: unknown): value is URL {
  return (value as Partial<URL> | null)?.protocol === 'file:' && typeof (value as URL).href === 'string'
}

/** The first of these files that loads; relative ones are meant from the working folder. */
function loadFirst(paths: string[], namedBy?: string): [NativeBinding, string] {
  const failures: string[] = []
  let cause: unknown
  for (const path of paths.map((path) => resolve(path))) {
    if (!isThere(path)) {
      if (namedBy) refuseDenied(path)
      continue
    }
    try {
      const binding = createRequire(path)(path) as unknown // Node itself keeps what it has loaded
      if (!isBinding(binding) || 'default' in binding) throw new Error('it is not the engine of node-paligemma')
      return [binding, path]
    } catch (error) {
      const other = notItsFault(path, error)
      if (other) throw other
      cause ??= error
      failures.push(`${path} does not load: ${(error as Error).message}`)
    }
  }
  const platform = `${process.platform}-${process.arch}`
  const found =
    failures.length > 0
      ? `The native engine does not load on ${platform} (${failures.join('; ')}).`
      : namedBy
        ? `${namedBy} names ${paths[0]!}, which does not exist (${resolve(paths[0]!)}).`
        : `No native engine for ${platform}${usesMusl() ? ' with musl' : ''}: none in build/Release or ` +
          `prebuilds/${platform} of ${rootsOf(paths)}.`
  throw new PaliGemmaError('ERR_NATIVE_MISSING', `${found} ${whatToDo(namedBy)}`, cause === undefined ? {} : { cause })
}

/** The folders in which {@link candidates} are looked for: there are several names in each. */
function rootsOf(paths: string[]): string {
  const inside = /[\\/](?:build[\\/]Release|prebuilds[\\/][^\\/]+)[\\/][^\\/]+$/
  return [...new Set(paths.map((path) => path.replace(inside, '')))].join(', ')
}

function whatToDo(namedBy?: string): string {
  const build =
    'Build it once with "npx paligemma build" (needs python3, make and a C++20 compiler), or "npm run build" in a ' +
    'clone.'
  if (namedBy || isInstalled) return isInArchive() ? `${inElectron} ${build}` : build
  return (
    `This code was bundled without its engine. ${leaveOutside}; or say where the engine is: ` +
    'loadModel({ nativeBinding }), setNativeBinding() or the variable PALIGEMMA_NATIVE. ' +
    `${inElectron} docs/deploy.md shows each.`
  )
}

const inElectron = "Electron's packagers take it out of the archive by asarUnpack: '**/node_modules/node-paligemma/**'."
