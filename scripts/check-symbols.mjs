// Two properties of the binaries that no compiler checks.
//   node scripts/check-symbols.mjs BUILD_FOLDER       object files of native/cpu/kernels/ hold no weak symbols
//   node scripts/check-symbols.mjs --glibc 2.28 FILE  FILE needs no newer glibc (and no libstdc++) than that
//
// Why the first: a kernel file is compiled for one instruction set. A weak symbol in it (any inline function or template
// of a C++ header) may be the copy that the linker keeps for the whole program, which then dies with an illegal
// instruction on older processors.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'

function* files(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    if (statSync(path).isDirectory()) yield* files(path)
    else yield path
  }
}

function fail(message) {
  console.error(message)
  process.exit(1)
}

function checkKernels(folder) {
  if (!existsSync(folder)) fail(`${folder} does not exist: build first (npm run build)`)
  const objects = [...files(folder)].filter((path) => /^kernels_\w+(\.cpp)?\.o$/.test(basename(path)))
  if (objects.length === 0) fail(`${folder} holds no object file of native/cpu/kernels/`)
  for (const object of objects) {
    const weak = execFileSync('nm', ['-C', object], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => /^[0-9a-f ]*\s[WwVvu]\s/.test(line))
    if (weak.length) {
      fail(
        `${object} defines or uses weak symbols, which may replace those of the whole program:\n${weak.join('\n')}\n` +
          'Kernel files may include C headers only and define only static functions and one table.'
      )
    }
  }
  console.log(`check-symbols: no weak symbols in ${objects.length} kernel object file(s)`)
}

function checkGlibc(limit, file) {
  const number = (version) => version.split('.').reduce((sum, part, i) => sum + Number(part) / 1000 ** i, 0)
  const symbols = execFileSync('nm', ['-D', '--with-symbol-versions', file], { encoding: 'utf8' })
  const newer = [...symbols.matchAll(/(\S+)@+GLIBC_([0-9.]+)/g)].filter(
    ([, , version]) => number(version) > number(limit)
  )
  if (newer.length) {
    fail(
      `${file} needs a glibc newer than ${limit}:\n${newer.map(([, name, version]) => `  ${name} (${version})`).join('\n')}\n` +
        'Build it in the manylinux_2_28 container (see .github/workflows/prebuild.yml).'
    )
  }
  if (/@+(GLIBCXX|CXXABI)_/.test(symbols)) fail(`${file} needs libstdc++ of the system: link with -static-libstdc++`)
  console.log(`check-symbols: ${file} runs with glibc ${limit}`)
}

const args = process.argv.slice(2)
if (args[0] === '--glibc' && args.length >= 3) for (const file of args.slice(2)) checkGlibc(args[1], file)
else if (args.length === 1 && !args[0].startsWith('-')) checkKernels(args[0])
else {
  console.error('Usage: node scripts/check-symbols.mjs BUILD_FOLDER | --glibc VERSION FILE...')
  process.exit(2)
}
