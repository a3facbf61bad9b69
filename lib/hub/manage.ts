/** What `pull` has left on the disk: listed and removed. */
import { lstat, readdir, rm, rmdir, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { publicCall } from '../base/call'
import { checkReadable } from '../base/permission'
import { readOptions, rule, type Rules, type WithPaths } from '../base/validate'
import { Cache, type CachedModel, recordPath } from './cache'
import { acquireLock } from './lock'
import { expectReference, type HubReference } from './reference'
import { cacheDirectory } from './settings'
import { absentAs } from '../base/system-limits'

/** A model in the cache. */
export interface PulledModel extends CachedModel {
  /** What `loadModel` takes for it: "google/paligemma2-3b-mix-224:Q4_K_M". */
  name: string
}

/** Weights that were downloaded and are kept, or whose download was interrupted. */
export interface PulledDownload {
  /** Of the repository: "google/paligemma2-3b-mix-224". */
  id: string
  /** 40 hex digits. */
  commit: string
  /** The folder that holds its files. */
  path: string
  /** Of its files, unfinished ones too; what is linked from Hugging Face's own cache counts nothing. */
  bytes: number
}

/** What {@link listPulled} finds. */
export interface PulledList {
  /** The cache's folder. */
  dir: string
  /** By name, the one pulled last first. */
  models: PulledModel[]
  /** By name. */
  downloads: PulledDownload[]
  /** Of all of these. */
  bytes: number
}

/** What {@link removePulled} has removed. */
export type RemovedList = Omit<PulledList, 'dir'>

/** Options of {@link listPulled}. */
export interface ListPulledOptions {
  /** Default: `PALIGEMMA_CACHE`, else the system's cache folder. */
  cacheDir?: string | URL | undefined
}

/** Options of {@link removePulled}. */
export interface RemovePulledOptions extends ListPulledOptions {
  /** What is worth telling a person: waiting for a process that is pulling the model. */
  onMessage?: ((message: string) => void) | undefined
  /** Rejects with the signal's reason while it waits. */
  signal?: AbortSignal | undefined
}

const listRules: Rules<ListPulledOptions> = { cacheDir: rule.file }
const removeRules: Rules<RemovePulledOptions> = { ...listRules, onMessage: rule.callback, signal: rule.signal }

/**
 * The models that `pull` has made, with their sizes, and downloads that are kept or unfinished.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export async function listPulled(options: ListPulledOptions = {}): Promise<PulledList> {
  const { cacheDir } = readOptions<WithPaths<ListPulledOptions>>('listPulled', options, listRules)
  const cache = new Cache(cacheDir ?? cacheDirectory())
  await checkReadable(cache.dir)
  const ids = [
    ...new Set([...(await idsIn(join(cache.dir, 'models'))), ...(await idsIn(join(cache.dir, 'downloads')))])
  ].sort()
  const each = await Promise.all(
    ids.map(async (id) => ({ models: await modelsOf(cache, id), downloads: await downloadsOf(cache, id) }))
  )
  const models = each.flatMap((one) => one.models)
  const downloads = each.flatMap((one) => one.downloads)
  return { dir: cache.dir, models, downloads, bytes: sum(models) + sum(downloads) }
}

/**
 * Removes a pulled model from the cache: every type and revision of it with its downloads, or those that the name tells
 * ("org/name@revision", "org/name:TYPE").
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND (the cache does not have it; the message says what it has),
 * ERR_INVALID_OPTION; errors of the disk, for instance of a file that is in use on Windows, as they are
 */
export async function removePulled(id: string, options: RemovePulledOptions = {}): Promise<RemovedList> {
  const reference = expectReference(id)
  return await publicCall<WithPaths<RemovePulledOptions>, RemovedList>(
    'removePulled',
    options,
    removeRules,
    [],
    async (options) => await removeTaken(id, reference, options)
  )
}

async function removeTaken(
  id: string,
  reference: HubReference,
  options: WithPaths<RemovePulledOptions>
): Promise<RemovedList> {
  const cache = new Cache(options.cacheDir ?? cacheDirectory())
  // What an interrupted pull has left counts where the whole model is meant.
  const all =
    reference.type === undefined &&
    reference.revision === undefined &&
    (await stat(dirname(cache.modelDir(reference.id, 'x'))).then(
      () => true,
      () => false
    ))
  if (!all && !hasSome(await select(cache, reference))) throw await notThere(cache, id, reference)
  const lock = await acquireLock(cache.lockFile(reference.id), {
    signal: options.signal,
    onWait: (owner) => options.onMessage?.(`waiting for ${owner}, which is pulling ${reference.id}`)
  })
  try {
    // Again: what there is may have changed while it waited.
    const { models, downloads } = await select(cache, reference)
    const kept = (await modelsOf(cache, reference.id)).filter(
      ({ path }) => !models.some((model) => model.path === path)
    )
    for (const model of models) await removeModel(model, kept)
    for (const { path } of downloads) await rm(dirname(path), { recursive: true, force: true })
    await removeEmpty(cache, reference.id, kept)
    return { models, downloads, bytes: sum(models) + sum(downloads) }
  } finally {
    await lock.release()
  }
}

const sum = (items: readonly { bytes: number }[]): number => items.reduce((total, { bytes }) => total + bytes, 0)
const hasSome = ({ models, downloads }: { models: unknown[]; downloads: unknown[] }): boolean =>
  models.length + downloads.length > 0

/** Folder names are ids with "--" for the slash, see folderName(). */
async function idsIn(dir: string): Promise<string[]> {
  return (await readdir(dir).catch(absentAs([])))
    .filter((name) => name.includes('--'))
    .map((name) => name.replace('--', '/'))
}

async function modelsOf(cache: Cache, id: string): Promise<PulledModel[]> {
  const commits = (await readdir(dirname(cache.modelDir(id, 'x'))).catch(absentAs([]))).filter(
    (name) => name !== 'refs'
  )
  const models = (await Promise.all(commits.map(async (commit) => await cache.modelsOf(id, commit)))).flat()
  return await Promise.all(
    models
      .sort((a, b) => b.pulledAt.localeCompare(a.pulledAt))
      .map(async (model) => ({ ...model, name: await nameOf(cache, model) }))
  )
}

/** A commit that its branch has left is found by its hash alone. */
async function nameOf(cache: Cache, { id, revision, commit, type, adapter }: CachedModel): Promise<string> {
  const current = (await cache.commitOf(id, revision)) === commit
  return `${id}${current ? (revision === 'main' ? '' : `@${revision}`) : `@${commit}`}${adapter ? '' : `:${type}`}`
}

async function downloadsOf(cache: Cache, id: string): Promise<PulledDownload[]> {
  const commits = await readdir(dirname(dirname(cache.downloadDir(id, 'x')))).catch(absentAs([]))
  return await Promise.all(
    commits.map(async (commit) => {
      const path = cache.downloadDir(id, commit)
      return { id, commit, path, bytes: await folderBytes(path) }
    })
  )
}

async function folderBytes(dir: string): Promise<number> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(absentAs([]))
  const sizes = await Promise.all(
    entries.map(async (entry) => {
      const path = join(dir, entry.name)
      if (entry.isDirectory()) return await folderBytes(path)
      // Links into the cache of Hugging Face's library take no room of their own.
      return entry.isFile()
        ? await lstat(path).then(
            ({ size }) => size,
            () => 0
          )
        : 0
    })
  )
  return sizes.reduce((a, b) => a + b, 0)
}

