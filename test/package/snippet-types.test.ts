/** The documentation's snippets as a compiler reads them: names, options and results that there are. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { snippets } from '../support/snippets'

const root = join(__dirname, '..', '..')
const dir = mkdtempSync(join(tmpdir(), 'paligemma-snippets-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** What readers have by then: everything that the package exports, a loaded model, pictures, results. */
const globals = (exported: string[]): string => `
${exported.map((name) => `declare const ${name}: typeof import('node-paligemma').${name}`).join('\n')}
declare const model: import('node-paligemma').PaliGemma
declare const image: string, page: string, before: string, after: string, paths: string[], urls: string[]
declare const objects: import('node-paligemma').Detection[], pages: import('node-paligemma').Embedding[]
declare const query: import('node-paligemma').Embedding, bits: import('node-paligemma').PageIndex
declare const int8VectorsFromDatabase: (page: number) => Promise<import('node-paligemma').Embedding>
declare const schema: { type: 'string' }
declare const writeFile: typeof import('node:fs/promises').writeFile
declare const app: any
${['ai', 'zod', 'openai', '@langchain/core/messages', '@langchain/openai', '@llamaindex/openai', 'electron', '*.node']
  .map((name) => `declare module '${name}'`)
  .join('\n')}
`

it('every snippet compiles', () => {
  mkdirSync(join(dir, 'node_modules'))
  symlinkSync(root, join(dir, 'node_modules', 'node-paligemma'), 'junction')
  for (const name of ['@types', 'sharp'])
    symlinkSync(join(root, 'node_modules', name), join(dir, 'node_modules', name), 'junction')
  const values = execFileSync(process.execPath, ['-p', 'Object.keys(require("./dist")).join()'], { cwd: root })
  writeFileSync(join(dir, 'globals.d.ts'), globals(String(values).trim().split(',')))
  const all = snippets(['js', 'mjs', 'cjs', 'ts'])
  expect(all.length).toBeGreaterThan(30)
  const names = all.map(({ where, text }) => {
    const name = `${where.replace(/\W+/g, '-')}.mts`
    writeFileSync(join(dir, name), `${text}\nexport {}\n`)
    return name
  })
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const options =
    '--noEmit --module nodenext --target es2022 --lib es2023,esnext.disposable --skipLibCheck --strict false'
  const found = (): string => {
    try {
      const args = [compiler, ...options.split(' '), '--types', 'node', ...names, 'globals.d.ts']
      return execFileSync(process.execPath, args, { cwd: dir, encoding: 'utf8' })
    } catch (error) {
      return (error as { stdout: string }).stdout
    }
  }
  expect(found()).toBe('')
})
