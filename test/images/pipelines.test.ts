/** sharp instances: the model sees exactly what the pipeline itself puts out. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import sharp, { type Sharp } from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { decodeImage } from '../../lib/images/decode'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const [width, height] = [48, 36]
const pixels = Buffer.from({ length: width * height * 3 }).map(
  (_, i) => ((i % 3) * 80 + Math.floor(i / 3 / width) * 5 + ((i / 3) % width) * 3) % 256
)

async function expectOwnOutput(name: string, pipeline: Sharp): Promise<void> {
  const want = await decodeImage(await pipeline.clone().png().toBuffer())
  const seen = await decodeImage(pipeline)
  expect([name, seen.width, seen.height], name).toEqual([name, want.width, want.height])
  expect(seen.data.equals(want.data), name).toBe(true)
}

const crop = { left: 5, top: 3, width: 20, height: 25 }
const operations: Record<string, (input: Sharp) => Sharp> = {
  nothing: (input) => input,
  extract: (input) => input.extract(crop),
  resize: (input) => input.resize(17, 11, { fit: 'fill' }),
  'resize, cover': (input) => input.resize(20, 20),
  'extract, resize': (input) => input.extract(crop).resize(10),
  'resize, extract': (input) => input.resize(40, 40).extract(crop),
  'rotate 90': (input) => input.rotate(90),
  'rotate 30': (input) => input.rotate(30, { background: '#fff' }),
  'flip, flop': (input) => input.flip().flop(),
  'autoOrient, extract': (input) => input.autoOrient().extract(crop),
  'rotate(), extract': (input) => input.rotate().extract(crop),
  greyscale: (input) => input.greyscale(),
  'greyscale, resize': (input) => input.greyscale().resize(12, 12),
  'one channel': (input) => input.extractChannel('green'),
  alpha: (input) => input.ensureAlpha(0.5),
  flatten: (input) => input.ensureAlpha(0.5).flatten({ background: '#08f' }),
  '16 bit': (input) => input.toColourspace('rgb16'),
  'grey 16 bit': (input) => input.toColourspace('grey16'),
  'lab and back': (input) => input.pipelineColourspace('lab').modulate({ lightness: 10 }),
  trim: (input) => input.extend({ top: 4, bottom: 4, left: 4, right: 4, background: '#fff' }).trim(),
  'palette output': (input) => input.png({ palette: true, colours: 4 }),
  'JPEG output': (input) => input.jpeg({ quality: 10 }),
  'raw output': (input) => input.raw(),
  'kept metadata': (input) => input.keepMetadata()
}

describe('a pipeline over a photo', () => {
  const photos: Buffer[] = []
  beforeAll(async () => {
    for (let orientation = 1; orientation <= 8; orientation++) {
      photos.push(
        await sharp(pixels, { raw: { width, height, channels: 3 } })
          .jpeg({ quality: 95 })
          .withMetadata({ orientation })
          .toBuffer()
      )
    }
  })

  for (const [name, operate] of Object.entries(operations)) {
    it(`is its own output in every orientation: ${name}`, { tags: ['slow'] }, async () => {
      for (const [i, photo] of photos.entries()) await expectOwnOutput(`${name}, ${i + 1}`, operate(sharp(photo)))
    })
  }

  it('is turned only where it asks for it, while the file is turned', async () => {
    const turned = photos[5]!
    expect((await decodeImage(sharp(turned))).width).toBe(width)
    expect((await decodeImage(sharp(turned, { autoOrient: true }))).width).toBe(height)
    expect((await decodeImage(turned)).width).toBe(height)
  })

  it('stays as it is and can be used again', async () => {
    const pipeline = sharp(photos[0]).resize(8)
    await decodeImage(pipeline)
    expect((await decodeImage(pipeline)).width).toBe(8)
    expect((await pipeline.webp().toBuffer({ resolveWithObject: true })).info.format).toBe('webp')
  })

  it('may be fed by a stream', async () => {
    const pipeline = Readable.from([photos[5]]).pipe(sharp().extract(crop))
    expect(await decodeImage(pipeline)).toMatchObject({ width: crop.width, height: crop.height })
  })

  it('that fails is an error that says why', async () => {
    await expect(decodeImage(sharp(photos[0]).extract({ ...crop, left: 1000 }))).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('sharp instance: cannot be decoded: extract_area: bad extract area') as unknown
    })
  })
})

describe('a pipeline over something else', () => {
  it('is its own output: CMYK, created, raw, SVG, grey files', { tags: ['slow'] }, async () => {
    const cmyk = await sharp(pixels, { raw: { width, height, channels: 3 } })
      .toColourspace('cmyk')
      .jpeg()
      .toBuffer()
    const grey = await sharp(pixels, { raw: { width, height, channels: 3 } })
      .greyscale()
      .png()
      .toBuffer()
    const svg = Buffer.from(
      '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="7"><rect width="5" height="7"/></svg>'
    )
    await expectOwnOutput('cmyk', sharp(cmyk))
    await expectOwnOutput('cmyk, resized', sharp(cmyk).resize(9))
    await expectOwnOutput('to cmyk', sharp(pixels, { raw: { width, height, channels: 3 } }).toColourspace('cmyk'))
    await expectOwnOutput('created', sharp({ create: { width: 5, height: 4, channels: 4, background: '#12345678' } }))
    await expectOwnOutput('raw grey', sharp(pixels, { raw: { width: width * 3, height, channels: 1 } }))
    await expectOwnOutput('grey', sharp(grey))
    await expectOwnOutput('svg', sharp(svg).negate({ alpha: false }))
  })

  it('is the first frame of what it puts out where that has several', async () => {
    const frame = async (colour: string): Promise<Buffer> =>
      await sharp({ create: { width: 12, height: 10, channels: 3, background: colour } })
        .png()
        .toBuffer()
    const colours = ['#ff0000', '#00ff00', '#0000ff']
    const gif = await sharp(await Promise.all(colours.map(frame)), { join: { animated: true } })
      .gif()
      .toBuffer()
    const first = async (pipeline: Sharp): Promise<unknown> => {
      const { data, width, height } = await decodeImage(pipeline)
      expect(data.length).toBe(width * height * 3)
      return [width, height, ...data.subarray(-3)]
    }
    expect(await first(sharp(gif, { animated: true }))).toEqual([12, 10, 255, 0, 0])
    expect(await first(sharp(gif, { animated: true }).resize(6, 4, { kernel: 'nearest' }))).toEqual([6, 4, 255, 0, 0])
    expect(await first(sharp(gif, { pages: 2, page: 1 }))).toEqual([12, 10, 0, 255, 0])
    expect(await first(sharp(gif, { page: 2 }))).toEqual([12, 10, 0, 0, 255])
    expect(await first(sharp(gif))).toEqual([12, 10, 255, 0, 0])
    expect(await first(sharp(gif, { animated: true }).webp())).toEqual([12, 10, 255, 0, 0])
    const [, , ...grey] = (await first(sharp(gif, { animated: true }).greyscale())) as number[]
    expect(new Set(grey).size).toBe(1)
  })

  it('is its own output where several pictures are joined', async () => {
    const tile = async (width: number, height: number): Promise<Buffer> =>
      await sharp({ create: { width, height, channels: 3, background: { r: width * 9, g: height * 9, b: 40 } } })
        .png()
        .toBuffer()
    const tiles = [await tile(9, 7), await tile(12, 5), await tile(4, 11)]
    const paths = join(tempDir(), 'tile.png')
    writeFileSync(paths, tiles[0]!)
    await expectOwnOutput('a column', sharp(tiles))
    await expectOwnOutput('a grid', sharp(tiles, { join: { across: 2, shim: 3, background: '#fa0' } }))
    await expectOwnOutput(
      'a grid, turned',
      sharp([paths, tiles[1]!], { join: { across: 2 } })
        .rotate(90)
        .resize(11)
    )
    const frames = sharp([tiles[0]!, tiles[0]!], { join: { animated: true } })
    expect(await decodeImage(frames)).toMatchObject({ width: 9, height: 7 })
    await expect(decodeImage(sharp(tiles), { maxImagePixels: 300 })).rejects.toMatchObject({
      code: 'ERR_IMAGE_TOO_LARGE',
      message: expect.stringContaining('12 x 33') as unknown
    })
    await expect(decodeImage(sharp([tiles[0]!, Buffer.from('no picture')]))).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID'
    })
  })

  it('is its own output where other pictures come in', async () => {
    const small = await sharp(pixels, { raw: { width, height, channels: 3 } })
      .resize(8, 6)
      .png()
      .toBuffer()
    const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="7"><path d="M0 0h9v7z"/></svg>')
    const base = () => sharp(pixels, { raw: { width, height, channels: 3 } })
    const raw = { width, height, channels: 1 } as const
    await expectOwnOutput('composite', base().composite([{ input: small, top: 2, left: 3, blend: 'multiply' }]))
    await expectOwnOutput('composite of a drawing', base().composite([{ input: svg, gravity: 'southeast' }]))
    await expectOwnOutput('joinChannel', base().joinChannel(Buffer.alloc(width * height, 99), { raw }))
    await expectOwnOutput(
      'boolean',
      base().boolean(Buffer.from(pixels), 'eor', { raw: { width, height, channels: 3 } })
    )
    await expectOwnOutput('text', sharp({ text: { text: 'Hello', dpi: 72 } }))
    await expectOwnOutput('affine', base().affine([1, 0.3, 0.1, 0.7], { background: 'white' }))
  })

  it('refuses an SVG that may never end wherever it comes in', async () => {
    const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="7"><use href="#a"/></svg>')
    const base = () => sharp(pixels, { raw: { width, height, channels: 3 } })
    for (const pipeline of [
      base().composite([{ input: svg }]),
      base().joinChannel(svg),
      base().boolean(svg, 'and'),
      sharp([svg, svg]),
      sharp(Buffer.from(gzipSync(svg)))
    ])
      await expect(decodeImage(pipeline)).rejects.toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringContaining('pass the SVG itself') as unknown
      })
  })

  it('refuses an SVG that may never end, and takes it as bytes', async () => {
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="7"><g id="a"/><use href="#a"/></svg>'
    await expect(decodeImage(sharp(Buffer.from(svg)))).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('pass the SVG itself') as unknown
    })
    expect((await decodeImage(Buffer.from(svg))).width).toBe(9)
  })
})
