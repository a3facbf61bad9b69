/** The typed surface of the addon and the only file that loads it. */
import { createRequire } from 'node:module'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import type { EngineSampling } from '../api/sampling'

/** How the vectors of pages are stored. */
export type VectorType = 'f32' | 'int8' | 'binary'

export interface NativeTensorSource {
  [name: string]: { shape: number[]; data: Float32Array }
}

/** A LoRA adapter: a GGUF, or tensors "<gguf name>.lora_a" [rank, in] and ".lora_b" [out, rank], the latter times alpha / rank. */
export interface NativeAdapter {
  name: string
  scale: number
  path?: string
  tensors?: NativeTensorSource
}

export interface NativeAdapterInfo {
  name: string
  scale: number
  rank: number
  targets: number
  parameters: number
}

export interface NativeLoadOptions {
  path: string
  visionPath?: string
  /** A GGUF with mask tensors, or tensors already read from an npz, in PyTorch layout under vae-oid's names. */
  maskDecoder?: string | NativeTensorSource
  device?: 'auto' | 'cpu' | 'cuda' | 'metal'
  threads?: number
  contextSize?: number
  maxSequences?: number
  kvCacheType?: 'f16' | 'q8_0' | 'f32'
  attentionWindow?: 'none' | 'suffix' | 'causal'
  finalSoftcap?: boolean
  adapters?: NativeAdapter[]
  /** Inputs of all matrices are observed, for requests of kind importance. */
  importance?: boolean
}

export interface NativeModelInfo {
  architecture: string
  name: string
  quantization: string
  device: string
  isa: string
  threads: number
  imageSize: number
  imageTokens: number
  textLayers: number
  textHidden: number
  visionLayers: number
  visionHidden: number
  vocab: number
  contextSize: number
  parameters: number
  bytes: number
  hasVision: boolean
  hasMaskDecoder: boolean
  hasRetrieval: boolean
  /** Width of embed's vectors; 0 without the head. */
  retrievalDims: number
  /** "colpali-engine" or "transformers" as the file says; '' where it says nothing. */
  retrievalFlavour: string
  /** In the order of the load options. */
  adapters: NativeAdapterInfo[]
  resizeFilter: 'bicubic' | 'bilinear'
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
  kind: 'generate' | 'score' | 'encodeImage' | 'trace' | 'importance' | 'embed'
  images: NativeImage[]
  prompt: string
  /** score only */
  suffix?: string
  allowControlTokens?: boolean
  /** -1 none, 0 of the chosen token, n also of the n best */
  logProbs?: number
  /** score only: also the stage "logits", a row per token of the suffix; at most 256 */
  logits?: boolean
  constraint?:
    | { kind: 'detect' | 'segment'; labels: string[]; maxObjects?: number }
    | { kind: 'choices'; choices: string[] }
    | { kind: 'regex'; pattern: string }
  /** Log-probabilities only of tokens that the constraint counts: not of mask codes. */
  scoredOnly?: boolean
  /** embed only: tokens around the prompt. */
  embed?: { bosTokens: number; padTokens: number; newline: boolean }
  /** Where not given: all, with the scales they were loaded with. */
  adapters?: { index: number; scale: number }[]
}

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
      /** encodeImage: [imageTokens, textHidden]. */
      embedding?: Float32Array<ArrayBuffer>
      /** trace: "vision" and "projector" per picture, "hidden" per layer (0 = input, last = after the final norm), "logits". importance: a matrix each, [cols] sums of squares over `rows` rows. */
      stages?: { name: string; rows: number; cols: number; data: Float32Array<ArrayBuffer> }[]
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
  decodeMask(codes: number[]): Promise<Float32Array<ArrayBuffer>>
}

export interface NativeTokenizer {
  encode(text: string, allowControlTokens: boolean): number[]
  decode(ids: number[]): string
  /** The bytes of one token; empty for control tokens. */
  pieceBytes(id: number): Uint8Array<ArrayBuffer>
  /** The vocabulary's spelling. */
  pieceText(id: number): string
  readonly size: number
}

export interface NativeMaskDecoder {
  /** 16 codes in 0..127 -> [64, 64], about -1..1. */
  decode(codes: number[]): Promise<Float32Array<ArrayBuffer>>
}

export type NativeMetadataValue = number | bigint | boolean | string | NativeMetadataArray
export interface NativeMetadataArray {
  arrayOf: string
  count: number
  values: NativeMetadataValue[]
}

export interface NativeGguf {
  version: number
  alignment: number
  bytes: number
  /** In file order; type is GGUF's name ("uint32", "string", "array", ...). 64-bit integers are bigint. */
  metadata: { key: string; type: string; value: NativeMetadataValue }[]
  /** shape: outermost dimension first. offset: bytes from the start of the file. */
  tensors: { name: string; type: string; typeId: number; shape: number[]; offset: number; bytes: number }[]
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
  ): Promise<{ pages: Float64Array<ArrayBuffer>; scores: Float64Array<ArrayBuffer> }>
  /** NaN for removed pages. */
  score(
    query: Uint8Array,
    scales: Float32Array | undefined,
    pages: readonly number[]
  ): Promise<Float64Array<ArrayBuffer>>
}

