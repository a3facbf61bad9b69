/** A loaded native model with its running jobs: what all calls of a PaliGemma share. */
import type { TakenAdapter } from '../../convert/adapters/option'
import type { TrainedAdapter } from '../../convert/adapters/trained'
import { type AdapterInfo, chooseAdapters, readAdapters, toAdapterInfo } from '../options/adapters'
import { inNoContext } from '../../base/call'
import { PaliGemmaError, fromNative, nativeAborted } from '../../base/errors'
import { checkImage, isEmbedding, type ImageInput } from '../../images/image-input'
import { cudaKernels } from '../../engine/cuda-kernels'
import { readMaskTensors } from '../../output/masks/mask-file'
import type {
  NativeBinding,
  NativeEvent,
  NativeImage,
  NativeLoadOptions,
  NativeModel,
  NativeModelInfo,
  NativeRequest,
  NativeToken
} from '../../engine/native'
import { looksLikeZip } from '../../formats/npz'
import { defaults, type LoadOptions } from '../options/options'
import type { ImageTransform } from '../../images/transform'
import { preprocess, type PreprocessedImage } from '../../images/preprocess'
import { RecentPictures } from '../../images/recent'
import type { PreprocessOptions } from '../../images/preprocess-options'
import type { Tile } from '../../images/tile-plan'
import { preprocessTiles, type PlanTiles } from '../../images/tiles'
import { hintAtShape } from '../../images/shape-hint'
import { withoutPlaceholders } from '../options/prompts'
import { checkReadable } from '../../base/permission'
import { anySignal, ownController, untilAborted } from '../../base/signals'
import { wrongOption, type WithPaths } from '../../base/validate'

/** Options of loading, with the model as a file. */
export type HostOptions = WithPaths<LoadOptions>

export type EndEvent = Extract<NativeEvent, { kind: 'end' }>

interface JobHandler {
  token: (text: string, token: NativeToken) => void
  end: (event: EndEvent) => void
  error: (error: PaliGemmaError) => void
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: unknown) => void } {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((res, rej) => {
    resolve = res
    reject = rej
  })
  return { promise, resolve, reject }
}

/**
 * Routes native events to the jobs they belong to. The engine holds this object through its callback for as long as
 * the native model lives, so it must not refer to the model itself: an idle model would never be collected.
 */
class Jobs {
  private readonly handlers = new Map<number, JobHandler>()
  private load: { resolve: (info: NativeModelInfo) => void; reject: (error: PaliGemmaError) => void } | undefined
  private readonly stopping = deferred<void>()

  readonly ready: Promise<NativeModelInfo>
  readonly stopped = this.stopping.promise

  constructor() {
    this.ready = new Promise((resolve, reject) => {
      this.load = { resolve, reject }
    })
  }

  add(job: number, handler: JobHandler): void {
    this.handlers.set(job, handler)
  }
  remove(job: number): void {
    this.handlers.delete(job)
  }

  readonly deliver = (events: NativeEvent[]): void => {
    for (const event of events) this.deliverOne(event)
  }

  private deliverOne(event: NativeEvent): void {
    const handler = this.handlers.get(event.job)
    switch (event.kind) {
      case 'ready':
        this.load?.resolve(event.info)
        this.load = undefined
        break
      case 'stopped':
        this.failAll(new PaliGemmaError('ERR_DISPOSED', 'The model was disposed'))
        this.stopping.resolve()
        break
      case 'token':
        handler?.token(event.text, event.token)
        break
      case 'end':
        this.handlers.delete(event.job)
        handler?.end(event)
        break
      case 'error': {
        const error =
          event.code === nativeAborted
            ? new PaliGemmaError('ERR_INTERNAL', 'The engine ended a job that nobody cancelled')
            : fromNative(event)
        if (event.job === 0) this.failAll(error)
        this.handlers.delete(event.job)
        handler?.error(error)
      }
    }
  }

  private failAll(error: PaliGemmaError): void {
    this.load?.reject(error)
    this.load = undefined
    const handlers = [...this.handlers.values()]
    this.handlers.clear()
    for (const handler of handlers) handler.error(error)
  }
}

/** A picture ready to be submitted: small, whatever the original was. */
export interface PreparedImage {
  native: NativeImage
  /** Missing for embeddings that were not made by encodeImage. */
  transform?: ImageTransform
}

