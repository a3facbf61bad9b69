/** Paths in environment variables, where no shell has expanded them: .env files, units, Dockerfiles. */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { PaliGemmaError } from './errors'

export type Environment = Record<string, string | undefined>

/**
 * As Python's `os.path.expandvars(os.path.expanduser(path))`, which Hugging Face's library applies to its own
 * variables: a leading `~` or `~user`, then `$NAME` and `${NAME}`; a variable that is not set stays as it is.
 * @throws PaliGemmaError ERR_INVALID_OPTION where the home of another user is not known: no folder gets the name
 * `~user`
 */
export function expandPath(path: string, variable: string, env: Environment = process.env): string {
  const [, user, rest] = /^~([^/\\]*)(.*)$/s.exec(path) ?? []
  const expanded = user === undefined ? path : homeOf(user, variable, env) + rest
  return expanded.replace(
    /\$(?:(\w+)|\{([^}]*)\})/g,
    (text: string, plain?: string, braced?: string) => env[plain ?? braced ?? ''] ?? text
  )
}

function homeOf(user: string, variable: string, env: Environment): string {
  const home = process.platform === 'win32' ? env['USERPROFILE'] : env['HOME']
  if (user === '') return home !== undefined && home !== '' ? home.replace(/(?<=.)[/\\]+$/, '') : homedir()
  const entry = accounts()
    .split('\n')
    .map((line) => line.split(':'))
    .find(([name]) => name === user)
  if (entry?.[5]) return entry[5]
  throw new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `Expected a path for ${variable} but received one that begins with ~${user}, whose home folder is not known; ` +
      'write the whole path'
  )
}

function accounts(): string {
  try {
    return readFileSync('/etc/passwd', 'utf8')
  } catch {
    return '' // Windows, or a container without accounts
  }
}
