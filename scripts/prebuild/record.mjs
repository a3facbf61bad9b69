// What is known of a prebuilt engine, beside it as <file>.json: of which commit, by which compiler, and its checksum.
// `npm run release:check` and the tarball's readers can tell from it that file and source belong together.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

/** What engines are made of: a commit that changes none of it needs no new ones. */
const engineIngredients = [
  ...['native', ':(exclude)native/test', ':(exclude)native/bench', ':(exclude)native/fuzz'],
  ...['CMakeLists.txt', 'binding.gyp'],
  ...['scripts/prebuild/zig.mjs', 'scripts/prebuild/targets.mjs']
]
/** What scripts/build-ptx.mjs makes CUDA's kernels of. */
export const kernelIngredients = [
  ...['native/gpu/kernels', 'native/gpu/cuda/dialect_cuda.h', 'native/gpu/gpu_args.h'],
  'scripts/build-ptx.mjs'
]

function git(...args) {
  const { status, stdout } = spawnSync('git', args, { cwd: root, encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

/** The last commit that changed what a file is made of; with "+" where files differ from it, '' without git. */
export function sourceCommit(ingredients = engineIngredients) {
  const commit = git('log', '-1', '--format=%H', '--', ...ingredients)
  if (!commit) return ''
  return git('status', '--porcelain', '--', ...ingredients) ? `${commit}+` : commit
}

export const sha256 = (file) => createHash('sha256').update(readFileSync(file)).digest('hex')

/** `commit`: of the sources when the build began; it is for nothing where they have changed since. */
export function writeRecord(file, compiler, commit, ingredients = engineIngredients) {
  if (sourceCommit(ingredients) !== commit) throw new Error('the sources changed while they were compiled; build again')
  const record = { commit, compiler, sha256: sha256(file) }
  writeFileSync(`${file}.json`, `${JSON.stringify(record, null, 2)}\n`)
}

/** What speaks against this file being the one of the sources as they are; '' where nothing does. */
export function mismatch(file, commit = sourceCommit()) {
  let record
  try {
    record = JSON.parse(readFileSync(`${file}.json`, 'utf8'))
  } catch {
    return 'has no record beside it of what it was made of'
  }
  if (record.sha256 !== sha256(file)) return 'is not the file that its record describes'
  if (record.commit !== commit) return `was made of ${record.commit || 'unknown sources'}, not of ${commit}`
  return ''
}
