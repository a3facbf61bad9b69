/** What a repository holds, and which of its files a model needs. */
import { PaliGemmaError } from '../base/errors'
import { fileTypeNames } from '../formats/types'
import type { HubClient, Subject } from './client'
import { requestJson } from './request'
import { isCommit } from './cache'

export interface HubFile {
  /** In the repository; forward slashes. */
  path: string
  bytes: number
  /** SHA-256 of the content (large files), or git's SHA-1 of "blob <bytes>\0" and the content. */
  hash: { kind: 'sha256' | 'git'; value: string }
}

const encodePath = (path: string): string => path.split('/').map(encodeURIComponent).join('/')

/** The address of a file's content. */
export function fileUrl(client: HubClient, id: string, commit: string, path: string): string {
  return `${client.endpoint}/${id}/resolve/${encodeURIComponent(commit)}/${encodePath(path)}`
}

/** The commit that a branch, tag or commit name stands for. */
export async function resolveRevision(client: HubClient, id: string, revision: string): Promise<string> {
  const url = `${client.endpoint}/api/models/${id}/revision/${encodeURIComponent(revision)}`
  const { json } = await requestJson(client, url, { id, revision })
  const sha = (json as { sha?: unknown } | null)?.sha
  if (typeof sha !== 'string' || !isCommit(sha)) throw badAnswer(url, 'has no commit in "sha"')
  return sha
}

// The model repositories have some twenty files.
const maxPages = 20

/** All files of a commit. */
export async function listFiles(client: HubClient, id: string, commit: string): Promise<HubFile[]> {
  const subject: Subject = { id, revision: commit }
  const files: HubFile[] = []
  let url: string | undefined = `${client.endpoint}/api/models/${id}/tree/${commit}?recursive=true`
  for (let page = 0; url !== undefined; page++) {
    if (page === maxPages) throw badAnswer(url, `is page ${page + 1} of a file list, more than any model has`)
    const current: string = url
    const { json, headers } = await requestJson(client, current, subject)
    if (!Array.isArray(json)) throw badAnswer(current, 'is no list of files')
    for (const entry of json) {
      const file = toFile(entry, current)
      if (file) files.push(file)
    }
    const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(headers.get('link') ?? '')?.[1]
    url = next === undefined ? undefined : new URL(next, current).href
    if (url !== undefined && new URL(url).origin !== new URL(client.endpoint).origin)
      throw badAnswer(current, 'goes on at another server')
  }
  return files
}

function toFile(entry: unknown, url: string): HubFile | undefined {
  const { type, path, size, oid, lfs } = (entry ?? {}) as {
    type?: unknown
    path?: unknown
    size?: unknown
    oid?: unknown
    lfs?: { oid?: unknown; size?: unknown } | null
  }
  if (type !== 'file' || typeof path !== 'string') return undefined
  // Names come from strangers and become names here.
  if (
    path === '' ||
    path.startsWith('/') ||
    /[\\\0:]/.test(path) ||
    path.split('/').some((part) => part === '' || part === '.' || part === '..')
  ) {
    throw badAnswer(url, `names a file ${JSON.stringify(path)}, which is not safe`)
  }
  const bytes = lfs?.size ?? size
  const value = lfs ? String(lfs.oid).replace(/^sha256:/, '') : oid
  const isHash = typeof value === 'string' && (lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(value)
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0 || !isHash)
    throw badAnswer(url, `lacks size or checksum of ${path}`)
  return { path, bytes, hash: { kind: lfs ? 'sha256' : 'git', value } }
}

function badAnswer(url: string, what: string): PaliGemmaError {
  return new PaliGemmaError('ERR_DOWNLOAD_FAILED', `${url}: the answer ${what}; is HF_ENDPOINT a Hugging Face hub?`)
}

/** What to download, and what it becomes. */
export type Choice =
  | { kind: 'checkpoint'; files: HubFile[] }
  | { kind: 'gguf'; files: HubFile[]; model: HubFile; vision: HubFile | undefined; type: string }

export interface ChoiceOptions {
  id: string
  /** undefined: any, Q8_0 where it must be made. */
  type: string | undefined
  /** Only a conversion can do what is asked for. */
  mustConvert: boolean
}

// Everything that convert reads beside the weights; only the first two must be there.
const checkpointFiles = [
  'config.json',
  'tokenizer.model',
  'generation_config.json',
  'preprocessor_config.json',
  'added_tokens.json',
  'model.safetensors.index.json'
]
const shard = /^model-\d{5}-of-\d{5}\.safetensors$/