/** A part of a picture, ready to be submitted. */
export interface PreparedTile extends PreparedImage {
  tile: Tile
  transform: ImageTransform
}

/** A limit on processes or memory made the engine start fewer than it was told to: slower, otherwise the same. */
function warnOfFewerThreads(started: number, wanted = 1): void {
  if (started >= wanted) return
  process.emitWarning(
    `The system gave the model ${started} of ${wanted} compute threads. Lower threads in loadModel, or raise the ` +
      'limit ' +
      "(the container's pids limit, TasksMax, ulimit -u, ulimit -v)",
    { type: 'PaliGemmaWarning', code: 'PALIGEMMA_FEWER_THREADS' }
  )
}

let toldOfTables = false

/** Kernels that compute wrongly on this machine were found at start-up and are not used: slower, but right. */
function warnOfBrokenTables({ isa, broken = [] }: ReturnType<NativeBinding['cpuInfo']>): void {
  if (toldOfTables || broken.length === 0) return
  toldOfTables = true
  const tables = broken.map((table) => `${table.isa} (${table.kernels.join(', ')})`).join(' and ')
  process.emitWarning(
    `Wrong results of ${tables} on this machine: ${isa} is used in its place. Run "paligemma verify" and report its ` +
      'output; a damaged build of the engine or a failing processor may be the cause',
    { type: 'PaliGemmaWarning', code: 'PALIGEMMA_KERNELS' }
  )
}

/** What no user sets: to observe the inputs of all matrices, and the CPU's kernel table. */
export interface EngineOnly {
  importance?: boolean
  isa?: string
}

/** The options as the addon takes them, with what is read here: the mask decoder's npz and PEFT's tensors. */
async function readLoadOptions(
  binding: NativeBinding,
  options: HostOptions,
  extra: EngineOnly
): Promise<NativeLoadOptions> {
  const { maskDecoder, signal } = options
  const adapters = options.adapters as TakenAdapter[] | undefined
  const isArchive = maskDecoder !== undefined && (await looksLikeZip(maskDecoder))
  return definedOnly({
    path: options.model,
    visionPath: options.vision,
    maskDecoder: isArchive ? await untilAborted(readMaskTensors(maskDecoder), signal) : maskDecoder,
    ...(adapters && (await untilAborted(readAdapters(adapters), signal))),
    weights: options.weights,
    device: options.device,
    cudaKernels: await untilAborted(cudaKernels(binding, options.device, extra.isa), signal),
    threads: options.threads,
    contextSize: options.contextSize,
    maxSequences: options.maxSequences,
    kvCacheType: options.kvCacheType,
    attentionWindow: options.attentionWindow,
    finalSoftcap: options.finalSoftcap,
    ...extra
  })
}

const filesOf = (adapters: readonly TakenAdapter[]): string[] =>
  adapters.filter(({ trained }) => !trained).map(({ file }) => file)

export class ModelHost {
  readonly adapters: AdapterInfo[]
  private readonly adapterFiles: string[]
  /** Indices, in the engine, of adapters that `fit` made: loaded, or brought there when a request first names one. */
  private readonly trained = new Map<TrainedAdapter, Promise<number>>()
  private readonly recent = new RecentPictures<PreprocessedImage>()
  private disposing: Promise<void> | undefined
  /** Ends what is being decoded for a model that is gone. */
  private readonly closing = ownController()
  private requests = 0

  private constructor(
    readonly binding: NativeBinding,
    readonly model: NativeModel,
    readonly info: NativeModelInfo,
    readonly options: Omit<HostOptions, 'signal' | 'onProgress'>,
    private readonly jobs: Jobs
  ) {
    this.adapters = info.adapters.map(toAdapterInfo)
    const taken = (options.adapters as TakenAdapter[] | undefined) ?? []
    this.adapterFiles = taken.map(({ file }) => file)
    for (const [i, { trained }] of taken.entries()) if (trained) this.trained.set(trained, Promise.resolve(i))
  }

