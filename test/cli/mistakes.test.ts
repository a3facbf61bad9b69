/** What people get wrong at first, and what they are told. */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { demoImage } from '../../lib/base/package-files'
import { formatOf } from '../../lib/cli/batch/flags'
import { counted } from '../../lib/cli/context'
import { command } from '../support/command'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

let folder: string
const at = (name: string): string => join(folder, name)
beforeAll(() => {
  folder = tempDir()
  mkdirSync(at('photos/deep'), { recursive: true })
  for (const name of ['photos/a.png', 'photos/deep/b.png']) copyFileSync(demoImage, at(name))
  mkdirSync(at('flat/.hidden'), { recursive: true })
  for (const name of ['flat/a.png', 'flat/.hidden/b.png']) copyFileSync(demoImage, at(name))
  writeFileSync(at('table.csv'), 'image,question,answer\na.png,what?,that\n')
  writeFileSync(at('model.safetensors'), Buffer.alloc(64))
})

it.each([
  ['--model=~/model.gguf', 'caption', demoImage],
  ['--model', '~/model.gguf', 'caption', demoImage]
])('a ~ that the shell left: %s', async (...args) => {
  const { err, code } = await command(args.at(-2)!, ...args.slice(0, -2), args.at(-1)!)
  expect(err).toMatch(/\nnote: a shell replaces ~ at the beginning of a word alone/)
  expect(code).toBe(1)
})

it.each(['caption', 'batch'])(
  '%s says that it passes over folders inside a folder, if they hold pictures',
  async (verb) => {
    const more = verb === 'batch' ? ['--task', 'caption', '--out', at('rows.jsonl')] : []
    const model = ['--model', at('missing.gguf')]
    const deep = await command(verb, at('photos'), ...more, ...model)
    expect(deep.err).toContain(`'${at('photos/**/*.{jpg,png}')}' takes them too`)
    const flat = await command(verb, at('flat'), ...more, ...model)
    expect(flat.err).not.toContain('note:')
  }
)

it('drawings are PNG, whatever the name hopes for', async () => {
  const model = ['--model', at('missing.gguf')]
  for (const [verb, ...rest] of [
    ['detect', '-l', 'x', demoImage],
    ['run', '-p', 'x', demoImage]
  ]) {
    const { err, code } = await command(verb!, ...rest, ...model, '--annotate', at('drawn.jpg'))
    expect(err).toMatch(/^ERR_INVALID_OPTION: Expected a name that ends in \.png for --annotate.*drawn\.jpg\n$/)
    expect(code).toBe(2)
  }
})

it('a batch into a .csv is CSV, and lacks nothing that all pictures need', async () => {
  expect(formatOf({ out: 'a.CSV' })).toBe('csv')
  expect(formatOf({ out: 'a.csv', format: 'jsonl' })).toBe('jsonl')
  expect(formatOf({ out: 'a.json' })).toBe('jsonl')
  for (const [task, flag] of [
    ['detect', '--label'],
    ['segment', '--label'],
    ['answer', '--question'],
    ['generate', '--prompt']
  ]) {
    const { err, code } = await command('batch', demoImage, '--task', task!, '--out', at('never.jsonl'), '-m', 'demo')
    expect(err).toMatch(new RegExp(`^ERR_INVALID_OPTION: Expected ${flag} for --task ${task}`))
    expect(code).toBe(2)
  }
})

it('a batch of a folder that is not there is not begun', async () => {
  const out = at('none.jsonl')
  const { err, code } = await command('batch', at('fotos'), '--task', 'caption', '--out', out, '-m', 'demo')
  expect(err).toBe(`ERR_INVALID_OPTION: There is no file or folder ${at('fotos')}\n`)
  expect([code, existsSync(out)]).toEqual([2, false])
})

it('a table where JSON lines belong, weights where a folder belongs', async () => {
  const fit = await command('fit', '--model', 'demo', '--data', at('table.csv'), '--out', at('adapter'))
  expect(fit.err).toMatch(/table\.csv:1: is no JSON .*; "paligemma dataset" makes JSON lines of CSV/)
  const convert = await command('convert', at('model.safetensors'), '--out', at('m.gguf'))
  expect(convert.err).toContain(`holds weights alone; give its folder, ${folder}, with config.json`)
  expect(convert.code).toBe(1)
})

it('errors show no field that they do not have; counts of one are singular', () => {
  expect(inspect(new PaliGemmaError('ERR_BUSY', 'later'))).not.toContain('text')
  expect(inspect(new PaliGemmaError('ERR_OUTPUT_INVALID', 'wrong', { text: 'x' }))).toContain("text: 'x'")
  expect([counted(1, 'pictures'), counted(0, 'pictures'), counted(2, 'rows')]).toEqual([
    '1 picture',
    '0 pictures',
    '2 rows'
  ])
})
