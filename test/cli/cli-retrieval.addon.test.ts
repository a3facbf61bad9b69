/** `paligemma embed` and `paligemma search` with the golden ColPali checkpoint. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Context } from '../../lib/cli/context'
import { execute } from '../../lib/cli/program'
import { convert } from '../../lib/convert'
import { maxSim, quantizeVectors, type MultiVector } from '../../lib/index'
import { NpzArchive } from '../../lib/formats/npz'
import { NpzWriter } from '../../lib/formats/npz-writer'
import { readVectors } from '../../lib/retrieval/files'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { readSafetensors } from '../support/safetensors'

afterAll(removeTempDirs)

async function paligemma(args: string[], terminal = false) {
  const out: string[] = []
  const err: string[] = []
  const context: Context = {
    stdout: { write: (text) => out.push(text), isTTY: terminal },
    stderr: { write: (text) => err.push(text) },
    signal: new AbortController().signal
  }
  return { code: await execute(args, context), out: out.join(''), err: err.join('') }
}

const worst = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i]!)))

describe('NpzWriter', () => {
  it("writes what this package and Python's zipfile read", async () => {
    const path = join(tempDir(), 'a.npz')
    const writer = await NpzWriter.create(path)
    await writer.add('pages/ü 1', '<f4', [2, 3], new Uint8Array(new Float32Array([1, 2, 3, 4, 5, 6]).buffer))
    await writer.add('row', '|i1', [4], new Uint8Array([255, 0, 1, 2]))
    await writer.add('none', '|u1', [0, 16], new Uint8Array(0))
    expect(existsSync(path)).toBe(false)
    await writer.close()
    const archive = await NpzArchive.open(path)
    expect([...archive.arrays].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
      ['pages/ü 1', 'f4', [2, 3]],
      ['row', 'i1', [4]],
      ['none', 'u1', [0, 16]]
    ])
    expect([...(await archive.arrays.get('pages/ü 1')!.toFloat32())]).toEqual([1, 2, 3, 4, 5, 6])
    expect([...(await archive.arrays.get('row')!.read())]).toEqual([255, 0, 1, 2])
    await archive.close()
    let listed: string
    try {
      listed = execFileSync(
        'python3',
        ['-c', 'import zipfile,sys; z=zipfile.ZipFile(sys.argv[1]); print(z.testzip(), len(z.namelist()))', path],
        { encoding: 'utf8' }
      )
    } catch {
      return // no Python here
    }
    expect(listed).toBe('None 3\n')
  })

  it('leaves nothing where it is given up', async () => {
    const path = join(tempDir(), 'a.npz')
    const writer = await NpzWriter.create(path)
    await writer.abandon()
    expect(readdirSync(join(path, '..'))).toEqual([])
  })
})

describe.skipIf(!hasGolden)('paligemma', () => {
  const folder = golden('hf', 'colpali-tiny')
  const [a, c] = [join(folder, 'images', 'a.png'), join(folder, 'images', 'c.png')]
  let dir: string
  let model: string[]
  let query: string
  let pages: MultiVector[]
  let scores: Float64Array

  beforeAll(async () => {
    dir = tempDir()
    const file = join(dir, 'colpali.gguf')
    await convert({ source: folder, out: file, type: 'f32' })
    model = ['--model', file, '--kv-cache-type', 'f32']
    query = (
      JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as {
        sets: { flavour: string; queries: { query: string }[] }[]
      }
    ).sets.find(({ flavour }) => flavour === 'colpali_engine')!.queries[0]!.query
    const expected = readSafetensors(join(folder, 'expected.safetensors'))
    const vectors = (name: string): MultiVector => {
      const { shape, data } = expected.get(name)!
      return { data, tokens: shape[0]!, dims: shape[1]! }
    }
    pages = [vectors('colpali_engine.doc.a.png'), vectors('colpali_engine.doc.c.png')]
    scores = maxSim(vectors('colpali_engine.query.0'), pages)
  })

  it("embed writes the reference's vectors, by the names of the pages", async () => {
    const out = join(dir, 'pages.npz')
    expect(await paligemma(['embed', ...model, a, c, '--out', out])).toMatchObject({
      code: 0,
      err: expect.stringMatching(/^2 pages: 2 ok, 0 failed, [\d.]+ pages\/s\n$/) as string,
      out: `${out}: 2 pages, f32\n`
    })
    const file = await readVectors(out)
    expect(file.about).toEqual({
      format: 'paligemma-vectors',
      version: 1,
      type: 'f32',
      dims: 128,
      flavour: 'colpali-engine',
      pool: 1,
      names: [a, c]
    })
    file.vectors.forEach((vectors, i) => expect(worst(vectors.data, pages[i]!.data)).toBeLessThanOrEqual(1e-4))
  })

  it('embed stores int8 and binary vectors, pooled ones, and queries', async () => {
    for (const type of ['int8', 'binary'] as const) {
      const out = join(dir, `${type}.npz`)
      expect((await paligemma(['embed', ...model, a, '--type', type, '-o', out])).code).toBe(0)
      const {
        vectors: [ours]
      } = await readVectors(out)
      const theirs = quantizeVectors(pages[0]!, type)
      expect(maxSim(pages[0]!, [ours!])[0]).toBeCloseTo(maxSim(pages[0]!, [theirs])[0]!, 1)
      expect([ours!.type, ours!.tokens]).toEqual([type, theirs.tokens])
    }
    const out = join(dir, 'pooled.npz')
    await paligemma(['embed', ...model, a, '--pool', '3', '-o', out])
    const pooled = await readVectors(out)
    expect([pooled.about.pool, pooled.vectors[0]!.tokens]).toEqual([3, Math.floor(pages[0]!.tokens / 3)])
    const { code, out: json } = await paligemma([
      'embed',
      ...model,
      '-q',
      query,
      '-q',
      'total',
      '--flavour',
      'transformers',
      '--type',
      'binary'
    ])
    expect(code).toBe(0)
    const lines = json
      .trimEnd()
      .split('\n')
      .map(
        (line) => JSON.parse(line) as { query: string; tokens: number; dims: number; type: string; vectors: string[] }
      )
    expect(
      lines.map((line) => [
        line.query,
        line.dims,
        line.type,
        line.vectors.length === line.tokens,
        line.vectors[0]!.length
      ])
    ).toEqual([
      [query, 128, 'binary', true, 32],
      ['total', 128, 'binary', true, 32]
    ])
  })

  it('embed goes on after a page that is no picture, and leaves nothing where all fail', async () => {
    const broken = join(dir, 'broken.png')
    writeFileSync(broken, 'no picture')
    const out = join(dir, 'some.npz')
    const some = await paligemma(['embed', ...model, broken, a, '-o', out])
    expect(some).toMatchObject({
      code: 1,
      out: `${out}: 1 pages, f32\n`,
      err: expect.stringContaining('ERR_IMAGE_INVALID')
    })
    expect((await readVectors(out)).about.names).toEqual([a])
    expect((await paligemma(['embed', ...model, broken, '-o', join(dir, 'none.npz')])).code).toBe(1)
    expect(existsSync(join(dir, 'none.npz'))).toBe(false)
  })

  it("search finds the reference's order among pictures and among vectors", async () => {
    const order = [0, 1].sort((x, y) => scores[y]! - scores[x]!)
    const file = join(dir, 'search.npz')
    await paligemma(['embed', ...model, a, c, '-o', file])
    for (const where of [
      [a, c],
      ['--vectors', file]
    ]) {
      const { code, out } = await paligemma(['search', ...model, query, ...where])
      expect(code).toBe(0)
      const hits = out
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as { rank: number; page: string; score: number })
      expect(hits.map(({ rank, page }) => [rank, page])).toEqual(order.map((page, i) => [i + 1, [a, c][page]]))
      hits.forEach(({ score }, i) => expect(Math.abs(score - scores[order[i]!]!)).toBeLessThanOrEqual(1e-3))
    }
    expect((await paligemma(['search', ...model, query, a, c, '-k', '1'], true)).out).toMatch(
      /^ {2}1 +\d+\.\d{3} {2}\S+\.png\n$/
    )
  })

  it('search --map writes the found pages under heat maps', async () => {
    const folder = join(dir, 'maps')
    const file = join(dir, 'small.npz')
    await paligemma(['embed', ...model, a, c, '--type', 'binary', '--pool', '2', '-o', file])
    const { out } = await paligemma(['search', ...model, query, '--vectors', file, '-k', '1', '--map', folder])
    const { page, map } = JSON.parse(out) as { page: string; map: string }
    const [drawn, original] = await Promise.all([sharp(map).metadata(), sharp(page).metadata()])
    expect([drawn.format, drawn.width, drawn.height]).toEqual(['png', original.width, original.height])
    const wrong = await paligemma(['search', ...model, query, a, '--map', folder, '--map-token', 'nowhere-in-it'])
    expect(wrong).toMatchObject({ code: 2, err: expect.stringMatching(/its tokens are "/) })
  })

  it('search refuses other files, saying what they are not', async () => {
    expect(
      await paligemma(['search', ...model, query, '--vectors', golden('segment', 'vae-oid.random.npz')])
    ).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^ERR_MODEL_INVALID: .*no file of paligemma embed/)
    })
    expect(await paligemma(['search', ...model, query, 'pages.npz'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('pages.npz holds vectors: give it with --vectors')
    })
  })
})
