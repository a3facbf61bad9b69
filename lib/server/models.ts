/** The models behind the names: loaded when needed, shared while in use, unloaded when nobody asks any more. */
import { PaliGemma } from '../api/model'
import type { ModelStats } from '../api/info'
import { loadRules, type LoadOptions } from '../api/options/options'
import { TrainedAdapter } from '../convert/adapters/trained'
import { PaliGemmaError } from '../base/errors'
import { isUrl } from '../base/realms'
import { anySignal, ownController, untilAborted } from '../base/signals'
import { givenOptions, readFields, rule, show, take, wrongOption } from '../base/validate'
import { ApiError } from './errors'
import type { Logger } from './log'
import type { AdaptedModel, ServedModel } from './options'

/** Loads a model; {@link loadModel} but in tests. */
export type Load = (options: LoadOptions) => Promise<PaliGemma>

/** A model in use: release it when the request has ended. */
export interface OpenModel {
  name: string
  model: PaliGemma
  /** What requests under this name use; undefined: as the model was loaded. */
  adapters: Adapters | undefined
  release: () => void
}

type Adapters = NonNullable<LoadOptions['adapters']>

/** One set of weights. */
class Weights {
  users = 0
  /** While it is loaded. */
  model: PaliGemma | undefined
  private loading: Promise<PaliGemma> | undefined
  private timer: NodeJS.Timeout | undefined
  /** Of the load that is under way. */
  private stop = ownController()

  constructor(
    readonly name: string,
    private readonly source: PaliGemma | LoadOptions,
    private readonly services: { load: Load; idleUnloadMs: number | undefined; logger: Logger }
  ) {
    if (!(source instanceof PaliGemma)) return
    this.model = source
    this.loading = Promise.resolve(source)
  }

  get loaded(): boolean {
    return this.model !== undefined
  }

  async get(): Promise<PaliGemma> {
    this.loading ??= this.loadNow(this.source as LoadOptions)
    return await this.loading
  }

  private async loadNow(options: LoadOptions): Promise<PaliGemma> {
    const { load, logger } = this.services
    const start = performance.now()
    const stop = (this.stop = ownController())
    let release = (): void => {}
    try {
      const given = givenOptions('loadModel', options, loadRules)
      const either = anySignal([given.signal, stop.signal])
      release = either.release
      const model = await load({ ...given, signal: either.signal })
      this.model = model
      logger.info({ model: this.name, ms: Math.round(performance.now() - start) }, 'model loaded')
      return model
    } catch (error) {
      if (stop.signal.aborted) throw error
      this.loading = undefined // the next request tries again
      const { code, message } = error as PaliGemmaError
      logger.error({ model: this.name, code, err: message }, 'model not loaded')
      throw error
    } finally {
      release()
    }
  }

  enter(): void {
    this.users++
    clearTimeout(this.timer)
  }

  leave(): void {
    const { idleUnloadMs } = this.services
    if (--this.users > 0 || idleUnloadMs === undefined || this.source instanceof PaliGemma) return
    this.timer = setTimeout(() => void this.unload(), idleUnloadMs)
    this.timer.unref()
  }

  /** Ends a load that is under way. Models that were given loaded are their owner's. */
  async unload(): Promise<void> {
    clearTimeout(this.timer)
    const { loading, source } = this
    if (loading === undefined || source instanceof PaliGemma) return
    this.loading = undefined
    this.model = undefined
    this.stop.abort(stopping())
    const model = await loading.catch(() => undefined)
    if (!model) return
    await model.dispose()
    this.services.logger.info({ model: this.name }, 'model unloaded')
  }
}

interface Entry {
  weights: Weights
  adapters: Adapters | undefined
}

/** Every model of a server, by name. */
export class Models {
  private readonly entries = new Map<string, Entry>()
  private readonly all: Weights[] = []
  private closed = false
  readonly startedAt = Math.floor(Date.now() / 1000)

  constructor(
    models: Record<string, ServedModel>,
    services: { load: Load; idleUnloadMs: number | undefined; logger: Logger }
  ) {
    const given = entriesOf(models)
    const adapted = given.flatMap(([name, source]) =>
      isAdapted(source) ? [[name, takeAdapted(name, source)] as const] : []
    )
    for (const [name, source] of given) {
      if (isAdapted(source)) continue
      const own = adapted.filter(([, { base }]) => base === name).flatMap(([, { adapters }]) => adapters)
      const { options, adapters } = withAdapters(name, source, own)
      const weights = new Weights(name, options, services)
      this.all.push(weights)
      this.entries.set(name, { weights, adapters })
    }
    for (const [name, { base, adapters }] of adapted) {
      const weights = this.entries.get(base)?.weights
      if (!weights) throw wrongModel(name, `a model's name for base, but received ${show(base)}`)
      this.entries.set(name, { weights, adapters })
    }
    // in the order of the names, not of bases first
    const ordered = given.map(([name]) => [name, this.entries.get(name)!] as const)
    this.entries = new Map(ordered)
  }

