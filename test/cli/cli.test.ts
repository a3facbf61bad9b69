/** The command without the engine: help, usage errors, globs, formats. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Annotations } from '../../lib/cli/tasks/annotate'
import { type Context, formatBytes, printable, printJson } from '../../lib/cli/context'
import { namedIn } from '../../lib/cli/tasks/demo'
import { expandImages, imagesOf, Pictures } from '../../lib/cli/images'
import { execute } from '../../lib/cli/program'
import { progress } from '../../lib/cli/progress'
import { lineAbout } from '../support/command'
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
  'video',
  'watch',
  'detect',
  'segment',
  'batch',
  'score',
  'serve',
  'worker',
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

it.skipIf(process.platform === 'win32')('a link in a circle is refused with a code, wherever it is named', async () => {
  const circle = join(tempDir(), 'circle.png')
  symlinkSync('circle.png', circle)
  const picture = join(__dirname, '..', '..', 'demo', 'shapes.png')
  for (const verb of ['detect', 'segment']) {
    const { code, err } = await paligemma(verb, '-m', 'demo', '-l', 'ring', picture, '--annotate', circle)
    expect({ verb, code, err }).toEqual({ verb, code: 2, err: expect.stringMatching(/^ERR_INVALID_OPTION: .*circle/) })
  }
  // it may be anything: what reads it says what is wrong
  for (const name of [circle, 'a'.repeat(5000)]) expect(await expandImages([name])).toEqual([name])
})

describe('paligemma --help', () => {
  it('lists every verb and the exit codes, on stdout, with code 0', async () => {
    const { code, out, err } = await paligemma('--help')
    expect(code).toBe(0)
    expect(err).toBe('')
    for (const verb of verbs) expect(out).toMatch(new RegExp(`^  ${verb} `, 'm'))
    expect(out).toContain('Exit codes: 0 done, 1 failed, 2 called wrongly')
    expect(out).toContain('replace those of their name once they are whole; batch and video go on')
  })

  it.each(verbs)('%s --help has two examples that its own options allow', async (verb) => {
    const { out } = await paligemma(verb, '--help')
    const examples = out
      .slice(out.indexOf('Examples:'))
      .split('\n')
      .filter((line) => line.startsWith('  $ '))
    expect(examples.length).toBeGreaterThanOrEqual(2)
    for (const example of examples) {
      const [, call] = /(?:^ {2}\$|\|) paligemma (.*?)(?: [<>] .*)?$/.exec(example)!
      expect(call).toMatch(new RegExp(`^${verb}\\b`))
      for (const [, option] of call!.matchAll(/ (--?[a-z][a-z-]*)/g)) expect(out, example).toMatch(lineAbout(option!))
    }
  })

  it.each(['caption', 'detect', 'segment', 'run'])('%s --help shows options in groups, in one order', async (verb) => {
    const { out } = await paligemma(verb, '--help')
    const headings = [...out.matchAll(/^(\w+):$/gm)].map(([, name]) => name)
    const order = ['Arguments', 'Task', 'Picture', 'Output', 'Sampling', 'Model', 'Expert', 'Help', 'Examples']
    expect(headings).toEqual(order)
    expect(out).toMatch(/--max-tokens <n> .*\(default: 256\b/)
  })

  it.each(['caption', 'detect', 'video', 'watch', 'demo', 'search'])(
    '%s takes --jsonl for lines of JSON',
    async (verb) => {
      const { err } = await paligemma(verb, '--jsonl', '--json', '--no-such-option')
      expect(err).toMatch(/unknown option '--no-such-option'/)
    }
  )

  it.each([
    ['video', 'clip.mp4', ['--caption', '--detect', 'cow'], '--caption and --detect'],
    ['video', 'clip.mp4', ['--question', 'what?', '--prompt', 'ocr'], '--question and --prompt'],
    ['watch', '-', ['--caption', '--question', 'what?', '--detect', 'cow'], '--caption and --question and --detect']
  ])('%s takes one task', async (verb, source, flags, words) => {
    const { code, err } = await paligemma(verb, source, '-m', 'demo', ...flags)
    expect(code).toBe(2)
    expect(err).toContain(`ERR_INVALID_OPTION: ${words} ask for different things; take one`)
  })

  it('names options as they are typed', async () => {
    expect((await paligemma('watch', '-', '-m', 'demo', '--min-score', '0.5')).err).toContain(
      '--min-score needs --detect'
    )
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
    [['fly', '--help'], "unknown command 'fly'"],
    [['--help', 'capton'], "unknown command 'capton' (Did you mean caption?)"],
    [['capton', '-h', '--json', 'x.png'], "unknown command 'capton' (Did you mean caption?)"],
    [['help', 'capton'], "unknown command 'capton' (Did you mean caption?)"],
    [['help', 'fly', '--help'], "unknown command 'fly'"],
    [['run', '--model', 'x.gguf'], "required option '-p, --prompt <text>'"],
    [['run', '-m', 'x.gguf', '-p', 'x', '--modle', 'y'], "unknown option '--modle'"],
    [['run', '-m', 'x.gguf', '-p', 'x', '--max-tokens', 'many'], 'Expected an integer'],
    [['run', '-m', 'x.gguf', '-p', 'x', '--temperature', ''], 'Expected a number'],
    [['run', '-m', 'x.gguf', '-p', 'x', '--device', 'abacus'], 'Expected auto, cpu, cuda, cuda:1 or metal.'],
    [['run', '-m', 'x.gguf', '-p', 'x', '--annotate', 'y.png'], '--annotate needs an image'],
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
    [['build', '--jobs=-5'], 'Expected integer from 1 to 1024 for --jobs but received -5'],
    [['bench', '--model', 'x.gguf', '--synthetic', 'tiny'], 'Expected --model or --synthetic, not both'],
    [['bench', '--model', 'x.gguf', '--type', 'Q4_0'], '--type and --discard are for --synthetic'],
    [['bench', '--synthetic', '4b-224'], 'Expected one of 3b-224, 3b-448'],
    [['bench', '--synthetic', 'tiny', '--type', 'q9'], 'Expected one of F32, F16'],
    [['bench', '--model', 'x.gguf', '--runs', '0'], 'Expected integer from 1 to 1000 for --runs but received 0'],
    [['bench', '--model', 'x.gguf', '--tokens', '1'], 'Expected integer >= 2 for --tokens but received 1'],
    [['bench', '--model', 'x.gguf', '--paper', '--depth', '300'], 'Expected no depth and tokens with paper']
  ])('%j', async (args, message) => {
    const { code, out, err } = await paligemma(...args)
    expect(code).toBe(2)
    expect(out).toBe('')
    expect(err).toContain(message)
    if (args.length > 0) expect(err).toMatch(/^ERR_INVALID_OPTION: /)
  })

  it.each([
    '1e9999',
    'NaN',
    '0x10',
    '1_000',
    '99999999999999999999999',
    '',
    ' ',
    '1.5',
    '\u0661',
    '9'.repeat(100_000),
    'a\nb\u001b[31m'
  ])('a hostile number (%#) ends with code 2 and one line', async (value) => {
    const numbers = [
      '--max-tokens',
      '--threads',
      '--context-size',
      '--top-k',
      '--beams',
      '--best-of',
      '--seed',
      '--log-probs',
      '--loc-scale'
    ]
    for (const option of numbers) {
      const { code, out, err } = await paligemma('caption', '-m', 'demo', 'x.png', `${option}=${value}`)
      expect({ option, code, out }).toEqual({ option, code: 2, out: '' })
      expect(err.split('\n')).toHaveLength(2)
      expect(err).toMatch(/^ERR_INVALID_OPTION: [^\u001b]{10,700}\n$/)
    }
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

  it('takes the pictures of a folder, by their names, and no others', async () => {
    writeFileSync(join(dir, 'notes.txt'), '')
    writeFileSync(join(dir, '.hidden.png'), '')
    writeFileSync(join(dir, 'E.WEBP'), '')
    const all = ['E.WEBP', 'a.png', 'b.png', 'c.jpg', 'odd[1].png'].map((name) => join(dir, name))
    expect(await expandImages([dir])).toEqual(all)
    expect(await expandImages([`${dir}/`, join(dir, 'a.png')])).toHaveLength(all.length)
    mkdirSync(join(dir, 'empty'))
    await expect(expandImages([join(dir, 'empty')])).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/empty holds no pictures.*\*\*/)
    })
  })

  it.each([
    ['lines', 'a b.png\n*.png\r\n\nhttps://example.org/x.png\n'],
    ['lines with a byte order mark', '\ufeffa b.png\n*.png\nhttps://example.org/x.png'],
    ['NUL', 'a b.png\0*.png\0https://example.org/x.png\0']
  ])('reads lists of %s, from files and standard input, without expanding names', async (_, text) => {
    const wanted = ['a b.png', '*.png', 'https://example.org/x.png']
    const { context } = capture()
    const list = join(dir, 'list.txt')
    writeFileSync(list, text)
    expect(await imagesOf([], { filesFrom: [list] }, context)).toEqual(wanted)
    const piped = { ...context, stdin: Readable.from([Buffer.from(text)]) }
    expect(await imagesOf(['first.png'], { filesFrom: ['-'] }, piped)).toEqual(['first.png', ...wanted])
  })

  it('refuses lists that are empty, missing or a terminal, and two uses of standard input', async () => {
    const { context } = capture()
    writeFileSync(join(dir, 'none.txt'), '\n\n')
    for (const [args, filesFrom, message] of [
      [[], [join(dir, 'none.txt')], 'none.txt named none'],
      [[], [join(dir, 'missing.txt')], '--files-from'],
      [[], [dir], '--files-from'],
      [[], ['-'], 'which is a terminal'],
      [['-'], ['-'], 'one use of "-"'],
      [[], [], 'Expected at least one image']
    ] as const)
      await expect(imagesOf([...args], { filesFrom: [...filesFrom] }, context), message).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(message)
      })
  })

  it('reads a picture from standard input once', async () => {
    const pictures = new Pictures({ ...capture().context, stdin: Readable.from([Buffer.from('ab'), Buffer.from('c')]) })
    expect((await pictures.open('-')).toString()).toBe('abc')
    expect((await pictures.open('-')).toString()).toBe('abc')
    expect(await pictures.open('x.png')).toBe('x.png')
    const nothing = new Pictures({ ...capture().context, stdin: Readable.from([]) })
    await expect(nothing.open('-')).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('stops waiting for standard input when it is told to', async () => {
    const stop = new AbortController()
    const stdin = new Readable({ read() {} })
    const waiting = new Pictures({ ...capture().context, stdin, signal: stop.signal }).open('-')
    stop.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    expect(stdin.destroyed).toBe(true)
  })

  it('takes existing paths, missing paths without wildcards and URLs as they are', async () => {
    const list = [join(dir, 'odd[1].png'), 'missing.png', 'https://example.org/*.png']
    expect(await expandImages(list)).toEqual(list)
  })

  it('names the annotated pictures of several images after them', () => {
    const paths = (target: string, ...images: string[]) => {
      const annotations = new Annotations(target, images)
      return images.map((image) => annotations.pathOf(image))
    }
    expect(paths(join(dir, 'out.png'), 'x/cow.jpg')).toEqual([join(dir, 'out.png')])
    expect(paths(join(dir, 'sub'), 'x/cow.jpg')).toEqual([join(dir, 'sub', 'cow.png')])
    expect(paths(join(dir, 'new'), 'x/cow.jpg', 'y/COW.png', 'https://example.org/a.png', '-')).toEqual(
      ['cow.png', 'COW-2.png', 'image.png', 'image-2.png'].map((name) => join(dir, 'new', name))
    )
    expect(() => paths('out.png', 'x/cow.jpg', 'y.jpg')).toThrow('Expected a folder for --annotate with 2 images')
  })

  it('never draws over a picture of the run', async () => {
    const annotations = new Annotations(dir, [join(dir, 'a.png'), join(dir, 'c.jpg')])
    expect(annotations.pathOf(join(dir, 'a.png'))).toBe(join(dir, 'a-2.png'))
    await expect(new Annotations(join(dir, 'a.png'), [join(dir, 'a.png')]).check([])).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('--annotate')
    })
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
    expect(lines[0]!.trim().length).toBeLessThan(60)
    expect(lines[1]!.trim()).toBe('')
    expect(lines.join('')).not.toContain('\x1b')
  })

  it.each([1, 5, 10, 20, 40, 80, 0])('fits a terminal of %i columns, whatever the note says', (columns) => {
    for (const label of ['downloading', 'converting', 'pictures']) {
      const written: string[] = []
      const stderr = { write: (text: string) => written.push(text), isTTY: true, columns }
      const bar = progress({ ...capture().context, stderr }, label)
      bar.update(1, 'a picture\u001b[31m\nof \u6f22\u5b57 '.repeat(9))
      bar.done()
      const [line] = written
      const width = [...line!.replace('\r', '')].reduce((sum, c) => sum + (c >= '\u1100' ? 2 : 1), 0)
      expect(width).toBeLessThan(columns || 80)
      expect(line).not.toMatch(/[\u001b\n]/)
      if (columns >= 10) expect(line).toContain('100%')
    }
  })

  it('says nothing on a dumb terminal', () => {
    const before = process.env['TERM']
    process.env['TERM'] = 'dumb'
    try {
      const written: string[] = []
      const bar = progress({ ...capture().context, stderr: { write: (text) => written.push(text), isTTY: true } }, 'x')
      bar.update(0.5)
      bar.done()
      expect(written).toEqual([])
    } finally {
      if (before === undefined) delete process.env['TERM']
      else process.env['TERM'] = before
    }
  })

  it('rounds numbers in JSON to what they mean, integers and big ones not', () => {
    const { context, out } = capture()
    printJson(context, { score: 0.123456789, tiny: 9.999999974752427e-7, bytes: 5555555555, time: 12345.678 })
    expect(out()).toBe('{"score":0.123457,"tiny":0.000001,"bytes":5555555555,"time":12345.7}\n')
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
