// Each vendored.ts of lib names packages that a part of the program is made of. Replaces what tsc made of it, which
// requires them, by one file that holds what is used of them, and writes names, versions and licences of all into
// dist/vendored.licences.txt. Run by the build, after tsc.
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const banner = (up) => `// Work of others; whose, and under which licences: ${up}vendored.licences.txt`

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

/** Writes dist/<folder>/vendored.js; the packages that are in it. */
async function bundleFolder(folder) {
  const bundle = await rolldown({
    input: join(root, 'lib', folder, 'vendored.ts'),
    platform: 'node',
    external: /^node:/,
    onLog: (level, log) => {
      throw new Error(`bundling lib/${folder}/vendored.ts: ${level}: ${log.message}`)
    }
  })
  const file = join(root, 'dist', folder, 'vendored.js')
  const { output } = await bundle.write({
    file,
    format: 'cjs',
    minify: {
      compress: true,
      // Names of functions and classes are read by programs: CommanderError, for one, is called what its class is.
      mangle: { toplevel: true, keepNames: { function: true, class: true } },
      codegen: { removeWhitespace: true }
    }
  })
  await bundle.close()
  const up = '../'.repeat(folder.split(sep).length)
  // import() finds names that are given by a getter only where it says "true": `!0` hides them
  const code = readFileSync(file, 'utf8').replaceAll(
    '{enumerable:!0,get:function(){',
    '{enumerable:true,get:function(){'
  )
  writeFileSync(file, `${banner(up)}\n${code}`)
  const modules = output.flatMap((chunk) => chunk.moduleIds ?? [])
  return modules.filter((id) => existsSync(id) && id.includes('node_modules')).map(folderOf)
}

const folders = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })
  .filter((name) => /[\\/]vendored\.ts$/.test(name))
  .map(dirname)
const names = (await Promise.all(folders.map(bundleFolder))).flat()
const rule = '='.repeat(80)
const entries = [...new Set(names)]
  .sort()
  .map(licenceOf)
  .map(({ name, version, license, text }) => `${rule}\n${name} ${version} (${license})\n\n${text}\n`)
writeFileSync(join(root, 'dist', 'vendored.licences.txt'), entries.join('\n'))
