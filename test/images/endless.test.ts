/** Pictures that take very long, or never end. */
import { createHook } from 'node:async_hooks'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { decodeImage } from '../../lib/images/decode'
import { countScans, decodingCost } from '../../lib/images/formats'

const svg = (size: number, body: string): Buffer =>
  Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="${size}" height="${size}">${body}</svg>`)
const filters = svg(
  2000,
  `<filter id="f" x="0" y="0" width="1" height="1"><feTurbulence baseFrequency="0.05" numOctaves="20"/>
  <feGaussianBlur stdDeviation="200"/></filter>
  ${'<g filter="url(#f)">'.repeat(20)}<rect width="2000" height="2000"/>${'</g>'.repeat(20)}`
)
const references = svg(
  1000,
  '<g id="a0"><circle r="500" fill-opacity=".1"/></g>' +
    Array.from({ length: 9 }, (_, i) => `<g id="a${i + 1}">${`<use href="#a${i}" x="1"/>`.repeat(6)}</g>`).join('')
)

let folder = ''
let png: Buffer
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'endless-'))
  png = await sharp({ create: { width: 9, height: 7, channels: 3, background: '#c81e3c' } })
    .png()
    .toBuffer()
})
afterAll(() => rmSync(folder, { recursive: true }))

/** Processes that this one started and that still run. */
function children(): number {
  if (process.platform !== 'linux') return 0
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      const [state, parent] = readFileSync(`/proc/${name}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ')
      return parent === String(process.pid) && state !== 'Z'
    } catch {
      return false
    }
  }).length
}

const enough = new Error('enough')

/** Without the signal it ends much later, and otherwise. */
async function aborted(control: AbortController, image: Buffer): Promise<void> {
  await expect(decodeImage(image, { signal: control.signal })).rejects.toBe(enough)
}

async function abortedAfter(ms: number, image: Buffer): Promise<void> {
  const control = new AbortController()
  setTimeout(() => control.abort(enough), ms)
  await aborted(control, image)
}

describe('a slow picture', () => {
  it('ends with its signal, and nothing of it runs on', { tags: ['slow'] }, async () => {
    const before = children()
    for (const image of [filters, references, gzipSync(filters)]) await abortedAfter(300, image)
    await vi.waitFor(() => expect(children()).toBe(before), 20_000)
  })

  it('does not keep others waiting', { tags: ['slow'] }, async () => {
    const control = new AbortController()
    const slow = Promise.all(Array.from({ length: 4 }, async () => await aborted(control, filters)))
    expect((await decodeImage(png)).width).toBe(9)
    control.abort(enough)
    await slow
  })

  it('of many that are aborted together has no process started for it', { tags: ['slow'] }, async () => {
    let started = 0
    const hook = createHook({ init: (_, type) => void (started += type === 'PROCESSWRAP' ? 1 : 0) })
    const reason = new Error('enough')
    const controls = Array.from({ length: 10 }, () => new AbortController())
    hook.enable()
    try {
      const all = Promise.allSettled(controls.map(async ({ signal }) => await decodeImage(filters, { signal })))
      await vi.waitUntil(() => started === 2, 20_000)
      for (const control of controls) {
        control.abort(reason)
        for (let turn = 0; turn < 50; turn++) await Promise.resolve()
      }
      for (const end of await all) expect(end).toEqual({ status: 'rejected', reason })
    } finally {
      hook.disable()
    }
    expect(started).toBe(2)
  })

  it('is refused after decodeTimeoutMs', async () => {
    await expect(decodeImage(filters, { decodeTimeoutMs: 400 })).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringMatching(/more than 400 ms.*decodeTimeoutMs/) as unknown
    })
  })

  it('is told by its scans', { tags: ['slow'] }, async () => {
    const progressive = await sharp({
      create: {
        width: 600,
        height: 600,
        channels: 3,
        background: '#456',
        noise: { type: 'gaussian', mean: 128, sigma: 30 }
      }
    })
      .jpeg({ progressive: true })
      .toBuffer()
    const last = progressive.lastIndexOf(Buffer.from([0xff, 0xda]))
    const scan = progressive.subarray(last, progressive.length - 2)
    const many = Buffer.concat([
      progressive.subarray(0, last),
      ...Array<Buffer>(800).fill(scan),
      progressive.subarray(-2)
    ])
    expect(await countScans(progressive)).toBeLessThan(16)
    expect(await countScans(many)).toBeGreaterThan(800)
    expect(await decodingCost('jpeg', 360_000, progressive)).toBeLessThan(2e6)
    expect(await decodingCost('jpeg', 360_000, many)).toBeGreaterThan(4e7)
    await abortedAfter(100, many)
  })

  it('is told by what it holds beside its pixels: texts, markers', { tags: ['slow'] }, async () => {
    const text = chunk('tEXt', Buffer.concat([Buffer.from('a\0'), Buffer.alloc(3e6, 'x')]))
    const withTexts = Buffer.concat([png.subarray(0, 33), text, png.subarray(33)])
    const jpeg = await sharp(png).jpeg().toBuffer()
    const comments = Buffer.alloc(3e6, Buffer.from([0xff, 0xfe, 0, 3, 1]))
    const withComments = Buffer.concat([jpeg.subarray(0, 2), comments, jpeg.subarray(2)])
    for (const [format, plain, full] of [
      ['png', png, withTexts],
      ['jpeg', jpeg, withComments]
    ] as const) {
      expect(await decodingCost(format, 63, plain)).toBeLessThan(1e5)
      expect(await decodingCost(format, 63, full)).toBeGreaterThan(4e7)
      expect((await decodeImage(full, { decodeTimeoutMs: 100_000 })).width).toBe(9)
    }
    // what a photograph carries beside its picture
    expect(await decodingCost('jpeg', 12e6, Buffer.alloc(9e6))).toBeLessThan(4e7)
  })
})

