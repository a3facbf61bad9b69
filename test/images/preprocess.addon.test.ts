/** Resizing against Pillow, byte for byte; see golden/preprocess/README.md. */
import { existsSync, readFileSync } from 'node:fs'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { native } from '../../lib/engine/native'
import { preprocessImage } from '../../lib/images/preprocess'
import { golden, hasGolden, hasGoldens } from '../support/golden'

interface Picture {
  data: Uint8Array
  width: number
  height: number
}
interface GoldenImage {
  file: string
  decoder_exact: boolean
  cases: Record<string, { expected: string; rgb_size_wh: [number, number] }>
}

/** RGB8 of a picture without orientation. */
async function decode(path: string): Promise<Picture> {
  const { data, info } = await sharp(path)
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
  expect(info.channels).toBe(3)
  return { data: new Uint8Array(data), width: info.width, height: info.height }
}

function difference(a: Uint8Array, b: Uint8Array): { most: number; mean: number } {
  expect(a.length).toBe(b.length)
  let most = 0
  let sum = 0
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!)
    most = Math.max(most, d)
    sum += d
  }
  return { most, mean: sum / a.length }
}

const images = hasGoldens('preprocess/index.json')
  ? (JSON.parse(readFileSync(golden('preprocess', 'index.json'), 'utf8')) as { images: GoldenImage[] }).images
  : []
// "224" or "224.no_exif": the part behind the dot names another decoding of the same file
const cases = images.flatMap((image) =>
  Object.entries(image.cases).map(([key, value]) => {
    const [size, variant] = key.split('.') as [string, string | undefined]
    return { image, size: Number(size), variant, ...value }
  })
)

describe.skipIf(images.length === 0)('preprocessing', () => {
  it('covers the reference pictures', () => {
    expect(cases.length).toBeGreaterThan(hasGolden ? 60 : 9)
  })

  it.each(cases)(
    'resizes to $expected as Pillow does',
    async ({ image, size, variant, expected, rgb_size_wh: [width, height] }) => {
      const decoded = golden('preprocess', 'decoded', `${image.file}${variant ? `.${variant}` : ''}.png`)
      const source = await decode(existsSync(decoded) ? decoded : golden('preprocess', 'src', image.file))
      expect([source.width, source.height]).toEqual([width, height])
      const { data, transform } = await native().resize(source.data, width, height, size, 'bicubic', 'squash')
      expect(difference(data, (await decode(golden('preprocess', 'expected', expected))).data).most).toBe(0)
      expect(transform).toEqual({ scaleX: size / width, scaleY: size / height, offsetX: 0, offsetY: 0 })
    }
  )

  // gray16.png: the reference clips 16-bit gray to 8 bits there; its high byte is the variant above
  const whole = cases.filter(({ image, variant }) => !variant && image.file !== 'gray16.png')
  it.each(whole)('makes $expected from the file itself', async ({ image, size, expected }) => {
    const { data } = await preprocessImage(golden('preprocess', 'src', image.file), { size })
    const { most, mean } = difference(data, (await decode(golden('preprocess', 'expected', expected))).data)
    expect(most).toBeLessThanOrEqual(image.decoder_exact ? 0 : 3)
    expect(mean).toBeLessThanOrEqual(0.5)
  })

  it.skipIf(!hasGolden)('equals the pictures of the model goldens', async () => {
    const info = JSON.parse(readFileSync(golden('hf', 'preprocess', 'expected.json'), 'utf8')) as {
      images: { file: string }[]
      sizes: number[]
    }
    const file = readFileSync(golden('hf', 'preprocess', 'expected.safetensors'))
    const headerBytes = Number(file.readBigUInt64LE(0))
    const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<
      string,
      { data_offsets: [number, number] }
    >
    for (const { file: name } of info.images) {
      for (const size of info.sizes) {
        const [begin, end] = header[`${name}.${size}`]!.data_offsets
        const { data } = await preprocessImage(golden('hf', 'preprocess', name), { size })
        expect(
          difference(data, file.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).most,
          `${name} ${size}`
        ).toBe(0)
      }
    }
  })

  it('centres a picture whose aspect ratio is kept and says where it lies', async () => {
    const { data, transform } = await native().resize(
      new Uint8Array(40 * 20 * 3).fill(200),
      40,
      20,
      16,
      'bicubic',
      'pad'
    )
    expect(transform).toEqual({ scaleX: 0.4, scaleY: 0.4, offsetX: 0, offsetY: 4 })
    for (let y = 0; y < 16; y++) expect(data[y * 16 * 3]).toBe(y >= 4 && y < 12 ? 200 : 127)
  })
})
