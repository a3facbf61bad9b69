import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { drawDetections } from '../../lib/output/draw'
import type { Drawable } from '../../lib/output/drawable'
import { canDraw, missingFrom, textPaths, textWidth } from '../../lib/output/font'

const width = 120
const height = 80
const grey = { data: new Uint8Array(width * height * 3).fill(128), width, height, channels: 3 as const }

async function draw(
  results: Drawable[],
  options = {}
): Promise<{ at: (x: number, y: number) => number[]; width: number; height: number }> {
  const png = await drawDetections(grey, results, options)
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true })
  expect((await sharp(png).metadata()).format).toBe('png')
  expect(info.channels).toBe(3)
  return {
    at: (x, y) => [...data.subarray((y * info.width + x) * 3, (y * info.width + x) * 3 + 3)],
    width: info.width,
    height: info.height
  }
}

describe('drawDetections', () => {
  it('draws boxes in one colour per label and leaves the rest as it was', async () => {
    const { at, ...size } = await draw(
      [
        { label: 'a', box: { x: 10, y: 20, width: 30, height: 40 } },
        { label: 'b', box: { x: 60, y: 20, width: 20, height: 40 } },
        { label: 'a', box: { x: 90, y: 20, width: 20, height: 40 } },
        { label: 'inverted', box: { x: 50, y: 70, width: -20, height: 5 } }
      ],
      { labels: false }
    )
    expect(size).toEqual({ width, height })
    const [a, b, again] = [at(10, 40), at(60, 40), at(90, 40)]
    expect(a).toEqual([0xe6, 0x19, 0x4b])
    expect(b).toEqual([0x3c, 0xb4, 0x4b])
    expect(again).toEqual(a)
    for (const [x, y] of [
      [25, 40],
      [5, 5],
      [45, 40],
      [40, 72]
    ] as const)
      expect(at(x, y)).toEqual([128, 128, 128])
  })

  it('tints what a mask covers and nothing else', async () => {
    const mask = new Uint8Array(width * height)
    mask.fill(255, 40 * width, 50 * width)
    mask.fill(128, 50 * width, 60 * width)
    const { at } = await draw(
      [{ label: 'a', box: { x: 0, y: 30, width: 120, height: 40 }, mask: { width, height, data: mask } }],
      { labels: false }
    )
    const opaque = at(60, 45)
    const half = at(60, 55)
    expect(opaque[0]).toBeGreaterThan(165) // 128 + 0.45 * (230 - 128)
    expect(opaque[0]).toBeLessThan(185)
    expect(half[0]).toBeGreaterThan(140)
    expect(half[0]).toBeLessThan(opaque[0]!)
    expect(at(60, 35)).toEqual([128, 128, 128])
  })

  it('writes labels on a background of the box colour, inside the picture', async () => {
    const { at } = await draw([{ label: 'cow', score: 0.5, box: { x: 100, y: 0, width: 20, height: 30 } }])
    const colours = new Map<string, number>()
    for (let y = 0; y < 12; y++)
      for (let x = 40; x < width; x++) colours.set(String(at(x, y)), (colours.get(String(at(x, y))) ?? 0) + 1)
    expect(colours.get('230,25,75')).toBeGreaterThan(300)
    // white letters, their edges smoothed
    const light = [...colours].filter(([colour]) => colour.split(',').every((value) => Number(value) > 150))
    expect(light.length).toBeGreaterThan(5)
    expect(at(20, 5)).toEqual([128, 128, 128])
  })

  it('survives any label', async () => {
    for (const label of ['<script>&"\'', ']]>', '\0\ud800\uffff', '日本', 'x'.repeat(5000), '', ' ']) {
      const { at } = await draw([{ label, box: { x: 10, y: 30, width: 50, height: 40 } }])
      expect(at(10, 60)).toEqual([0xe6, 0x19, 0x4b])
    }
  })

  it('enlarges by whole factors', async () => {
    const { at, ...size } = await draw([{ label: 'a', box: { x: 10, y: 20, width: 30, height: 40 } }], {
      scale: 3,
      labels: false
    })
    expect(size).toEqual({ width: 3 * width, height: 3 * height })
    expect([at(30, 100), at(29, 100)]).toEqual([
      [0xe6, 0x19, 0x4b],
      [128, 128, 128]
    ])
  })

  it('refuses what it cannot draw', async () => {
    await expect(drawDetections(grey, [{ label: 'a' }] as never)).rejects.toThrow(
      /Expected \{ x, y, width, height \} for results\[0\]\.box/
    )
    await expect(
      drawDetections(grey, [
        { label: 'a', box: { x: 0, y: 0, width: 1, height: 1 }, mask: { width: 2, height: 2, data: new Uint8Array(4) } }
      ])
    ).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('masks of 120 x 80') as unknown
    })
    await expect(drawDetections({ data: new Float32Array(4), tokens: 2, hidden: 2 }, [])).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
    await expect(drawDetections(grey, [], { colour: 'red' } as never)).rejects.toThrow(
      /Unknown option "colour" for drawDetections/
    )
  })
})

describe('the label font', () => {
  it('has a distinct glyph for every letter of the languages that it names', () => {
    const ascii = String.fromCharCode(...Array.from({ length: 94 }, (_, i) => 33 + i))
    const letters = `${ascii}äöüßéèêñçãõåøæœłżźćśąęőűčšžřďťňğışțăđªº€£`
    const greek = 'αβγδεζηθικλμνξπρστυφχψωάέήίόύώΑΒΓΔΩ'
    const cyrillic = 'абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґАБВГ'
    const vietnamese = 'ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽ'
    const seen = new Set(
      Array.from(letters + greek + cyrillic + vietnamese, (char) => textPaths(char, 0, 0, 10, '#000'))
    )
    // some letters of different scripts look alike, such as a and а
    expect(seen.size).toBeGreaterThan(210)
    for (const text of [letters, greek, cyrillic, vietnamese]) expect(missingFrom(text)).toEqual([])
    expect(textPaths(' ', 0, 0, 10, '#000')).not.toContain('<path')
    expect([canDraw('a~é'), canDraw('\n'), canDraw('日')]).toEqual([true, false, false])
  })

  it('measures what it draws', async () => {
    for (const text of ['Größe', 'iiiii', 'WWWW', 'żółw']) {
      const svg =
        '<svg xmlns="http://www.w3.org/2000/svg" width="400" ' +
        `height="80">${textPaths(text, 0, 60, 50, '#000')}</svg>`
      const { info } = await sharp(Buffer.from(svg))
        .flatten({ background: '#fff' })
        .trim()
        .toBuffer({ resolveWithObject: true })
      expect(Math.abs(info.width - textWidth(text, 50))).toBeLessThan(10)
    }
  })
})
