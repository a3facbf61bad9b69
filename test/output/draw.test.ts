import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { drawDetections } from '../../lib/output/draw/draw'
import type { Drawable } from '../../lib/output/drawable'
import { canDraw, missingFrom, textPaths, textWidth } from '../../lib/output/draw/font'
import { labelText } from '../../lib/output/draw/label-text'

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

  it('shows the tiles that results know, or those named, in any scale', async () => {
    const found = (tiles: object[]) => ({ label: 'a', box: { x: 55, y: 35, width: 8, height: 8 }, info: { tiles } })
    const whole = { x: 0, y: 0, width, height }
    const [left, right] = [0, 50].map((x) => ({ x, y: 0, width: 70, height }))
    const grey128 = [128, 128, 128]
    const one = [found([right!, left!])]
    const plain = await draw(one, { labels: false })
    expect(plain.at(50, 20)).toEqual(grey128)
    const lines = await draw(one, { labels: false, tiles: true })
    // both tiles' lines, nothing else, and none around the whole picture
    for (const x of [50, 69]) expect(lines.at(x, 20)).not.toEqual(grey128)
    expect(lines.at(30, 20)).toEqual(grey128)
    const list = Object.assign([found([right!])], { tiles: [whole, left!] })
    const ofList = await draw(list, { labels: false, tiles: true })
    expect(ofList.at(69, 20)).not.toEqual(grey128)
    expect(ofList.at(50, 20)).toEqual(grey128)
    expect(ofList.at(width - 1, 20)).toEqual(grey128)
    const named = await draw([], { tiles: [right!], scale: 2 })
    expect(named.at(100, 40)).not.toEqual(grey128)
    expect(named.at(138, 40)).toEqual(grey128)
    const svg = await drawDetections(grey, one, { format: 'svg', tiles: true })
    expect(svg.match(/stroke-dasharray/g)).toHaveLength(1)
    expect(await drawDetections(grey, [], { tiles: true, format: 'svg' })).not.toContain('stroke-dasharray')
  })

  it.each<[unknown, RegExp]>([
    ['auto', /boolean or array of tiles .* for tiles but received "auto"/],
    [[{ x: 0, y: 0, width: 3 }], /tiles\[0\]\.height/],
    [[7], /tiles/],
    [[{ x: NaN, y: 0, width: 3, height: 3 }], /tiles\[0\]\.x/]
  ])('refuses tiles: %j', async (tiles, message) => {
    await expect(drawDetections(grey, [], { tiles: tiles as never })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(message) as string
    })
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

  it('draws an object once that detect and segment both found', async () => {
    const mask = { width, height, data: new Uint8Array(width * height).fill(255, 45 * width, 46 * width) }
    const box = { x: 10, y: 30, width: 60, height: 40 }
    const twice = [
      { label: 'cow', score: 0.5, box },
      { label: 'cow', score: 0.9, box: { ...box, x: 11 }, mask },
      { label: 'cow', score: 0.4, box: { ...box, x: 60 } }
    ]
    const once = [{ label: 'cow', score: 0.9, box, mask }, twice[2]!]
    expect(await drawDetections(grey, twice)).toEqual(await drawDetections(grey, once))
  })

  it('finds places for labels where they hide no other', async () => {
    const crowd = ['cow', 'calf', 'bull', 'ox'].map((label, i) => ({
      label,
      box: { x: 100 + i, y: 100, width: 90, height: 90 - i }
    }))
    const image = { data: new Uint8Array(400 * 400 * 3), width: 400, height: 400 }
    const svg = await drawDetections(image, crowd, { format: 'svg', picture: false })
    const plates = [...svg.matchAll(/<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)" rx/g)].map(
      (match) => match.slice(1).map(Number) as [number, number, number, number]
    )
    expect(plates).toHaveLength(4)
    for (const [i, [x, y, w, h]] of plates.entries())
      for (const [ox, oy, ow, oh] of plates.slice(i + 1))
        expect(x < ox + ow && ox < x + w && y < oy + oh && oy < y + h).toBe(false)
  })

  it('takes colours, widths, and what to leave out', async () => {
    const data = new Uint8Array(width * height).fill(255, 40 * width, 60 * width)
    const result = { label: 'a', box: { x: 10, y: 20, width: 90, height: 50 }, mask: { width, height, data } }
    const look = await draw([result], { labels: false, colors: { a: '#0000ff' }, lineWidth: 7, maskOpacity: 1 })
    expect([look.at(10, 30), look.at(16, 30), look.at(18, 30), look.at(50, 50)]).toEqual([
      [0, 0, 255],
      [0, 0, 255],
      [128, 128, 128],
      [0, 0, 255]
    ])
    const masksOnly = await draw([result], { labels: false, boxes: false, colors: ['#00ff00'] })
    expect(masksOnly.at(10, 30)).toEqual([128, 128, 128])
    expect(masksOnly.at(50, 50)[1]).toBeGreaterThan(170)
    const boxesOnly = await draw([result], { labels: false, masks: false })
    expect(boxesOnly.at(50, 50)).toEqual([128, 128, 128])
    for (const format of ['jpeg', 'webp'] as const)
      expect((await sharp(await drawDetections(grey, [result], { format })).metadata()).format).toBe(format)
  })

  it('is a text as SVG, or lies on nothing', async () => {
    const data = new Uint8Array(width * height).fill(255, 40 * width, 60 * width)
    const results = [{ label: 'é<a>', box: { x: 10, y: 20, width: 90, height: 50 }, mask: { width, height, data } }]
    const svg = await drawDetections(grey, results, { format: 'svg', scale: 2 })
    expect(svg).toMatch(/^<svg [^>]*width="240" height="160".*<image href="data:image\/jpeg;base64,/)
    const seen = await sharp(Buffer.from(svg)).raw().toBuffer({ resolveWithObject: true })
    expect(seen.info).toMatchObject({ width: 240, height: 160 })
    expect(seen.data[(100 * 240 + 100) * seen.info.channels]).toBeGreaterThan(150)
    const alone = await sharp(await drawDetections(grey, results, { picture: false, labels: false }))
      .raw()
      .toBuffer({ resolveWithObject: true })
    expect(alone.info).toMatchObject({ width, height, channels: 4 })
    const alpha = (x: number, y: number): number => alone.data[(y * width + x) * 4 + 3]!
    expect([alpha(5, 5), alpha(10, 30)]).toEqual([0, 255])
    expect(alpha(50, 50)).toBeGreaterThan(100)
    expect(alpha(50, 50)).toBeLessThan(130)
    expect(await drawDetections(grey, results, { format: 'svg', picture: false })).not.toContain('<image')
  })

  it.each([
    [{ colors: ['red'] }, /colours "#rrggbb".* for colors/],
    [{ colors: { a: '#12345' } }, /for colors/],
    [{ colors: [] }, /for colors/],
    [{ lineWidth: 0 }, /for lineWidth/],
    [{ format: 'gif' }, /for format/],
    [{ format: 'jpeg', picture: false }, /with picture: false for format/],
    [{ maskOpacity: 2 }, /for maskOpacity/]
  ])('refuses %j', async (options, message) => {
    await expect(drawDetections(grey, [], options as never)).rejects.toThrow(message)
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

  it('draws ligatures, wide letters and invisible marks as plain text, on any machine', async () => {
    const note = (): never => expect.fail('it was drawn as a number')
    const drawn = async (text: string): Promise<string> => (await labelText(text, 10, 500, 1, note)).svg(0, 0, '#000')
    for (const [text, plain] of [
      ['\ufb01sh', 'fish'],
      ['\uff21\uff22', 'AB'],
      ['\u2460', '1'],
      ['cow\ufe0f', 'cow'],
      ['\u200ecow', 'cow'],
      ['T\u2011shirt', 'T-shirt'],
      ['a\u202fb', 'a b']
    ] as const)
      expect(await drawn(text)).toBe(textPaths(plain, 0, 0, 10, '#000'))
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
