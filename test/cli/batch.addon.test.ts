/** `paligemma batch` as a process: every source, every format, and every way to be interrupted. */
import { spawn, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { demoImage } from '../../lib/base/package-files'
import type { Row } from '../../lib/cli/batch/rows'
import { reviveResults } from '../../lib/output/masks/mask-forms'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const command = join(__dirname, '..', '..', 'dist', 'cli', 'main.js')
const ocr = ['batch', '-m', 'demo', '--task', 'ocr', '-n', '4']
const detect = ['batch', '-m', 'demo', '--task', 'detect', '-l', 'purple ring']
let dir: string
let tiny: Buffer

function paligemma(args: string[], input?: string) {
  return spawnSync(process.execPath, [command, ...args], { encoding: 'utf8', cwd: dir, ...(input && { input }) })
}
const rows = (name: string): Row[] =>
  readFileSync(join(dir, name), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line, reviveResults) as Row)
const names = (name: string): string[] => rows(name).map(({ image }) => image)

beforeAll(async () => {
  dir = tempDir()
  tiny = await sharp(demoImage).resize(64, 64).png().toBuffer()
  mkdirSync(join(dir, 'pics', 'more'), { recursive: true })
  for (const name of ['a.png', 'b.png', 'more/c.png']) writeFileSync(join(dir, 'pics', name), tiny)
  copyFileSync(demoImage, join(dir, 'shapes.png'))
  writeFileSync(join(dir, 'broken.png'), 'no picture')
})

