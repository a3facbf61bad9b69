// dist/sources.tgz: what `npx paligemma build` compiles where no engine fits, a quarter of its size in the package. The
// same sources give the same bytes. Run by the build.
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buffer } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const left = /^native[\\/](test|fuzz|bench|gpu[\\/]emulator|gpu[\\/]metal[\\/]generated)([\\/]|$)/

/** All that the engine is compiled from, by addon.gypi or by CMake. */
export function sourceFiles() {
  const native = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .map((name) => join('native', name))
    .filter((name) => !left.test(name) && statSync(join(root, name)).isFile())
  return [...native, 'CMakeLists.txt', join('scripts', 'build-msl.mjs')]
    .map((name) => name.replaceAll('\\', '/'))
    .sort()
}

export async function packSources() {
  const archive = pack()
  for (const name of sourceFiles())
    archive.entry({ name, mtime: new Date(0), mode: 0o644 }, readFileSync(join(root, name)))
  archive.finalize()
  writeFileSync(join(root, 'dist', 'sources.tgz'), gzipSync(await buffer(archive), { level: 9 }))
}
