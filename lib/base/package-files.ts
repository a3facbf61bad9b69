/** Where the package and the demo that ships with it lie. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { workingFolder } from './paths'

// dist/base and lib/base are equally deep. A bundle that is an ES module has no folder of its own.
const own = typeof __dirname === 'string' ? join(__dirname, '..', '..') : ''

/** Whether this code runs from where it was installed; false in a bundle, which may lie in a package of others. */
export const isInstalled = own !== '' && nameAt(own) === 'node-paligemma'

/** This package; for a bundle the one that Node finds from it, if any. */
export const packageRoot = isInstalled ? own : (packagesSeen()[0] ?? (own || workingFolder()))

function nameAt(folder: string): unknown {
  try {
    return (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { name?: unknown }).name
  } catch {
    return undefined
  }
}

/** What lies beside the bundle, the program or a single executable. */
export function foldersBeside(): string[] {
  return [
    typeof __dirname === 'string' ? __dirname : '',
    process.argv[1] ? dirname(resolve(process.argv[1])) : '',
    dirname(process.execPath)
  ].filter((folder) => folder !== '')
}

/** The packages of this name that Node finds from there and from the working folder. */
export function packagesSeen(): string[] {
  return [...foldersBeside(), workingFolder()].map(packageSeenFrom).filter((root) => root !== undefined)
}

function packageSeenFrom(folder: string): string | undefined {
  try {
    return dirname(createRequire(join(folder, 'noop.js')).resolve('node-paligemma/package.json'))
  } catch {
    return undefined
  }
}

/** For errors about what a bundler left behind. */
export const leaveOutside =
  "Leave the package outside: serverExternalPackages: ['node-paligemma'] in next.config, " +
  "external: ['node-paligemma'] for esbuild, webpack, Rollup and Vite"

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
