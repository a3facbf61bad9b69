/** From a name on the hub to a model that `loadModel` takes. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, rename, rm, rmdir, statfs } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { convert, type ConvertResult } from '../convert'
import { isBlockType, parseFileType, parseVisionType, storage, type StorageType } from '../formats/types'
import { PaliGemmaError } from '../base/errors'
import { isDiskFull, makeFolder } from '../base/output-file'
import { inspectModel } from '../api/inspect'
import { anySignal } from '../base/signals'
import { check, checkOptions, rule, type Rules, wrongOption } from '../base/validate'
import { Cache, type CachedModel, type CacheRecord, isCommit, recordFormat } from './cache'
import { downloadFile, presentBytes, takeFromHubCache } from './download'
import { acquireLock, type LockTiming } from './lock'
import { expectReference, isRevision } from './reference'
import { type Choice, chooseFiles, type HubFile, listFiles, resolveRevision } from './repository'
import { defaultTiming, type Fetch, type HubClient, type Timing } from './request'
import { hubSettings } from './settings'

/** How far {@link pull} is. */
export interface PullProgress {
  stage: 'download' | 'convert'
  /** 0..1 of the stage */
  fraction: number
  /** Of the download: bytes that are there, and all. */
  bytes: number
  totalBytes: number
}

/** What {@link pull} is about to do; called before the first large download. */
export interface PullPlan {
  id: string
  /** The commit that the revision stands for. */
  commit: string
  /** Of the model that results. */
  type: string
  /** Whether weights are converted, or a ready GGUF is taken. */
  converts: boolean
  /** What is downloaded; `present` bytes of it are there already. */
  files: { path: string; bytes: number; present: number }[]
}

/** Options of {@link pull}. */
export interface PullOptions {
  /** Type of the weights, as for `convert`; default Q8_0, or the only GGUF of a repository without a checkpoint. */
  type?: string
  /** Type of the vision tower; default Q8_0 in quantized files, else `type`. */
  visionType?: string
  /** Branch, tag or commit; default "main". */
  revision?: string
  /** `vae-oid.npz`: its decoder goes into the model, for `segment`. */
  maskDecoder?: string
  /** Keep the downloaded weights: for another type later. Default false. */
  keep?: boolean
  /** Convert again though the model is in the cache. Default false. */
  force?: boolean
  /** Default: `HF_ENDPOINT`, else https://huggingface.co. */
  endpoint?: string
  /** Access token; default: `HF_TOKEN`, else what `hf auth login` stored. false: none. It is sent to the endpoint only. */
  token?: string | false
  /** Default: `PALIGEMMA_CACHE`, else the system's cache folder. */
  cacheDir?: string
  /** Used in place of the global one; for proxies. It must leave redirects to the caller (`redirect: 'manual'`). */
  fetch?: Fetch
  onPlan?: (plan: PullPlan) => void
  onProgress?: (progress: PullProgress) => void
  /** What is worth telling a person: a pause before another attempt, waiting for another process. */
  onMessage?: (message: string) => void
  /** Rejects with the signal's reason. What was downloaded is kept, and used by the next pull. */
  signal?: AbortSignal
}

/** What {@link pull} made. */
export interface PullResult extends CachedModel {
  /** It was in the cache; nothing was downloaded. */
  cached: boolean
  /** What the conversion had to say. */
  notes: string[]
}

/** What tests replace. */
export interface PullHooks {
  timing?: Partial<Timing>
  lockTiming?: LockTiming
  /** Bytes that can be written at a path; undefined: not known. */
  freeBytes?: (path: string) => Promise<number | undefined>
  convert?: typeof convert
  env?: Record<string, string | undefined>
}

const optional = (accepts: (text: string) => boolean, expected: string) => ({
  expected,
  accepts: (v: unknown) => typeof v === 'string' && accepts(v)
})

const pullRules: Rules<PullOptions> = {
  type: rule.text,
  visionType: rule.text,
  revision: optional(isRevision, 'branch, tag or commit'),
  maskDecoder: rule.path,
  keep: rule.flag,
  force: rule.flag,
  endpoint: rule.text,
  token: { expected: 'access token or false', accepts: (v) => typeof v === 'string' || v === false },
  cacheDir: rule.path,
  fetch: rule.callback,
  onPlan: rule.callback,
  onProgress: rule.callback,
  onMessage: rule.callback,
  signal: rule.signal
}

