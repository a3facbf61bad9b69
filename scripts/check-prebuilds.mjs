// Before packing: the prebuilt engines must load on the oldest systems that Node's own binaries support, wherever they
// were made: glibc 2.28, macOS 12, any Windows 10; no library but the system's own, nothing seen but the entrance.
//   node scripts/check-prebuilds.mjs [FILE...]        default: all of prebuilds/
// PALIGEMMA_GLIBC_FLOOR=2.36 packs for newer systems only, such as your own.
import { existsSync, readFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { readBinary } from './prebuild/read-binary.mjs'
import { root } from './prebuild/record.mjs'
import { glibcFloor, macosFloor, targets } from './prebuild/targets.mjs'

const floor = process.env.PALIGEMMA_GLIBC_FLOOR || glibcFloor

function isNewer(version, limit) {
  const [a, b] = [version, limit].map((text) => text.split('.').map(Number))
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    if ((a[i] ?? 0) !== (b[i] ?? 0)) return (a[i] ?? 0) > (b[i] ?? 0)
  }
  return false
}

/** The target whose place in prebuilds/ this file has. */
function targetOf(path) {
  const parts = path.split(/[\\/]/)
  return targets.find(({ folder, file }) => parts.at(-1) === file && parts.at(-2) === folder)
}

const formats = { linux: 'elf', darwin: 'mach-o', win32: 'pe' }

function wrongPlace(binary, target) {
  if (!target) return ''
  const [platform, arch] = target.folder.split('-')
  if (binary.format === formats[platform] && binary.machine === arch) return ''
  return `lies in ${target.folder}, but is ${binary.format} for ${binary.machine}`
}

function wrongLibrary(binary, target, path) {
  const glibc = binary.versions.map(([, version]) => /^GLIBC_([\d.]+)$/.exec(version)?.[1]).filter(Boolean)
  if (/\.musl\.node$/.test(path) && glibc.length > 0) return 'is named musl but needs glibc'
  const newest = glibc.reduce((most, version) => (isNewer(version, most) ? version : most), '0')
  if (isNewer(newest, floor)) {
    return (
      `needs glibc ${newest}, beyond ${floor}. Build it with "npm run prebuild:all" or in the manylinux_2_28 ` +
      'container (.github/workflows/prebuild.yml), ' +
      `remove it, or set PALIGEMMA_GLIBC_FLOOR=${newest} to pack for such systems only`
    )
  }
  if (binary.versions.some(([, version]) => /^(GLIBCXX|CXXABI)_/.test(version))) {
    return "needs the system's libstdc++: link with -static-libstdc++"
  }
  const foreign = binary.libraries.find((name) => target && !target.allows.some((allowed) => allowed.test(name)))
  return foreign ? `needs ${foreign}, which not every system has` : ''
}

const entrance = 'napi_register_module_v1'
const entrances = new Set([entrance, 'node_api_module_get_api_version_v1'])

/** What stands against shipping this file; '' where nothing does. */
function objection(path) {
  const binary = readBinary(readFileSync(path))
  const target = targetOf(path)
  const why = wrongPlace(binary, target) || wrongLibrary(binary, target, basename(path))
  if (why) return why
  if (!binary.exports.includes(entrance)) return `has no ${entrance}: Node cannot load it`
  const lost = binary.imports.find((name) => (binary.format === 'elf' ? /^_Z/ : /^_ZNK?2pg/).test(name))
  if (lost) return `lacks ${lost} of its own: a source file was not compiled with the others`
  const others = binary.exports.filter((name) => !entrances.has(name))
  if (binary.format === 'elf' && others.length > 0) {
    return `shows ${others.length} names beside the entrance, which may replace others': native/addon/exports.map`
  }
  if (binary.minimum && isNewer(binary.minimum, macosFloor))
    return `needs macOS ${binary.minimum}, beyond ${macosFloor}`
  // Apple's processors run nothing without a signature, if only a made-up one.
  if (binary.format === 'mach-o' && binary.machine === 'arm64' && !binary.signed)
    return 'is not signed, or not as it is now'
  return ''
}

const prebuilt = () => targets.map(({ folder, file }) => join(root, 'prebuilds', folder, file)).filter(existsSync)

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
if (!process.exitCode) {
  console.error(`check-prebuilds: ${files.length} engine(s) load with glibc ${floor}, macOS ${macosFloor}, Windows 10`)
}