  /** Loads with options already checked. */
  static async open(binding: NativeBinding, options: HostOptions, extra: EngineOnly = {}): Promise<ModelHost> {
    const { model: path, vision, maskDecoder, adapters = [], signal, onProgress, threads } = options
    signal?.throwIfAborted()
    await checkReadable(path, vision, maskDecoder, ...filesOf(adapters as TakenAdapter[]))
    onProgress?.(0)
    const jobs = new Jobs()
    jobs.ready.catch(() => {}) // an abort may leave it without a reader
    const given = await readLoadOptions(binding, options, extra)
    let model: NativeModel
    try {
      model = inNoContext(() => new binding.Model(given, jobs.deliver))
    } catch (error) {
      throw fromNative(error)
    }
    try {
      const info = await untilAborted(jobs.ready, signal)
      const cpu = binding.cpuInfo?.()
      if (info.device === 'cpu') {
        warnOfFewerThreads(info.threads, threads ?? cpu?.threads)
        if (cpu) warnOfBrokenTables(cpu)
      }
      // without the caller's callback and signal, which may hold much alive
      const { signal: _, onProgress: __, ...kept } = options
      const host = new ModelHost(binding, model, info, kept, jobs)
      onProgress?.(1)
      return host
    } catch (error) {
      model.dispose()
      throw error
    }
  }

  /** Counts a request while it runs; refuses it beyond `maxQueue`. */
  async admit<T>(work: () => Promise<T>): Promise<T> {
    const { maxQueue } = this.options
    if (maxQueue !== undefined && this.requests >= maxQueue) {
      throw new PaliGemmaError(
        'ERR_BUSY',
        `${this.requests} requests are under way, as many as maxQueue allows; try again later or raise it in loadModel`
      )
    }
    this.requests++
    try {
      return await work()
    } finally {
      this.requests--
    }
  }

  get maxSequences(): number {
    return this.options.maxSequences ?? defaults.maxSequences
  }
  get runningRequests(): number {
    return this.requests
  }
  get disposed(): boolean {
    return this.disposing !== undefined
  }

  throwIfDisposed(): void {
    if (this.disposed) throw disposedError()
  }

  /** Work that ends with the caller's signal or with the model, whichever comes first. */
  private async whileOpen<T>(signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const either = anySignal([signal, this.closing.signal])
    try {
      return await untilAborted(work(either.signal!), this.closing.signal)
    } finally {
      either.release()
    }
  }

  /** The `adapters` option of a request as the addon takes it. */
  async adapterUses(chosen: LoadOptions['adapters']): Promise<NativeRequest['adapters']> {
    const taken = chosen as TakenAdapter[] | undefined
    const places = new Map<TrainedAdapter, number>()
    for (const { trained } of taken ?? []) if (trained) places.set(trained, await this.placeOf(trained))
    return chooseAdapters(this.adapters, this.adapterFiles, taken, places)
  }

  private async placeOf(adapter: TrainedAdapter): Promise<number> {
    const known = this.trained.get(adapter)
    if (known) return await known
    // scale 0: requests that choose no adapters go on without it
    const added = { name: 'a trained adapter', tensors: adapter.engineTensors(), scale: 0 }
    const place = this.run({ kind: 'addAdapter', images: [], prompt: '', adapter: added }, {}).then(
      (end) => end!.values![0]!
    )
    this.trained.set(adapter, place)
    place.catch(() => this.trained.delete(adapter))
    return await place
  }

  /** Decodes and resizes pictures to what the model takes. `images` and `image` as in the options of the calls. */
  async prepareImages(
    options: { image?: ImageInput | undefined; images?: ImageInput[] | undefined },
    signal?: AbortSignal
  ): Promise<PreparedImage[]> {
    if (options.image !== undefined && options.images !== undefined) {
      throw new PaliGemmaError('ERR_INVALID_OPTION', 'Expected image or images but received both')
    }
    const images = options.images ?? (options.image === undefined ? [] : [options.image])
    for (const [i, image] of images.entries()) checkImage(image, options.images ? `images[${i}]` : 'image')
    if (images.length > 0) this.checkVision()
    return await this.whileOpen(
      signal,
      async (signal) => await Promise.all(images.map(async (image) => await this.prepareImage(image, signal)))
    )
  }

