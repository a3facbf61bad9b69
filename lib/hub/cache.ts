/**
 * Models that `pull` made, on the disk:
 *
 *     <cache>/models/<org>--<name>/refs/<revision>         the commit that a branch or tag stood for when it was pulled
 *     <cache>/models/<org>--<name>/<commit>/<file>.gguf    the model
 *     <cache>/models/<org>--<name>/<commit>/<file>.json    what it is: a {@link CacheRecord}
 *     <cache>/downloads/<org>--<name>/<commit>/<name>/     downloaded files, finished and unfinished (.part)
 *     <cache>/locks/<org>--<name>.lock
 *
 * A record is written last, so a model without one is not there.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { makeFolder, writeOutput } from '../base/output-file'
import { cacheDirectory } from './settings'
import { folderName, type HubReference, isRepositoryPath } from './reference'
import { absentAs } from '../base/system-limits'

/** Raised when `convert` writes something that older files lack and that is worth converting again. */
export const recordFormat = 1

export interface CacheRecord {
  /** {@link recordFormat} of the version that made it. */
  format: number
  /** On the hub: "google/paligemma2-3b-mix-224". */
  id: string
  /** What was asked for: "main". */
  revision: string
  /** What the revision stood for then: 40 hex digits. */
  commit: string
  /** See {@link fileTypeNames}; a ready GGUF's type as its name says. */
  type: string
  /** Type of the vision tower, where one was asked for. */
  visionType: string | null
  /** SHA-256 of the mask decoder's file, where one was added. */
  maskDecoder: string | null
  /** Made by our converter, or a ready GGUF of the repository. */
  converted: boolean
  /** File names beside the record. */
  model: string
  /** The separate vision GGUF, where there is one. */
  vision: string | null
  /** Further files, relative to the record: the other parts of a split model, all files of an adapter's folder. */
  extra?: string[]
  /** The folder of the repository that was asked for. */
  folder?: string
  /** The GGUF of the repository that was asked for. */
  file?: string
  /** SHA-256 of the model's files by their names here: as the hub lists it, or of what was made. */
  sha256?: Record<string, string>
  /** It is an adapter, for this model of the hub; null: it names none. */
  adapter?: { base: string | null }
  /** Of all files. */
  bytes: number
  /** ISO 8601 */
  pulledAt: string
}

/** A model or adapter in the cache, with the paths of its files. */
export interface CachedModel extends Omit<CacheRecord, 'model' | 'vision' | 'extra' | 'sha256'> {
  /** Path of the GGUF; of an adapter, its folder or its GGUF. */
  path: string
  /** Path of the separate vision GGUF, where there is one. */
  vision: string | null
  /** Paths of further files. */
  extra?: string[]
}

/** The record of the model at a path. */
export const recordPath = (path: string): string => `${path.replace(/\.gguf$/i, '')}.json`

/** SHA-256 of all files of the pulled model at a path, by their paths; none where it was not pulled, or long ago. */
export async function recordedSums(path: string): Promise<Map<string, string>> {
  const sums = new Map<string, string>()
  try {
    const { sha256 = {} } = JSON.parse(await readFile(recordPath(path), 'utf8')) as Partial<CacheRecord>
    for (const [name, sum] of Object.entries(sha256))
      if (basename(name) === name && /^[0-9a-f]{64}$/.test(sum)) sums.set(join(dirname(path), name), sum)
  } catch {
    // a file of the user's own
  }
  return sums
}

export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision)

export class Cache {
  constructor(readonly dir: string = cacheDirectory()) {}

  modelDir(id: string, commit: string): string {
    return join(this.dir, 'models', folderName(id), commit)
  }
  /** Ends in the repository's name: a converted model without a name of its own is called like its folder. */
  downloadDir(id: string, commit: string): string {
    return join(this.dir, 'downloads', folderName(id), commit, id.split('/')[1]!)
  }
  lockFile(id: string): string {
    return join(this.dir, 'locks', `${folderName(id)}.lock`)
  }
  private refFile(id: string, revision: string): string {
    return join(this.dir, 'models', folderName(id), 'refs', encodeURIComponent(revision))
  }

