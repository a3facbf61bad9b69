// Before packing: the prebuilt engines of Linux must run with the glibc of the oldest systems that Node's own binaries
// support (2.28), wherever they were made. Reads the ELF files itself: packing may happen on macOS or Windows.
//   node scripts/check-prebuilds.mjs [FILE...]        default: prebuilds/linux-*/*.node
// PALIGEMMA_GLIBC_FLOOR=2.36 packs for newer systems only, such as your own.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const floor = process.env.PALIGEMMA_GLIBC_FLOOR || '2.28'

/** The versions of each library that an ELF file (64 bits, little endian) asks for: [library, version]. */
function neededVersions(bytes) {
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46) throw new Error('is no ELF file')
  const start = Number(bytes.readBigUInt64LE(40))
  const [size, count] = [bytes.readUInt16LE(58), bytes.readUInt16LE(60)]
  const section = (i) => {
    const at = start + i * size
    const number = (offset) => Number(bytes.readBigUInt64LE(at + offset))
    return { type: bytes.readUInt32LE(at + 4), offset: number(24), link: bytes.readUInt32LE(at + 40) }
  }
  const needs = Array.from({ length: count }, (_, i) => section(i)).find(({ type }) => type === 0x6ffffffe)
  if (!needs) return []
  const names = section(needs.link).offset
  const name = (at) => bytes.toString('latin1', names + at, bytes.indexOf(0, names + at))
  const found = []
  for (let file = needs.offset; ; ) {
    const library = name(bytes.readUInt32LE(file + 4))
    let version = file + bytes.readUInt32LE(file + 8)
    for (let i = bytes.readUInt16LE(file + 2); i > 0; i--) {
      found.push([library, name(bytes.readUInt32LE(version + 8))])
      version += bytes.readUInt32LE(version + 12)
    }
    const next = bytes.readUInt32LE(file + 12)
    if (next === 0) return found
    file += next
  }
}

function isNewer(version, limit) {
  const [a, b] = [version, limit].map((text) => text.split('.').map(Number))
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    if ((a[i] ?? 0) !== (b[i] ?? 0)) return (a[i] ?? 0) > (b[i] ?? 0)
  }
  return false
}

/** What stands against shipping this file; '' where nothing does. */
function objection(path) {
  const needed = neededVersions(readFileSync(path))
  const glibc = needed.map(([, version]) => /^GLIBC_([\d.]+)$/.exec(version)?.[1]).filter(Boolean)
  if (/\.musl\.node$/.test(path) && glibc.length > 0) return 'is named musl but needs glibc'
  const newest = glibc.reduce((most, version) => (isNewer(version, most) ? version : most), '0')
  if (isNewer(newest, floor)) {
    return (
      `needs glibc ${newest}, beyond ${floor}. Build it in the manylinux_2_28 container ` +
      '(.github/workflows/prebuild.yml), ' +
      `remove it, or set PALIGEMMA_GLIBC_FLOOR=${newest} to pack for such systems only`
    )
  }
  if (needed.some(([, version]) => /^(GLIBCXX|CXXABI)_/.test(version))) {
    return "needs the system's libstdc++: link with -static-libstdc++"
  }
  return ''
}

function prebuilt() {
  const folder = join(root, 'prebuilds')
  if (!existsSync(folder)) return []
  const platforms = readdirSync(folder).filter((name) => name.startsWith('linux'))
  return platforms.flatMap((name) =>
    readdirSync(join(folder, name))
      .filter((file) => file.endsWith('.node'))
      .map((file) => join(folder, name, file))
  )
}

const given = process.argv.slice(2)
const files = given.length > 0 ? given : prebuilt()
for (const file of files) {
  let why
  try {
    why = objection(file)
  } catch (error) {
    why = `cannot be checked: ${error.message}`
  }
  if (why === '') continue
  console.error(`${relative(process.cwd(), file)} ${why}`)
  process.exitCode = 1
}
if (!process.exitCode) console.error(`check-prebuilds: ${files.length} engine(s) for Linux run with glibc ${floor}`)
