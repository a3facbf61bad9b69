// The peers, from npm, in folders of their own outside the package; they stay there for the next run. No install script
// runs: those of both would download more, and the binaries for CPUs are in the packages.
import { execFileSync } from 'node:child_process'
import { lstatSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const llamaBinaries = {
  'linux-x64': 'linux-x64',
  'linux-arm64': 'linux-arm64',
  'darwin-arm64': 'mac-arm64-metal',
  'darwin-x64': 'mac-x64',
  'win32-x64': 'win-x64'
}
const llamaVersion = '3.22.1'

/** Folder, packages and versions; the newest that run on Node 20. */
export const peers = {
  onnxruntime: { packages: { 'onnxruntime-node': '1.30.0', '@huggingface/transformers': '4.3.2' } },
  // its optional packages hold engines for all kinds of GPU: only the one for this CPU
  llama: {
    packages: {
      'node-llama-cpp': llamaVersion,
      [`@node-llama-cpp/${llamaBinaries[`${process.platform}-${process.arch}`]}`]: llamaVersion
    },
    flags: ['--omit=optional']
  }
}

/** Of this user: code that anybody could have put into a shared temporary folder must not run. */
export function ownFolder(given) {
  const user = process.getuid?.()
  const dir = given ?? join(tmpdir(), `paligemma-peers${user === undefined ? '' : `-${user}`}`)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const info = lstatSync(dir)
  if (!info.isDirectory() || (user !== undefined && info.uid !== user))
    throw new Error(`${dir} is no folder of yours: give another one with --dir`)
  return dir
}

function installed(folder, name) {
  try {
    return JSON.parse(readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8')).version
  } catch {
    return undefined
  }
}

/** Gives the folder to load it from, or why there is none: a peer that cannot be had is left out. */
export function install(dir, peer) {
  const { packages, flags = [] } = peers[peer]
  const folder = join(dir, peer)
  if (Object.entries(packages).every(([name, version]) => installed(folder, name) === version)) return { folder }
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
  const wanted = Object.entries(packages).map(([name, version]) => `${name}@${version}`)
  const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...flags, ...wanted]
  try {
    execFileSync('npm', args, { cwd: folder, stdio: 'pipe', encoding: 'utf8', shell: process.platform === 'win32' })
    return { folder }
  } catch (error) {
    const lines = String(error.stderr || error.message)
      .trim()
      .split('\n')
    return { why: `npm install ${wanted.join(' ')} failed: ${lines.slice(0, 3).join(' ')}` }
  }
}