  /** The commit that a revision stood for when it was last pulled. */
  async commitOf(id: string, revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision
    const text = (await readFile(this.refFile(id, revision), 'utf8').catch(absentAs(''))).trim()
    return isCommit(text) ? text : undefined
  }

  /** The complete models of a commit, the one pulled last first. */
  async modelsOf(id: string, commit: string): Promise<CachedModel[]> {
    const dir = this.modelDir(id, commit)
    const names = await readdir(dir).catch(absentAs([]))
    const models = await Promise.all(
      names.filter((name) => name.endsWith('.json')).map(async (name) => await readRecord(join(dir, name)))
    )
    return models.filter((model) => model !== undefined).sort((a, b) => b.pulledAt.localeCompare(a.pulledAt))
  }

  /** All that were pulled once. */
  async names(): Promise<string[]> {
    const folders = await readdir(join(this.dir, 'models')).catch(absentAs([]))
    return folders.map((name) => name.replace('--', '/'))
  }

  /** The id as the cache has it: the hub takes names in any case. */
  async spelled(id: string): Promise<string> {
    const names = await this.names()
    if (names.includes(id)) return id
    const same = names.filter((name) => name.toLowerCase() === id.toLowerCase())
    return same.length === 1 ? same[0]! : id
  }

  /** What {@link loadModel} takes for a name. The type of an adapter's name is that of its base. */
  async find({ id: given, revision = 'main', type, folder, file }: HubReference): Promise<CachedModel | undefined> {
    const id = await this.spelled(given)
    const commit = await this.commitOf(id, revision)
    if (commit === undefined) return undefined
    return (await this.modelsOf(id, commit)).find(
      (model) =>
        (type === undefined || model.adapter !== undefined || model.type === type) &&
        (folder === undefined || model.folder === folder) &&
        (file === undefined || model.file === file)
    )
  }

  /** Makes a model findable; its files are in place. */
  async add(record: CacheRecord): Promise<CachedModel> {
    const dir = this.modelDir(record.id, record.commit)
    const path = recordPath(join(dir, record.model))
    await replaceFile(path, `${JSON.stringify(record, null, 2)}\n`)
    if (!isCommit(record.revision)) await replaceFile(this.refFile(record.id, record.revision), `${record.commit}\n`)
    return (await readRecord(path))!
  }
}

/** Readers see the old content or the new one. */
async function replaceFile(path: string, text: string): Promise<void> {
  await makeFolder(dirname(path), 'PALIGEMMA_CACHE')
  await writeOutput(path, text, { option: 'PALIGEMMA_CACHE' })
}

/** A record whose files are there in full size. */
async function readRecord(path: string): Promise<CachedModel | undefined> {
  try {
    const { model, vision, extra = [], sha256: _, ...rest } = JSON.parse(await readFile(path, 'utf8')) as CacheRecord
    const dir = dirname(path)
    const own = [model, vision].filter((name) => name !== null)
    if (
      !own.every((name) => typeof name === 'string' && basename(name) === name) ||
      !extra.every((name) => typeof name === 'string' && isRepositoryPath(name)) ||
      typeof rest.type !== 'string' ||
      typeof rest.pulledAt !== 'string'
    )
      return undefined
    // An adapter's folder has no size of its own.
    const files = [...own.filter((name) => !extra.some((other) => other.startsWith(`${name}/`))), ...extra]
    const sizes = await Promise.all(files.map(async (name) => (await stat(join(dir, name))).size))
    if (sizes.reduce((a, b) => a + b, 0) !== rest.bytes) return undefined
    return {
      ...rest,
      path: join(dir, model),
      vision: vision === null ? null : join(dir, vision),
      ...(extra.length > 0 && { extra: extra.map((name) => join(dir, name)) })
    }
  } catch {
    return undefined // incomplete, damaged or of another version: as if it were not there
  }
}
