// How large the package is: node scripts/package-size.mjs
//   packed      the tarball, with all engines in prebuilds/
//   used        what of it one platform has a use for: all but the other platforms' engines
//   installed   the same, unpacked; sharp, which is all that is installed beside it, is not counted
// The exit code is 1 where one is beyond its limit. Without an engine in prebuilds/, that of build/Release counts.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { root } from './prebuild/record.mjs'
import { targets } from './prebuild/targets.mjs'

/** Bytes. */
export const limits = { packed: 16e6, used: 8e6, installed: 12e6 }

const largest = (sizes) => Math.max(0, ...sizes)
const sum = (sizes) => sizes.reduce((total, one) => total + one, 0)

/** What `npm pack --json` said -> { packed, used, installed } in bytes. */
export function sizesOf({ size: packed, unpackedSize }) {
  const engines = targets
    .map(({ folder, file }) => join(root, 'prebuilds', folder, file))
    .filter(existsSync)
    .map((path) => readFileSync(path))
  const [plain, zipped] = [engines.map(({ length }) => length), engines.map((bytes) => gzipSync(bytes).length)]
  return {
    packed,
    used: packed - sum(zipped) + largest(zipped),
    installed: unpackedSize - sum(plain) + largest(plain)
  }
}

/** The engine that was built here, without its symbols, where prebuilds/ has none. */
function ownEngine() {
  const built = join(root, 'build', 'Release', 'paligemma.node')
  if (targets.some(({ folder, file }) => existsSync(join(root, 'prebuilds', folder, file))) || !existsSync(built))
    return Buffer.alloc(0)
  const folder = mkdtempSync(join(tmpdir(), 'package-size-'))
  try {
    const stripped = join(folder, 'paligemma.node')
    const { status } = spawnSync('strip', ['-x', '-S', '-o', stripped, built])
    return readFileSync(status === 0 ? stripped : built)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const mega = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`

/** Lines about sizes beyond their limits, and about packages beside sharp. */
export function complaints(sizes) {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const others = Object.keys(dependencies).filter((name) => name !== 'sharp')
  return [
    ...Object.entries(limits)
      .filter(([kind, limit]) => sizes[kind] > limit)
      .map(([kind, limit]) => `${kind}: ${mega(sizes[kind])}, more than ${mega(limit)}`),
    ...others.map((name) => `${name} is installed beside the package: a vendored.ts takes less (docs/releases.md)`)
  ]
}

export const describe = (sizes) =>
  Object.entries(limits)
    .map(([kind, limit]) => `${kind} ${mega(sizes[kind])} of at most ${mega(limit)}`)
    .join(', ')

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { stdout } = spawnSync('npm', ['pack', '--dry-run', '--ignore-scripts', '--json'], {
    cwd: root,
    encoding: 'utf8'
  })
  const sizes = sizesOf(JSON.parse(stdout)[0])
  const own = ownEngine()
  sizes.installed += own.length
  for (const kind of ['packed', 'used']) sizes[kind] += own.length > 0 ? gzipSync(own).length : 0
  console.log(describe(sizes))
  for (const line of complaints(sizes)) {
    console.error(line)
    process.exitCode = 1
  }
}
