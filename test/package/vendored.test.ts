/** What the packed files take of others' work is in them, or is what package.json asks for. */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { expect, it } from 'vitest'

const root = join(__dirname, '..', '..')
const files = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' }).filter((name) =>
  /[\\/]vendored\.ts$/.test(name)
)

/** Values that the source exports, without types. */
function names(source: string): string[] {
  const lists = [...source.matchAll(/^export (?!type)\{([^}]*)\}/gm)].flatMap(([, list]) => list!.split(','))
  return lists
    .map((name) => name.trim())
    .filter((name) => name !== '' && !name.startsWith('type '))
    .map((name) => name.replace(/^.* as /, ''))
}

it.each(files)('%s', (file) => {
  const wanted = names(readFileSync(join(root, 'lib', file), 'utf8')).sort()
  expect(wanted).not.toEqual([])
  const built = join(root, 'dist', file.replace(/ts$/, 'js'))
  const script = `import(${JSON.stringify(built)}).then((found) =>
    console.log(JSON.stringify(${JSON.stringify(wanted)}.filter((name) => found[name] !== undefined))))`
  expect(JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }))).toEqual(wanted)
})

it('asks for no package that nobody installs', () => {
  const { dependencies, peerDependencies = {} } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: object
    peerDependencies?: object
  }
  const known = new Set([...Object.keys(dependencies), ...Object.keys(peerDependencies), 'node-paligemma'])
  const dist = join(root, 'dist')
  const asked = readdirSync(dist, { recursive: true, encoding: 'utf8' })
    // the page's files are a browser's, and show programs that people may copy
    .filter((name) => /\.m?js$/.test(name) && !/vendored\.js$|^server.page/.test(name))
    .flatMap((name) => {
      const text = readFileSync(join(dist, name), 'utf8')
      const found = text.matchAll(/(?:\brequire\(|\bimport\(|\bfrom )["'`]([@\w][^"'`<\n]*)["'`]/g)
      return [...found].map(([, wanted]) => ({ name, wanted: wanted!.replace(/^((?:@[^/]+\/)?[^/]+).*$/, '$1') }))
    })
    .filter(({ wanted }) => !wanted.startsWith('node:') && !builtinModules.includes(wanted) && !known.has(wanted))
  expect(asked).toEqual([])
})
