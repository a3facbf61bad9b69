/** What the system refuses a process that has reached a limit, with a code and a way out. */
import { PaliGemmaError } from './errors'
import { explainDenied } from './permission'

interface SystemError {
  code?: unknown
  path?: unknown
  cause?: unknown
}

/** Too many open files, of this process or of the system: what the error itself, or one that it comes of, says. */
function outOfFiles(error: unknown): SystemError | undefined {
  for (let one = error, depth = 0; typeof one === 'object' && one !== null && depth < 8; depth++) {
    const { code, cause } = one as SystemError
    if (code === 'EMFILE' || code === 'ENFILE') return one
    one = cause
  }
  return undefined
}

/**
 * ERR_OUT_OF_MEMORY where the system opened no file because too many are open, whatever error came of that; any other
 * error as it is. `file`: the one it is about, where the error does not say.
 */
export function explainOpenFiles(error: unknown, file?: string): unknown {
  const found = outOfFiles(error)
  if (!found || (error instanceof PaliGemmaError && error.code === 'ERR_OUT_OF_MEMORY')) return error
  const what =
    found.code === 'EMFILE'
      ? 'this process has as many files and connections open as it may (EMFILE); raise its limit (ulimit -n, or ' +
        'LimitNOFILE of a service)'
      : 'the system has as many files open as it can (ENFILE); raise its limit (sysctl fs.file-max)'
  const path = typeof found.path === 'string' && found.path !== '' ? found.path : file
  const place = path === undefined ? '' : `${path}: `
  return new PaliGemmaError('ERR_OUT_OF_MEMORY', `${place}${what}, or do fewer things at once`, { cause: error })
}

/** An error with our code and words where the system, or Node's permission model, refused what it is about. */
export const explainSystem = (error: unknown): unknown => explainOpenFiles(explainDenied(error))

/**
 * For `catch`, where what cannot be read counts as not there: the value instead. Too many open files say nothing about
 * what is there.
 */
export function absentAs<T>(value: T): (error: unknown) => T {
  return (error) => {
    if (outOfFiles(error)) throw error
    return value
  }
}
