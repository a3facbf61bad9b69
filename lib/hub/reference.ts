/**
 * Names of models on the hub, as people write or paste them: `google/paligemma2-3b-mix-224@main:Q4_K_M`, a page's
 * address.
 */
import { parseFileType } from '../formats/types'
import { PaliGemmaError } from '../base/errors'
import { show } from '../base/validate'

export interface HubReference {
  /** "google/paligemma2-3b-mix-224" */
  id: string
  /** A branch, tag or commit. */
  revision?: string
  /** See {@link fileTypeNames}. */
  type?: string
  /** Of the repository, where the model is not in its top folder; forward slashes. */
  folder?: string
  /** A GGUF of the repository, by its path. */
  file?: string
}

// The hub's own rules. Without "--" inside, "org--name" is a folder name that no other model has.
const namePart = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?$/
const revisionPattern = /^[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9_])?$/

export function isHubId(text: string): boolean {
  const parts = text.split('/')
  return (
    parts.length === 2 &&
    text.length <= 96 &&
    !text.includes('--') &&
    !text.includes('..') &&
    parts.every((part) => namePart.test(part))
  )
}

export function isRevision(text: string): boolean {
  return text.length <= 200 && revisionPattern.test(text) && !text.includes('..') && !text.includes('//')
}

/** A folder or file of a repository: relative, without steps upwards. */
export function isRepositoryPath(text: string): boolean {
  return (
    text.length <= 500 &&
    !/[\\\0:]/.test(text) &&
    text.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
  )
}

const publicHubs = ['huggingface.co', 'www.huggingface.co', 'hf.co']

/**
 * `undefined` where the text is no name of a model, such as a path. Addresses are those of `endpoint` or the public
 * hub.
 */
export function parseReference(text: string, endpoint?: string): HubReference | undefined {
  const address = parseAddress(text, endpoint)
  if (address) return address === 'other' ? undefined : address
  const match = /^([^@:]+)(?:@([^:]+))?(?::([^:]+))?$/.exec(text)
  if (!match) return undefined
  const [, id, revision, type] = match
  if (!isHubId(id!) || (revision !== undefined && !isRevision(revision))) return undefined
  return { id: id!, ...(revision !== undefined && { revision }), ...(type !== undefined && { type }) }
}

/**
 * The address of a model's page, of a folder or a file in it; 'other': an address, but of nothing that can be pulled.
 */
function parseAddress(text: string, endpoint: string | undefined): HubReference | 'other' | undefined {
  const bare = /^(?:www\.)?(?:huggingface\.co|hf\.co)\//i.test(text)
    ? `https://${text}`
    : text.replace(/^hf:\/\//, 'https://hf.co/')
  if (!/^https?:\/\//i.test(bare) || !URL.canParse(bare)) return undefined
  const url = new URL(bare)
  const home = endpoint !== undefined && URL.canParse(endpoint) ? new URL(endpoint) : undefined
  const prefix = home && url.host === home.host ? home.pathname.replace(/\/+$/, '') : ''
  if (!publicHubs.includes(url.host) && (url.host !== home?.host || !url.pathname.startsWith(prefix))) return 'other'
  let parts: string[]
  try {
    parts = url.pathname
      .slice(prefix.length)
      .split('/')
      .filter((part) => part !== '')
      .map(decodeURIComponent)
  } catch {
    return 'other' // % without a character's number
  }
  if (parts[0] === 'api') parts.shift()
  if (parts[0] === 'models') parts.shift()
  const [owner = '', name = '', what, ...rest] = parts
  const id = `${owner}/${name}`
  if (owner === 'datasets' || owner === 'spaces' || !isHubId(id)) return 'other'
  return { id, ...placeIn(what, rest) }
}

/** `tree/main/folder`, `blob/main/folder/file`; what other pages of a model show is the model. */
function placeIn(what: string | undefined, parts: string[]): Omit<HubReference, 'id'> {
  if (what === undefined || !['tree', 'blob', 'resolve', 'raw', 'commit', 'commits', 'revision'].includes(what))
    return {}
  // refs/pr/1 and refs/convert/x are one name, encoded as such or not.
  const count = parts[0] === 'refs' ? 3 : 1
  const revision = parts.slice(0, count).join('/')
  if (!isRevision(revision)) return {}
  const path = parts.slice(count).join('/')
  const isFile = what !== 'tree' && path !== ''
  if (isFile && /\.gguf$/i.test(path)) return { revision, file: path }
  const folder = isFile ? path.split('/').slice(0, -1).join('/') : path
  return { revision, ...(folder !== '' && isRepositoryPath(folder) && { folder }) }
}

/** As {@link parseReference}; anything else is ERR_INVALID_OPTION. The type gets its full name: q4_k becomes Q4_K_M. */
export function expectReference(text: unknown, endpoint?: string): HubReference {
  const reference = typeof text === 'string' ? parseReference(text.trim(), endpoint) : undefined
  if (!reference) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected a model of the Hugging Face hub such as google/paligemma2-3b-mix-224 for id but received ' +
        `${show(text)}${hint(text)}`
    )
  }
  if (reference.type !== undefined) reference.type = parseFileType(reference.type).name
  return reference
}

function hint(text: unknown): string {
  if (typeof text !== 'string') return ''
  if (/\/(?:datasets|spaces)\//.test(text)) return ': that is no model'
  if (/^https?:/i.test(text)) return ': that is no address of a model there; for another hub set HF_ENDPOINT to it'
  const [owner, name, ...folder] = text.split('/')
  return folder.length > 0 && isHubId(`${owner}/${name}`) ? `; for a folder of ${owner}/${name} give subfolder` : ''
}

/** A file system name that no other id has. */
export function folderName(id: string): string {
  return id.replace('/', '--')
}
