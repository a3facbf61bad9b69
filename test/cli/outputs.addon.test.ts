/** Where every verb and call that writes puts its file: behind links, never in place of what is read for it. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { loadModel, quantizeModel } from '../../lib/index'
import { command } from '../support/command'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { writeTinyModel } from '../support/tiny-model'

const windows = process.platform === 'win32'
const tiny = writeTinyModel({ maskDecoder: true, contextSize: 512 })
afterAll(removeTempDirs)

let dir = ''
const at = (...names: string[]): string => join(dir, ...names)
const hash = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

beforeEach(async () => {
  dir = tempDir()
  copyFileSync(tiny, at('m.gguf'))
  const red = sharp({ create: { width: 40, height: 40, channels: 3, background: 'red' } })
  await red.png().toFile(at('a.png'))
  await red.gif().toFile(at('v.gif'))
  writeFileSync(at('list.txt'), at('a.png'))
  writeFileSync(at('prompts.txt'), 'caption en\n')
  writeFileSync(at('rows.jsonl'), '{"image": "a.png", "prefix": "color", "suffix": "red"}\n')
})

type Verb = (out: string) => string[]
const model = (): string[] => ['--model', at('m.gguf'), '--threads', '1']
const short = ['-n', '1']
const batch = (...more: string[]): Verb => {
  return (out) => ['batch', ...model(), '--task', 'ocr', ...short, at('a.png'), '--out', out, ...more]
}
const rowsOf = (): string => at('rows.jsonl')
const verbs: Record<string, Verb> = {
  convert: (out) => ['convert', at('m.gguf'), '--out', out],
  quantize: (out) => ['quantize', at('m.gguf'), out, '--type', 'Q8_0'],
  imatrix: (out) => ['imatrix', ...model(), '-i', at('a.png'), ...short, '-p', at('prompts.txt'), '--out', out],
  fit: (out) => ['fit', ...model(), '--data', rowsOf(), '--steps', '1', '--rank', '1', '--out', out],
  batch: batch(),
  'batch csv': batch('--format', 'csv'),
  'batch anew': batch('--overwrite'),
  'batch anew, csv': batch('--overwrite', '--format', 'csv'),
  run: (out) => ['run', ...model(), ...short, '-i', at('a.png'), '-p', 'detect cow', '--annotate', out],
  detect: (out) => ['detect', ...model(), ...short, '-l', 'cow', at('a.png'), '--annotate', out],
  video: (out) => ['video', at('v.gif'), ...model(), ...short, '--detect', 'cow', '--out', out, '--overwrite'],
  dataset: (out) => ['dataset', rowsOf(), '--to', 'csv', '--out', out]
}
const rowsAlone = ['dataset']
const endings: Record<string, string> = { convert: '.gguf', quantize: '.gguf', imatrix: '.gguf', fit: '.gguf' }
const nameOf = (verb: string, name: string): string => name + (endings[verb] ?? '.out')

describe.skipIf(windows).each(Object.entries(verbs))('%s', (verb, args) => {
  it('writes behind chains of links, also relative ones and where nothing is yet, and leaves the links', async () => {
    const name = nameOf(verb, 'x')
    for (const folder of ['disk', 'links', 'more']) mkdirSync(at(folder))
    symlinkSync(join('..', 'disk', name), at('links', name))
    symlinkSync(at('links', name), at('more', name))
    symlinkSync('more', at('folder'))
    const { code, err } = await command(...args(at('folder', name)))
    expect(code, err).toBe(0)
    expect(lstatSync(at('disk', name)).isFile()).toBe(true)
    expect(readlinkSync(at('links', name))).toBe(join('..', 'disk', name))
    expect(lstatSync(at('more', name)).isSymbolicLink()).toBe(true)
    for (const left of ['disk', 'links', 'more'])
      expect(readdirSync(at(left)).filter((file) => /\.(?:part|lock)$/.test(file))).toEqual([])
  })

  it('refuses circles, links into nowhere and into what is no place for files', async () => {
    symlinkSync(nameOf(verb, 'b'), at(nameOf(verb, 'c')))
    symlinkSync(nameOf(verb, 'c'), at(nameOf(verb, 'b')))
    symlinkSync(join('no', 'folder', nameOf(verb, 'x')), at(nameOf(verb, 'nowhere')))
    symlinkSync('/proc/self/mem', at(nameOf(verb, 'system')))
    const before = readdirSync(dir).sort()
    for (const name of ['b', 'nowhere', 'system']) {
      const { code, err } = await command(...args(at(nameOf(verb, name))))
      expect([name, code]).toEqual([name, 2])
      expect(err).toMatch(/^ERR_INVALID_OPTION: /)
      expect(err).toContain(nameOf(verb, name))
    }
    expect(readdirSync(dir).sort()).toEqual(before)
  })

  it('never takes the place of the files that it reads, by whatever name', async () => {
    const read = ['m.gguf', 'a.png', 'rows.jsonl', 'list.txt'].map((name) => [name, hash(at(name))])
    const source = rowsAlone.includes(verb) ? 'rows.jsonl' : 'm.gguf'
    linkSync(at(source), at(nameOf(verb, 'hard')))
    symlinkSync(source, at(nameOf(verb, 'first')))
    symlinkSync(nameOf(verb, 'first'), at(nameOf(verb, 'second')))
    const before = readdirSync(dir).sort()
    for (const name of [source, nameOf(verb, 'hard'), nameOf(verb, 'second')]) {
      const { code, err } = await command(...args(at(name)))
      expect([name, code, err]).toEqual([name, 2, expect.stringMatching(/^ERR_INVALID_OPTION: /)])
    }
    expect(readdirSync(dir).sort()).toEqual(before)
    expect(read).toEqual(read.map(([name]) => [name, hash(at(name!))]))
  })
})

describe.skipIf(windows)('what else is read', () => {
  it('are lists, rows, prompts, pictures and films', async () => {
    for (const [words, out] of [
      [['batch', ...model(), '--task', 'ocr', '--files-from', at('list.txt'), '--overwrite'], 'list.txt'],
      [['batch', ...model(), '--task', 'ocr', at('a.png'), '--overwrite', '--format', 'csv'], 'a.png'],
      [['imatrix', ...model(), '-i', at('a.png'), '-p', at('prompts.txt')], 'prompts.txt'],
      [['imatrix', ...model(), '-i', at('a.png')], 'a.png'],
      [['video', at('v.gif'), ...model(), '--detect', 'cow', '--overwrite'], 'v.gif']
    ] as const) {
      const before = hash(at(out))
      const { code, err } = await command(...words, '--out', at(out))
      expect([code, err]).toEqual([2, expect.stringMatching(/is a file that is read for it .*choose another name/)])
      expect(hash(at(out))).toBe(before)
    }
  })

  it('are the other parts of a split model', async () => {
    for (const part of ['x-00001-of-00002.gguf', 'x-00002-of-00002.gguf']) copyFileSync(tiny, at(part))
    await expect(
      quantizeModel({ source: at('x-00001-of-00002.gguf'), out: at('x-00002-of-00002.gguf'), type: 'Q8_0' })
    ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining('read for it') })
  })

  it('is the model of a trained adapter, wherever that is saved', async () => {
    const loaded = await loadModel({ model: at('m.gguf'), threads: 1 })
    try {
      const rows = [{ prompt: 'a', response: 'b' }]
      const { adapter } = await loaded.fit(rows, { steps: 1, rank: 1, targets: ['q_proj'] })
      symlinkSync('m.gguf', at('link.gguf'))
      for (const name of ['m.gguf', 'link.gguf'])
        await expect(adapter.save(at(name))).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
      await adapter.save(at('adapter.gguf'))
    } finally {
      await loaded.dispose()
    }
    expect(hash(at('m.gguf'))).toBe(hash(tiny))
  })
})

// Root may write everywhere: as a user of nobody's.
const stranger = ['--reuid', '54321', '--regid', '54321', '--clear-groups']
const canBeOther = process.platform === 'linux' && spawnSync('setpriv', [...stranger, 'true']).status === 0

it.skipIf(!canBeOther).each(['quantize', 'fit', 'batch', 'detect'])(
  '%s says that a link leads to where nothing may be written, before it works',
  (verb) => {
    const name = nameOf(verb, 'x')
    mkdirSync(at('shut'), { mode: 0o555 })
    mkdirSync(at('open'), { mode: 0o777 })
    chmodSync(dir, 0o755)
    chmodSync(at('open'), 0o777)
    symlinkSync(join('..', 'shut', name), at('open', name))
    const main = join(__dirname, '..', '..', 'dist', 'cli', 'main.js')
    const words = [...stranger, process.execPath, main, ...verbs[verb]!(at('open', name))]
    const { status, stderr } = spawnSync('setpriv', words, { encoding: 'utf8', cwd: '/' })
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^ERR_ACCESS_DENIED: .*(?:out|--annotate)/)])
    expect(stderr).toContain(at('open', name))
    expect([readdirSync(at('shut')), readdirSync(at('open'))]).toEqual([[], [name]])
  }
)

const readOnly = ['-m', 'sh', '-c', 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"']
const canMount = process.platform === 'linux' && spawnSync('unshare', [...readOnly, tmpdir(), 'true']).status === 0

it.skipIf(!canMount).each([...Object.keys(verbs), 'fit into a folder'])(
  '%s names the path and the option on a read-only disk',
  (verb) => {
    mkdirSync(at('disk'))
    const args = verbs[verb] ?? ((out: string) => verbs['fit']!(out))
    const out = verbs[verb] ? at('disk', nameOf(verb, 'x')) : at('disk', 'new', 'adapter')
    const main = join(__dirname, '..', '..', 'dist', 'cli', 'main.js')
    const words = [...readOnly, at('disk'), process.execPath, main, ...args(out)]
    const { status, stderr } = spawnSync('unshare', words, { encoding: 'utf8' })
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(/^ERR_ACCESS_DENIED: .*choose another place with (?:--)?(?:out|annotate):/)
    ])
    expect(stderr).toContain(out)
  }
)

it.skipIf(windows)('a batch goes on, whichever link names its rows, and --overwrite keeps the link', async () => {
  mkdirSync(at('disk'))
  symlinkSync(join('disk', 'rows.out'), at('link.out'))
  writeFileSync(at('disk', 'rows.out'), 'somebody wrote this\n')
  expect((await command(...batch()(at('link.out')))).err).toMatch(/was not begun by this command/)
  expect((await command(...batch('--overwrite')(at('link.out')))).code).toBe(0)
  expect(lstatSync(at('link.out')).isSymbolicLink()).toBe(true)
  const rows = readFileSync(at('disk', 'rows.out'), 'utf8')
  expect(JSON.parse(rows)).toMatchObject({ image: at('a.png') })
  expect((await command(...batch()(at('disk', 'rows.out')))).code).toBe(0)
  expect(readFileSync(at('disk', 'rows.out'), 'utf8')).toBe(rows)
})

it.each(['convert', 'quantize', 'imatrix', 'fit', 'dataset'])('%s replaces a file of that name', async (verb) => {
  const out = at(nameOf(verb, 'old'))
  writeFileSync(out, 'old')
  const { code, err } = await command(...verbs[verb]!(out))
  expect(code, err).toBe(0)
  expect(readFileSync(out, 'latin1')).not.toBe('old')
})

it('fit replaces the adapter of a folder', async () => {
  mkdirSync(at('adapter'))
  const names = ['adapter_model.safetensors', 'adapter_config.json']
  for (const name of names) writeFileSync(at('adapter', name), 'old')
  const { code, err } = await command(...verbs['fit']!(at('adapter')))
  expect(code, err).toBe(0)
  for (const name of names) expect(readFileSync(at('adapter', name), 'latin1')).not.toBe('old')
})