// More connections do not make a download faster on most lines; with one, small pauses add up.
const parallelDownloads = 3

/**
 * Downloads a PaliGemma from the Hugging Face hub, verifies it, converts it to one GGUF and keeps that in the cache,
 * where `loadModel(id)` finds it. What is there already is not done again; what was interrupted goes on.
 *
 * @param id "google/paligemma2-3b-mix-224", optionally with "@revision" and ":type"
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND (no such repository, revision or file), ERR_ACCESS_DENIED (gated or private),
 * ERR_DOWNLOAD_FAILED, ERR_DISK_FULL, ERR_INVALID_OPTION, and what `convert` throws; an abort rejects with the signal's reason
 */
export async function pull(id: string, options: PullOptions = {}, hooks: PullHooks = {}): Promise<PullResult> {
  const reference = expectReference(id)
  checkOptions<PullOptions>('pull', options, pullRules)
  const revision = agree('revision', reference.revision, options.revision) ?? 'main'
  const type = agree('type', reference.type, options.type === undefined ? undefined : parseFileType(options.type).name)
  const visionType = options.visionType === undefined ? undefined : parseVisionType(options.visionType)
  const { signal, onMessage } = options
  signal?.throwIfAborted()
  const maskHash = options.maskDecoder === undefined ? null : await hashOf(options.maskDecoder)
  const settings = await hubSettings(options, hooks.env)
  const cache = new Cache(settings.cacheDir)
  const wanted: Wanted = { type, visionType, maskHash }

  if (isCommit(revision) && !options.force) {
    const found = await findSame(cache, reference.id, revision, wanted)
    if (found) return { ...found, cached: true, notes: [] }
  }
  const lock = await acquireLock(cache.lockFile(reference.id), {
    signal,
    onWait: (owner) => onMessage?.(`waiting for ${owner}, which is pulling ${reference.id}`),
    ...(hooks.lockTiming && { timing: hooks.lockTiming })
  })
  const both = anySignal([signal, lock.lost])
  try {
    const client: HubClient = {
      endpoint: settings.endpoint,
      token: settings.token,
      fetch: options.fetch ?? (async (url, init) => await fetch(url, init)),
      timing: { ...defaultTiming, ...hooks.timing },
      signal: both.signal,
      onRetry: onMessage
    }
    return await new Pull(reference.id, revision, wanted, client, cache, settings.hubCacheDir, options, hooks).run()
  } finally {
    both.release()
    await lock.release()
  }
}

interface Wanted {
  type: string | undefined
  visionType: StorageType | undefined
  maskHash: string | null
}

/** An option that the name may carry as well. */
function agree(name: string, inName: string | undefined, option: string | undefined): string | undefined {
  if (inName !== undefined && option !== undefined && inName !== option)
    throw wrongOption(name, `${inName} as the name says`, option)
  return option ?? inName
}

async function hashOf(path: string): Promise<string> {
  check('maskDecoder', path, rule.path)
  const hash = createHash('sha256')
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  } catch (cause) {
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
  return hash.digest('hex')
}

/** A model of the cache that is what would be made. Without a wish for a mask decoder one does no harm. */
async function findSame(
  cache: Cache,
  id: string,
  commit: string,
  { type, visionType, maskHash }: Wanted
): Promise<CachedModel | undefined> {
  return (await cache.modelsOf(id, commit)).find(
    (model) =>
      model.format === recordFormat &&
      (type === undefined ? model.type === 'Q8_0' || !model.converted : model.type === type) &&
      model.visionType === (visionType ?? null) &&
      (maskHash === null || model.maskDecoder === maskHash)
  )
}

class Pull {
  constructor(
    private readonly id: string,
    private readonly revision: string,
    private readonly wanted: Wanted,
    private readonly client: HubClient,
    private readonly cache: Cache,
    private readonly hubCacheDir: string,
    private readonly options: PullOptions,
    private readonly hooks: PullHooks
  ) {}

