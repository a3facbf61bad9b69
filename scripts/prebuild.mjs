// npm run prebuilds: the engine for this machine as prebuilds/<platform>-<arch>/node-paligemma[.glibc|.musl].node,
// which is where lib/engine/locate.ts looks. More arguments go to prebuildify (--arch arm64, --libc musl).
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { root, sourceCommit, writeRecord } from './prebuild/record.mjs'
import { targets } from './prebuild/targets.mjs'

// node-gyp empties the folder "build" beside its binding.gyp: not the one in which npm run build keeps its objects.
const stage = join(root, 'build', 'prebuild')
mkdirSync(stage, { recursive: true })
for (const name of ['binding.gyp', 'package.json']) copyFileSync(join(root, name), join(stage, name))
for (const name of ['native', 'scripts']) {
  rmSync(join(stage, name), { force: true })
  symlinkSync(join(root, name), join(stage, name), 'junction')
}

const flags = ['--napi', '--strip', '--cwd', stage, '--out', root]
// prebuildify would call a macOS binary "glibc", too
if (process.platform === 'linux') flags.push('--tag-libc')

const env = { ...process.env }
// Node's own headers, where they came with it: nothing to download then
const prefix = join(dirname(process.execPath), '..')
if (!env.npm_config_nodedir && existsSync(join(prefix, 'include', 'node', 'node_api.h')))
  env.npm_config_nodedir = prefix

env.JOBS ??= 'max' // compiler processes, for node-gyp

const started = Date.now()
const commit = sourceCommit()
const prebuildify = join(root, 'node_modules', 'prebuildify', 'bin.js')
const { status } = spawnSync(process.execPath, [prebuildify, ...flags, ...process.argv.slice(2)], {
  cwd: root,
  stdio: 'inherit',
  env
})
if (status !== 0) process.exit(status ?? 1)
for (const { folder, file } of targets) {
  const engine = join(root, 'prebuilds', folder, file)
  if (existsSync(engine) && statSync(engine).mtimeMs >= started)
    writeRecord(engine, `node-gyp on ${process.platform}`, commit)
}
