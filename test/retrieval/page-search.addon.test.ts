/**
 * examples/page-search as a user runs it: a folder of pictures and a PDF, found by a sentence. The model is made up.
 */
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, maxSim, poolTokens, quantizeVectors } from '../../lib/index'
import { ggufBytes, randomNumbers, tinyModel } from '../support/tiny-model'

const root = resolve(__dirname, '..', '..')
const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
const hasSqlite = major > 22 || (major === 22 && minor >= 13)
const hasPoppler = spawnSync('pdftoppm', ['-v']).error === undefined

let dir: string
let model: string

/** A tiny model with a retrieval head. */
function writeModel(file: string, name: string, seed: number): string {
  const { metadata, tensors } = tinyModel({
    seed,
    metadata: {
      'general.name': { type: 'string', value: name },
      'paligemma.retrieval.flavour': { type: 'string', value: 'colpali-engine' }
    }
  })
  const random = randomNumbers(seed)
  const noise = (...shape: number[]) => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5)
  })
  tensors.push({ name: 'retrieval.proj.weight', ...noise(32, 64) }, { name: 'retrieval.proj.bias', ...noise(32) })
  const path = join(dir, file)
  writeFileSync(path, ggufBytes(metadata, tensors))
  return path
}

beforeAll(async () => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'paligemma-page-search-'))) // as the example's own process names it
  // as `npm install` in the example's folder would leave it
  copyFileSync(join(root, 'examples', 'page-search', 'index.mjs'), join(dir, 'index.mjs'))
  mkdirSync(join(dir, 'node_modules'))
  symlinkSync(root, join(dir, 'node_modules', 'node-paligemma'), 'junction')

  model = writeModel('model.gguf', 'tiny', 1)
  mkdirSync(join(dir, 'pages', 'deeper'), { recursive: true })
  for (const [name, background] of [
    ['red.png', '#c22'],
    ['green.png', '#2a4'],
    ['deeper/blue.jpg', '#24c']
  ] as const) {
    await sharp({ create: { width: 80, height: 60, channels: 3, background } }).toFile(join(dir, 'pages', name))
  }
})
afterAll(() => {
  rmSync(dir, { recursive: true, force: true })
})

function search(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--no-warnings', 'index.mjs', ...args], {
    cwd: dir,
    encoding: 'utf8'
  })
  return { status, stdout, stderr }
}

/** Pages of 100 x 100 points, each filled with a grey. */
function pdf(greys: number[]): string {
  const objects = [
    '<< /Type /Catalog /Pages 2 0 R >>',
    `<< /Type /Pages /Count ${greys.length} /Kids [${greys.map((_, i) => `${3 + 2 * i} 0 R`).join(' ')}] >>`,
    ...greys.flatMap((grey, i) => {
      const content = `${grey} g 10 10 60 60 re f`
      return [
        `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents ${4 + 2 * i} 0 R >>`,
        `<< /Length ${content.length} >>\nstream\n${content}\nendstream`
      ]
    })
  ]
  let text = '%PDF-1.4\n'
  const offsets = objects.map((object, i) => {
    const offset = text.length
    text += `${i + 1} 0 obj\n${object}\nendobj\n`
    return offset
  })
  const table = offsets.map((offset) => `${String(offset).padStart(10, '0')} 00000 n \n`).join('')
  return (
    `${text}xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${table}trailer\n<< /Size ${objects.length + 1} ` +
    `/Root 1 0 R >>\nstartxref\n${text.length}\n%%EOF\n`
  )
}

describe('examples/page-search', () => {
  it('says how it is called', () => {
    expect(search('add')).toMatchObject({ status: 2, stdout: '' })
    expect(search('look', '--model', model, 'x').stderr).toContain('node index.mjs find --model M.gguf')
  })

  if (!hasSqlite) {
    it('says what to do where Node has no SQLite', () => {
      const { status, stderr } = search('add', '--model', model, 'pages')
      expect([status, stderr]).toEqual([
        1,
        expect.stringMatching(/has no node:sqlite: use Node 22\.13 or later, or compile better-sqlite3/)
      ])
    })
    return
  }

  it('adds pictures once, and again when they change', () => {
    const page = (name: string) => `${join(dir, 'pages', name)}: 1 page`
    const first = search('add', '--model', model, 'pages')
    expect(first).toMatchObject({ status: 0, stderr: '' })
    expect(first.stdout.trim().split('\n')).toEqual([
      page(join('deeper', 'blue.jpg')),
      page('green.png'),
      page('red.png')
    ])
    expect(search('add', '--model', model, 'pages')).toEqual({ status: 0, stdout: '', stderr: '' })
    utimesSync(join(dir, 'pages', 'red.png'), 1, 1)
    expect(search('add', '--model', model, 'pages').stdout).toBe(`${page('red.png')}\n`)
  })

  it('finds what late interaction over pooled int8 vectors finds, best first, with maps', async () => {
    const { status, stdout, stderr } = search('find', '--model', model, 'a red page', '--limit', '2', '--maps', 'found')
    expect([status, stderr]).toEqual([0, ''])
    const direct = await loadModel(model)
    const query = await direct.embedText('a red page')
    const expected: { path: string; score: number }[] = []
    for (const name of ['red.png', 'green.png', join('deeper', 'blue.jpg')]) {
      const path = join(dir, 'pages', name)
      const vectors = quantizeVectors(await poolTokens(await direct.embedImage(path), { factor: 3 }), 'int8')
      expected.push({ path, score: (await maxSim(query, [vectors]))[0]! })
    }
    await direct.dispose()
    expected.sort((a, b) => b.score - a.score)
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/ {2,}/))
    expect(lines).toEqual(expected.slice(0, 2).map(({ path, score }, i) => [String(i + 1), score.toFixed(2), path]))
    const maps = readdirSync(join(dir, 'found'))
    expect(maps.length).toBe(2)
    for (const map of maps)
      expect(await sharp(join(dir, 'found', map)).metadata()).toMatchObject({ format: 'png', width: 80, height: 60 })
  })

  it('takes PDFs page by page', () => {
    const file = join(dir, 'two.pdf')
    writeFileSync(file, pdf([0.2, 0.8]))
    const added = search('add', '--model', model, 'two.pdf')
    if (!hasPoppler) {
      expect(added).toMatchObject({ status: 1, stderr: expect.stringContaining('PDFs need pdftoppm') as string })
      return
    }
    expect(added).toEqual({ status: 0, stdout: `${file}: 2 pages\n`, stderr: '' })
    const found = search('find', '--model', model, 'a page')
    expect(found.stdout).toContain(`${file} page 1\n`)
    expect(found.stdout).toContain(`${file} page 2\n`)
  })

  it('refuses to mix the vectors of two models', () => {
    const other = writeModel('other.gguf', 'other', 2)
    expect(search('find', '--model', other, 'x')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('was made with model "tiny", not "other"') as string
    })
  })
})
