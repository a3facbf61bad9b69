/** The pictures a task verb works on: paths, globs and URLs. */
import { existsSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { glob, isDynamicPattern } from 'tinyglobby'
import { usageError } from './context'

/** Expands globs, in order and without repetitions. A path that exists is taken as it is, whatever characters it has. */
export async function expandImages(patterns: string[]): Promise<string[]> {
  if (patterns.length === 0) throw usageError('Expected at least one image: a path, a glob or a URL')
  const found = new Set<string>()
  for (const pattern of patterns) {
    if (/^(?:https?|data|file):/.test(pattern) || existsSync(pattern) || !isDynamicPattern(pattern)) {
      found.add(pattern)
      continue
    }
    const matches = await glob(pattern.replaceAll('\\', '/'), { dot: false, absolute: isAbsolute(pattern) })
    if (matches.length === 0) throw usageError(`No file matches ${pattern}`)
    for (const match of matches.sort()) found.add(match)
  }
  return [...found]
}
