import { createServer, type Server } from 'node:http'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { readFileSync, existsSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { deflateSync } from 'node:zlib'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { decodeImage } from '../../lib/images/decode'
import type { ImageInput } from '../../lib/images/image-input'
import { golden, hasGoldens } from '../support/golden'

interface GoldenImage {
  file: string
  decoder_exact: boolean
}

async function reference(file: string): Promise<{ data: Buffer; width: number; height: number }> {
  // gray16.png: Pillow clips to 255 there; the high byte is the sane result (see the goldens' README)
  const decoded = golden('preprocess', 'decoded', `${file}${file === 'gray16.png' ? '.high_byte' : ''}.png`)
  const path = existsSync(decoded) ? decoded : golden('preprocess', 'src', file)
  const { data, info } = await sharp(path)
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
  return { data, width: info.width, height: info.height }
}

describe.skipIf(!hasGoldens('preprocess/index.json'))('decoding agrees with the reference', () => {
  const { images } = hasGoldens('preprocess/index.json')
    ? (JSON.parse(readFileSync(golden('preprocess', 'index.json'), 'utf8')) as { images: GoldenImage[] })
    : { images: [] }
  for (const { file, decoder_exact: exact } of images) {
    it(file, async () => {
      const expected = await reference(file)
      const actual = await decodeImage(golden('preprocess', 'src', file))
      expect([actual.width, actual.height, actual.data.length]).toEqual([
        expected.width,
        expected.height,
        expected.data.length
      ])
      let largest = 0
      let sum = 0
      for (let i = 0; i < expected.data.length; i++) {
        const difference = Math.abs(expected.data[i]! - actual.data[i]!)
        largest = Math.max(largest, difference)
        sum += difference
      }
      // decoders of lossy formats differ in their inverse transforms
      expect(largest).toBeLessThanOrEqual(exact ? 0 : 3)
      expect(sum / expected.data.length).toBeLessThanOrEqual(exact ? 0 : 0.5)
    })
  }
})

// 2 x 2: red, green / blue, half transparent white
const pixels = Buffer.from([255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255, 255, 255, 255, 128])
const rgb = Buffer.from([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255])

describe('forms of images', () => {
  let folder: string
  let png: Buffer
  let server: Server
  let base: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'images-'))
    png = await sharp(pixels, { raw: { width: 2, height: 2, channels: 4 } })
      .png()
      .toBuffer()
    await writeFile(join(folder, 'a b.png'), png)
    server = createServer((request, response) => {
      if (request.url === '/a.png') response.end(png)
      else if (request.url === '/slow') response.writeHead(200).write('x')
      else if (request.url === '/huge') {
        response.writeHead(200, { 'content-length': String(2 ** 33) })
        response.flushHeaders()
      } else response.writeHead(404).end()
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(async () => {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true })
  })

  it('all decode to the same pixels', { tags: ['slow'] }, async () => {
    const path = join(folder, 'a b.png')
    const array = new ArrayBuffer(png.length)
    new Uint8Array(array).set(png)
    const shared = new SharedArrayBuffer(png.length)
    new Uint8Array(shared).set(png)
    const inside = new Uint8Array(png.length + 10).fill(7)
    inside.set(png, 5)
    const forms: Record<string, Exclude<ImageInput, { tokens: number }>> = {
      path,
      fileUrl: pathToFileURL(path).href,
      URL: pathToFileURL(path),
      base64: `data:image/png;base64,${png.toString('base64')}`,
      percent: `data:image/svg+xml,${encodeURIComponent(
        '<svg xmlns="http://www.w3.org/2000/svg" width="2" ' +
          'height="2" shape-rendering="crispEdges"><rect width="1" height="1" fill="#f00"/><rect x="1" width="1" ' +
          'height="1" ' +
          'fill="#0f0"/><rect y="1" width="1" height="1" fill="#00f"/><rect x="1" y="1" width="1" height="1" ' +
          'fill="#fff"/></svg>'
      )}`,
      http: `${base}/a.png`,
      Buffer: png,
      Uint8Array: inside.subarray(5, 5 + png.length),
      ArrayBuffer: array,
      SharedArrayBuffer: shared,
      Blob: new Blob([new Uint8Array(png)]),
      sharp: sharp(png),
      rgba: { data: pixels, width: 2, height: 2, channels: 4 },
      imageData: { data: new Uint8ClampedArray(pixels), width: 2, height: 2 },
      rgb: { data: rgb, width: 2, height: 2, channels: 3 }
    }
    for (const [name, image] of Object.entries(forms)) {
      const { data, width, height } = await decodeImage(image as string, { allowPrivateAddresses: true })
      expect([name, width, height, [...data]]).toEqual([name, 2, 2, [...rgb]])
    }
  })

  it('raw RGB pixels are copied, so that transferring their buffer afterwards does no harm', async () => {
    const data = new Uint8Array(900 * 700 * 3).map((_, i) => i % 251)
    const decoded = await decodeImage({ data, width: 900, height: 700, channels: 3 })
    structuredClone(data.buffer, { transfer: [data.buffer] })
    expect(decoded.data.length).toBe(900 * 700 * 3)
    expect(decoded.data.every((value, i) => value === i % 251)).toBe(true)
  })

  it('raw pixels whose buffer is transferred while they are read are an error', async () => {
    const data = new Uint8Array(1200 * 1000 * 3)
    const decoding = decodeImage({ data, width: 1200, height: 1000, channels: 3 })
    setImmediate(() => structuredClone(data.buffer, { transfer: [data.buffer] }))
    await expect(decoding).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('transferred')
    })
  })

  it('grey is replicated and alpha dropped in raw pixels', async () => {
    expect([...(await decodeImage({ data: new Uint8Array([1, 200]), width: 2, height: 1, channels: 1 })).data]).toEqual(
      [1, 1, 1, 200, 200, 200]
    )
    expect([...(await decodeImage({ data: new Uint8Array([9, 0]), width: 1, height: 1, channels: 2 })).data]).toEqual([
      9, 9, 9
    ])
  })

  it('a sharp instance keeps its own operations and its input is not changed', async () => {
    const instance = sharp(png).resize(1, 1, { kernel: 'nearest' })
    expect((await decodeImage(instance)).width).toBe(1)
    expect((await instance.png().toBuffer({ resolveWithObject: true })).info.format).toBe('png')
  })

  it('an abort during a download rejects with its reason', async () => {
    const control = new AbortController()
    const reason = new Error('enough')
    setTimeout(() => control.abort(reason), 50)
    await expect(decodeImage(`${base}/slow`, { signal: control.signal, allowPrivateAddresses: true })).rejects.toBe(
      reason
    )
    await expect(decodeImage(png, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })

  it('errors name the input and the reason', async () => {
    const cases: [unknown, string, RegExp][] = [
      [join(folder, 'none.jpg'), 'ERR_IMAGE_INVALID', /none\.jpg: cannot be read: ENOENT/],
      [folder, 'ERR_IMAGE_INVALID', /cannot be read: EISDIR/],
      [
        Buffer.from('not an image at all, sorry'),
        'ERR_IMAGE_INVALID',
        /image of 26 bytes: cannot be decoded: .*unsupported image format/
      ],
      [png.subarray(0, png.length - 20), 'ERR_IMAGE_INVALID', /cannot be decoded/],
      [Buffer.alloc(0), 'ERR_IMAGE_INVALID', /empty/],
      [`${base}/none`, 'ERR_IMAGE_INVALID', /\/none: the server answered 404/],
      ['http://127.0.0.1:9/x.png', 'ERR_IMAGE_INVALID', /cannot be downloaded/],
      [`${base}/huge`, 'ERR_IMAGE_TOO_LARGE', /8589934592 bytes or more/],
      ['data:image/png;base64', 'ERR_IMAGE_INVALID', /without a comma/],
      ['data:image/png;base64,%E0%A4%A', 'ERR_IMAGE_INVALID', /broken % escapes/],
      ['data:image/png;base64,', 'ERR_IMAGE_INVALID', /without data/],
      [new URL('ftp://example.com/a.png'), 'ERR_IMAGE_INVALID', /only file:, data:, http: and https:/],
      [
        { data: new Uint8Array(5), width: 2, height: 1, channels: 3 },
        'ERR_IMAGE_INVALID',
        /2 x 1 pixels of 3 channels do not fit data of 5 bytes/
      ],
      [new URL('blob:nodedata:1'), 'ERR_IMAGE_INVALID', /pass the Blob itself/],
      ['blob:nodedata:1', 'ERR_IMAGE_INVALID', /pass the Blob itself/],
      ['<svg xmlns="http://www.w3.org/2000/svg"/>', 'ERR_IMAGE_INVALID', /an SVG as text .* Buffer\.from\(text\)/],
      [{ data: new Float32Array(3), width: 1, height: 1 }, 'ERR_IMAGE_INVALID', /data must be a Uint8Array/],
      [{ data: [1, 2, 3], width: 1, height: 1, channels: 3 }, 'ERR_IMAGE_INVALID', /data must be a Uint8Array/],
      [{ data: new Uint8Array(3), width: 0.5, height: 1, channels: 3 }, 'ERR_IMAGE_INVALID', /integers >= 1/],
      [42, 'ERR_INVALID_OPTION', /Expected path, URL.* for image but received 42/],
      [null, 'ERR_INVALID_OPTION', /received null/],
      ['', 'ERR_INVALID_OPTION', /received ""/]
    ]
    for (const [image, code, message] of cases) {
      await expect(decodeImage(image as string, { allowPrivateAddresses: true })).rejects.toMatchObject({
        name: 'PaliGemmaError',
        code,
        message: expect.stringMatching(message) as unknown
      })
    }
  })

  it('decompression bombs are refused before they are decoded', async () => {
    // the header claims 60,000 x 60,000 pixels; the data is a few bytes
    const chunk = (type: string, data: Buffer): Buffer => {
      const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
      const out = Buffer.alloc(8 + data.length + 4)
      out.writeUInt32BE(data.length, 0)
      body.copy(out, 4)
      out.writeUInt32BE(crc(body), 8 + data.length)
      return out
    }
    const header = Buffer.alloc(13)
    header.writeUInt32BE(60000, 0)
    header.writeUInt32BE(60000, 4)
    header.set([8, 2, 0, 0, 0], 8)
    const bomb = Buffer.concat([
      Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
      chunk('IHDR', header),
      chunk('IDAT', deflateSync(Buffer.alloc(100))),
      chunk('IEND', Buffer.alloc(0))
    ])
    const before = process.memoryUsage().rss
    await expect(decodeImage(bomb)).rejects.toMatchObject({
      code: 'ERR_IMAGE_TOO_LARGE',
      message: expect.stringContaining('60000 x 60000 is 3600000000 pixels, the limit is 200000000') as unknown
    })
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20)
    await expect(decodeImage(png, { maxImagePixels: 3 })).rejects.toMatchObject({ code: 'ERR_IMAGE_TOO_LARGE' })
    await expect(decodeImage({ data: rgb, width: 2, height: 2 }, { maxImagePixels: 3 })).rejects.toMatchObject({
      code: 'ERR_IMAGE_TOO_LARGE'
    })
    await expect(decodeImage(sharp(png), { maxImagePixels: 3 })).rejects.toMatchObject({ code: 'ERR_IMAGE_TOO_LARGE' })
    expect((await decodeImage(png, { maxImagePixels: 4 })).width).toBe(2)
  })

  it('the event loop turns while a large picture is decoded', { tags: ['slow'] }, async () => {
    const large = await sharp({ create: { width: 2000, height: 1500, channels: 4, background: '#123456' } })
      .toColourspace('cmyk')
      .jpeg()
      .toBuffer()
    let turns = 0
    const timer = setInterval(() => {
      turns++
    }, 1)
    await decodeImage(large)
    clearInterval(timer)
    expect(turns).toBeGreaterThan(5) // in one piece it would be none or one
  })
})

