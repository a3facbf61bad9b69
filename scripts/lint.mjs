// npm run lint: style and mistakes that machines find. The exit code is 1 when anything is wrong.
//   biome         formats and lints TypeScript and scripts, allows no import cycles
//   tsc           checks the types of lib/ and test/
//   clang-format  formats native/ (left out with a note where it is not installed, except in CI)
//   clang-tidy    with --tidy only: minutes; bugprone, performance and concurrency checks of native/
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const tidy = process.argv.includes('--tidy')
let failed = false

function step(name, command, args) {
  const started = performance.now()
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (error) console.error(`${command}: ${error.message}`)
  console.log(`${name}: ${status === 0 ? 'ok' : 'FAILED'} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
  if (status !== 0) failed = true
}

const bin = (...parts) => join(root, 'node_modules', ...parts)
const installed = (...names) => names.find((name) => spawnSync(name, ['--version']).error === undefined)

/** Every source file of the engine and the addon, on all cores. */
function clangTidy() {
  const tool = installed('run-clang-tidy-19', 'run-clang-tidy')
  if (!tool) {
    console.error('clang-tidy: run-clang-tidy is not installed (Debian: apt-get install clang-tidy-19)')
    failed = true
    return
  }
  const folder = join(root, 'build', 'tidy')
  const compiler = installed('clang++-19', 'clang++') ?? 'c++'
  step('cmake', 'cmake', [
    ...['-S', root, '-B', folder, '-DCMAKE_EXPORT_COMPILE_COMMANDS=ON', `-DCMAKE_CXX_COMPILER=${compiler}`],
    ...['-DCMAKE_UNITY_BUILD=OFF', '-Wno-dev']
  ])
  step('clang-tidy', tool, ['-p', folder, '-quiet', '-j', String(availableParallelism()), 'native/(?!test).*cpp$'])
}

step('biome', process.execPath, [bin('@biomejs', 'biome', 'bin', 'biome'), 'ci', '--error-on-warnings', '.'])
step('tsc', process.execPath, [bin('typescript', 'bin', 'tsc'), '-p', 'tsconfig.test.json'])
if (installed('clang-format-19', 'clang-format') || process.env.CI) {
  step('clang-format', process.execPath, [join(root, 'scripts', 'clang-format.mjs')])
} else {
  console.log('clang-format: left out, not installed (Debian: apt-get install clang-format-19)')
}
if (tidy) clangTidy()
process.exitCode = failed ? 1 : 0
