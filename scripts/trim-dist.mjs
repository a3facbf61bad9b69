// What of tsc's output nobody reads does not travel: types that no entry point reaches, and the comments of JavaScript,
// which its types have, too. Run by the build, last.
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const dist = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist')
const files = readdirSync(dist, { recursive: true, encoding: 'utf8' }).map((name) => join(dist, name))
const endsWith = (ending) => (file) => file.endsWith(ending)

/** The files of types that one refers to. */
function referred(file) {
  const { importedFiles } = ts.preProcessFile(readFileSync(file, 'utf8'))
  return importedFiles
    .map(({ fileName }) => fileName)
    .filter((name) => name.startsWith('.'))
    .map((name) => resolve(dirname(file), name.replace(/\.js$/, '')))
    .map((path) => [`${path}.d.ts`, join(path, 'index.d.ts')].find((one) => files.includes(one)))
    .filter((one) => one !== undefined)
}

const reached = new Set(files.filter(endsWith('index.d.mts')).map((file) => file.replace(/\.d\.mts$/, '.d.ts')))
for (const file of reached) for (const other of referred(file)) reached.add(other)
for (const file of files.filter(endsWith('.d.ts'))) if (!reached.has(file)) rmSync(file)

const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, removeComments: true }
for (const file of files.filter(endsWith('.js')).filter((one) => !one.includes('vendored') && !one.includes('page'))) {
  const { outputText } = ts.transpileModule(readFileSync(file, 'utf8'), { compilerOptions, fileName: file })
  writeFileSync(file, outputText)
}