export interface NativeBinding {
  Model: new (options: NativeLoadOptions, onEvents: (events: NativeEvent[]) => void) => NativeModel
  openTokenizer(path: string): Promise<NativeTokenizer>
  openMaskDecoder(source: string | NativeTensorSource): Promise<NativeMaskDecoder>
  /** Structure and metadata only; no weight is read. maxArray: values kept per array (default all). */
  inspect(path: string, maxArray?: number): Promise<NativeGguf>
  dequantizeTensor(path: string, name: string): Promise<{ shape: number[]; data: Float32Array<ArrayBuffer> }>
  /** Rows of `cols` values of type `from` -> the same rows in type `to`. Types as GGUF names them, any case. */
  quantizeRows(
    data: Uint8Array,
    from: string,
    to: string,
    cols: number,
    importance?: Float32Array
  ): Promise<Uint8Array<ArrayBuffer>>
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
    data: Uint8Array<ArrayBuffer>
    transform: { scaleX: number; scaleY: number; offsetX: number; offsetY: number }
  }>
  /** mask: [64, 64]; box in pixels, x0 <= x < x1; result [height, width], 0..255. */
  pasteMask(
    mask: Float32Array,
    box: { x0: number; y0: number; x1: number; y1: number },
    width: number,
    height: number,
    convention: 'training' | 'demo'
  ): Promise<Uint8Array<ArrayBuffer>>
  cpuInfo(): { isa: string; supported: string[]; threads: number }
  /**
   * What this machine can do at best with so many threads (default: as `cpuInfo`), measured in a third of a second:
   * memory reads in 10^9 bytes a second, multiplications and additions of the 8-bit kernels in 10^9 a second (0 where
   * the instruction set has none). Takes 256 MB meanwhile.
   */
  machineLimits(threads?: number): Promise<{ readGBps: number; int8Gops: number }>
  /** Rows as in PageVectors, as bytes: [tokens][dims] float32 or int8, [tokens][dims / 8 rounded up] bits. Scales with int8 only. */
  maxSim(
    type: VectorType,
    dims: number,
    query: Uint8Array,
    scales: Float32Array | undefined,
    pages: Uint8Array[],
    pageScales: Float32Array[] | undefined
  ): Float64Array<ArrayBuffer>
  createPageStore(type: VectorType, dims: number, threads?: number): NativePageStore
  /** [tokens, dims] of length 1 -> at most `clusters` of them; for every token its cluster. */
  poolTokens(
    vectors: Float32Array,
    dims: number,
    clusters: number
  ): Promise<{ data: Float32Array<ArrayBuffer>; clusters: number[] }>
}

/** Where the addon may be, best first: an explicit path, a local build, the prebuilt binary of the package. */
function candidates(root: string): string[] {
  const list: string[] = []
  const explicit = process.env.PALIGEMMA_NATIVE
  if (explicit) return [explicit]
  list.push(join(root, 'build', 'Release', 'paligemma.node'))
  const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`)
  if (process.platform === 'linux') {
    const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined
    list.push(join(folder, `node-paligemma.${report?.header?.glibcVersionRuntime ? 'glibc' : 'musl'}.node`))
  }
  list.push(join(folder, 'node-paligemma.node'))
  return list
}

let loaded: NativeBinding | undefined
let loadedFrom = ''

/** The file of the addon. Throws as {@link native}. */
export function nativePath(): string {
  native()
  return loadedFrom
}

/** The addon, loaded on first use. Throws ERR_NATIVE_MISSING with what to do. */
export function native(): NativeBinding {
  if (loaded) return loaded
  const root = join(__dirname, '..', '..')
  const tried = candidates(root)
  const path = tried.find(existsSync)
  if (!path) {
    throw new PaliGemmaError(
      'ERR_NATIVE_MISSING',
      `No native engine for ${process.platform}-${process.arch} (looked for ${tried.join(', ')}). ` +
        'Build it once with "npx paligemma build" (needs python3, make and a C++20 compiler), or "npm run build" in a clone.'
    )
  }
  try {
    loaded = createRequire(__filename)(path) as NativeBinding
    loadedFrom = path
  } catch (cause) {
    throw new PaliGemmaError(
      'ERR_NATIVE_MISSING',
      `The native engine ${path} does not load on ${process.platform}-${process.arch}: ${(cause as Error).message}. ` +
        'Build it for this machine with "npx paligemma build", or "npm run build" in a clone.',
      { cause }
    )
  }
  return loaded
}
