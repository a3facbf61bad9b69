// Replaces dist/server/vendored.js, which requires the packages that the server is made of, by one file that holds what
// is used of them, and writes their names, versions and licences beside it. Run by the build, after tsc.
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const output = join(root, 'dist', 'server')

/** The folder in node_modules of the package that a file is of. */
function folderOf(file) {
  const path = relative(join(root, 'node_modules'), file).split(sep)
  return path.slice(0, path[0].startsWith('@') ? 2 : 1).join('/')
}

function licenceOf(name) {
  const folder = join(root, 'node_modules', name)
  const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const file = readdirSync(folder).find((entry) => /^licen[cs]e(\.\w+)?$/i.test(entry))
  if (!file) throw new Error(`${name} has no file with its licence, which must come with the package`)
  return { name, version, license, text: readFileSync(join(folder, file), 'utf8').trim() }
}

const bundle = await rolldown({
  input: join(root, 'lib', 'server', 'vendored.ts'),
  platform: 'node',
  external: /^node:/,
  onLog: (level, log) => {
    throw new Error(`bundling what the server is made of: ${level}: ${log.message}`)
  }
})
const file = join(output, 'vendored.js')
const { output: chunks } = await bundle.write({
  file,
  format: 'cjs',
  minify: { compress: true, mangle: false, codegen: { removeWhitespace: true } }
})
await bundle.close()
const banner = '// Work of others; whose, and under which licences: vendored.licences.txt beside this file.'
writeFileSync(file, `${banner}\n${readFileSync(file, 'utf8')}`)

const modules = chunks
  .flatMap((chunk) => chunk.moduleIds ?? [])
  .filter((id) => existsSync(id) && id.includes('node_modules'))
const packages = [...new Set(modules.map(folderOf))].sort().map(licenceOf)
const rule = '='.repeat(80)
writeFileSync(
  join(output, 'vendored.licences.txt'),
  packages.map(({ name, version, license, text }) => `${rule}\n${name} ${version} (${license})\n\n${text}\n`).join('\n')
)
