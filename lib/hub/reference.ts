/** Names of models on the hub, as people write them: `google/paligemma2-3b-mix-224@main:Q4_K_M`. */
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

/** `undefined` where the text is no name of a model, such as a path. */
export function parseReference(text: string): HubReference | undefined {
  const match = /^([^@:]+)(?:@([^:]+))?(?::([^:]+))?$/.exec(text)
  if (!match) return undefined
  const [, id, revision, type] = match
  if (!isHubId(id!) || (revision !== undefined && !isRevision(revision))) return undefined
  return { id: id!, ...(revision !== undefined && { revision }), ...(type !== undefined && { type }) }
}

/** As {@link parseReference}; anything else is ERR_INVALID_OPTION. The type gets its full name: q4_k becomes Q4_K_M. */
export function expectReference(text: unknown): HubReference {
  const reference = typeof text === 'string' ? parseReference(text) : undefined
  if (!reference) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected a model of the Hugging Face hub such as google/paligemma2-3b-mix-224 for id but received ${show(text)}`
    )
  }
  if (reference.type !== undefined) reference.type = parseFileType(reference.type).name
  return reference
}

/** A file system name that no other id has. */
export function folderName(id: string): string {
  return id.replace('/', '--')
}
