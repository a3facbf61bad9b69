/** What the package exports, types too: docs/api.md names it, and the editor shows a note on it. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
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

const files = new Map<string, ts.SourceFile>()
function parsed(path: string): ts.SourceFile {
  const text = () => readFileSync(path, 'utf8')
  const file = files.get(path) ?? ts.createSourceFile(path, text(), ts.ScriptTarget.Latest, /* setParentNodes */ true)
  files.set(path, file)
  return file
}

function namesOf(statement: ts.Statement): string[] {
  if (ts.isVariableStatement(statement)) return statement.declarationList.declarations.map(({ name }) => name.getText())
  const { name } = statement as ts.DeclarationStatement
  return name ? [name.getText()] : []
}

/** Whether a note stands on the declaration of a name, in this file or in the one that it comes from. */
function isNoted(path: string, name: string): boolean {
  return parsed(path).statements.some((statement) => {
    if (namesOf(statement).includes(name)) return ts.getJSDocCommentsAndTags(statement).some(ts.isJSDoc)
    if (!ts.isExportDeclaration(statement) && !ts.isImportDeclaration(statement)) return false
    const clause = ts.isExportDeclaration(statement) ? statement.exportClause : statement.importClause?.namedBindings
    const from = statement.moduleSpecifier && (statement.moduleSpecifier as ts.StringLiteral).text
    if (!from?.startsWith('.') || !clause || ts.isNamespaceExport(clause) || ts.isNamespaceImport(clause)) return false
    const elements: readonly (ts.ExportSpecifier | ts.ImportSpecifier)[] = clause.elements
    const element = elements.find((one) => one.name.text === name)
    const place = join(dirname(path), from)
    const file = [`${place}.ts`, join(place, 'index.ts')].find((candidate) => existsSync(candidate))
    return element !== undefined && isNoted(file!, (element.propertyName ?? element.name).text)
  })
}

it.each(['lib/index.ts', 'lib/server/index.ts', 'lib/aisdk/index.ts', 'lib/queue/index.ts'])(
  'the editor has a note on every export of %s',
  (file) => {
    expect(exportedNames(file).filter((name) => !isNoted(join(root, file), name))).toEqual([])
    expect(isNoted(join(root, file), 'nothing')).toBe(false)
  }
)
