/** What the server needs loads with it and not with the package. */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, it } from 'vitest'

const imports = /^(?:import|export) (?!type )(?:[\w*]+(?: as \w+)?|(?:\w+, )?\{[^}]*\}) from '([^']+)'/gm
const lib = join(__dirname, '..', '..', 'lib')

/**
 * Packages and files of lib that a file loads when it is loaded, itself or through others; types and lazy imports not.
 */
function loads(file: string, seen = new Set<string>()): Set<string> {
  if (seen.has(file)) return seen
  seen.add(file)
  const source = readFileSync(`${file}.ts`, 'utf8')
  for (const [, name] of source.matchAll(imports)) {
    if (!name!.startsWith('.')) seen.add(name!)
    else loads(resolved(join(dirname(file), name!)), seen)
  }
  return seen
}

function resolved(path: string): string {
  try {
    readFileSync(`${path}.ts`)
    return path
  } catch {
    return join(path, 'index')
  }
}

const heavy = ['hono', 'zod', '@hono/node-server', 'prom-client']

it("import 'node-paligemma' loads nothing of the server", () => {
  const loaded = loads(join(lib, 'index'))
  expect([...loaded].filter((name) => heavy.some((other) => name === other || name.startsWith(`${other}/`)))).toEqual(
    []
  )
  expect([...loaded].filter((name) => name.includes(join(lib, 'server')))).toEqual([])
  expect(loaded.size).toBeGreaterThan(50)
})

it('the command loads it for serve alone', () => {
  const loaded = loads(join(lib, 'cli', 'program'))
  expect([...loaded].filter((name) => heavy.includes(name))).toEqual([])
})

it('the server does', () => {
  expect([...loads(join(lib, 'server', 'index'))]).toEqual(expect.arrayContaining(heavy))
})