  async run(): Promise<PullResult> {
    const commit = await resolveRevision(this.client, this.id, this.revision)
    const found = this.options.force ? undefined : await findSame(this.cache, this.id, commit, this.wanted)
    if (found) {
      // The branch may have come back to a commit that is here, or be asked for by another name.
      const record = JSON.parse(await readFile(found.path.replace(/\.gguf$/i, '.json'), 'utf8')) as CacheRecord
      return {
        ...(await this.cache.add({ ...record, revision: this.revision, pulledAt: new Date().toISOString() })),
        cached: true,
        notes: []
      }
    }
    const choice = chooseFiles(await listFiles(this.client, this.id, commit), {
      id: this.id,
      type: this.wanted.type,
      mustConvert: this.wanted.visionType !== undefined || this.wanted.maskHash !== null
    })
    const dir = this.cache.downloadDir(this.id, commit)
    const type = choice.kind === 'gguf' ? choice.type : (this.wanted.type ?? 'Q8_0')
    await makeFolder(dir, 'PALIGEMMA_CACHE')
    const files = await Promise.all(
      choice.files.map(async (file) => ({
        path: file.path,
        bytes: file.bytes,
        present: await presentBytes(join(dir, file.path), file)
      }))
    )
    this.options.onPlan?.({ id: this.id, commit, type, converts: choice.kind === 'checkpoint', files })

    await this.download(choice, commit, dir, type)
    const target = this.cache.modelDir(this.id, commit)
    await makeFolder(target, 'PALIGEMMA_CACHE')
    const result = await fullDisk(target, async () =>
      choice.kind === 'gguf' ? await this.takeReady(choice, dir, target) : await this.convert(dir, target, type)
    )
    this.client.signal?.throwIfAborted()
    const model = await this.cache.add({
      format: recordFormat,
      id: this.id,
      revision: this.revision,
      commit,
      type,
      visionType: this.wanted.visionType ?? null,
      maskDecoder: this.wanted.maskHash,
      converted: choice.kind === 'checkpoint',
      pulledAt: new Date().toISOString(),
      ...result.record
    })
    if (!this.options.keep) await this.removeDownloads(dir)
    return { ...model, cached: false, notes: result.notes }
  }

  /** Small files first: config.json tells how large the converted model will be. */
  private async download(choice: Choice, commit: string, dir: string, type: string): Promise<void> {
    const { onProgress } = this.options
    const totalBytes = choice.files.reduce((sum, file) => sum + file.bytes, 0)
    const there = new Map<HubFile, number>()
    const report = (file: HubFile, bytes: number): void => {
      there.set(file, bytes)
      const sum = [...there.values()].reduce((a, b) => a + b, 0)
      onProgress?.({ stage: 'download', fraction: totalBytes === 0 ? 1 : sum / totalBytes, bytes: sum, totalBytes })
    }
    const fetchFile = async (client: HubClient, file: HubFile): Promise<void> => {
      const target = {
        id: this.id,
        commit,
        file,
        path: join(dir, file.path),
        onBytes: (bytes: number) => report(file, bytes)
      }
      if (
        (await presentBytes(target.path, file)) < file.bytes &&
        (await takeFromHubCache(this.hubCacheDir, target, client.signal))
      )
        return report(file, file.bytes)
      await downloadFile(client, target)
    }
    const isLarge = (file: HubFile): boolean => /\.(safetensors|gguf)$/i.test(file.path)
    const small = choice.files.filter((file) => !isLarge(file))
    const large = choice.files.filter(isLarge)
    await this.together(small, fetchFile)
    await this.checkSpace(large, dir, choice.kind === 'checkpoint' ? type : undefined)
    await this.together(large, fetchFile)
  }

  /** A few files at a time; the first failure ends the others. */
  private async together(
    files: readonly HubFile[],
    fetchFile: (client: HubClient, file: HubFile) => Promise<void>
  ): Promise<void> {
    const failed = new AbortController()
    const both = anySignal([this.client.signal, failed.signal])
    const client = { ...this.client, signal: both.signal }
    const queue = [...files]
    const errors: unknown[] = []
    try {
      await Promise.all(
        Array.from({ length: parallelDownloads }, async () => {
          for (let file = queue.shift(); file !== undefined && errors.length === 0; file = queue.shift()) {
            await fetchFile(client, file).catch((error: unknown) => {
              errors.push(error)
              failed.abort(error)
            })
          }
        })
      )
    } finally {
      both.release()
    }
    this.client.signal?.throwIfAborted()
    if (errors.length > 0) throw errors[0]
  }

