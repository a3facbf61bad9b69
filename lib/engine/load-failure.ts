/** Why an engine that is there does not load, where that is no fault of the file. */
import { PaliGemmaError } from '../base/errors'

/** undefined: another file may load, or one has to be built. */
export function notItsFault(path: string, error: unknown): PaliGemmaError | undefined {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ERR_DLOPEN_DISABLED')
    return new PaliGemmaError(
      'ERR_ACCESS_DENIED',
      `${path}: Node does not let this process load the native engine, an addon; start Node with --allow-addons ` +
        'beside --permission, and without --no-addons',
      { cause: error }
    )
  if (/cannot allocate memory|failed to map segment/i.test(message))
    return new PaliGemmaError(
      'ERR_OUT_OF_MEMORY',
      `${path}: the system refused the memory for the native engine (${message}); raise the limit of this process ` +
        '(ulimit -v)',
      { cause: error }
    )
  return undefined
}
