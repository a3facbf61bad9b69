/** A picture far larger than its views is read once with fewer pixels: the same picture, a fraction of the memory. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { NativeBinding } from '../../lib/engine/native'
import { decodeImage } from '../../lib/images/decode'
import { openImage } from '../../lib/images/open'
import { largeSize, reducedSize, withReduced } from '../../lib/images/reduced'
import { viewsOf } from '../../lib/images/tiles'

const [width, height] = [1000, 650]
const most = 500_000
const to = { width: 400, height: 325 }

describe('a large picture', () => {
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-large-'))
  const file = (name: string): string => join(folder, name)

  beforeAll(async () => {
    const waves = Buffer.alloc(width * height * 3)
    for (let i = 0; i < waves.length; i++) {
      const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)]
      waves[i] = 128 + 100 * Math.sin(x / (23 + 9 * (i % 3))) * Math.cos(y / 31 + x / 400)
    }
    const picture = sharp(waves, { raw: { width, height, channels: 3 } })
    await picture.clone().tiff({ compression: 'lzw', tile: true }).toFile(file('tiled.tif'))
    await picture.clone().tiff({ compression: 'packbits' }).toFile(file('strips.tif'))
    await picture.clone().toColourspace('rgb16').tiff({ compression: 'deflate' }).toFile(file('deep.tif'))
    await picture.clone().toColourspace('cmyk').tiff({ compression: 'lzw' }).toFile(file('inks.tif'))
    await picture.clone().greyscale().png().toFile(file('grey.png'))
    await picture.clone().ensureAlpha(1).png().toFile(file('opaque.png'))
    await picture.clone().png({ palette: true }).toFile(file('palette.png'))
    await picture.clone().png({ progressive: true }).toFile(file('interlaced.png'))
    await picture.clone().jpeg().toFile(file('plain.jpg'))
    await picture.clone().withMetadata({ orientation: 6 }).jpeg({ progressive: true }).toFile(file('turned.jpg'))
    await picture.clone().withMetadata({ orientation: 5 }).tiff({ compression: 'lzw' }).toFile(file('turned.tif'))
    await picture.clone().withMetadata({ orientation: 3 }).png().toFile(file('upside-down.png'))
    await picture.clone().webp().toFile(file('other.webp'))
  }, 120_000)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it.each([
    ...['tiled.tif', 'strips.tif', 'deep.tif', 'inks.tif', 'grey.png', 'opaque.png', 'palette.png', 'interlaced.png'],
    ...['plain.jpg', 'turned.jpg', 'turned.tif', 'upside-down.png']
  ])('%s, is what it is when it is decoded whole', { timeout: 120_000, tags: ['slow'] }, async (name) => {
    const whole = await decodeImage(file(name))
    for (const source of name === 'plain.jpg' ? [file(name), readFileSync(file(name))] : [file(name)]) {
      const opened = await openImage(source)
      const size = (await largeSize(opened, {}, most))!
      expect(size).toEqual({ width: whole.width, height: whole.height })
      const wanted = size.width > size.height ? to : { width: to.height, height: to.width }
      const options = { decodeTimeoutMs: 60_000 }
      const reduced = await withReduced(opened, { picture: size, to: wanted }, options, async (picture) => picture)
      expect([reduced.width, reduced.height]).toEqual([wanted.width, wanted.height])
      const raw = { width: whole.width, height: whole.height, channels: 3 as const }
      const smaller = sharp(whole.data, { raw }).resize(wanted.width, wanted.height, { fit: 'fill', kernel: 'cubic' })
      const expected = await smaller.raw().toBuffer()
      const off = expected.reduce((sum, value, i) => sum + Math.abs(value - reduced.data[i]!), 0) / expected.length
      expect(off).toBeLessThan(1)
    }
  })

  it('is of certain formats only, and within the limits', async () => {
    expect(await largeSize(await openImage(file('strips.tif')), {})).toBeUndefined() // not so large
    expect(await largeSize(await openImage(file('other.webp')), {}, most)).toBeUndefined()
    expect(await largeSize({ name: 'gone', source: file('gone.tif') }, {}, most)).toBeUndefined()
    expect(await largeSize({ name: 'broken', source: Buffer.from('II*\0broken') }, {}, most)).toBeUndefined()
    const opened = await openImage(file('strips.tif'))
    await expect(largeSize(opened, { maxImagePixels: 1e5 }, most)).rejects.toMatchObject({
      code: 'ERR_IMAGE_TOO_LARGE'
    })
    const call = { picture: { width, height }, to }
    await expect(withReduced(opened, call, { decodeTimeoutMs: 1 }, async () => 1)).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('decodeTimeoutMs') as string
    })
    const reason = new Error('enough')
    await expect(withReduced(opened, call, { signal: AbortSignal.abort(reason) }, async () => 1)).rejects.toBe(reason)
  })
})

describe('the size to read a picture with', () => {
  const tile = (x: number, y: number, width: number, height: number) => ({ x, y, width, height })

  it('goes by the smallest tile and what the model sees of it', () => {
    const picture = { width: 20_000, height: 10_000 }
    const tiles = [tile(0, 0, 20_000, 10_000), tile(0, 0, 5000, 4000), tile(5000, 0, 5000, 4000)]
    expect(reducedSize(picture, tiles, { size: 224 })).toEqual({ width: 3584, height: 2240 })
    expect(reducedSize(picture, tiles, { size: 224, fit: 'pad' })).toEqual({ width: 3584, height: 1792 })
    // many tiles: a little less of each
    expect(reducedSize(picture, tiles, { size: 896 })).toEqual({ width: 7168, height: 4480 })
    // rows of a few pixels need all of their height
    expect(reducedSize(picture, [tile(0, 0, 20_000, 40)], { size: 224 })).toEqual({ width: 896, height: 10_000 })
    // as large as what the model sees: nothing is lost
    expect(reducedSize(picture, [tile(0, 0, 900, 700)], { size: 896 })).toEqual(picture)
  })

  it('leaves boxes where they are in the whole picture', async () => {
    const resize: unknown = async (_: Buffer, across: number, down: number, size: number) => ({
      data: new Float32Array(1),
      transform: { scaleX: size / across, scaleY: size / down, offsetX: 0, offsetY: 0 }
    })
    const of = { width: 1001, height: 701 }
    const picture = { width: 300, height: 200, data: Buffer.alloc(300 * 200 * 3) }
    const tiles = [tile(0, 0, 1001, 701), tile(334, 101, 333, 200), tile(668, 501, 333, 200)]
    const views = await viewsOf({ resize } as NativeBinding, picture, { of, tiles }, { size: 56 })
    for (const { tile, transform } of views) {
      // a point of the picture, by way of the smaller one, in the square that the model sees
      for (const [x, y] of [
        [tile.x + 40, tile.y + 30],
        [tile.x + tile.width, tile.y + tile.height]
      ] as const) {
        const [left, top] = [Math.floor((tile.x * 300) / 1001), Math.floor((tile.y * 200) / 701)]
        const [across, down] = [
          Math.ceil(((tile.x + tile.width) * 300) / 1001) - left,
          Math.ceil(((tile.y + tile.height) * 200) / 701) - top
        ]
        const seen = [(((x * 300) / 1001 - left) * 56) / across, (((y * 200) / 701 - top) * 56) / down] as const
        expect((seen[0] - transform.offsetX) / transform.scaleX).toBeCloseTo(x - tile.x, 6)
        expect((seen[1] - transform.offsetY) / transform.scaleY).toBeCloseTo(y - tile.y, 6)
      }
    }
  })
})