function chunk(type: string, data: Buffer): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt32BE(data.length)
  head.write(type, 4, 'latin1')
  const body = Buffer.concat([head.subarray(4), data])
  const check = Buffer.alloc(4)
  check.writeUInt32BE(crc32(body))
  return Buffer.concat([head.subarray(0, 4), body, check])
}

/** As PNG has it; Node's own is younger than the oldest Node that is supported. */
function crc32(bytes: Buffer): number {
  let crc = ~0
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1
  }
  return ~crc >>> 0
}

describe('a drawing', () => {
  it('is drawn as before, also from a file and compressed', { tags: ['slow'] }, async () => {
    const plain = svg(40, '<rect width="20" height="40" fill="#ff0000"/>')
    const path = join(folder, 'plain.svg')
    writeFileSync(path, plain)
    for (const image of [plain, path, gzipSync(plain)]) {
      const { data, width, height } = await decodeImage(image)
      expect([width, height, ...data.subarray(0, 3)]).toEqual([40, 40, 255, 0, 0])
    }
  })

  it('sees no other files', async () => {
    writeFileSync(join(folder, 'secret.png'), png)
    const path = join(folder, 'curious.svg')
    const link =
      `<image href="secret.png" width="40" height="40"/><image href="file://${folder}/secret.png" ` +
      'width="40" height="40"/>'
    writeFileSync(path, svg(40, link))
    expect((await decodeImage(path)).data.every((value) => value === 0)).toBe(true)
  })

  it('of too many pixels is refused, and so is one that is broken', { tags: ['slow'] }, async () => {
    await expect(decodeImage(svg(6000, ''))).rejects.toMatchObject({ code: 'ERR_IMAGE_TOO_LARGE' })
    await expect(decodeImage(svg(60, ''), { maxImagePixels: 3000 })).rejects.toMatchObject({
      code: 'ERR_IMAGE_TOO_LARGE'
    })
    await expect(decodeImage(svg(60, '<g>'))).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('cannot be decoded') as unknown
    })
  })
})

describe('large files', () => {
  it('are decoded apart, from their path', { tags: ['slow'] }, async () => {
    const path = join(folder, 'large.png')
    writeFileSync(path, Buffer.concat([png, Buffer.alloc(65 * 1024 * 1024)]))
    expect((await decodeImage(path)).width).toBe(9)
  })
})

describe.skipIf(process.platform === 'win32')('what is no file', () => {
  it('is refused at once: pipes, devices, directories', async () => {
    const fifo = join(folder, 'fifo')
    execFileSync('mkfifo', [fifo])
    for (const path of [fifo, '/dev/zero', '/dev/null', folder])
      await expect(decodeImage(path), path).rejects.toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringContaining('not a file') as unknown
      })
  })

  // /proc/kmsg among them, which a read would wait for
  it.runIf(process.platform === 'linux')("is not even read: the system's files without a size", async () => {
    await expect(decodeImage('/proc/self/environ')).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('it is empty') as unknown
    })
  })
})
