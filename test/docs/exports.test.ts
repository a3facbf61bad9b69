/** docs/api.md names everything that the package exports, types too. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { expect, it } from 'vitest'
import * as api from '../../lib/index'

const root = join(__dirname, '..', '..')

function exportedNames(): string[] {
  const source = ts.createSourceFile(
    'index.ts',
    readFileSync(join(root, 'lib/index.ts'), 'utf8'),
    ts.ScriptTarget.Latest
  )
  return source.statements.flatMap((statement) => {
    if (!ts.isExportDeclaration(statement) || !statement.exportClause || !ts.isNamedExports(statement.exportClause))
      throw new Error(`not a list of exports: ${source.text.slice(statement.pos, statement.end)}`)
    return statement.exportClause.elements.map(({ name }) => name.text)
  })
}

it('docs/api.md names every export', () => {
  const names = exportedNames()
  expect(names).toEqual(expect.arrayContaining(Object.keys(api)))
  const reference = new Set(readFileSync(join(root, 'docs/api.md'), 'utf8').match(/[A-Za-z0-9]+/g))
  expect(names.filter((name) => !reference.has(name))).toEqual([])
})