  private async checkSpace(files: readonly HubFile[], dir: string, convertTo: string | undefined): Promise<void> {
    const free = await (this.hooks.freeBytes ?? freeBytes)(dir)
    if (free === undefined) return
    let missing = 0
    for (const file of files) missing += file.bytes - (await presentBytes(join(dir, file.path), file))
    const weights = files.reduce((sum, file) => sum + file.bytes, 0)
    const converted = convertTo === undefined ? 0 : (weights / (await weightBytes(dir))) * bytesPerWeight(convertTo)
    if (missing + converted <= free) return
    throw new PaliGemmaError(
      'ERR_DISK_FULL',
      `${this.cache.dir}: pulling ${this.id} needs ${gigabytes(missing)} for the download` +
        `${converted > 0 ? ` and about ${gigabytes(converted)} for the model` : ''}, but only ${gigabytes(free)} are free; make room, or set PALIGEMMA_CACHE to a folder on another disk`
    )
  }

  private async convert(dir: string, target: string, type: string): Promise<Made> {
    const { maskHash, visionType } = this.wanted
    const name = `${this.id.split('/')[1]!}-${[type, ...(visionType === undefined ? [] : [`vision-${visionType}`]), ...(maskHash === null ? [] : ['mask'])].join('-')}.gguf`
    const out = join(target, name)
    const result: ConvertResult = await (this.hooks.convert ?? convert)({
      source: dir,
      out,
      type,
      visionType,
      maskDecoder: this.options.maskDecoder,
      signal: this.client.signal,
      onProgress: (fraction) => this.options.onProgress?.({ stage: 'convert', fraction, bytes: 0, totalBytes: 0 })
    })
    return { record: { model: name, vision: null, bytes: result.bytes }, notes: result.notes }
  }

  private async takeReady(
    { model, vision, type }: Choice & { kind: 'gguf' },
    dir: string,
    target: string
  ): Promise<Made> {
    // A file that no GGUF reader takes must not become a model. One with a vision tower needs no second file.
    const { tensors } = await inspectModel(join(dir, model.path), { maxArray: 0 })
    const files = [model, ...(vision && !tensors.some(({ name }) => name.startsWith('v.')) ? [vision] : [])]
    if (files.length > 1) await inspectModel(join(dir, vision!.path), { maxArray: 0 })
    for (const file of files) await rename(join(dir, file.path), join(target, basename(file.path)))
    return {
      record: {
        model: basename(model.path),
        vision: files.length < 2 ? null : basename(vision!.path),
        bytes: files.reduce((sum, file) => sum + file.bytes, 0)
      },
      notes: [`${this.id} has this model as ${type}: nothing had to be converted`]
    }
  }

  private async removeDownloads(dir: string): Promise<void> {
    await rm(dir, { recursive: true, force: true })
    // The commit's and the repository's folder, where they are empty now.
    for (const parent of [dirname(dir), dirname(dirname(dir))]) await rmdir(parent).catch(() => {})
  }
}

interface Made {
  record: Pick<CacheRecord, 'model' | 'vision' | 'bytes'>
  notes: string[]
}

async function fullDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!isDiskFull(error)) throw error
    throw new PaliGemmaError(
      'ERR_DISK_FULL',
      `${path}: the disk is full; make room and run the same command, the download is kept`,
      { cause: error }
    )
  }
}

async function freeBytes(path: string): Promise<number | undefined> {
  return await statfs(path).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => undefined
  )
}

const gigabytes = (bytes: number): string =>
  bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`

/** Bytes of a weight in the download: what config.json says; float16 where it says nothing, for which most room is needed. */
async function weightBytes(dir: string): Promise<number> {
  const config = await readFile(join(dir, 'config.json'), 'utf8')
    .then((text) => JSON.parse(text) as Record<string, unknown>)
    .catch(() => ({}) as Record<string, unknown>)
  const text = config['text_config'] as Record<string, unknown> | undefined
  return [config['torch_dtype'], config['dtype'], text?.['torch_dtype'], text?.['dtype']].find(
    (value) => typeof value === 'string'
  ) === 'float32'
    ? 4
    : 2
}

/** Of the converted model as a whole: its embedding has 6 bits and its vision tower 8 where the rest has fewer. */
function bytesPerWeight(type: string): number {
  const { base } = parseFileType(type)
  const bytes = storage[base].bytes / storage[base].block
  return isBlockType(base) ? Math.max(bytes, 0.35 + 0.7 * bytes) : bytes
}
