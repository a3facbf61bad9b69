// dist/: the executable `caption` and what has to lie beside it, the engine and sharp.
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { build } from 'esbuild'

rmSync('dist', { recursive: true, force: true })
mkdirSync('dist')
await build({
  entryPoints: ['main.cjs'],
  outfile: 'dist/bundle.cjs',
  bundle: true,
  platform: 'node',
  external: ['sharp'],
  // the require of a single executable knows built-in modules only
  banner: { js: 'require = require("node:module").createRequire(process.execPath);' }
})
writeFileSync(
  'dist/sea.json',
  '{ "main": "dist/bundle.cjs", "output": "dist/sea.blob", "disableExperimentalSEAWarning": true }'
)
execFileSync(process.execPath, ['--experimental-sea-config', 'dist/sea.json'], { stdio: 'inherit' })

const program = process.platform === 'win32' ? 'dist/caption.exe' : 'dist/caption'
cpSync(process.execPath, program)
chmodSync(program, 0o755)
const postject = createRequire(import.meta.url).resolve('postject/dist/cli.js')
const fuse = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'
const mac = process.platform === 'darwin' ? ['--macho-segment-name', 'NODE_SEA'] : []
execFileSync(process.execPath, [postject, program, 'NODE_SEA_BLOB', 'dist/sea.blob', '--sentinel-fuse', fuse, ...mac], {
  stdio: 'inherit'
})
cpSync('node_modules/node-paligemma/prebuilds', 'dist/prebuilds', { recursive: true })
for (const name of ['sharp', '@img', 'detect-libc', 'semver']) {
  cpSync(`node_modules/${name}`, `dist/node_modules/${name}`, { recursive: true })
}
