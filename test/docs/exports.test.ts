/** docs/api.md names everything that the package exports, types too. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { expect, it } from 'vitest'
import * as api from '../../lib/index'
import * as aisdk from '../../lib/aisdk'
import * as queue from '../../lib/queue'
import * as server from '../../lib/server'

const root = join(__dirname, '..', '..')

function exportedNames(file: string): string[] {
  const source = ts.createSourceFile('index.ts', readFileSync(join(root, file), 'utf8'), ts.ScriptTarget.Latest)
  return source.statements.flatMap((statement) => {
    if (!ts.isExportDeclaration(statement) || !statement.exportClause || !ts.isNamedExports(statement.exportClause))
      throw new Error(`not a list of exports: ${source.text.slice(statement.pos, statement.end)}`)
    return statement.exportClause.elements.map(({ name }) => name.text)
  })
}

it.each([
  ['lib/index.ts', api],
  ['lib/server/index.ts', server],
  ['lib/aisdk/index.ts', aisdk],
  ['lib/queue/index.ts', queue]
])('docs/api.md names every export of %s', (file, exported) => {
  const names = exportedNames(file)
  expect(names).toEqual(expect.arrayContaining(Object.keys(exported)))
  const reference = new Set(readFileSync(join(root, 'docs/api.md'), 'utf8').match(/[A-Za-z0-9]+/g))
  expect(names.filter((name) => !reference.has(name))).toEqual([])
})
