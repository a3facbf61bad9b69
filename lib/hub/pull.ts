/** From a name on the hub to a model that `loadModel` takes. */
import { join } from 'node:path'
import { sha256Of } from '../base/checksum'
import { PaliGemmaError } from '../base/errors'
import { makeFolder } from '../base/output-file'
import { publicCall } from '../base/call'
import { anySignal } from '../base/signals'
import { check, rule, wrongOption, type WithPaths } from '../base/validate'
import { parseFileType, parseVisionType } from '../formats/types'
import { readConfig } from '../convert/checkpoint/config'
import { refuseQuantized } from '../convert/checkpoint/quantized'
import { readPeftSettings } from '../convert/adapters/peft'
import { readJson } from '../formats/fields'
import { someOf } from '../formats/source'
import { Cache, recordFormat } from './cache'
import { findSame, type Lookup, lookUp } from './cached'
import { type Choice, chooseFiles, unknownGgufs } from './choose'
import { defaultTiming, type HubClient } from './client'
import { proxyUsed } from './failures'
import { presentBytes } from './download'
import { type GgufHeader, readGgufHeader } from './gguf-header'
import { snapshotFiles, snapshotHeader } from './hub-cache'
import { acquireLock } from './lock'
import { makeModel, removeDownloads } from './make'
import { type PullHooks, type PullOptions, type PullResult, pullRules } from './pull-options'
import { expectReference } from './reference'
import { listFiles } from './repository'
import { type HubSettings, hubSettings } from './settings'
import { transfer } from './transfer'

/** One call: what is asked for, and with what it works. */
interface Job extends Lookup {
  settings: HubSettings
  options: WithPaths<PullOptions>
  hooks: PullHooks
  /** See {@link LookedUp}. */
  without?: string | undefined
}

/**
 * Downloads a PaliGemma from the Hugging Face hub, verifies it, converts it to one GGUF and keeps that in the cache,
 * where `loadModel(id)` finds it. What is there already is not done again; what was interrupted goes on. A model that
 * is in the cache is found without a network and without writing anything.
 *
 * An adapter is pulled with its base: `loadModel` takes the adapter's name for both, `adapters` takes it for itself.
 *
 * @param id "google/paligemma2-3b-mix-224", optionally with "@revision" and ":type", or an address of the hub's pages
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND (no such repository, revision or file), ERR_ACCESS_DENIED (gated or
 * private; a cache that cannot be written), ERR_DOWNLOAD_FAILED, ERR_DISK_FULL, ERR_INVALID_OPTION, and what `convert`
 * throws; an abort rejects with the signal's reason
 */
export async function pull(id: string, options: PullOptions = {}, hooks: PullHooks = {}): Promise<PullResult> {
  check('hooks', hooks, rule.object)
  return await publicCall<WithPaths<PullOptions>, PullResult>('pull', options, pullRules, [], async (options) => {
    const job = await prepare(id, options, hooks)
    const result = await pullOne(job)
    return result.adapter ? await withBase(job, result) : result
  })
}

async function pullOne(job: Job): Promise<PullResult> {
  const { found, ...place } = await lookUp(job)
  return found ?? (await locked({ ...job, ...place }, place.commit))
}

/** An adapter is of use with its base only. */
async function withBase({ wanted, options, hooks, settings }: Job, adapter: PullResult): Promise<PullResult> {
  const base = adapter.adapter!.base
  if (base === null) {
    const note =
      `${adapter.id} is an adapter and names no model of the hub as its base: pull that, and load it with ` +
      `adapters: ['${adapter.id}']`
    return { ...adapter, notes: [...adapter.notes, note] }
  }
  const { revision: _, subfolder: __, force: ___, type: ____, ...rest } = options
  try {
    const job = await prepare(base, { ...rest, ...(wanted.type !== undefined && { type: wanted.type }) }, hooks)
    const under = await pullOne(job)
    if (under.adapter)
      throw new PaliGemmaError('ERR_MODEL_UNSUPPORTED', 'that is an adapter itself; merge the two with PEFT')
    const notes = [...adapter.notes, ...under.notes]
    return { ...adapter, base: under, cached: adapter.cached && under.cached, notes }
  } catch (cause) {
    options.signal?.throwIfAborted()
    if (!(cause instanceof PaliGemmaError)) throw cause
    throw new PaliGemmaError(
      cause.code,
      `${adapter.id} is an adapter of ${base}, which cannot be pulled from ${settings.endpoint}: ${cause.message}. ` +
        `With that solved, pull ${base} by itself or ${adapter.id} again`,
      { cause }
    )
  }
}