/** What a name means. Downloads belong to all types of a commit: a type alone leaves them. */
async function select(
  cache: Cache,
  { id, revision, type }: HubReference
): Promise<{ models: PulledModel[]; downloads: PulledDownload[] }> {
  const commit = revision === undefined ? undefined : await cache.commitOf(id, revision)
  if (revision !== undefined && commit === undefined) return { models: [], downloads: [] }
  const models = (await modelsOf(cache, id)).filter(
    (model) => (commit === undefined || model.commit === commit) && (type === undefined || model.type === type)
  )
  const downloads =
    type === undefined
      ? (await downloadsOf(cache, id)).filter((download) => commit === undefined || download.commit === commit)
      : []
  return { models, downloads }
}

async function notThere(cache: Cache, name: string, { id }: HubReference): Promise<PaliGemmaError> {
  const others = (await modelsOf(cache, id)).map((model) => model.name)
  return new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${name} is not in the cache (${cache.dir}` +
      `${others.length > 0 ? `, which has ${others.join(', ')}` : ''}); "npx paligemma pull --list" shows what is`
  )
}

/** The record goes last: if a file is in use, the model stays known and can be removed later. */
async function removeModel(model: CachedModel, kept: readonly CachedModel[]): Promise<void> {
  // Ready GGUFs of two types may share one vision file.
  const files = [model.path, model.vision, ...(model.extra ?? [])].filter((path) => path !== null)
  for (const file of files)
    if (!kept.some((other) => other.path === file || other.vision === file))
      await rm(file, { recursive: true, force: true })
  await rm(recordPath(model.path), { force: true })
}

/**
 * Folders of commits without a model, branches that lead to them, and the repository's folder when nothing is in it.
 */
async function removeEmpty(cache: Cache, id: string, kept: readonly CachedModel[]): Promise<void> {
  const dir = dirname(cache.modelDir(id, 'x'))
  for (const name of await readdir(dir).catch(absentAs([]))) {
    if (name !== 'refs' && !kept.some(({ commit }) => commit === name))
      await rm(join(dir, name), { recursive: true, force: true })
  }
  for (const name of await readdir(join(dir, 'refs')).catch(absentAs([]))) {
    const commit = await cache.commitOf(id, decodeURIComponent(basename(name)))
    if (!kept.some((model) => model.commit === commit)) await rm(join(dir, 'refs', name), { force: true })
  }
  for (const folder of [join(dir, 'refs'), dir, dirname(dirname(cache.downloadDir(id, 'x')))])
    await rmdir(folder).catch(() => {})
}
