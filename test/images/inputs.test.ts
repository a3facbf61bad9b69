/** Forms of pictures that come as text, in pieces, or from another realm. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { runInNewContext } from 'node:vm'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { collect } from '../../lib/images/body'
import { decodeImage } from '../../lib/images/decode'
import { isEmbedding } from '../../lib/images/image-input'

type Input = Parameters<typeof decodeImage>[0]
let folder = ''
let png: Buffer
const encoded: Record<string, Buffer> = {}
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inputs-'))
  const picture = sharp({ create: { width: 9, height: 7, channels: 3, background: '#c81e3c' } })
  png = await picture.png().toBuffer()
  for (const format of ['jpeg', 'webp', 'gif', 'tiff', 'avif'] as const)
    encoded[format] = await picture.toFormat(format).toBuffer()
})
afterAll(async () => await rm(folder, { recursive: true }))

const size = async (image: Input): Promise<number[]> => {
  const { width, height } = await decodeImage(image)
  return [width, height]
}
const refusal = async (image: unknown): Promise<{ code: string; message: string }> =>
  await decodeImage(image as Input).then(
    () => ({ code: 'none', message: '' }),
    (error) => error as { code: string; message: string }
  )

describe('base64 text', () => {
  it('is the picture, in every alphabet and layout', { tags: ['slow'] }, async () => {
    const text = png.toString('base64')
    for (const form of [
      text,
      png.toString('base64url'),
      text.replace(/.{40}/g, '$&\r\n'),
      ` ${text}\n`,
      text.replace(/=+$/, ''),
      `base64,${text}`,
      `image/png;base64,${text}`
    ])
      expect(await size(form)).toEqual([9, 7])
    for (const [format, bytes] of Object.entries(encoded))
      expect([format, await size(bytes.toString('base64'))]).toEqual([format, [9, 7]])
    const svg = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="7"/>'
    expect(await size(Buffer.from(svg).toString('base64'))).toEqual([9, 7])
  })

  it('that exists as a path is that path', async () => {
    const name = join(folder, 'iVBORw0KGgoAAAANSUhEUg')
    await writeFile(name, encoded.jpeg!)
    expect(await size(name)).toEqual([9, 7])
  })

  it('in a data: URL is base64, escaped bytes or text', { tags: ['slow'] }, async () => {
    const bytes = Array.from(png, (byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="7"><title>é</title></svg>'
    for (const url of [
      `data:image/png;base64,${png.toString('base64')}`,
      `data:image/png;base64,${encodeURIComponent(png.toString('base64'))}`,
      `data:image/png,${bytes}`,
      `data:image/svg+xml,${svg}`,
      `data:image/svg+xml,${encodeURIComponent(svg)}`
    ])
      expect(await size(url), url.slice(0, 40)).toEqual([9, 7])
    expect((await refusal('data:image/png,%zz')).code).toBe('ERR_IMAGE_INVALID')
  })

  it('that is an address of another kind says which are read', async () => {
    for (const text of ['s3://bucket/cow.png', 'ftp://host/cow.png'])
      expect(await refusal(text)).toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: `${text}: only file:, data:, http: and https: URLs are read`
      })
  })

  it('that is no picture gives a short error', async () => {
    for (const text of [
      'A'.repeat(60_000),
      'A'.repeat(300),
      'x/'.repeat(3000),
      Buffer.alloc(3000, 'hello ').toString('base64')
    ]) {
      const { code, message } = await refusal(text)
      expect(code).toBe('ERR_IMAGE_INVALID')
      expect(message).toMatch(/base64/)
      expect(message.length).toBeLessThan(500)
    }
    expect(await refusal('photos/cow')).toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: 'photos/cow: cannot be read: ENOENT: no such file or directory'
    })
    expect((await refusal(`https://127.0.0.1:9/${'a'.repeat(90_000)}`)).message.length).toBeLessThan(500)
    expect((await refusal(`file:///${'a'.repeat(90_000)}`)).message.length).toBeLessThan(500)
    expect((await refusal('a\0b')).code).toBe('ERR_IMAGE_INVALID')
  })
})

describe('bytes that come in pieces', () => {
  const pieces = (): Buffer[] => [png.subarray(0, 10), png.subarray(10, 11), png.subarray(11)]
  const web = (): ReadableStream<Uint8Array> => new Blob([new Uint8Array(png)]).stream()

  it('are the picture: streams, responses, requests, files', async () => {
    const forms: Record<string, Input> = {
      web: web() as Input,
      readable: Readable.from(pieces()),
      passThrough: Readable.from(pieces()).pipe(new PassThrough()),
      generator: (async function* () {
        yield* pieces()
      })(),
      response: new Response(new Uint8Array(png)),
      responseOfStream: new Response(web()),
      request: new Request('http://localhost/', { method: 'POST', body: new Uint8Array(png) }),
      blob: new Blob([new Uint8Array(png)]),
      readableToWeb: Readable.toWeb(Readable.from(pieces())) as Input,
      duck: { arrayBuffer: async () => new Uint8Array(png).buffer }
    }
    for (const [name, form] of Object.entries(forms)) expect([name, await size(form)]).toEqual([name, [9, 7]])
  })

  it('that cannot be read are errors that say why', async () => {
    const used = new Response(new Uint8Array(png))
    await used.arrayBuffer()
    const locked = web()
    locked.getReader()
    const broken = new Readable({
      read() {
        this.destroy(new Error('the disk went away'))
      }
    })
    const wrong: [unknown, RegExp][] = [
      [used, /read already/],
      [locked, /cannot be read: .*locked/],
      [broken, /cannot be read: the disk went away/],
      [new Response('no', { status: 404 }), /the server answered 404/],
      [new Response(null), /is empty/],
      [Readable.from(['text']), /gave a string, not bytes/],
      [Readable.from([]), /is empty/]
    ]
    for (const [image, message] of wrong)
      expect(await refusal(image)).toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringMatching(message) as unknown
      })
  })

  it('that stall end with the signal, and after a time without it; the source is let go', async () => {
    const reason = new Error('enough')
    let cancelled: unknown
    const stalled = new ReadableStream<Uint8Array>({ cancel: (why) => void (cancelled = why) })
    const readable = new Readable({ read() {} })
    for (const source of [stalled, readable, new Response(new ReadableStream())]) {
      await expect(decodeImage(source as Input, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
      const control = new AbortController()
      setTimeout(() => control.abort(reason), 20)
      await expect(decodeImage(source as Input, { signal: control.signal })).rejects.toBe(reason)
    }
    expect(cancelled).toBe(reason)
    expect(readable.destroyed).toBe(true)
    await expect(collect(new Readable({ read() {} }), 'it', { idleMs: 20 })).rejects.toThrow(
      'it: nothing came for 0.02 s'
    )
  })

  it.each([0, 1])('that always have a piece, of %i bytes, let everything else go on', async (length) => {
    const reason = new Error('enough')
    const piece = new Uint8Array(length)
    const sources = [
      { [Symbol.asyncIterator]: () => ({ next: async () => await Promise.resolve({ done: false, value: piece }) }) },
      new ReadableStream<Uint8Array>({ pull: (control) => control.enqueue(piece) })
    ]
    for (const source of sources) {
      const control = new AbortController()
      setTimeout(() => control.abort(reason), 20)
      await expect(decodeImage(source as Input, { signal: control.signal })).rejects.toBe(reason)
    }
  })

  it('of empty pieces alone are given up', async () => {
    const empty = { [Symbol.asyncIterator]: () => ({ next: async () => ({ done: false, value: new Uint8Array(0) }) }) }
    await expect(collect(empty, 'it', { idleMs: 20 })).rejects.toThrow('it: nothing came for 0.02 s')
  })

  it.each<[string, unknown]>([
    ['a step that is no object', { next: async () => await Promise.resolve(undefined) }],
    [
      'a step that throws',
      {
        next: async () =>
          await Promise.resolve({
            get done(): never {
              throw new Error('mine')
            }
          })
      }
    ],
    [
      'a throwing return',
      {
        next: async () => ({ value: 'x' }),
        return() {
          throw new Error('mine')
        }
      }
    ],
    ['a return that is no function', { next: async () => ({ value: 7 }), return: 7 }],
    ['no iterator', null]
  ])('with %s are ERR_IMAGE_INVALID', async (_what, iterator) => {
    expect(await refusal({ [Symbol.asyncIterator]: () => iterator })).toMatchObject({ code: 'ERR_IMAGE_INVALID' })
  })

  it('that never end are refused at the limit', async () => {
    const endless = new Readable({
      read() {
        this.push(Buffer.alloc(1 << 24))
      }
    })
    expect(await refusal(endless)).toMatchObject({ code: 'ERR_IMAGE_TOO_LARGE' })
    expect(endless.destroyed).toBe(true)
  })
})

describe('bytes', () => {
  it('are the picture in every view of them', async () => {
    const padded = Buffer.concat([Buffer.alloc(5), png, Buffer.alloc(3)])
    const { buffer, byteOffset } = padded
    expect(await size(new DataView(buffer, byteOffset + 5, png.length))).toEqual([9, 7])
    expect(await size(new Uint8Array(buffer, byteOffset + 5, png.length))).toEqual([9, 7])
    const shared = new SharedArrayBuffer(png.length)
    new Uint8Array(shared).set(png)
    expect(await size(shared)).toEqual([9, 7])
    expect(await size(new DataView(shared))).toEqual([9, 7])
    const gone = new DataView(new Uint8Array(png).buffer)
    structuredClone(gone.buffer, { transfer: [gone.buffer] })
    expect(await refusal(gone)).toMatchObject({ code: 'ERR_IMAGE_INVALID' })
  })

  it('that something happened to are told what', async () => {
    const cases: [unknown, RegExp][] = [
      [JSON.parse(JSON.stringify(png)), /Buffer that went through JSON: pass Buffer\.from/],
      [JSON.parse(JSON.stringify(new Uint8Array(png))), /Uint8Array that went through JSON/],
      [Promise.resolve(png), /promise: await it/],
      [[...png], /Uint8Array\.from/],
      [new Uint8ClampedArray(png), /Uint8ClampedArray; of pixels, pass \{ data, width, height \}/],
      [new Int8Array(png), /Int8Array; pass its bytes/]
    ]
    for (const [value, words] of cases)
      expect(await refusal(value)).toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringMatching(words) as unknown
      })
  })
})

describe('a long text', () => {
  it('is left off when its signal aborts', async () => {
    const reason = new Error('enough')
    const long = Buffer.alloc(30_000_000).toString('base64')
    for (const text of [
      `data:image/png;base64,${long}`,
      `data:image/png,${long}`,
      png.subarray(0, 60).toString('base64') + long
    ]) {
      const control = new AbortController()
      setImmediate(() => control.abort(reason))
      await expect(decodeImage(text, { signal: control.signal })).rejects.toBe(reason)
    }
  })
})

describe('values of another realm', () => {
  const foreign = runInNewContext(
    '({ Uint8Array, Uint8ClampedArray, Float32Array, ArrayBuffer, Object })'
  ) as typeof globalThis

  it('are what they are', async () => {
    expect(await size(new foreign.Uint8Array(png))).toEqual([9, 7])
    const buffer = new foreign.ArrayBuffer(png.length)
    new Uint8Array(buffer).set(png)
    expect(await size(buffer)).toEqual([9, 7])
    for (const data of [new foreign.Uint8Array(6), new foreign.Uint8ClampedArray(6)])
      expect(await size({ data, width: 2, height: 1 })).toEqual([2, 1])
    expect(isEmbedding({ data: new foreign.Float32Array(4), tokens: 2, hidden: 2 })).toBe(true)
    const href = `data:image/png;base64,${png.toString('base64')}`
    expect(await size({ href, protocol: 'data:', toString: () => href } as unknown as URL)).toEqual([9, 7])
  })

  it('stay refused where they are none', async () => {
    for (const value of [[1, 2, 3], new foreign.Object(), 42, true, () => {}, Symbol('a')])
      expect((await refusal(value)).code).toBe('ERR_INVALID_OPTION')
  })
})