async function prepare(id: string, options: WithPaths<PullOptions>, hooks: PullHooks): Promise<Job> {
  const settings = await hubSettings(options, hooks.env)
  const reference = expectReference(id, settings.endpoint)
  const revision = agree('revision', reference.revision, options.revision) ?? 'main'
  const folder = agree('subfolder', reference.folder, options.subfolder)
  const type = agree('type', reference.type, options.type === undefined ? undefined : parseFileType(options.type).name)
  const visionType = options.visionType === undefined ? undefined : parseVisionType(options.visionType)
  const maskHash = options.maskDecoder === undefined ? null : await hashOf(options.maskDecoder)
  return {
    id: reference.id,
    revision,
    wanted: { type, visionType, maskHash, folder, file: reference.file },
    cache: new Cache(settings.cacheDir),
    client: newClient(settings, options, hooks),
    offline: settings.offline,
    force: options.force === true,
    hubCacheDir: settings.hubCacheDir,
    settings,
    options,
    hooks
  }
}

function newClient(settings: HubSettings, options: PullOptions, hooks: PullHooks): HubClient {
  return {
    endpoint: settings.endpoint,
    token: settings.token,
    tokenFrom: settings.tokenFrom,
    fetch: options.fetch ?? (async (url, init) => await fetch(url, init)),
    timing: { ...defaultTiming, ...hooks.timing },
    signal: options.signal,
    onRetry: options.onMessage,
    reached: new Set(),
    allowPrivate: settings.allowPrivate,
    // a proxy looks up names itself, and where there is one, there may be no name server
    lookUp: options.fetch === undefined && !proxyUsed(process.env)
  }
}

/** An option that the name may carry as well. */
function agree(name: string, inName: string | undefined, option: string | undefined): string | undefined {
  if (inName !== undefined && option !== undefined && inName !== option)
    throw wrongOption(name, `${inName} as the name says`, option)
  return option ?? inName
}

