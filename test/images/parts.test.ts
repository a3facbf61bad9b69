/** A large TIFF is read in parts: the same pixels, a fraction of the memory. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openImage } from '../../lib/images/open'
import { openParts } from '../../lib/images/parts'

const [width, height] = [1000, 650]
const limits = { picture: 500_000, part: 300_000 }
const blocks = [
  { x: 30, y: 20, colour: [200, 30, 40] },
  { x: 800, y: 520, colour: [20, 60, 220] }
]
const ground = [90, 140, 90]
const scale = 10

describe('a large TIFF', () => {
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-tiff-'))
  const file = (name: string): string => join(folder, `${name}.tif`)

  beforeAll(async () => {
    // fields of 10 x 10 pixels; a block is 9 x 7 of them
    const [across, down] = [width / scale, height / scale]
    const fields = Buffer.alloc(across * down * 3)
    for (let i = 0; i < across * down; i++) {
      const [x, y] = [(i % across) * scale, Math.floor(i / across) * scale]
      const inside = blocks.find((one) => x >= one.x && x < one.x + 90 && y >= one.y && y < one.y + 70)
      fields.set(inside?.colour ?? ground, 3 * i)
    }
    const small = sharp(fields, { raw: { width: across, height: down, channels: 3 } })
    const large = small.clone().resize(width, height, { kernel: 'nearest', fit: 'fill' })
    await large.clone().tiff({ compression: 'packbits', tile: true }).toFile(file('tiled'))
    await large.clone().tiff({ compression: 'packbits' }).toFile(file('striped'))
    await small.clone().tiff().toFile(file('small'))
    await small.clone().png().toFile(file('png'))
  }, 120_000)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it.each(['tiled', 'striped'])(
    '%s, gives its rectangles and itself in fewer pixels',
    { timeout: 120_000, tags: ['slow'] },
    async (name) => {
      const parts = (await openParts(await openImage(file(name)), { decodeTimeoutMs: 60_000 }, limits))!
      expect([parts.width, parts.height]).toEqual([width, height])
      for (const { x, y, colour } of blocks) {
        const part = await parts.read({ x: x - 10, y: y - 20, width: 60, height: 50 }, 112)
        expect([part.width, part.height]).toEqual([60, 50])
        const at = (px: number, py: number): number[] => [...part.data.subarray((py * 60 + px) * 3).subarray(0, 3)]
        expect(at(9, 40)).toEqual(ground)
        expect(at(40, 19)).toEqual(ground)
        expect(at(10, 20)).toEqual(colour)
        expect(at(59, 49)).toEqual(colour)
      }
      const whole = await parts.read({ x: 0, y: 0, width, height }, 112)
      expect(Math.min(whole.width, whole.height)).toBe(448)
      expect(whole.width / whole.height).toBeCloseTo(width / height, 2)
      const middle = (Math.round(0.085 * whole.height) * whole.width + Math.round(0.075 * whole.width)) * 3
      expect([...whole.data.subarray(middle, middle + 3)]).toEqual(blocks[0]!.colour)
    }
  )

  it('is read in parts as a picture of its kind only', async () => {
    expect(await openParts(await openImage(file('tiled')), {})).toBeUndefined() // not so large
    const turned = await sharp(file('tiled')).withMetadata({ orientation: 6 }).tiff().toBuffer()
    expect(await openParts({ name: 'bytes', source: turned }, {}, limits)).toBeUndefined()
    await sharp(turned).withMetadata({ orientation: 6 }).tiff().toFile(file('turned'))
    expect(await openParts(await openImage(file('turned')), {}, limits)).toBeUndefined()
  })

  it('needs more than a limit allows, or is none', async () => {
    await expect(openParts(await openImage(file('tiled')), { maxImagePixels: 1e5 }, limits)).rejects.toMatchObject({
      code: 'ERR_IMAGE_TOO_LARGE'
    })
    for (const name of ['small', 'png']) {
      expect(await openParts(await openImage(file(name)), {}, limits)).toBeUndefined()
    }
    const parts = (await openParts(await openImage(file('striped')), { decodeTimeoutMs: 1 }, limits))!
    await expect(parts.read({ x: 0, y: 0, width: 50, height: 50 }, 112)).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('decodeTimeoutMs') as string
    })
  })
})
