// npm run build: TypeScript to dist/ and the addon to build/Release/paligemma.node. Quick when nothing changed, and
// offline: cmake, a C++20 compiler and node_modules are all it needs.
//   node scripts/build.mjs [--ts | --native | --emulated] [--force]
// --emulated: build/emulated/paligemma.node, an engine with devices "cuda-emulated" and "metal-emulated";
// PALIGEMMA_NATIVE names it.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildMsl } from './build-msl.mjs'
import { buildPtx, cudaTool } from './build-ptx.mjs'
import { packSources } from './pack-sources.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const args = process.argv.slice(2)
const unknown = args.find((arg) => !['--ts', '--native', '--emulated', '--force'].includes(arg))
if (unknown) {
  console.error(`Unknown argument ${unknown}. Usage: node scripts/build.mjs [--ts | --native | --emulated] [--force]`)
  process.exit(2)
}
const force = args.includes('--force')

/** Ends the build with the command's own output when it fails. */
function run(command, commandArgs, options = {}) {
  const { error, status } = spawnSync(command, commandArgs, { cwd: root, stdio: 'inherit', ...options })
  if (error?.code === 'ENOENT') {
    console.error(
      `${command} was not found. The build needs cmake >= 3.20 and a C++20 compiler; on Debian: apt-get install ` +
        'cmake make g++'
    )
    process.exit(1)
  }
  if (error || status !== 0) process.exit(status || 1)
}

function newest(path) {
  const stat = statSync(path)
  if (!stat.isDirectory()) return stat.mtimeMs
  // a folder's own time says when something in it was added or removed
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))))
}

/** Runs `build` unless `output` is there and nothing has changed since the last time. */
async function ifChanged(name, output, inputs, build) {
  // a stamp of our own: compilers also write their outputs when they find errors
  const stamp = join(root, 'build', `${name}.stamp`)
  const exists = (path) => existsSync(join(root, path))
  if (!force && exists(output) && existsSync(stamp)) {
    const time = statSync(stamp).mtimeMs
    if (inputs.filter(exists).every((input) => newest(join(root, input)) < time)) return
  }
  const started = new Date()
  await build()
  if (!exists(output)) {
    console.error(`${output} was not written`)
    process.exit(1)
  }
  mkdirSync(join(root, 'build'), { recursive: true })
  writeFileSync(stamp, '')
  utimesSync(stamp, started, started) // what is edited while we compile counts as newer
}

function buildTypeScript() {
  rmSync(join(root, 'dist'), { recursive: true, force: true }) // else what lib no longer has would be packed
  run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json'])
  run(process.execPath, [join(root, 'scripts', 'bundle-vendored.mjs')])
  run(process.execPath, [join(root, 'scripts', 'make-esm.mjs')])
  run(process.execPath, [join(root, 'scripts', 'trim-dist.mjs')])
  chmodSync(join(root, 'dist', 'cli', 'main.js'), 0o755)
}

/** Metal's kernels on macOS; CUDA's, where there are nvcc and a card, else those of build:ptx. */
async function buildKernels() {
  if (process.platform === 'darwin') buildMsl()
  const inputs = [
    'native/gpu/kernels',
    'native/gpu/cuda/dialect_cuda.h',
    'native/gpu/gpu_args.h',
    'scripts/build-ptx.mjs'
  ]
  if (!['/dev/nvidiactl', '/dev/dxg'].some((path) => existsSync(path)) || !cudaTool('nvcc')) return
  await ifChanged('ptx', 'prebuilds/cuda/kernels.br', inputs, () => buildPtx({ fast: true }))
}

function buildAddon({ name = 'cmake', options = [] } = {}) {
  const folder = join(root, 'build', name)
  run('cmake', ['-S', root, '-B', folder, '-DCMAKE_BUILD_TYPE=Release', ...options, ...generator(folder)])
  run('cmake', [
    '--build',
    folder,
    '--config',
    'Release',
    '--target',
    'paligemma',
    '--parallel',
    String(availableParallelism())
  ])
}

/** Ninja where there is one: it starts faster than make. A folder keeps what it was made with. */
function generator(folder) {
  if (existsSync(join(folder, 'CMakeCache.txt'))) return []
  return spawnSync('ninja', ['--version']).status === 0 ? ['-G', 'Ninja'] : []
}

if (!args.includes('--native') && !args.includes('--emulated')) {
  await ifChanged(
    'typescript',
    'dist/index.mjs',
    [
      'lib',
      'tsconfig.json',
      'package.json',
      'scripts/make-esm.mjs',
      'scripts/bundle-vendored.mjs',
      'scripts/trim-dist.mjs',
      'package-lock.json'
    ],
    buildTypeScript
  )
  const inputs = ['native', 'CMakeLists.txt', 'scripts/pack-sources.mjs', 'scripts/build-msl.mjs']
  await ifChanged('sources', 'dist/sources.tgz', inputs, packSources)
}
const addonInputs = ['native', 'CMakeLists.txt', 'node_modules/node-api-headers/package.json']
if (args.includes('--emulated')) {
  const output = 'build/emulated/paligemma.node'
  const options = ['-DPALIGEMMA_EMULATED=ON', `-DPALIGEMMA_OUTPUT=${join(root, 'build', 'emulated')}`]
  await ifChanged('emulated', output, addonInputs, () => buildAddon({ name: 'cmake-emulated', options }))
} else if (!args.includes('--ts')) {
  await buildKernels()
  await ifChanged('addon', 'build/Release/paligemma.node', addonInputs, () => buildAddon())
}
