/** Where the package lies. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** dist/cli and lib/cli are equally deep. */
export const packageRoot = join(__dirname, '..', '..')

export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version
}