  get names(): string[] {
    return [...this.entries.keys()]
  }

  has(name: string): boolean {
    return this.entries.has(name)
  }

  isLoaded(name: string): boolean {
    return this.entries.get(name)?.weights.loaded ?? false
  }

  /** Of each set of weights that is loaded, under its own name. */
  stats(): [name: string, stats: ModelStats][] {
    return this.all.flatMap(({ name, model }) => {
      try {
        return model ? [[name, model.stats()] as [string, ModelStats]] : []
      } catch {
        return [] // disposed by its owner
      }
    })
  }

  /** Loads all of them; rejects with the first failure. */
  async preload(): Promise<void> {
    await Promise.all(this.all.map(async (weights) => await weights.get()))
  }

  /** The name that a request means. */
  nameOf(given: string | null | undefined): string {
    const name = given ?? this.names[0]!
    if (this.has(name)) return name
    throw new ApiError(
      404,
      'ERR_MODEL_NOT_FOUND',
      `The model ${show(name)} does not exist here. Known models: ${this.names.join(', ')}`,
      { param: 'model' }
    )
  }

  async open(given: string | null | undefined, signal: AbortSignal): Promise<OpenModel> {
    const name = this.nameOf(given)
    const { weights, adapters } = this.entries.get(name)!
    weights.enter()
    try {
      if (this.closed) throw stopping()
      const model = await untilAborted(weights.get().catch(notLoaded), signal)
      let released = false
      const release = (): void => {
        if (!released) weights.leave()
        released = true
      }
      return { name, model, adapters, release }
    } catch (error) {
      weights.leave()
      throw error
    }
  }

  async close(): Promise<void> {
    this.closed = true
    await Promise.all(this.all.map(async (weights) => await weights.unload()))
  }
}

export const stopping = (): ApiError =>
  new ApiError(503, 'ERR_DISPOSED', 'The server is shutting down; ask another one, or again later', {
    headers: { 'retry-after': '5', connection: 'close' }
  })

/** Paths of the server are not told to clients. */
function notLoaded(error: unknown): never {
  const code = error instanceof PaliGemmaError ? error.code : 'ERR_INTERNAL'
  throw new ApiError(503, code, `The model could not be loaded (${code}); the server's log says why`, { cause: error })
}

function isAdapted(source: ServedModel): source is AdaptedModel {
  if (typeof source !== 'object' || source === null || isUrl(source)) return false
  try {
    return !(source instanceof PaliGemma) && 'base' in source
  } catch (error) {
    throw new PaliGemmaError('ERR_INVALID_OPTION', 'A value of models cannot be read', { cause: error })
  }
}

function entriesOf(models: Record<string, ServedModel>): [string, ServedModel][] {
  try {
    return Object.entries(models)
  } catch (error) {
    throw wrongOption('models', 'object that can be read', models, error)
  }
}

// what each is, loadModel says when the model is loaded
const listRule = rule.listOf('adapters', (v) => typeof v === 'string' || (typeof v === 'object' && v !== null))

const takeAdapters = (name: string, adapters: unknown): Adapters =>
  take(`models.${name}.adapters`, adapters as Adapters, listRule)

function takeAdapted(name: string, source: AdaptedModel): AdaptedModel {
  const { base, adapters } = readFields(`models.${name}`, source, ['base', 'adapters'])
  return { base: base as string, adapters: takeAdapters(name, adapters ?? null) as AdaptedModel['adapters'] }
}

const wrongModel = (name: string, expected: string): PaliGemmaError =>
  new PaliGemmaError('ERR_INVALID_OPTION', `models.${name}: Expected ${expected}`)

function pathOf(adapter: Adapters[number]): string | TrainedAdapter {
  const alone = typeof adapter === 'string' || isUrl(adapter) || adapter instanceof TrainedAdapter
  const path = alone ? adapter : adapter.path
  return isUrl(path) ? path.href : path
}

/** The base's own adapters stay its own; those of names beside it are loaded with it. */
function withAdapters(
  name: string,
  source: Exclude<ServedModel, AdaptedModel>,
  others: Adapters
): { options: PaliGemma | LoadOptions; adapters: Adapters | undefined } {
  if (source === null || (typeof source !== 'string' && typeof source !== 'object'))
    throw wrongModel(name, `a path, LoadOptions, a loaded model or { base, adapters } but received ${show(source)}`)
  if (source instanceof PaliGemma) return { options: source, adapters: undefined }
  const options: LoadOptions = typeof source === 'string' || isUrl(source) ? { model: source } : source
  if (others.length === 0) return { options, adapters: undefined }
  const { adapters = [] } = readFields(`models.${name}`, options, ['adapters'])
  const own = takeAdapters(name, adapters)
  const added = [...new Set(others.map(pathOf))].filter((path) => !own.some((adapter) => pathOf(adapter) === path))
  return { options: { ...options, adapters: [...own, ...added] }, adapters: own }
}
