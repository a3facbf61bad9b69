/** The command without the engine: help, usage errors, globs, formats. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { annotationPath } from '../../lib/cli/annotate'
import { type Context, formatBytes, printable, printJson } from '../../lib/cli/context'
import { namedIn } from '../../lib/cli/demo'
import { expandImages } from '../../lib/cli/images'
import { execute } from '../../lib/cli/program'
import { progress } from '../../lib/cli/progress'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

function capture(): { context: Context; out: () => string; err: () => string } {
  const out: string[] = []
  const err: string[] = []
  return {
    context: {
      stdout: { write: (text) => out.push(text) },
      stderr: { write: (text) => err.push(text) },
      signal: new AbortController().signal
    },
    out: () => out.join(''),
    err: () => err.join('')
  }
}

async function paligemma(...args: string[]) {
  const { context, out, err } = capture()
  return { code: await execute(args, context), out: out(), err: err() }
}

const verbs = [
  'demo',
  'run',
  'caption',
  'answer',
  'ocr',
  'detect',
  'segment',
  'score',
  'embed',
  'search',
  'tokenize',
  'pull',
  'convert',
  'quantize',
  'imatrix',
  'quality',
  'inspect',
  'bench',
  'build'
]

describe('paligemma --help', () => {
  it('lists every verb and the exit codes, on stdout, with code 0', async () => {
    const { code, out, err } = await paligemma('--help')
    expect(code).toBe(0)
    expect(err).toBe('')
    for (const verb of verbs) expect(out).toMatch(new RegExp(`^  ${verb} `, 'm'))
    expect(out).toContain('Exit codes: 0 done, 1 failed, 2 called wrongly')
  })

  it.each(verbs)('%s --help says what it does, with code 0', async (verb) => {
    const { code, out } = await paligemma(verb, '--help')
    expect(code).toBe(0)
    expect(out).toContain(`Usage: paligemma ${verb}`)
  })

  it.each([
    'run',
    'caption',
    'answer',
    'ocr',
    'detect',
    'segment',
    'score',
    'search',
    'tokenize',
    'pull',
    'convert',
    'quantize',
    'inspect',
    'bench',
    'demo'
  ])('%s has --json', async (verb) => {
    expect((await paligemma(verb, '--help')).out).toContain('--json')
  })

  it("--version prints the package's version", async () => {
    const { code, out } = await paligemma('--version')
    expect(code).toBe(0)
    expect(out).toMatch(/^\d+\.\d+\.\d+\n$/)
  })
})

describe('wrong usage ends with code 2 and says what is wrong on stderr', () => {
  it.each([
    [[], 'Usage: paligemma'],
    [['fly'], "unknown command 'fly'"],
    [['run', '--prompt', 'x'], "required option '-m, --model <file>'"],
    [['run', '--model', 'x.gguf'], "required option '-p, --prompt <text>'"],
    [['run', '-m', 'x.gguf', '-p', 'x', '--modle', 'y'], "unknown option '--modle'"],
    [['run', '-m', 'x.gguf', '-p', 'x', '--max-tokens', 'many'], 'Expected an integer'],
    [['run', '-m', 'x.gguf', '-p', 'x', '--temperature', ''], 'Expected a number'],
    [['run', '-m', 'x.gguf', '-p', 'x', '--device', 'abacus'], 'Allowed choices are auto, cpu, cuda, metal'],
    [['run', '-m', 'x.gguf', '-p', 'x', '--annotate', 'y.png'], '--annotate needs an --image'],
    [['convert', 'somewhere'], "required option '-o, --out <file>'"],
    [['convert', 'somewhere', '-o', 'x.gguf', '--type', 'q9'], 'Expected one of F32, F16'],
    [['caption', '-m', 'x.gguf'], 'Expected at least one image'],
    [['caption', '-m', 'x.gguf', 'nothing-here-*.png'], 'No file matches nothing-here-*.png'],
    [['detect', '-m', 'x.gguf', 'y.png'], 'Expected at least one --label'],
    [['embed', '-m', 'x.gguf'], 'Expected at least one image'],
    [['embed', '-m', 'x.gguf', 'y.png', '-q', 'z'], 'Expected images or --query, not both'],
    [['embed', '-m', 'x.gguf', '-q', 'z', '--pool', '3'], '--pool is for pages'],
    [['embed', '-m', 'x.gguf', 'y.png', '--type', 'f16'], 'Allowed choices are f32, int8, binary'],
    [['search', '-m', 'x.gguf', 'total'], 'Expected images or --vectors'],
    [['search', '-m', 'x.gguf', 'total', 'y.png', '--map-token', 'total'], '--map-token needs --map'],
    [['inspect'], "missing required argument 'file'"],
    [['bench'], 'Expected --model or --synthetic'],
    [['bench', '--model', 'x.gguf', '--synthetic', 'tiny'], 'Expected --model or --synthetic, not both'],
    [['bench', '--model', 'x.gguf', '--type', 'Q4_0'], '--type and --discard are for --synthetic'],
    [['bench', '--synthetic', '4b-224'], 'Expected one of 3b-224, 3b-448'],
    [['bench', '--synthetic', 'tiny', '--type', 'q9'], 'Expected one of F32, F16'],
    [['bench', '--model', 'x.gguf', '--runs', '0'], 'Expected integer from 1 to 1000 for runs but received 0'],
    [['bench', '--model', 'x.gguf', '--tokens', '1'], 'Expected integer >= 2 for tokens but received 1'],
    [['bench', '--model', 'x.gguf', '--paper', '--depth', '300'], 'Expected no depth and tokens with paper']
  ])('%j', async (args, message) => {
    const { code, out, err } = await paligemma(...args)
    expect(code).toBe(2)
    expect(out).toBe('')
    expect(err).toContain(message)
    if (args.length > 0) expect(err).toMatch(/^ERR_INVALID_OPTION: /)
  })

  it('a missing model directory is a failure, not wrong usage', async () => {
    const { code, err } = await paligemma('convert', join(tempDir(), 'nothing'), '-o', join(tempDir(), 'x.gguf'))
    expect(code).toBe(1)
    expect(err).toMatch(/^ERR_MODEL_NOT_FOUND: .*nothing/)
  })
})

describe('images of the task verbs', () => {
  let dir: string
  beforeAll(() => {
    dir = tempDir()
    mkdirSync(join(dir, 'sub'))
    for (const name of ['b.png', 'a.png', 'c.jpg', 'odd[1].png', 'sub/d.png']) writeFileSync(join(dir, name), '')
  })

  it('expands globs in order, without repetitions', async () => {
    expect(await expandImages([join(dir, '[ab].png'), join(dir, '*.{png,jpg}')])).toEqual(
      ['a.png', 'b.png', 'c.jpg', 'odd[1].png'].map((name) => join(dir, name))
    )
    expect(await expandImages([join(dir, '**', 'd.png')])).toEqual([join(dir, 'sub', 'd.png')])
  })

  it('takes existing paths, missing paths without wildcards and URLs as they are', async () => {
    const list = [join(dir, 'odd[1].png'), 'missing.png', 'https://example.org/*.png']
    expect(await expandImages(list)).toEqual(list)
  })

  it('names the annotated pictures of several images after them', () => {
    expect(annotationPath(join(dir, 'out.png'), 'x/cow.jpg', 1)).toBe(join(dir, 'out.png'))
    expect(annotationPath(join(dir, 'new'), 'x/cow.jpg', 2)).toBe(join(dir, 'new', 'cow.png'))
    expect(annotationPath(join(dir, 'sub'), 'x/cow.jpg', 1)).toBe(join(dir, 'sub', 'cow.png'))
    expect(() => annotationPath('out.png', 'x/cow.jpg', 2)).toThrow('Expected a folder for --annotate with 2 images')
  })
})

describe('output', () => {
  it('shows control characters of models and files instead of sending them to the terminal', () => {
    expect(printable('a\u001b[31mb\u0007\n\tc\u009b')).toBe('a\\x1b[31mb\\x07\n\tc\\x9b')
  })

  it('prints one line of JSON, big integers as numbers', () => {
    const { context, out } = capture()
    printJson(context, { n: 5n, text: 'a\nb' })
    expect(out()).toBe('{"n":5,"text":"a\\nb"}\n')
  })

  it('formats sizes with decimal units', () => {
    expect([0, 999, 1000, 999_960, 3_071_300_000].map(formatBytes)).toEqual([
      '0 B',
      '999 B',
      '1.0 KB',
      '1.0 MB',
      '3.1 GB'
    ])
  })

  it('draws progress on a terminal only, and removes it', () => {
    const lines: string[] = []
    const write = (text: string) => lines.push(text)
    const { context } = capture()
    const silent = progress({ ...context, stderr: { write } }, 'converting')
    silent.update(0.5)
    silent.done()
    expect(lines).toEqual([])
    const bar = progress({ ...context, stderr: { write, isTTY: true, columns: 60 } }, 'converting')
    bar.update(0.5)
    bar.update(0.51)
    bar.done()
    expect(lines).toHaveLength(2)
    expect(lines[0]).toContain('converting [############............]  50%')
    expect(lines[0]!.replace('\r\x1b[2K', '').length).toBeLessThan(60)
    expect(lines[1]).toBe('\r\x1b[2K')
  })

  it('asks the demo model about what its caption names', () => {
    expect(namedIn('a red circle, two blue stars and a heart on a striped background with the number 42')).toEqual([
      'red circle',
      'blue star',
      'heart'
    ])
    expect(namedIn('three green crosses and a green cross on a plain background')).toEqual(['green cross'])
    expect(namedIn('nothing')).toContain('circle')
  })
})
