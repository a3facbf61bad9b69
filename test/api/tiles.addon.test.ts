/** Tiles of large pictures, with the demo model on scenes whose truth is known. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { boxOverlap, demoImage, loadModel, type PaliGemma, type RawPixels } from '../../lib/index'
import { command } from '../support/command'

interface Scene {
  file: string
  objects: { label: string; box: [number, number, number, number] }[]
}

const folder = join(__dirname, '../fixtures/demo-eval')
const scenes = JSON.parse(readFileSync(join(folder, 'truth.json'), 'utf8')) as Scene[]
const columns = 5
const rows = 3
const side = 112

describe('tiles', () => {
  let model: PaliGemma
  let picture: RawPixels
  /** Scenes side by side: all of it known, and each far too small in the whole. */
  const truth = scenes.slice(0, columns * rows).flatMap(({ objects }, i) =>
    objects.map(({ label, box: [y0, x0, y1, x1] }) => ({
      label,
      normalized: {
        yMin: (Math.floor(i / columns) + y0) / rows,
        xMin: ((i % columns) + x0) / columns,
        yMax: (Math.floor(i / columns) + y1) / rows,
        xMax: ((i % columns) + x1) / columns
      }
    }))
  )
  const labels = [...new Set(truth.map(({ label }) => label))].slice(0, 6)
  const wanted = truth.filter(({ label }) => labels.includes(label))

  beforeAll(async () => {
    const width = columns * side
    const height = rows * side
    const { data } = await sharp({ create: { width, height, channels: 3, background: 'grey' } })
      .composite(
        scenes.slice(0, columns * rows).map(({ file }, i) => ({
          input: join(folder, file),
          left: (i % columns) * side,
          top: Math.floor(i / columns) * side
        }))
      )
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true })
    picture = { data, width, height, channels: 3 }
    model = await loadModel({ model: 'demo', threads: 2 })
  })
  afterAll(async () => await model.dispose())

  async function recall(options: Parameters<PaliGemma['detect']>[2], image = picture): Promise<number> {
    let found = 0
    for (const label of labels) {
      const seen = await model.detect(image, label, { minScore: 0.5, ...options })
      found += wanted.filter(
        (one) => one.label === label && seen.some(({ normalized }) => boxOverlap(normalized, one.normalized) > 0.5)
      ).length
    }
    return found / wanted.length
  }

  it('find what is too small in the whole picture', async () => {
    expect(await recall({})).toBeLessThan(0.2)
    expect(await recall({ tiles: { columns, rows, overlap: 0 } })).toBeGreaterThan(0.85)
    const [width, height] = [2 * picture.width, 2 * picture.height]
    const raw = { width: picture.width, height: picture.height, channels: 3 as const }
    const data = await sharp(picture.data, { raw }).resize(width, height).raw().toBuffer()
    expect(await recall({ tiles: 'auto' }, { data, width, height, channels: 3 })).toBeGreaterThan(0.6)
  })

  it('say what they looked at, and tell of each view', async () => {
    const calls: [number, number][] = []
    const [label] = labels
    const seen = await model.detect(picture, label!, {
      tiles: { columns: 2, rows: 1, overlap: 0.5 },
      onTile: (done, all) => void calls.push([done, all])
    })
    expect(seen.tiles).toEqual([
      { x: 0, y: 0, width: 560, height: 336 },
      { x: 0, y: 0, width: 374, height: 336 },
      { x: 186, y: 0, width: 374, height: 336 }
    ])
    expect(calls).toEqual([1, 2, 3].map((done) => [done, 3]))
    expect([seen.width, seen.height]).toEqual([560, 336])
    for (const one of seen) {
      expect(one.info!.tiles.length).toBeGreaterThan(0)
      for (const tile of one.info!.tiles) expect(seen.tiles).toContainEqual(tile)
    }
  })

  it('give the same objects whatever decodes beside them', async () => {
    const alone = await loadModel({ model: 'demo', threads: 1, maxSequences: 1, maxQueue: 1 })
    try {
      const options = { tiles: { columns: 4, rows: 2 }, minScore: 0.3 }
      const expected = await model.detect(picture, labels[0]!, options)
      expect(await alone.detect(picture, labels[0]!, options)).toEqual(expected)
    } finally {
      await alone.dispose()
    }
  })

  it('put masks where the objects are', async () => {
    const found = await model.segment(picture, wanted[0]!.label, {
      tiles: { columns, rows, overlap: 0 },
      minScore: 0.5
    })
    const one = found.find(({ normalized }) => boxOverlap(normalized, wanted[0]!.normalized) > 0.5)!
    const { mask, box } = one
    expect([mask.width, mask.height]).toEqual([560, 336])
    const inside = (x: number, y: number): boolean =>
      x >= box.x && x < box.x + box.width && y >= box.y && y < box.y + box.height
    let within = 0
    let outside = 0
    for (const [i, value] of mask.data.entries()) {
      if (value === 0) continue
      if (inside(i % mask.width, Math.floor(i / mask.width))) within++
      else outside++
    }
    expect(within).toBeGreaterThan(0.2 * box.width * box.height)
    expect(outside).toBe(0)
  })

  it('stop between two views, and when the list is cut say so', async () => {
    const control = new AbortController()
    const reason = new Error('enough')
    const stopped = model.detect(picture, labels[0]!, {
      tiles: { columns: 8, rows: 8 },
      signal: control.signal,
      onTile: (done) => {
        if (done === 3) control.abort(reason)
      }
    })
    await expect(stopped).rejects.toBe(reason)
    const cut = await model.detect(picture, labels[0]!, { tiles: { columns, rows, overlap: 0 }, maxTokens: 2 })
    expect(cut.finishReason).toBe('length')
    const one = await model.detect(picture, labels[0]!, { tiles: { columns, rows, overlap: 0 }, maxObjects: 1 })
    expect(one).toHaveLength(1)
  })

  it('need pixels, and no onToken', async () => {
    const embedding = await model.encodeImage(picture)
    await expect(model.detect(embedding, 'star', { tiles: 'auto' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('no pixels') as string
    })
    await expect(model.detect(picture, 'star', { tiles: 'auto', onToken: () => {} })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('onTile') as string
    })
    await expect(model.detect(picture, 'star', { tiles: { columns: 17, rows: 17 } })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('at most 256 tiles') as string
    })
  })

  it('are drawn by the command where it is asked to', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'paligemma-tiles-'))
    const draw = async (name: string, ...flags: string[]) => {
      const out = join(dir, name)
      const { code, err } = await command('detect', '-m', 'demo', '-l', 'cow', '--annotate', out, ...flags, demoImage)
      expect({ code, err }).toMatchObject({ code: 0 })
      return await sharp(out).removeAlpha().raw().toBuffer()
    }
    try {
      const tiled = ['--tiles', '2x2']
      const [without, shown] = [await draw('a.png', ...tiled), await draw('b.png', ...tiled, '--show-tiles')]
      const changed = shown.reduce((sum, value, i) => sum + Number(value !== without[i]), 0)
      expect(changed).toBeGreaterThan(1000)
      expect(changed).toBeLessThan(shown.length / 4)
      expect((await command('detect', '-m', 'demo', '-l', 'cow', '--show-tiles', demoImage)).err).toMatch(/--annotate/)
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })
})
