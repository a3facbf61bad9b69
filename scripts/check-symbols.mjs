// A property of the binaries that no compiler checks: object files of native/cpu/kernels/ hold no weak symbols.
//   node scripts/check-symbols.mjs BUILD_FOLDER
//
// Why: a kernel file is compiled for one instruction set. A weak symbol in it (any inline function or template
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

const args = process.argv.slice(2)
if (args.length === 1 && !args[0].startsWith('-')) checkKernels(args[0])
else {
  console.error('Usage: node scripts/check-symbols.mjs BUILD_FOLDER')
  process.exit(2)
}
