/**
 * Names of models on the hub, as people write or paste them: `google/paligemma2-3b-mix-224@main:Q4_K_M`, a page's
 * address.
 */
import { parseFileType } from '../formats/types'
import { PaliGemmaError } from '../base/errors'
import { similarNames } from './similar'
import { isName, show } from '../base/validate'

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
  return parseName(text)
}

/** `org/name@revision:TYPE` */
function parseName(text: string): HubReference | undefined {
  const match = /^([^@:]+)(?:@([^:]+))?(?::([^:]+))?$/.exec(text)
  if (!match) return undefined
  const [, id, revision, type] = match
  if (!isHubId(id!) || (revision !== undefined && !isRevision(revision))) return undefined
  return { id: id!, ...(revision !== undefined && { revision }), ...(type !== undefined && { type }) }
}

/** `hf://org/name@v1/folder` (Hugging Face's file system), `hf:org/name:Q4_K_M` (node-llama-cpp). */
const scheme = /^hf:(?:\/\/)?/i
const gitAddress = /^(?:ssh:\/\/)?git@(?:hf\.co|huggingface\.co)[:/]/i
const bareAddress = /^(?:www\.)?(?:huggingface\.co|hf\.co)\//i

/** Whether a text can only be meant as an address. */
export const isHubAddress = (text: string): boolean =>
  /^https?:/i.test(text) || [scheme, gitAddress, bareAddress].some((form) => form.test(text))

/**
 * The address of a model's page, of a folder or a file in it; 'other': an address, but of nothing that can be pulled.
 */
function parseAddress(text: string, endpoint: string | undefined): HubReference | 'other' | undefined {
  const isScheme = scheme.test(text)
  const full = bareAddress.test(text)
    ? `https://${text}`
    : text.replace(scheme, 'https://hf.co/').replace(gitAddress, 'https://hf.co/')
  if (!/^https?:\/\//i.test(full) || !URL.canParse(full)) return undefined
  const url = new URL(full)
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
  // refs/pr/1 is one name here too
  const [owner = '', name = '', ...rest] = parts
    .join('/')
    .replace(/@refs\/(\w+)\//, '@refs%$1%')
    .split('/')
  const named = parseName(`${owner}/${name.replaceAll('%', '/')}`)
  if (owner === 'datasets' || owner === 'spaces' || !named) return 'other'
  named.id = named.id.replace(/\.git$/, '')
  const place = isScheme ? { ...atHash(url), ...inFolder(rest.join('/')) } : placeIn(rest)
  const file = shownFile(url)
  if (file !== undefined) {
    delete place.folder
    place.file = file
  }
  return { ...place, ...named }
}

/** node-llama-cpp writes the branch behind "#". */
function atHash(url: URL): Pick<HubReference, 'revision'> {
  const revision = decodeURIComponent(url.hash.slice(1))
  return isRevision(revision) ? { revision } : {}
}

/** The hub's own view of a GGUF: `?show_file_info=model-Q4_K_M.gguf`. */
function shownFile(url: URL): string | undefined {
  const file = url.searchParams.get('show_file_info') ?? ''
  return /\.gguf$/i.test(file) && isRepositoryPath(file) ? file : undefined
}

/** `tree/main/folder`, `blob/main/folder/file`; what other pages of a model show is the model. */
function placeIn([what, ...parts]: string[]): Omit<HubReference, 'id'> {
  if (what === undefined || !['tree', 'blob', 'resolve', 'raw', 'commit', 'commits', 'revision'].includes(what))
    return {}
  // refs/pr/1 and refs/convert/x are one name, encoded as such or not.
  const count = parts[0] === 'refs' ? 3 : 1
  const revision = parts.slice(0, count).join('/')
  if (!isRevision(revision)) return {}
  const path = parts.slice(count).join('/')
  const isOtherFile = what !== 'tree' && !/\.gguf$/i.test(path)
  return { revision, ...inFolder(isOtherFile ? path.split('/').slice(0, -1).join('/') : path) }
}

/** A path in a repository. */
function inFolder(path: string): Pick<HubReference, 'folder' | 'file'> {
  if (path === '' || !isRepositoryPath(path)) return {}
  return /\.gguf$/i.test(path) ? { file: path } : { folder: path }
}

/** As {@link parseReference}; anything else is ERR_INVALID_OPTION. The type gets its full name: q4_k becomes Q4_K_M. */
export function expectReference(text: unknown, endpoint?: string): HubReference {
  const reference = isName(text)
    ? (parseReference(text.trim().replace(/(?<=\w)\/$/, ''), endpoint) ?? parseFile(text))
    : undefined
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

/** `org/name/model-Q4_K_M.gguf`, which as a model to load would be a path. */
function parseFile(text: string): HubReference | undefined {
  const [owner, name, ...rest] = text.trim().split('/')
  const file = rest.join('/')
  if (!/\.gguf$/i.test(file) || !isHubId(`${owner}/${name}`) || !isRepositoryPath(file)) return undefined
  return { id: `${owner}/${name}`, file }
}

function hint(text: unknown): string {
  if (!isName(text)) return ''
  const [similar] = similarNames(text.trim())
  if (similar !== undefined) return `; did you mean ${similar}?`
  if (/\/(?:datasets|spaces)\//.test(text)) return ': that is no model'
  if (/^https?:/i.test(text)) return ': that is no address of a model there; for another hub set HF_ENDPOINT to it'
  const [owner, name, ...folder] = text.split('/')
  return folder.length > 0 && isHubId(`${owner}/${name}`) ? `; for a folder of ${owner}/${name} give subfolder` : ''
}

/** A file system name that no other id has. */
export function folderName(id: string): string {
  return id.replace('/', '--')
}
