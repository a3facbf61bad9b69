/** Paths as people write them: also as file: URLs, as `new URL('./model.gguf', import.meta.url).href` gives them. */
import { fileURLToPath } from 'node:url'
import { PaliGemmaError } from './errors'
import { isUrl } from './realms'

/**
 * The path that a `file:` URL names; anything else as it is.
 * @throws PaliGemmaError ERR_INVALID_OPTION for a file: URL that names no path on this machine
 */
export function toPath(path: string | URL): string {
  const text = isUrl(path) ? path.href : path
  if (!/^file:/i.test(text)) return text
  try {
    return fileURLToPath(text)
  } catch (cause) {
    const shown = text.length > 200 ? `${text.slice(0, 200)}...` : text
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `${shown} names no file of this machine: ${(cause as Error).message}`,
      {
        cause
      }
    )
  }
}