function crc(data: Buffer): number {
  let value = ~0
  for (const byte of data) {
    value ^= byte
    for (let i = 0; i < 8; i++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1
  }
  return ~value >>> 0
}

describe('Windows bitmaps', () => {
  /** 3 x 2 pixels, bottom row first */
  function bmp(
    bits: number,
    rows: number[][],
    { table = Buffer.alloc(0), compression = 0, masks = [] as number[], height = 2, old = false } = {}
  ): Buffer {
    const header = Buffer.alloc(old ? 12 : 40)
    header.writeUInt32LE(header.length, 0)
    if (old) {
      header.writeUInt16LE(3, 4)
      header.writeUInt16LE(2, 6)
      header.writeUInt16LE(1, 8)
      header.writeUInt16LE(bits, 10)
    } else {
      header.writeInt32LE(3, 4)
      header.writeInt32LE(height, 8)
      header.writeUInt16LE(1, 12)
      header.writeUInt16LE(bits, 14)
      header.writeUInt32LE(compression, 16)
    }
    const maskBytes = Buffer.alloc(masks.length * 4)
    masks.forEach((mask, i) => maskBytes.writeUInt32LE(mask, 4 * i))
    const stride = Math.floor((3 * bits + 31) / 32) * 4
    const data = Buffer.concat(rows.map((row) => Buffer.concat([Buffer.from(row), Buffer.alloc(stride - row.length)])))
    const file = Buffer.alloc(14)
    file.write('BM')
    file.writeUInt32LE(14 + header.length + maskBytes.length + table.length, 10)
    return Buffer.concat([file, header, maskBytes, table, data])
  }
  const expected = [255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 0, 0]
  const table = Buffer.from([
    0,
    0,
    0,
    0,
    0,
    0,
    255,
    0,
    0,
    255,
    0,
    0,
    255,
    0,
    0,
    0,
    255,
    255,
    255,
    0,
    ...new Array<number>(11 * 4).fill(9)
  ])
  const full = Buffer.concat([table, Buffer.alloc(240 * 4)])
  const bgr = [
    [0, 0, 0, 255, 255, 255, 0, 0, 255],
    [0, 0, 255, 0, 255, 0, 255, 0, 0]
  ]

  it('of all depths decode', async () => {
    const files: Record<string, Buffer> = {
      rgb24: bmp(24, bgr),
      topDown: bmp(24, [bgr[1]!, bgr[0]!], { height: -2 }),
      core: bmp(24, bgr, { old: true }),
      rgb32: bmp(
        32,
        bgr.map((row) => [0, 3, 6].flatMap((i) => [...row.slice(i, i + 3), 77]))
      ),
      masked: bmp(
        32,
        bgr.map((row) => [0, 3, 6].flatMap((i) => [77, ...row.slice(i, i + 3)])),
        { compression: 3, masks: [0xff000000, 0xff0000, 0xff00] }
      ),
      rgb555: bmp(16, [
        [0, 0, 0xff, 0x7f, 0, 0x7c],
        [0, 0x7c, 0xe0, 0x03, 0x1f, 0]
      ]),
      rgb565: bmp(
        16,
        [
          [0, 0, 0xff, 0xff, 0, 0xf8],
          [0, 0xf8, 0xe0, 0x07, 0x1f, 0]
        ],
        { compression: 3, masks: [0xf800, 0x7e0, 0x1f] }
      ),
      palette8: bmp(
        8,
        [
          [0, 4, 1],
          [1, 2, 3]
        ],
        { table: full }
      ),
      palette4: bmp(
        4,
        [
          [0x04, 0x10],
          [0x12, 0x30]
        ],
        { table }
      )
    }
    for (const [name, file] of Object.entries(files))
      expect([name, [...(await decodeImage(file)).data]]).toEqual([name, expected])
    const bilevel = bmp(1, [[0b10100000], [0b01000000]], { table: Buffer.from([0, 0, 0, 0, 255, 255, 255, 0]) })
    expect([...(await decodeImage(bilevel)).data]).toEqual([
      0, 0, 0, 255, 255, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0, 255, 255, 255
    ])
  })

  it('that are damaged give errors, also for every truncation', async () => {
    await expect(decodeImage(bmp(24, bgr, { compression: 1 }))).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('compression 1 at byte 30') as unknown
    })
    const file = bmp(
      8,
      [
        [0, 4, 1],
        [1, 2, 3]
      ],
      { table: full }
    )
    for (let length = 0; length < file.length; length += 7) {
      await expect(decodeImage(file.subarray(0, length))).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
    }
    const huge = Buffer.from(file)
    huge.writeInt32LE(2 ** 30, 18)
    await expect(decodeImage(huge)).rejects.toMatchObject({ code: 'ERR_IMAGE_TOO_LARGE' })
    const badTable = Buffer.from(file)
    badTable.writeUInt32LE(0xffffffff, 46)
    await expect(decodeImage(badTable)).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
  })
})
