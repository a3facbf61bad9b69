/** From a name on the hub to a model that `loadModel` takes. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { makeFolder } from '../base/output-file'
import { publicCall } from '../base/call'
import { anySignal } from '../base/signals'
import { check, rule, wrongOption } from '../base/validate'
import { parseFileType, parseVisionType } from '../formats/types'
import { Cache, recordFormat } from './cache'
import { findSame, type Lookup, lookUp } from './cached'
import { defaultTiming, type HubClient } from './client'
import { presentBytes } from './download'
import { acquireLock } from './lock'
import { makeModel, removeDownloads } from './make'
import { type PullHooks, type PullOptions, type PullResult, pullRules } from './pull-options'
import { expectReference, type HubReference } from './reference'
import { chooseFiles, listFiles } from './repository'
import { type HubSettings, hubSettings } from './settings'
import { transfer } from './transfer'

/** One call: what is asked for, and with what it works. */
interface Job extends Lookup {
  settings: HubSettings
  options: PullOptions
  hooks: PullHooks
}

/**
 * Downloads a PaliGemma from the Hugging Face hub, verifies it, converts it to one GGUF and keeps that in the cache,
 * where `loadModel(id)` finds it. What is there already is not done again; what was interrupted goes on. A model that is
 * in the cache is found without a network and without writing anything.
 *
 * @param id "google/paligemma2-3b-mix-224", optionally with "@revision" and ":type"
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND (no such repository, revision or file), ERR_ACCESS_DENIED (gated or private; a
 * cache that cannot be written), ERR_DOWNLOAD_FAILED, ERR_DISK_FULL, ERR_INVALID_OPTION, and what `convert` throws; an abort
 * rejects with the signal's reason
 */
export async function pull(id: string, options: PullOptions = {}, hooks: PullHooks = {}): Promise<PullResult> {
  const reference = expectReference(id)
  check('hooks', hooks, rule.object)
  return await publicCall<PullOptions, PullResult>('pull', options, pullRules, [], async (options) => {
    const job = await prepare(reference, options, hooks)
    const { commit, found } = await lookUp(job)
    return found ?? (await locked(job, commit))
  })
}

async function prepare(reference: HubReference, options: PullOptions, hooks: PullHooks): Promise<Job> {
  const revision = agree('revision', reference.revision, options.revision) ?? 'main'
  const type = agree('type', reference.type, options.type === undefined ? undefined : parseFileType(options.type).name)
  const visionType = options.visionType === undefined ? undefined : parseVisionType(options.visionType)
  const maskHash = options.maskDecoder === undefined ? null : await hashOf(options.maskDecoder)
  const settings = await hubSettings(options, hooks.env)
  return {
    id: reference.id,
    revision,
    wanted: { type, visionType, maskHash },
    cache: new Cache(settings.cacheDir),
    client: newClient(settings, options, hooks),
    offline: settings.offline,
    force: options.force === true,
    settings,
    options,
    hooks
  }
}

function newClient(settings: HubSettings, options: PullOptions, hooks: PullHooks): HubClient {
  return {
    endpoint: settings.endpoint,
    token: settings.token,
    fetch: options.fetch ?? (async (url, init) => await fetch(url, init)),
    timing: { ...defaultTiming, ...hooks.timing },
    signal: options.signal,
    onRetry: options.onMessage,
    reached: new Set(),
    allowPrivate: settings.allowPrivate,
    lookUp: options.fetch === undefined
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
  const hash = createHash('sha256')
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  } catch (cause) {
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
  return hash.digest('hex')
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
  const { id, revision, wanted, cache, client, settings, options, hooks } = job
  const choice = chooseFiles(await listFiles(client, id, commit), {
    id,
    type: wanted.type,
    mustConvert: wanted.visionType !== undefined || wanted.maskHash !== null
  })
  const dir = cache.downloadDir(id, commit)
  const type = choice.kind === 'gguf' ? choice.type : (wanted.type ?? 'Q8_0')
  await makeFolder(dir, 'PALIGEMMA_CACHE')
  const files = await Promise.all(
    choice.files.map(async (file) => ({
      path: file.path,
      bytes: file.bytes,
      present: await presentBytes(join(dir, file.path), file)
    }))
  )
  options.onPlan?.({ id, commit, type, converts: choice.kind === 'checkpoint', files })
  await transfer(client, {
    id,
    commit,
    files: choice.files,
    dir,
    hubCacheDir: settings.hubCacheDir,
    onProgress: options.onProgress,
    convertTo: choice.kind === 'checkpoint' ? type : undefined,
    freeBytes: hooks.freeBytes
  })
  const target = cache.modelDir(id, commit)
  await makeFolder(target, 'PALIGEMMA_CACHE')
  const made = await makeModel(choice, { id, dir, target, type, wanted, options, hooks, signal: client.signal })
  client.signal?.throwIfAborted()
  const model = await cache.add({
    format: recordFormat,
    id,
    revision,
    commit,
    type,
    visionType: wanted.visionType ?? null,
    maskDecoder: wanted.maskHash,
    converted: choice.kind === 'checkpoint',
    pulledAt: new Date().toISOString(),
    ...made.record
  })
  if (!options.keep) await removeDownloads(dir)
  return { ...model, cached: false, notes: made.notes }
}