async function hashOf(path: string): Promise<string> {
  check('maskDecoder', path, rule.path)
  try {
    return await sha256Of(path)
  } catch (cause) {
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

/** One process at a time works on a repository. */
async function locked(job: Job, commit: string): Promise<PullResult> {
  const { id, cache, wanted, options, hooks } = job
  const lock = await acquireLock(cache.lockFile(id), {
    signal: options.signal,
    onWait: (owner) => options.onMessage?.(`waiting for ${owner}, which is pulling ${id}`),
    ...(hooks.lockTiming && { timing: hooks.lockTiming })
  })
  const both = anySignal([options.signal, lock.lost])
  try {
    // Another process may have made it until now.
    const found = job.force ? undefined : await findSame(cache, id, commit, wanted)
    if (found) return { ...found, cached: true, notes: [] }
    return await make({ ...job, client: { ...job.client, signal: both.signal } }, commit)
  } finally {
    both.release()
    await lock.release()
  }
}

/** Downloads and makes a model that the cache does not have. */
async function make(job: Job, commit: string): Promise<PullResult> {
  const { id, revision, wanted, cache, settings, options, hooks, without } = job
  const client = without === undefined ? job.client : withoutRequests(job.client, without, settings.hubCacheDir)
  const choice = await choose(job, commit)
  const dir = cache.downloadDir(id, commit)
  const converts = choice.kind === 'checkpoint'
  const type = choice.kind === 'gguf' ? choice.type : converts ? (wanted.type ?? 'Q8_0') : 'adapter'
  await makeFolder(dir, 'PALIGEMMA_CACHE')
  const files = await Promise.all(
    choice.files.map(async (file) => ({
      path: file.path,
      bytes: file.bytes,
      present: await presentBytes(join(dir, file.path), file)
    }))
  )
  options.onPlan?.({ id, commit, type, converts, files })
  await transfer(client, {
    id,
    commit,
    files: choice.files,
    dir,
    hubCacheDir: settings.hubCacheDir,
    onProgress: options.onProgress,
    check: hooks.convert ? undefined : async () => await checkConfig(choice, id, dir),
    checkIndex: async () => await checkShards(choice, id, dir),
    convertTo: converts ? type : undefined,
    freeBytes: hooks.freeBytes
  })
  const target = cache.modelDir(id, commit)
  await makeFolder(target, 'PALIGEMMA_CACHE')
  const made = await makeModel(choice, { id, dir, target, type, wanted, options, hooks, signal: client.signal })
  client.signal?.throwIfAborted()
  const isAdapter = choice.kind === 'adapter'
  const model = await cache.add({
    format: recordFormat,
    id,
    revision,
    commit,
    type,
    visionType: isAdapter ? null : (wanted.visionType ?? null),
    maskDecoder: isAdapter ? null : wanted.maskHash,
    converted: converts,
    ...(wanted.folder !== undefined && { folder: wanted.folder }),
    ...(wanted.file !== undefined && { file: wanted.file }),
    pulledAt: new Date().toISOString(),
    ...made.record
  })
  if (!options.keep) await removeDownloads(dir)
  const note = `made of what ${settings.hubCacheDir} has, since ${without}`
  return { ...model, cached: false, notes: without === undefined ? made.notes : [...made.notes, note] }
}

/** What is not in the cache of Hugging Face's library, or damaged there, is not to be had. */
function withoutRequests(client: HubClient, why: string, hubCacheDir: string): HubClient {
  const refuse = async (url: string): Promise<never> => {
    throw new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      `${hubCacheDir} has no whole copy of ${url}, and the hub is not asked: ${why}`
    )
  }
  return { ...client, fetch: refuse }
}

async function choose({ id, wanted, client, without, hubCacheDir }: Job, commit: string): Promise<Choice> {
  const files =
    without === undefined ? await listFiles(client, id, commit) : await snapshotFiles(hubCacheDir, id, commit)
  const mustConvert = wanted.visionType !== undefined || wanted.maskHash !== null
  const options = { id, type: wanted.type, mustConvert, folder: wanted.folder, file: wanted.file }
  const headers = new Map<string, GgufHeader | undefined>()
  for (const file of unknownGgufs(files, options))
    headers.set(
      file.path,
      without === undefined
        ? await readGgufHeader(client, id, commit, file)
        : await snapshotHeader(hubCacheDir, id, commit, file)
    )
  return chooseFiles(files, { ...options, headers })
}

/** Shards that the index names and the repository lacks: the others are of no use without them. */
async function checkShards(choice: Choice, id: string, dir: string): Promise<void> {
  if (choice.kind !== 'checkpoint') return
  const index = await readJson(join(dir, choice.folder, 'model.safetensors.index.json'), true)
  if (choice.beside.includes('model.safetensors') || !index?.has('weight_map')) return
  const names = new Set(Object.values(index.object('weight_map').values).map(String))
  const missing = [...names].filter((name) => !choice.beside.includes(name))
  if (missing.length > 0)
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${id} lacks ${someOf(missing)}, which its model.safetensors.index.json names; ask its owner to upload all shards`
    )
}

/** What config.json refuses need not be downloaded: quantized checkpoints, other models, adapters of other methods. */
async function checkConfig(choice: Choice, id: string, dir: string): Promise<void> {
  try {
    if (choice.kind === 'checkpoint') {
      refuseQuantized(id, undefined, choice.beside)
      await readConfig(join(dir, choice.folder))
    }
    if (choice.kind === 'adapter' && choice.files.length > 1) await readPeftSettings(join(dir, choice.folder))
  } catch (cause) {
    if (!(cause instanceof PaliGemmaError)) throw cause
    throw new PaliGemmaError(cause.code, cause.message.replaceAll(dir, id), { cause })
  }
}
