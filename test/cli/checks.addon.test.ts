/** What the engine alone knows about options is asked before a model is loaded, too. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { demoImage } from '../../lib/base/package-files'
import { command } from '../support/command'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const run = async (...args: string[]) =>
  await command('run', '-i', demoImage, '-p', 'caption en', '--model', join(tempDir(), 'missing.gguf'), ...args)

it.each([
  ['a(b', 'at position 1'],
  ['a\\b', 'at position'],
  ['((((a{100}){100}){100}){100})', 'regular expression']
])('the pattern %s is refused before the model is looked for', async (regex, words) => {
  const { code, err } = await run('--regex', regex)
  expect(err).toMatch(/^ERR_INVALID_OPTION: .*\n$/)
  expect(err).toContain(words)
  expect(code).toBe(2)
})

it('so is a schema that is too large for an automaton', async () => {
  const schema = join(tempDir(), 'schema.json')
  const nested = (depth: number): object =>
    depth === 0 ? { type: 'string' } : { type: 'array', items: nested(depth - 1), minItems: 60, maxItems: 60 }
  writeFileSync(schema, JSON.stringify(nested(4)))
  const { code, err } = await run('--json-schema', schema)
  expect(err).toMatch(/^ERR_INVALID_OPTION: /)
  expect(code).toBe(2)
})

it('a right pattern is no mistake', async () => {
  expect((await run('--regex', 'yes|no')).err).toMatch(/^ERR_MODEL_NOT_FOUND/)
})

it('as many beams as are asked for have room', async () => {
  const { code, err, out } = await command('caption', '-m', 'demo', '--beams', '6', '--max-tokens', '4', demoImage)
  expect({ code, err }).toEqual({ code: 0, err: '' })
  expect(out).toContain('text')
})
