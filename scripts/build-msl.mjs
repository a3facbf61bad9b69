// Our kernels in Metal's words, for engines of macOS: native/gpu/metal/generated/msl.inc, which is not committed and
// travels in the package. A text for each file of native/gpu/kernels, with all that it includes.
//   node scripts/build-msl.mjs [folder]     folder: for the texts as <name>.metal, too
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const native = join(fileURLToPath(import.meta.url), '..', '..', 'native')
const kernels = join(native, 'gpu', 'kernels')
const output = join(native, 'gpu', 'metal', 'generated')

// The words of one language are enough.
const instead = { 'gpu/kernels/dialect.h': 'gpu/metal/dialect_metal.h' }

/** A file's text with its own headers in place of their names, each once. */
function bundle(path, seen) {
  const lines = readFileSync(join(native, path), 'utf8').split('\n')
  const out = []
  for (const line of lines) {
    const name = /^#include "(.+)"$/.exec(line)?.[1]
    if (line === '#pragma once') continue
    if (!name) {
      out.push(line)
      continue
    }
    const file = instead[name] ?? name
    if (!seen.has(file)) {
      seen.add(file)
      out.push(bundle(file, seen))
    }
  }
  return out.join('\n')
}

/** [name, text] of each file. */
export function mslSources() {
  return readdirSync(kernels)
    .filter((name) => name.endsWith('.cu'))
    .sort()
    .map((name) => [basename(name, '.cu'), bundle(`gpu/kernels/${name}`, new Set())])
}

export function buildMsl() {
  const rows = mslSources().map(([name, text]) => `    {"${name}", R"MSL(${text})MSL"},\n`)
  mkdirSync(output, { recursive: true })
  writeFileSync(
    join(output, 'msl.inc'),
    `// Made by scripts/build-msl.mjs\nconstexpr Source kSources[] = {\n${rows.join('')}};\n`
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  buildMsl()
  const folder = process.argv[2]
  if (folder) mkdirSync(folder, { recursive: true })
  for (const [name, text] of folder ? mslSources() : []) writeFileSync(join(folder, `${name}.metal`), text)
}