describe('pictures come from', () => {
  it('folders, globs and lists on standard input, each once', () => {
    const { status, stderr } = paligemma(
      [...ocr, 'pics', 'pics/**/*.png', 'broken.png', '--files-from', '-', '--out', 'all.jsonl'],
      'shapes.png\r\n\npics/a.png\n{"image":"pics/b.png","maxTokens":1,"id":7}\n{"image":7}\n{oops\nnot-there.png'
    )
    expect(stderr).toMatch(/^9 pictures: 5 ok, 4 failed/m)
    expect(status).toBe(3)
    const all = rows('all.jsonl')
    expect(all.map(({ image, given }) => [image, given]).sort()).toEqual(
      [
        ['broken.png', undefined],
        ['not-there.png', undefined],
        ['pics/a.png', undefined],
        ['pics/b.png', undefined],
        ['pics/b.png', { maxTokens: 1, id: 7 }],
        ['pics/more/c.png', undefined],
        ['shapes.png', undefined],
        ['standard input:5', undefined],
        ['standard input:6', undefined]
      ].sort()
    )
    expect(all.find(({ image }) => image === 'shapes.png')?.text).toBe('359')
    const errors = new Map(all.map(({ image, error }) => [image, error?.code]))
    expect(errors.get('broken.png')).toBe('ERR_IMAGE_INVALID')
    expect(errors.get('standard input:5')).toBe('ERR_INVALID_OPTION')
  })

  it('rows of JSON with options of their own, named from where the file is', () => {
    const lines = [
      { image: 'a.png', question: 'how many shapes are there?' },
      { image: 'b.png', question: 'is it red?', choices: ['yes', 'no'], note: 'ours' },
      { image: '../shapes.png' }
    ]
    writeFileSync(join(dir, 'pics', 'rows.jsonl'), lines.map((line) => JSON.stringify(line)).join('\n'))
    const args = ['batch', '-m', 'demo', '--task', 'answer', 'pics/rows.jsonl', '--ordered', '--out', 'answers.jsonl']
    expect(paligemma(args).status).toBe(3)
    const [first, second, third] = rows('answers.jsonl')
    expect(first).toMatchObject({ image: 'pics/a.png', given: { question: 'how many shapes are there?' } })
    expect(['yes', 'no']).toContain(second!.text)
    expect(third).toMatchObject({ image: 'shapes.png', error: { code: 'ERR_INVALID_OPTION' } })
  })

  it('shards: plain, compressed, of WebDataset, damaged, and behind URLs', async () => {
    const json = Buffer.from(JSON.stringify({ question: 'what?', caption: 'not an option' }))
    const long = `${'deep/'.repeat(40)}name.png`
    const archive = pack()
    archive.entry({ name: '0001.png' }, tiny)
    archive.entry({ name: '0001.json' }, json)
    archive.entry({ name: '0001.txt' }, 'x')
    archive.entry({ name: 'in/', type: 'directory' })
    archive.entry({ name: 'in/0002.json' }, '[]')
    archive.entry({ name: 'in/0002.seg.png' }, tiny)
    archive.entry({ name: 'link.png', type: 'symlink', linkname: '0001.png' })
    archive.entry({ name: long }, tiny)
    archive.finalize()
    const tar = await buffer(archive)
    writeFileSync(join(dir, 'x.tar'), tar)
    writeFileSync(join(dir, 'y.tar.gz'), gzipSync(tar))
    writeFileSync(join(dir, 'cut.tar'), tar.subarray(0, 700))
    writeFileSync(join(dir, 'junk.tar'), Buffer.alloc(4096, 'junk'))
    const server = createServer((_, response) => response.end(tar)).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/z.tar`
    const child = spawn(
      process.execPath,
      [
        command,
        'batch',
        '-m',
        'demo',
        '--task',
        'answer',
        '-q',
        'how many?',
        'x.tar',
        'y.tar.gz',
        'cut.tar',
        'junk.tar',
        url,
        '--out',
        'shards.jsonl'
      ], // prettier-ignore
      { cwd: dir, env: { ...process.env, PALIGEMMA_ALLOW_PRIVATE_ADDRESSES: '1' } }
    )
    expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(3)
    server.close()
    const all = rows('shards.jsonl')
    const good = ['x.tar', 'y.tar.gz', url].flatMap((shard) =>
      ['0001.png', 'in/0002.seg.png', long].map((name) => `${shard}/${name}`)
    )
    expect(
      all
        .filter(({ error }) => !error)
        .map(({ image }) => image)
        .sort()
    ).toEqual(good.sort()) // prettier-ignore
    expect(all.find(({ image }) => image === 'x.tar/0001.png')?.given).toEqual({ question: 'what?' })
    expect(
      all
        .filter(({ error }) => error)
        .map(({ image }) => image)
        .sort()
    ).toEqual(['cut.tar', 'junk.tar']) // prettier-ignore
  })

  it.each([
    [['nowhere.tar'], /There is no file nowhere\.tar/],
    [['nowhere.jsonl'], /There is no file nowhere\.jsonl/],
    [[], /Expected pictures/],
    [['-'], /--files-from -/],
    [['pics', '--question', 'x'], /--question goes with --task answer, not with ocr/],
    [['pics', '--format', 'coco'], /expected --task detect or segment/],
    [['pics', '--max-tokens', '0'], /for --max-tokens/],
    [['pics', '--out', '/no/such/folder/x.jsonl'], /for --out/]
  ])('nothing else: %j', (args, message) => {
    const { status, stderr } = paligemma([...ocr, '--out', 'never.jsonl', ...args])
    expect(stderr).toMatch(message)
    expect(status).toBe(2)
  })
})

describe('results as', () => {
  it('csv', () => {
    expect(
      paligemma([...detect, 'shapes.png', 'broken.png', '--out', 'found.csv', '--format', 'csv', '--ordered']).status
    ).toBe(3) // prettier-ignore
    const [head, ring, broken] = readFileSync(join(dir, 'found.csv'), 'utf8').split('\r\n')
    expect(head).toBe('image,label,class_id,score,x,y,width,height,error')
    expect(ring).toMatch(/^shapes\.png,purple ring,0,0\.[89]\d*,12\d,20\d,13\d,1[45]\d,$/)
    expect(broken).toMatch(/^broken\.png,,,,,,,,"?ERR_IMAGE_INVALID: /)
    const texts = [
      'batch',
      '-m',
      'demo',
      '--task',
      'generate',
      '-p',
      'ocr',
      'shapes.png',
      '--out',
      'texts.csv',
      '--format',
      'csv'
    ] // prettier-ignore
    expect(paligemma(texts).status).toBe(0)
    expect(readFileSync(join(dir, 'texts.csv'), 'utf8')).toBe('image,text,error\r\nshapes.png,359,\r\n')
  })

  it('coco and yolo, with masks', () => {
    const segment = [
      'batch',
      '-m',
      'demo',
      '--task',
      'segment',
      '-l',
      'black heart;purple ring',
      'shapes.png',
      'broken.png'
    ]
    expect(paligemma([...segment, '--out', 'coco.json', '--format', 'coco']).status).toBe(3)
    const coco = JSON.parse(readFileSync(join(dir, 'coco.json'), 'utf8')) as Record<string, unknown[]>
    expect(coco['images']).toEqual([{ id: 1, file_name: 'shapes.png', width: 448, height: 448 }])
    expect(coco['categories']).toEqual([
      { id: 1, name: 'black heart' },
      { id: 2, name: 'purple ring' }
    ])
    expect(coco['annotations']![0]).toMatchObject({
      image_id: 1,
      segmentation: { size: [448, 448], counts: expect.any(String) as string }
    })
    expect(paligemma([...segment, '--out', 'yolo', '--format', 'yolo']).status).toBe(3)
    expect(readdirSync(join(dir, 'yolo', 'labels'))).toEqual(['shapes.txt'])
    expect(readFileSync(join(dir, 'yolo', 'labels', 'shapes.txt'), 'utf8')).toMatch(/^[01]( 0\.\d+){7,}\n/)
    expect(readFileSync(join(dir, 'yolo', 'data.yaml'), 'utf8')).toBe(
      'names:\n  0: "black heart"\n  1: "purple ring"\n'
    )
    // begun anew where it was begun here, never in a folder of others
    const ring = ['batch', '-m', 'demo', '--task', 'detect', '-l', 'purple ring', 'shapes.png', '--format', 'yolo']
    expect(paligemma([...ring, '--out', 'yolo', '--overwrite']).status).toBe(0)
    expect(readFileSync(join(dir, 'yolo', 'data.yaml'), 'utf8')).toBe('names:\n  0: "purple ring"\n')
    mkdirSync(join(dir, 'others', 'labels'), { recursive: true })
    writeFileSync(join(dir, 'others', 'labels', 'mine.txt'), '0 0.5 0.5 0.1 0.1\n')
    const refused = paligemma([...ring, '--out', 'others', '--overwrite'])
    expect(refused.status).toBe(2)
    expect(refused.stderr).toMatch(/others holds files that were not written by this command; choose another folder/)
    expect(readdirSync(join(dir, 'others', 'labels'))).toEqual(['mine.txt'])
  })

  it('rows whose masks and vectors come back', () => {
    const args = ['batch', '-m', 'demo', '--task', 'segment', '-l', 'purple ring', 'shapes.png', '--out', 'masks.jsonl']
    expect(paligemma(args).status).toBe(0)
    expect(readFileSync(join(dir, 'masks.jsonl')).length).toBeLessThan(5000)
    const [row] = rows('masks.jsonl')
    expect(row!.segmentations![0]!.mask.data).toHaveLength(448 * 448)
    expect(row).toMatchObject({ finishReason: 'stop', width: 448 })
  })
})

describe('a batch that ended', () => {
  it('goes on with new pictures, tries failed ones when asked, and refuses other options', () => {
    writeFileSync(join(dir, 'maybe.png'), 'no picture yet')
    const args = [...ocr, '--out', 'more.jsonl', 'maybe.png']
    expect(paligemma([...args, 'pics/a.png']).status).toBe(3)
    expect(paligemma([...args, 'pics/a.png', 'pics/b.png']).stderr).toMatch(
      /3 pictures: 2 ok, 1 failed, 2 were done before/
    ) // prettier-ignore
    copyFileSync(demoImage, join(dir, 'maybe.png'))
    expect(paligemma(args).status).toBe(3)
    expect(paligemma([...args, '--retry-failed']).status).toBe(0)
    expect(names('more.jsonl').sort()).toEqual(['maybe.png', 'pics/a.png', 'pics/b.png'])
    const other = paligemma([...args, '--max-tokens', '5'])
    expect(other).toMatchObject({ status: 2 })
    expect(other.stderr).toMatch(/--max-tokens was 4 and is 5/)
    expect(paligemma([...args, '--max-tokens', '5', '--overwrite']).status).toBe(0)
    expect(names('more.jsonl')).toEqual(['maybe.png'])
    writeFileSync(join(dir, 'mine.jsonl'), 'my own\n')
    expect(paligemma([...ocr, 'pics', '--out', 'mine.jsonl']).stderr).toMatch(
      /exists and was not begun by this command/
    )
    expect(readFileSync(join(dir, 'mine.jsonl'), 'utf8')).toBe('my own\n')
  })

  it('at any byte of a row, or in rubbish, loses and repeats nothing', () => {
    const args = [...ocr, 'pics', '--out', 'torn.jsonl', '--ordered']
    expect(paligemma(args).status).toBe(0)
    const whole = readFileSync(join(dir, 'torn.jsonl'))
    const second = whole.indexOf('\n') + 1
    for (const cut of [1, second, second + 9, whole.length - 1]) {
      truncateSync(join(dir, 'torn.jsonl'), cut)
      expect(paligemma(args).status).toBe(0)
      expect(readFileSync(join(dir, 'torn.jsonl')).equals(whole)).toBe(true)
    }
    appendFileSync(join(dir, 'torn.jsonl'), Buffer.concat([Buffer.alloc(5000), Buffer.from('\n{"image":\n')]))
    expect(paligemma(args).status).toBe(0)
    expect(readFileSync(join(dir, 'torn.jsonl')).equals(whole)).toBe(true)
    writeFileSync(join(dir, 'torn.jsonl'), Buffer.concat([Buffer.from('edited\n'), whole]))
    expect(paligemma(args).stderr).toMatch(/torn\.jsonl: line 1 is no row of a batch, and others follow/)
  }, 120_000)

  it.skipIf(process.platform === 'win32')(
    'by kill -9 at random moments has every picture once',
    async () => {
      mkdirSync(join(dir, 'many'))
      const pictures = Array.from({ length: 400 }, (_, i) => `many/${i}.png`)
      for (const name of pictures) writeFileSync(join(dir, name), tiny)
      const args = [command, ...ocr, 'many', '--out', 'killed.jsonl']
      const out = join(dir, 'killed.jsonl')
      const lines = (): number => (existsSync(out) ? readFileSync(out, 'utf8').split('\n').length - 1 : 0)
      let kills = 0
      for (let before = 0; before < pictures.length; before = lines()) {
        const child = spawn(process.execPath, args, { cwd: dir, stdio: 'ignore' })
        const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
        const last = before + Math.floor(Math.random() * 60)
        const watch = setInterval(() => lines() > last && child.kill('SIGKILL'), 2)
        const code = await ended
        clearInterval(watch)
        if (code === null) kills++
        const whole = readFileSync(out, 'utf8').split('\n').slice(0, -1)
        expect(new Set(whole.map((line) => (JSON.parse(line) as Row).image)).size).toBe(whole.length)
      }
      expect(paligemma(args.slice(1)).stderr).toMatch(/400 pictures: 400 ok, 0 failed, 400 were done before/)
      expect(names('killed.jsonl').sort()).toEqual(pictures.sort())
      expect(kills).toBeGreaterThan(3)
    },
    300_000
  )

  it.skipIf(process.platform === 'win32')('by Ctrl-C keeps what it has, and by another run waits for it', async () => {
    rmSync(join(dir, 'stopped.jsonl'), { force: true })
    const args = [command, ...ocr, '--out', 'stopped.jsonl', '--files-from', '-']
    const child = spawn(process.execPath, args, { cwd: dir })
    child.stdin.write('pics/a.png\npics/b.png\n')
    const err: string[] = []
    child.stderr.on('data', (text: Buffer) => err.push(String(text)))
    while (
      !existsSync(join(dir, 'stopped.jsonl')) ||
      !readFileSync(join(dir, 'stopped.jsonl'), 'utf8').includes('b.png')
    )
      await new Promise((resolve) => setTimeout(resolve, 30))
    const second = spawn(process.execPath, args, { cwd: dir })
    second.stdin.end('pics/a.png\n')
    const told = await new Promise<string>((resolve) => second.stderr.once('data', (text) => resolve(String(text))))
    expect(told).toMatch(/^waiting for process \d+ on .*, which writes stopped\.jsonl/)
    child.kill('SIGINT')
    expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(130)
    expect(err.join('')).toMatch(/2 pictures: 2 ok, 0 failed, [\d.]+ pictures\/s; the same command goes on from here/)
    expect(await new Promise((resolve) => second.once('exit', resolve))).toBe(0)
    expect(names('stopped.jsonl').sort()).toEqual(['pics/a.png', 'pics/b.png'])
  })
})
