/** Masks in COCO's forms, as outlines, and through JSON. Reference values were made with pycocotools 2.0.11. */
import { describe, expect, it } from 'vitest'
import sharp from 'sharp'
import { compactInJson } from '../../lib/base/compact-json'
import type { Mask } from '../../lib/output/masks/mask'
import { maskToRle, reviveResults, rleToMask } from '../../lib/output/masks/mask-forms'
import { asMask } from '../../lib/output/masks/mask-json'
import { maskToSvg } from '../../lib/output/masks/mask-svg'
import { joinRings, maskToPolygons } from '../../lib/output/masks/polygons'
import { quantizeVectors } from '../../lib/retrieval/vectors'
import { randomNumbers } from '../support/tiny-model'

/** Rows of text: "#" is inside. */
function drawn(...rows: string[]): Mask {
  const width = rows[0]?.length ?? 0
  return { width, height: rows.length, data: Uint8Array.from(rows.join(''), (c) => (c === '#' ? 255 : 0)) }
}

function painted(width: number, height: number, inside: (x: number, y: number) => boolean): Mask {
  const data = new Uint8Array(width * height)
  for (let i = 0; i < data.length; i++) if (inside(i % width, Math.floor(i / width))) data[i] = 255
  return { width, height, data }
}

const disc = painted(131, 97, (x, y) => (x - 60) ** 2 + (y - 50) ** 2 < 1600)
const discCounts =
  'oP2a0\\28I6K4L4L4M2N2M4M2N2N2N2N2N2O0O2N2N2O0O2O0O2O0O2O000O2O00000O2O00000000000000000000000000000001N1000' +
  '001N10001N101N101N101N2N2N101N2N2N2N2N2N3L3N2N3L4L4L5J7Hil2'

const published: [string, Mask, string][] = [
  ['empty', painted(4, 3, () => false), '<'],
  ['full', painted(4, 3, () => true), '0<'],
  ['one pixel', painted(1, 1, () => true), '01'],
  ['with a hole', drawn('.......', '..####.', '..#..#.', '..####.', '.......'), ';32NO010O0124'],
  ['of several parts', drawn('#.....', '...#..', '...#..', '.....#'), '01<1LO'],
  ['a chessboard', painted(5, 6, (x, y) => (x + y) % 2 === 1), '1110010O0010O0010O0010O000'],
  ['first pixel', drawn('#.', '..', '.#'), '0140'],
  ['a disc', disc, discCounts],
  ['one long row', painted(1000, 1, () => true), '0Xo0'],
  [
    'noise',
    drawn(
      '.#.####...#',
      '#...#..#.##',
      '.##.###....',
      '..##.#...#.',
      '.#.#.#..##.',
      '..#####..#.',
      '###.#...#..',
      '......###.#',
      '####.#..##.'
    ),
    '1140M10O00000011O00011010N0OO31NOO10O0103000L20N02103NL'
  ]
]

const noise = (seed: number, width: number, height: number, share: number): Mask => {
  const next = randomNumbers(seed)
  return painted(width, height, () => next() < share)
}

