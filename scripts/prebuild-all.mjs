// npm run prebuild:all: the engines of all systems, cross-built on one machine, into prebuilds/ where the package
// looks.
//   node scripts/prebuild-all.mjs [TARGET...]       linux-x64-glibc, win32-arm64, ...; default: all
// Files that have not changed are taken from build/zig/cache. GitHub's workflow builds with the platforms' own
// compilers instead and has real machines to try the result on; this is for everybody else, and for forks.
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { root, sourceCommit, writeRecord } from './prebuild/record.mjs'
import { targets } from './prebuild/targets.mjs'
import { build, compilerName } from './prebuild/zig.mjs'

const wanted = process.argv.slice(2)
const unknown = wanted.find((name) => !targets.some((target) => target.name === name))
if (unknown) {
  console.error(`There is no target ${unknown}; there are ${targets.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}
for (const target of targets) {
  if (wanted.length > 0 && !wanted.includes(target.name)) continue
  const started = performance.now()
  const output = join(root, 'prebuilds', target.folder, target.file)
  try {
    const commit = sourceCommit()
    await build(target, output)
    writeRecord(output, compilerName, commit)
  } catch (error) {
    console.error(`${target.name}: ${error.message}`)
    process.exit(1)
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  console.log(`${target.name}: ${(statSync(output).size / 1e6).toFixed(2)} MB in ${seconds} s`)
}
