/** What the cache has of a model, and when that is enough: without a network, and without writing. */
import { readFile } from 'node:fs/promises'
import { PaliGemmaError } from '../base/errors'
import type { StorageType } from '../formats/types'
import { type Cache, type CachedModel, type CacheRecord, isCommit, recordFormat, recordPath } from './cache'
import type { HubClient } from './client'
import { snapshotOf } from './hub-cache'
import type { PullResult } from './pull-options'
import { resolveRevision } from './repository'

/** Which of a repository's models: two that agree in this are the same. */
export interface Wanted {
  type: string | undefined
  visionType: StorageType | undefined
  /** SHA-256 of the mask decoder's file. */
  maskHash: string | null
  /** A folder of the repository, or a GGUF in it, where one is named. */
  folder?: string | undefined
  file?: string | undefined
}

export interface Lookup {
  id: string
  revision: string
  wanted: Wanted
  cache: Cache
  client: HubClient
  /** The variable that forbids requests. */
  offline: string | undefined
  /** Only what the hub has now will do. */
  force: boolean
  /** The cache of Hugging Face's Python library. */
  hubCacheDir: string
}

export interface LookedUp {
  commit: string
  /** As the hub spells it. */
  id: string
  found?: PullResult
  /** Why the hub is not asked for the rest: all that there is is in the cache of Hugging Face's library. */
  without?: string
}

/** With a cached copy at hand nobody waits long for a hub that may not be there. */
const impatientMs = 4000

/** The cached model that is asked for, or the commit that has to be pulled. */
export async function lookUp(lookup: Lookup): Promise<LookedUp> {
  const { revision, wanted, cache, client, offline, force, hubCacheDir } = lookup
  const id = await cache.spelled(lookup.id)
  const known = await cache.commitOf(id, revision)
  const local = known === undefined || force ? undefined : await findSame(cache, id, known, wanted)
  if (local && isCommit(revision)) return { commit: revision, id, found: asFound(local) }
  const snapshot = local || force ? undefined : await snapshotOf(hubCacheDir, id, revision)
  if (offline !== undefined) {
    const other = local ?? (await anyOf(lookup, id, known))
    if (!other && snapshot) return { commit: snapshot, id, without: `${offline} forbids requests` }
    return { commit: known ?? '', id, found: await offlineModel(lookup, id, known, local) }
  }
  const instead = local ?? (await anyOf(lookup, id, known))
  let now: { commit: string; id: string }
  try {
    now = await resolveRevision(instead || snapshot ? impatient(client) : client, id, revision)
  } catch (error) {
    client.signal?.throwIfAborted()
    if (!(error instanceof PaliGemmaError)) throw error
    if (!instead && snapshot) return { commit: snapshot, id, without: error.message }
    if (!instead) throw error
    const what = local ? 'the cached model' : `the cached model of type ${instead.type}`
    return { commit: instead.commit, id, found: asFound(instead, `${what} is used, since ${error.message}`) }
  }
  const same = local && now.commit === known && now.id === id
  const found = force ? undefined : same ? local : await findSame(cache, now.id, now.commit, wanted)
  return { ...now, ...(found && { found: await touched(cache, found, revision) }) }
}

/** A model of the cache that is what would be made. Without a wish for a mask decoder one does no harm. */
export async function findSame(
  cache: Cache,
  id: string,
  commit: string,
  wanted: Wanted
): Promise<CachedModel | undefined> {
  const { type, visionType, maskHash, folder, file } = wanted
  return (await cache.modelsOf(id, commit)).find((model) => {
    if (model.format !== recordFormat || model.folder !== folder || model.file !== file) return false
    // What an adapter's base has to be is seen when that is looked up.
    if (model.adapter) return true
    return (
      (type === undefined ? model.type === 'Q8_0' || !model.converted : model.type === type) &&
      model.visionType === (visionType ?? null) &&
      (maskHash === null || model.maskDecoder === maskHash)
    )
  })
}

const asFound = (model: CachedModel, ...notes: string[]): PullResult => ({ ...model, cached: true, notes })

const impatient = (client: HubClient): HubClient => ({
  ...client,
  timing: { ...client.timing, attempts: 1, stallMs: Math.min(client.timing.stallMs, impatientMs) }
})

/**
 * The branch may have come back to a commit that is here, or be asked for by another name. Written down where that can
 * be.
 */
async function touched(cache: Cache, found: CachedModel, revision: string): Promise<PullResult> {
  try {
    const record = JSON.parse(await readFile(recordPath(found.path), 'utf8')) as CacheRecord
    return asFound(await cache.add({ ...record, revision, pulledAt: new Date().toISOString() }))
  } catch {
    const stays = (await cache.commitOf(found.id, revision)) === found.commit
    return asFound(
      found,
      ...(stays
        ? []
        : [`${cache.dir} cannot be written: load ${found.id}@${found.commit}, which ${revision} now means`])
    )
  }
}

/** Where nothing in particular is asked for, any model of the commit that is here will do without the hub's answer. */
async function anyOf(
  { wanted, cache, force }: Lookup,
  id: string,
  commit: string | undefined
): Promise<CachedModel | undefined> {
  const { type, visionType, maskHash, folder, file } = wanted
  const particular = type ?? visionType ?? maskHash ?? folder ?? file
  if (commit === undefined || force || particular != null) return undefined
  return (await cache.modelsOf(id, commit)).find(({ format }) => format === recordFormat)
}

async function offlineModel(
  lookup: Lookup,
  id: string,
  commit: string | undefined,
  local: CachedModel | undefined
): Promise<PullResult> {
  if (local) return asFound(local)
  const { revision, wanted, cache, offline, force } = lookup
  const last = await anyOf(lookup, id, commit)
  if (last) return asFound(last, `${offline} forbids requests, so the cached model of type ${last.type} is used`)
  const others = commit === undefined ? [] : await cache.modelsOf(id, commit)
  const { type, visionType, maskHash } = wanted
  const parts = visionType === undefined && maskHash === null ? '' : ' with that vision type or mask decoder'
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${id}${revision === 'main' ? '' : `@${revision}`}${type === undefined ? '' : ` as ${type}`}${parts} ` +
      (force ? 'cannot be pulled anew' : `is not in the cache (${cache.dir}`) +
      (force ? '' : others.length > 0 ? `, which has it as ${others.map((one) => one.type).join(', ')})` : ')') +
      `, and ${offline} forbids requests to the hub; unset it to fetch the model, or pull it where there is a ` +
      'network and copy the cache'
  )
}