  private async prepareImage(image: ImageInput, signal?: AbortSignal): Promise<PreparedImage> {
    if (isEmbedding(image)) {
      const { imageTokens, textHidden } = this.info
      if (image.data.length !== imageTokens * textHidden) {
        throw new PaliGemmaError(
          'ERR_INVALID_OPTION',
          `Expected an ImageEmbedding of [${imageTokens}, ${textHidden}] but received ` +
            `${image.data.length} values; an embedding only fits the model that made it`
        )
      }
      return { native: { embedding: image.data }, ...(image.transform && { transform: image.transform }) }
    }
    const { data, transform } = await preprocess(this.binding, image, this.pictureOptions(signal), this.recent)
    if (this.options.fit === undefined) hintAtShape(transform)
    return { native: { pixels: data }, transform }
  }

  /** Views of one picture, from one decode. */
  async prepareTiles(image: ImageInput, plan: PlanTiles, signal: AbortSignal): Promise<PreparedTile[]> {
    checkImage(image)
    this.checkVision()
    if (isEmbedding(image))
      throw wrongOption('image', 'a picture with tiles, not an ImageEmbedding, which has no pixels,', image)
    const views = await this.whileOpen(
      signal,
      async (signal) => await preprocessTiles(this.binding, image, this.pictureOptions(signal), plan)
    )
    return views.map(({ data, tile, transform }) => ({ native: { pixels: data }, tile, transform }))
  }

  private pictureOptions(signal: AbortSignal | undefined): PreprocessOptions {
    return {
      size: this.info.imageSize,
      resize: this.options.resize ?? this.info.resizeFilter,
      ...definedOnly({
        fit: this.options.fit,
        maxImagePixels: this.options.maxImagePixels,
        decodeTimeoutMs: this.options.decodeTimeoutMs,
        allowPrivateAddresses: this.options.allowPrivateAddresses,
        signal
      })
    }
  }

  private checkVision(): void {
    if (this.info.hasVision) return
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      'The model file has no vision tensors, so it takes no images; pass its vision GGUF as loadModel({ model, ' +
        'vision })'
    )
  }

  /**
   * Runs one job to its end. Rejects with its error, at once with `signal`'s reason, or with what `onToken` throws.
   * Resolves with undefined at once when `stop` aborts.
   */
  async run(
    request: NativeRequest,
    {
      onToken,
      signal,
      stop
    }: {
      onToken?: (text: string, token: NativeToken) => void
      signal?: AbortSignal | undefined
      stop?: AbortSignal | undefined
    }
  ): Promise<EndEvent | undefined> {
    this.throwIfDisposed()
    signal?.throwIfAborted()
    if (stop?.aborted) return undefined
    const job = this.submit(request)
    return await new Promise((resolve, reject) => {
      const close = (): void => {
        this.jobs.remove(job)
        signal?.removeEventListener('abort', onAbort)
        stop?.removeEventListener('abort', onStop)
      }
      const cancel = (): void => {
        close()
        this.model.cancel(job)
      }
      const onAbort = (): void => {
        cancel()
        reject(signal!.reason)
      }
      const onStop = (): void => {
        cancel()
        resolve(undefined)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      stop?.addEventListener('abort', onStop, { once: true })
      this.jobs.add(job, {
        token: (text, token) => {
          try {
            onToken?.(text, token)
          } catch (error) {
            cancel()
            reject(error)
          }
        },
        end: (event) => {
          close()
          resolve(event)
        },
        error: (error) => {
          close()
          reject(error)
        }
      })
    })
  }

  /** The one way in for every call: prompts with the placeholders of other processors are understood everywhere. */
  private submit(request: NativeRequest): number {
    try {
      const prompt = withoutPlaceholders(request.prompt, request.images.length)
      return this.model.submit(prompt === request.prompt ? request : { ...request, prompt })
    } catch (error) {
      throw fromNative(error)
    }
  }

  async dispose(): Promise<void> {
    if (!this.disposing) {
      this.disposing = this.jobs.stopped
      this.model.dispose()
      this.closing.abort(disposedError())
    }
    await this.disposing
  }
}

const disposedError = (): PaliGemmaError =>
  new PaliGemmaError('ERR_DISPOSED', 'The model was disposed; load it again to use it')

/** The object without its undefined properties: to the addon, a property that is there was given. */
export function definedOnly<T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>
  }
}
