/** Paths as people write them: also as file: URLs, as `new URL('./model.gguf', import.meta.url).href` gives them. */
import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PaliGemmaError } from './errors'
import { isUrl } from './realms'

const longestScheme = 100

/** "https://host/name", "s3://bucket/name"; not "C:/folder". */
export const isAddress = (text: string): boolean => /^[a-z][a-z0-9+.-]+:\/\//i.test(text.slice(0, longestScheme))

/**
 * The path that a `file:` URL names; a path as it is.
 * @throws PaliGemmaError ERR_INVALID_OPTION for other URLs, which would become folders called "http:", and for a file:
 * URL that names no path on this machine
 */
export function toPath(path: string | URL): string {
  const text = isUrl(path) ? path.href : path
  const shown = text.length > 200 ? `${text.slice(0, 200)}...` : text
  if (!/^file:/i.test(text)) {
    if (!isAddress(text) && !isUrl(path)) return text
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected a path on this machine (or a file: URL) but received the address ${shown}`
    )
  }
  try {
    return fileURLToPath(text)
  } catch (cause) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `${shown} names no file of this machine: ${(cause as Error).message}`,
      {
        cause
      }
    )
  }
}

/** Where relative paths begin. '' where somebody removed that folder: absolute paths work on. */
export function workingFolder(): string {
  try {
    return process.cwd()
  } catch {
    return ''
  }
}

/** The path made absolute; `folder` '': in the working folder. Throws ERR_INVALID_OPTION where that is gone. */
export function absolute(folder: string, path: string): string {
  try {
    return resolve(folder, path)
  } catch (cause) {
    throw withoutFolder(path, cause)
  }
}

const withoutFolder = (path: string, cause: unknown): PaliGemmaError =>
  new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `${path} begins in the working folder of this process, which was removed or renamed; change into one that ` +
      'exists, or give an absolute path',
    { cause }
  )

/** An error as it is, but with words where the working folder is gone, which the system does not say. */
export const explainFolder = (error: unknown): unknown =>
  (error as { syscall?: unknown } | null)?.syscall === 'uv_cwd' ? withoutFolder('A path', error) : error

/** Links in a circle, endless names and the like are none; whoever opens them says what is wrong. */
export function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}