describe('run lengths', () => {
  it.each(published)("are pycocotools' own: %s", (_, mask, counts) => {
    const rle = maskToRle(mask)
    expect(rle).toEqual({ size: [mask.height, mask.width], counts })
    expect(rleToMask(rle)).toEqual(mask)
    const lengths = maskToRle(mask, { form: 'uncompressed' })
    expect(lengths.counts.reduce((a, b) => a + b, 0)).toBe(mask.width * mask.height)
    expect(rleToMask(lengths)).toEqual(mask)
  })

  it('come back for any size and share', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const mask = noise(seed, 1 + ((seed * 7) % 41), 1 + ((seed * 13) % 37), (seed % 11) / 10)
      expect(rleToMask(maskToRle(mask))).toEqual(mask)
    }
    for (const [width, height] of [
      [0, 0],
      [5, 0],
      [0, 5]
    ] as const)
      expect(rleToMask(maskToRle({ width, height, data: new Uint8Array(0) }))).toMatchObject({ width, height })
    expect(maskToRle({ width: 2, height: 1, data: Uint8Array.of(127, 128) }).counts).toBe('11')
  })

  it.each([
    [{ size: [2, 2], counts: '5' }, /Expected runs of 2 x 2 = 4 pixels for rle\.counts but received 5|no length/],
    [{ size: [2, 2], counts: '3' }, /but received 3/],
    [{ size: [2, 2], counts: [1, -1, 4] }, /a run that is no length/],
    [{ size: [2, 2], counts: [1.5, 2.5] }, /a run that is no length/],
    [{ size: [2, 2], counts: 'P' }, /character 1 is not part/],
    [{ size: [2, 2], counts: 'PPPPPPPPPPPP' }, /character 7 is not part/],
    [{ size: [2, 2], counts: 'é4' }, /character 0 is not part/],
    [{ size: [2], counts: '4' }, /Expected \[height, width\] for rle\.size/],
    [{ size: [2, -2], counts: '4' }, /for rle\.size/],
    [{ size: [2, 2], counts: 4 }, /Expected text or array of lengths for rle\.counts/],
    [null, /run lengths/]
  ])('that are none are refused: %j', (rle, message) => {
    expect(() => rleToMask(rle as never)).toThrow(message)
  })

  it('do not become more pixels than allowed', () => {
    const huge = { size: [1 << 16, 1 << 15] as [number, number], counts: [2 ** 31] }
    expect(() => rleToMask(huge)).toThrow(expect.objectContaining({ code: 'ERR_IMAGE_TOO_LARGE' }))
    expect(() => rleToMask({ size: [10, 10], counts: [100] }, { maxImagePixels: 99 })).toThrow(/limit of 99/)
    expect(() => maskToRle({ width: 2, height: 2, data: new Uint8Array(3) })).toThrow(/for mask\.data/)
    expect(() => maskToRle(disc, { form: 'short' } as never)).toThrow(/for form/)
  })
})

/** What the rings fill, by the rule of even and odd, at the centres of pixels. */
function filled(width: number, height: number, rings: number[][]): Mask {
  return painted(width, height, (px, py) => {
    const [x, y] = [px + 0.5, py + 0.5]
    let odd = false
    for (const ring of rings)
      for (let i = 0, j = ring.length - 2; i < ring.length; j = i, i += 2) {
        const [ax, ay, bx, by] = [ring[i]!, ring[i + 1]!, ring[j]!, ring[j + 1]!]
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd
      }
    return odd
  })
}
const area = (ring: number[]): number => {
  let twice = 0
  for (let i = 0, j = ring.length - 2; i < ring.length; j = i, i += 2)
    twice += ring[j]! * ring[i + 1]! - ring[i]! * ring[j + 1]!
  return twice / 2
}

describe('outlines', () => {
  it('are those of the parts, with holes where they belong', () => {
    expect(maskToPolygons(drawn('....', '.##.', '....'))).toEqual([{ outer: [3, 1, 3, 2, 1, 2, 1, 1], holes: [] }])
    const nested = drawn(
      '.........#',
      '.#######..',
      '.#.....#..',
      '.#.###.#..',
      '.#.#.#.#..',
      '.#.###.#..',
      '.#.....#..',
      '.#######..'
    )
    const parts = maskToPolygons(nested)
    expect(parts.map(({ outer, holes }) => [area(outer), holes.map(area)])).toEqual([
      [1, []],
      [49, [-25]],
      [9, [-1]]
    ])
    expect(maskToPolygons(painted(3, 3, () => false))).toEqual([])
    expect(maskToPolygons({ width: 0, height: 0, data: new Uint8Array(0) })).toEqual([])
  })

  it('fill to the same pixels, joined to one ring too', () => {
    const masks = published.map(([, mask]) => mask)
    for (let seed = 1; seed <= 40; seed++)
      masks.push(noise(seed, 1 + ((seed * 5) % 23), 1 + ((seed * 11) % 19), (1 + (seed % 9)) / 10))
    for (const mask of masks) {
      const polygons = maskToPolygons(mask)
      const rings = polygons.flatMap(({ outer, holes }) => [outer, ...holes])
      const { width, height } = mask
      expect(filled(width, height, rings)).toEqual(mask)
      expect(filled(width, height, [joinRings(polygons)])).toEqual(mask)
      for (const { outer, holes } of polygons) {
        expect(area(outer)).toBeGreaterThan(0)
        // a hole lies in its own part
        for (const hole of holes) {
          expect(area(hole)).toBeLessThan(0)
          const alone = filled(width, height, [hole])
          const around = filled(width, height, [outer])
          expect(alone.data.every((value, i) => value === 0 || around.data[i] === 255)).toBe(true)
        }
      }
    }
  })

  it('become simple with a tolerance, and small parts go', () => {
    const [exact] = maskToPolygons(disc)
    const [near] = maskToPolygons(disc, { tolerance: 1 })
    expect(near!.outer.length).toBeLessThan(exact!.outer.length / 4)
    expect(Math.abs(area(near!.outer) - area(exact!.outer))).toBeLessThan(0.03 * area(exact!.outer))
    const spots = drawn('##....', '##..#.', '......')
    expect(maskToPolygons(spots, { minArea: 2 })).toHaveLength(1)
    expect(maskToPolygons(spots)).toHaveLength(2)
    expect(() => maskToPolygons(spots, { tolerance: -1 })).toThrow(/for tolerance/)
  })

  it('of large and of noisy masks are made in time', { tags: ['slow'] }, () => {
    expect(maskToPolygons(painted(2000, 2000, (x, y) => (x - 1000) ** 2 + (y - 1000) ** 2 < 900_000))).toHaveLength(1)
    expect(maskToPolygons(noise(3, 500, 500, 0.8)).length).toBeGreaterThan(10)
  })

  it('as SVG show the same pixels', async () => {
    const mask = noise(9, 40, 30, 0.6)
    const svg = maskToSvg(mask, { color: '#ffffff' })
    const { data, info } = await sharp(Buffer.from(svg)).extractChannel(3).raw().toBuffer({ resolveWithObject: true })
    expect([info.width, info.height]).toEqual([40, 30])
    expect(Uint8Array.from(data, (v) => (v > 127 ? 255 : 0))).toEqual(mask.data)
    expect(maskToSvg(drawn('#'), { form: 'path' })).toBe('M1 0 1 1 0 1 0 0Z')
    expect(maskToSvg(drawn('#'), { opacity: 0.5 })).toContain('fill-opacity="0.5"')
    expect(() => maskToSvg(mask, { color: '"><script>' })).toThrow(/colour of the form "#rrggbb" for color/)
    expect(() => maskToSvg(mask, { form: 'path', opacity: 1 })).toThrow(/nothing with form "path" for opacity/)
  })
})

