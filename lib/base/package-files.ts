/** Where the package and the demo that ships with it lie. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** dist/base and lib/base are equally deep. A bundle that is an ES module has no folder of its own. */
export const packageRoot = typeof __dirname === 'string' ? join(__dirname, '..', '..') : process.cwd()

/** "bundled" where a bundler left the package's files behind. */
export function packageVersion(): string {
  try {
    return (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version
  } catch {
    return 'bundled'
  }
}

/** What `loadModel('demo')` loads. */
export const demoModel = join(packageRoot, 'demo', 'paligemma2-demo.gguf')

/**
 * The picture of drawn shapes that ships with the package, as an absolute path: for a first try with
 * `loadModel('demo')`, the small model that knows such shapes.
 */
export const demoImage: string = join(packageRoot, 'demo', 'shapes.png')
