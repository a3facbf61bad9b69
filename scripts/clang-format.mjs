// Formats native/ by .clang-format, or says which files differ from it.
//   node scripts/clang-format.mjs [--write]
import { execFileSync, spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const tool = ['clang-format-19', 'clang-format'].find((name) => spawnSync(name, ['--version']).status === 0)
if (!tool) {
  console.error('clang-format is not installed (Debian: apt-get install clang-format-19)')
  process.exit(2)
}
const files = execFileSync('git', ['ls-files', 'native/*.h', 'native/*.cpp', 'native/*.mm'], {
  cwd: root,
  encoding: 'utf8'
})
  .split('\n')
  .filter(Boolean)
const how = process.argv.includes('--write') ? ['-i'] : ['--dry-run', '--Werror']
process.exitCode = spawnSync(tool, [...how, ...files], { cwd: root, stdio: 'inherit' }).status ?? 1
