/** Pictures asked about again are not decoded again; whatever else changes is. */
import { mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import type { NativeBinding } from '../../lib/engine/native'
import { preprocess, type PreprocessedImage } from '../../lib/images/preprocess'
import type { ImageInput } from '../../lib/images/image-input'
import { RecentPictures } from '../../lib/images/recent'
import { FakeNative } from '../support/fake-native'
import { open } from '../support/fake-model'

const folder = mkdtempSync(join(tmpdir(), 'paligemma-recent-'))
afterAll(() => rmSync(folder, { recursive: true }))

let resizes = 0
/** Gives the first pixels, so that pictures can be told from each other. */
const binding = {
  resize: (data: Uint8Array) => {
    resizes++
    const transform = { scaleX: 1, scaleY: 1, offsetX: 0, offsetY: 0 }
    return Promise.resolve({ data: Uint8Array.from(data.subarray(0, 12)), transform })
  }
} as unknown as NativeBinding

let recent = new RecentPictures<PreprocessedImage>()
const options = { size: 2 }
const see = async (image: ImageInput): Promise<number[]> => [
  ...(await preprocess(binding, image as Buffer, options, recent)).data
]
/** What is kept is kept after the picture was given. */
const settled = async (): Promise<void> => await new Promise((resolve) => setTimeout(resolve, 50))

/** Four pixels; those of every colour have the same length. */
const ppm = (value: number): Buffer => Buffer.concat([Buffer.from('P6 2 2 255\n'), Buffer.alloc(12, value)])

beforeEach(() => {
  resizes = 0
  recent = new RecentPictures()
})

describe('a picture that was seen lately', () => {
  it('is known as a file, bytes, base64, a data: URL, a Blob and a stream', async () => {
    const png = await sharp({ create: { width: 2, height: 2, channels: 3, background: '#0a0a0a' } })
      .png()
      .toBuffer()
    const path = join(folder, 'grey.png')
    writeFileSync(path, png)
    expect(await see(path)).toEqual(Array(12).fill(10))
    await settled()
    const url = `data:image/png;base64,${png.toString('base64')}`
    for (const image of [path, png, new Uint8Array(png), png.toString('base64'), url, new Blob([png])])
      expect(await see(image)).toEqual(Array(12).fill(10))
    expect(await see(new Response(png).body!)).toEqual(Array(12).fill(10))
    expect(resizes).toBe(1)
  })

  it('is known by what it holds: neither by its name, nor by size and time', async () => {
    const path = join(folder, 'changing.ppm')
    writeFileSync(path, ppm(1))
    const { atime, mtime } = statSync(path)
    expect(await see(path)).toEqual(Array(12).fill(1))
    await settled()
    writeFileSync(path, ppm(2))
    utimesSync(path, atime, mtime)
    expect(await see(path)).toEqual(Array(12).fill(2))
    expect(resizes).toBe(2)
  })

  it('is not known where its memory was written to while it was looked at', async () => {
    const bytes = ppm(3)
    const seen = see(bytes)
    bytes.fill(4, bytes.length - 12)
    await seen
    await settled()
    expect(await see(ppm(3))).toEqual(Array(12).fill(3))
    expect(await see(ppm(4))).toEqual(Array(12).fill(4))
  })

  it('leaves the transform to each result', async () => {
    const first = await preprocess(binding, ppm(5), options, recent)
    await settled()
    first.transform.scaleX = 9
    const second = await preprocess(binding, ppm(5), options, recent)
    second.transform.scaleX = 8
    expect((await preprocess(binding, ppm(5), options, recent)).transform.scaleX).toBe(1)
    expect(resizes).toBe(1)
  })

  it('makes room for others: the one that was used last stays longest', async () => {
    recent = new RecentPictures(24) // two of them
    for (const value of [1, 2, 1, 3]) {
      await see(ppm(value))
      await settled()
    }
    expect(resizes).toBe(3)
    await see(ppm(1))
    expect(resizes).toBe(3)
    await see(ppm(2))
    expect(resizes).toBe(4)
  })

  it('may be in shared memory, and may be broken: both are looked at anew', async () => {
    const shared = Buffer.from(new SharedArrayBuffer(ppm(6).length))
    ppm(6).copy(shared)
    for (let i = 0; i < 2; i++) {
      expect(await see(shared)).toEqual(Array(12).fill(6))
      await expect(see(ppm(7).subarray(0, 20))).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
      await settled()
    }
    expect(resizes).toBe(2)
  })
})

it('a model decodes a picture once for several questions', async () => {
  const fake = new FakeNative()
  const model = await open(fake)
  for (const prompt of ['caption en', 'ocr', 'detect cow']) {
    await model.generate({ image: ppm(8), prompt })
    await settled()
  }
  expect(fake.resizes).toBe(1)
  expect(fake.requests.map((request) => request.images.length)).toEqual([1, 1, 1])
  await model.dispose()
})
