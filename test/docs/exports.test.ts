/** What the package exports, types too: docs/api.md names it, and the editor shows a note on it and its members. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'
import * as api from '../../lib/index'
import * as aisdk from '../../lib/aisdk'
import * as queue from '../../lib/queue'
import * as server from '../../lib/server'
import { publicTypes, readProgram } from '../support/public-types'

const root = join(__dirname, '..', '..')
const entries = ['lib/index.ts', 'lib/server/index.ts', 'lib/aisdk/index.ts', 'lib/queue/index.ts']

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

describe('the editor', { tags: ['slow'] }, () => {
  const example = 'test/fixtures/public-types.ts'
  const program = readProgram([...entries, example])

  it.each(entries)('has a note on every export of %s and on every member of their types', (file) => {
    const { noted, bare } = publicTypes(program, file)
    expect(bare).toEqual([])
    expect(noted).toEqual(expect.arrayContaining(exportedNames(file)))
  })

  it('reads members wherever a type of the package leads', () => {
    expect(publicTypes(program, 'lib/index.ts').noted).toEqual(
      expect.arrayContaining([
        ...['PaliGemma.detect', 'GenerateOptions.prompt', 'GenerateResult.timings.visionMs', 'prompts.detect'],
        ...['ModelFacts.vocab', 'Box.x', 'FloatTensor.shape', 'PaliGemmaError.code']
      ])
    )
  })

  it('finds what has none', () => {
    const { noted, bare } = publicTypes(program, example)
    expect(bare.map((one) => one.replace(/^.* /, '')).sort()).toEqual([
      ...['Base.bareInherited', 'Led.several', 'Led.several.bareDeep', 'Matched.bareResult', 'Options.bareOption'],
      ...['Thing.bareMethod', 'Thing.bareParameter', 'bareAlias', 'overloaded']
    ])
    expect(noted.sort()).toEqual([
      ...['Led.range', 'Led.several.noted', 'Options', 'Options.led', 'Thing', 'Thing.parameter', 'overloaded']
    ])
  })
})
