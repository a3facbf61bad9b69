/** What the hub says of a repository: commits and files. */
import { PaliGemmaError } from '../base/errors'
import type { HubClient, Subject } from './client'
import { requestJson } from './request'
import { isCommit } from './cache'
import { isHubId } from './reference'

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

/** The commit that a branch, tag or commit name stands for, and the repository's name as the hub spells it. */
export async function resolveRevision(
  client: HubClient,
  id: string,
  revision: string
): Promise<{ commit: string; id: string }> {
  const url = `${client.endpoint}/api/models/${id}/revision/${encodeURIComponent(revision)}`
  const { json } = await requestJson(client, url, { id, revision })
  const { sha, id: spelled } = (json ?? {}) as { sha?: unknown; id?: unknown }
  if (typeof sha !== 'string' || !isCommit(sha)) throw badAnswer(url, 'has no commit in "sha"')
  // The hub takes names in any case. One that was renamed stays here under the name that was asked for.
  const same = typeof spelled === 'string' && spelled.toLowerCase() === id.toLowerCase() && isHubId(spelled)
  return { commit: sha, id: same ? spelled : id }
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
