/** What the program takes of others' work by import() is there under its name, in the files that are packed. */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
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
