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
import { basename, dirname, join, resolve } from 'node:path'
import { fileTypeNames, parseFileType } from '../formats/types'
import { toPath } from '../base/paths'
import { PaliGemmaError } from '../base/errors'
import { folderError } from './folder'
import { demoModel } from '../base/package-files'
import { makeFolder, writeOutput } from '../base/output-file'
import { checkReadable } from '../base/permission'
import { cacheDirectory } from './settings'
import { folderName, type HubReference, parseReference } from './reference'

/** Raised when `convert` writes something that older files lack and that is worth converting again. */
export const recordFormat = 1

export interface CacheRecord {
  /** {@link recordFormat} of the version that made it. */
  format: number
  id: string
  /** What was asked for: "main". */
  revision: string
  commit: string
  /** See {@link fileTypeNames}; a ready GGUF's type as its name says. */
  type: string
  visionType: string | null
  /** SHA-256 of the mask decoder's file, where one was added. */
  maskDecoder: string | null
  /** Made by our converter, or a ready GGUF of the repository. */
  converted: boolean
  /** File names beside the record. */
  model: string
  vision: string | null
  /** Of all files. */
  bytes: number
  /** ISO 8601 */
  pulledAt: string
}

export interface CachedModel extends Omit<CacheRecord, 'model' | 'vision'> {
  /** Path of the GGUF. */
  path: string
  /** Path of the separate vision GGUF, where there is one. */
  vision: string | null
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
    const text = (await readFile(this.refFile(id, revision), 'utf8').catch(() => '')).trim()
    return isCommit(text) ? text : undefined
  }

  /** The complete models of a commit, the one pulled last first. */
  async modelsOf(id: string, commit: string): Promise<CachedModel[]> {
    const dir = this.modelDir(id, commit)
    const names = await readdir(dir).catch(() => [])
    const models = await Promise.all(
      names.filter((name) => name.endsWith('.json')).map(async (name) => await readRecord(join(dir, name)))
    )
    return models.filter((model) => model !== undefined).sort((a, b) => b.pulledAt.localeCompare(a.pulledAt))
  }

  /** What {@link loadModel} takes for a name. */
  async find({ id, revision = 'main', type }: HubReference): Promise<CachedModel | undefined> {
    const commit = await this.commitOf(id, revision)
    if (commit === undefined) return undefined
    const models = await this.modelsOf(id, commit)
    return type === undefined ? models[0] : models.find((model) => model.type === type)
  }

  /** Makes a model findable; its files are in place. */
  async add(record: CacheRecord): Promise<CachedModel> {
    const dir = this.modelDir(record.id, record.commit)
    const path = join(dir, `${record.model.replace(/\.gguf$/i, '')}.json`)
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
    const { model, vision, ...rest } = JSON.parse(await readFile(path, 'utf8')) as CacheRecord
    const dir = dirname(path)
    const files = [model, vision].filter((name) => name !== null)
    if (
      !files.every((name) => typeof name === 'string' && basename(name) === name) ||
      typeof rest.type !== 'string' ||
      typeof rest.pulledAt !== 'string'
    )
      return undefined
    const sizes = await Promise.all(files.map(async (name) => (await stat(join(dir, name))).size))
    if (sizes.reduce((a, b) => a + b, 0) !== rest.bytes) return undefined
    return { ...rest, path: join(dir, model), vision: vision === null ? null : join(dir, vision) }
  } catch {
    return undefined // incomplete, damaged or of another version: as if it were not there
  }
}

// A name that can only be meant as a file.
const fileName = /\.(gguf|safetensors|npz|bin|part)$/i

/**
 * A model's files: "demo" is the one that ships with the package ("./demo": a file of that name); a path or `file:` URL that
 * exists is itself; the name of a hub model is what `pull` made of it; anything else is left to the reader of the file, which says
 * what is wrong with it.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND for a hub model that was not pulled, with the command that fetches it
 */
export async function resolveModel(source: string | URL, cache?: Cache): Promise<{ path: string; vision?: string }> {
  const model = toPath(source)
  if (model === 'demo') return { path: demoModel }
  const file = resolve(model) // now: the working folder may change
  const info = await stat(file).catch(() => undefined)
  if (info?.isDirectory()) throw await folderError(file)
  if (info) return { path: file }
  const reference = fileName.test(model) ? undefined : parseReference(model)
  if (!reference) return { path: file }
  if (reference.type !== undefined) {
    // A wrong type must not end in advice to pull it.
    reference.type = parseFileType(reference.type).name
  }
  const where = cache ?? new Cache()
  await checkReadable(where.dir)
  const found = await where.find(reference)
  if (found) return { path: found.path, ...(found.vision !== null && { vision: found.vision }) }
  const command = [
    'npx paligemma pull',
    reference.id,
    ...(reference.revision === undefined ? [] : ['--revision', reference.revision]),
    ...(reference.type === undefined ? [] : ['--type', reference.type])
  ].join(' ')
  const commit = await where.commitOf(reference.id, reference.revision ?? 'main')
  const others = commit === undefined ? [] : (await where.modelsOf(reference.id, commit)).map((other) => other.type)
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${model} is no file, and as a model of the Hugging Face hub it is not in the cache (${where.dir}` +
      `${others.length > 0 ? `, which has it as ${others.sort((a, b) => fileTypeNames.indexOf(a) - fileTypeNames.indexOf(b)).join(', ')}` : ''}); fetch it with "${command}"`
  )
}