/** The files of a ready GGUF of the type, else those of the checkpoint in the repository's top folder. */
export function chooseFiles(files: readonly HubFile[], { id, type, mustConvert }: ChoiceOptions): Choice {
  const named = new Map(files.map((file) => [file.path, file]))
  const index = named.get('model.safetensors.index.json')
  const single = named.get('model.safetensors')
  const weights = index
    ? files.filter((file) => shard.test(file.path) || file.path === 'model.safetensors')
    : single
      ? [single]
      : []
  const complete = weights.length > 0 && named.has('config.json') && named.has('tokenizer.model')
  const ready = readyModels(files)
  if (!mustConvert) {
    const wanted =
      type === undefined
        ? complete
          ? []
          : ready.length === 1
            ? ready
            : ready.filter((one) => one.type === 'Q8_0')
        : ready.filter((one) => one.type === type)
    const [model] = wanted
    if (wanted.length === 1) {
      const { file, type: found } = model!
      // As its own tools do: the vision part in the highest precision that is there, which costs little.
      const vision = visionFiles(files)[0]
      return { kind: 'gguf', files: [file, ...(vision ? [vision] : [])], model: file, vision, type: found }
    }
    if (wanted.length > 1)
      throw new PaliGemmaError(
        'ERR_MODEL_UNSUPPORTED',
        `${id} has several files of type ${String(type)}: ${wanted.map((one) => one.file.path).join(', ')}; ` +
          'download the right one yourself and pass its path'
      )
  }
  if (complete)
    return { kind: 'checkpoint', files: [...checkpointFiles.flatMap((name) => named.get(name) ?? []), ...weights] }
  throw nothingToUse(files, ready, id, type, mustConvert)
}

interface ReadyModel {
  file: HubFile
  type: string
}

const typeInName = /(?:^|[-._])(F32|F16|BF16|I?Q\d(?:_[A-Z0-9]+)*)\.gguf$/i
const isVisionFile = (path: string): boolean => /mmproj|vision/i.test(path)

/** GGUFs whose names say their type, as they do by convention: model-Q4_K_M.gguf. Split ones are not read. */
function readyModels(files: readonly HubFile[]): ReadyModel[] {
  return files
    .filter(({ path }) => !path.includes('/') && !isVisionFile(path))
    .flatMap((file) => {
      const type = typeInName.exec(file.path)?.[1]?.toUpperCase()
      return type === undefined ? [] : [{ file, type }]
    })
}

function visionFiles(files: readonly HubFile[]): HubFile[] {
  return files
    .filter(({ path }) => !path.includes('/') && isVisionFile(path) && /\.gguf$/i.test(path))
    .sort((a, b) => b.bytes - a.bytes)
}

function nothingToUse(
  files: readonly HubFile[],
  ready: ReadyModel[],
  id: string,
  type: string | undefined,
  mustConvert: boolean
): PaliGemmaError {
  const has = (pattern: RegExp): boolean => files.some(({ path }) => pattern.test(path))
  if (ready.length > 0) {
    const types = ready
      .map((one) => one.type)
      .sort((a, b) => fileTypeNames.indexOf(a) - fileTypeNames.indexOf(b))
      .join(', ')
    return new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      mustConvert
        ? `${id} has ready GGUFs only, which cannot get another vision type or a mask decoder; leave those options out, or pull the original model`
        : `${id} has GGUFs of the types ${types} only, not ${type ?? 'Q8_0'}; choose one with --type`
    )
  }
  const lacking = ['config.json', 'tokenizer.model'].filter((name) => !files.some(({ path }) => path === name))
  const help = has(/^adapter_model\.(safetensors|bin)$/)
    ? 'it is a LoRA adapter; pull the model that it was made for'
    : has(/\.npz$/)
      ? 'it has a big_vision checkpoint (.npz); pull the repository without "-jax" in its name'
      : has(/^pytorch_model.*\.bin$/)
        ? 'its weights are pickled (.bin), which is not safe to read'
        : lacking.length > 0
          ? `it lacks ${lacking.join(' and ')}`
          : 'it has neither model.safetensors nor a GGUF'
  return new PaliGemmaError('ERR_MODEL_UNSUPPORTED', `${id} has no PaliGemma that can be used: ${help}`)
}