describe('results in JSON', () => {
  const through = (value: unknown): unknown => JSON.parse(JSON.stringify(value), reviveResults)

  it('hold masks in a few characters, and give them back', () => {
    const object = { label: 'cow', mask: asMask({ ...disc }), codes: [1] }
    expect(object).toEqual({ label: 'cow', mask: disc, codes: [1] }) // plain to everything else
    expect(Object.keys(object.mask)).toEqual(['width', 'height', 'data'])
    const text = JSON.stringify([object])
    expect(text).toBe(`[{"label":"cow","mask":${JSON.stringify({ size: [97, 131], counts: discCounts })},"codes":[1]}]`)
    const [revived] = through([object]) as [typeof object]
    expect(revived).toEqual(object)
    expect(JSON.stringify([revived])).toBe(text)
  })

  it('keep soft edges', () => {
    const soft = asMask({ width: 3, height: 2, data: Uint8Array.of(0, 1, 127, 128, 254, 255) })
    expect(JSON.stringify(soft)).toContain('"deflated"')
    expect(through({ soft })).toEqual({ soft })
  })

  it('hold vectors in base64, and give them back', () => {
    const vectors = { data: Float32Array.of(0.1, -2, 3e-9, 4), tokens: 2, dims: 2, texts: ['a', 'b'] }
    for (const one of [
      compactInJson({ ...vectors }),
      quantizeVectors(vectors, 'int8'),
      quantizeVectors(vectors, 'binary')
    ])
      expect(through([one, 'x'])).toEqual([one, 'x'])
    expect(JSON.stringify(compactInJson({ ...vectors }))).toBe(
      `{"data":{"float32":"zczMPQAAAMCPKE4xAACAQA=="},"tokens":2,"dims":2,"texts":["a","b"]}`
    )
  })

  it('that were cut are refused, and other JSON stays as it is', () => {
    for (const other of [
      { size: [1, 2], count: '' },
      { size: 3, counts: 'x' },
      { float32: 1 },
      { float32: '', b: 1 },
      {},
      []
    ])
      expect(through(other)).toEqual(other)
    for (const cut of [
      { size: [3, 4], counts: '0;' },
      { size: [3, 4], deflated: 'eJw=' },
      { size: [1, 1], deflated: 'eJxjYGBgAAAABAAB' },
      { float32: 'AAAA' }
    ])
      expect(() => through(cut)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }))
    expect(() => through({ size: [100_000, 100_000], deflated: '' })).toThrow(/limit of 200000000/)
  })
})
