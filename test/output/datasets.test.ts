/** Results as COCO and YOLO data sets; boxes in other forms; cutting out. */
import sharp, { type OutputInfo } from 'sharp'
import { describe, expect, it } from 'vitest'
import { cropBox, fromXyxy, toXyxy } from '../../lib/output/boxes'
import { toCoco } from '../../lib/output/labels/coco'
import { rleToMask } from '../../lib/output/masks/mask-forms'
import { toYolo } from '../../lib/output/labels/yolo'

const [width, height] = [20, 10]
const data = new Uint8Array(width * height)
for (const y of [2, 3, 4]) data.fill(255, y * width + 4, y * width + 8)
data[3 * width + 5] = 0 // a hole
const mask = { width, height, data }
const cow = { label: 'cow', box: { x: 4, y: 2, width: 4, height: 3 }, score: 0.75, mask }
const boat = { label: 'boat', box: { x: 0, y: 0, width: 20, height: 5 } }
const inverted = { label: 'boat', box: { x: 9, y: 0, width: -2, height: 5 } }

describe('toCoco', () => {
  it('writes images, annotations and categories', () => {
    const dataset = toCoco([
      { fileName: 'a.jpg', objects: [cow, boat, inverted] },
      { fileName: 'b.jpg', width: 7, height: 8, objects: [] },
      { fileName: 'c.jpg', width: 30, height: 8, id: 77, objects: [boat] }
    ])
    const segmentation = { size: [10, 20], counts: expect.any(String) as string }
    expect(dataset).toEqual({
      images: [
        { id: 1, file_name: 'a.jpg', width: 20, height: 10 },
        { id: 2, file_name: 'b.jpg', width: 7, height: 8 },
        { id: 77, file_name: 'c.jpg', width: 30, height: 8 }
      ],
      annotations: [
        { id: 1, image_id: 1, category_id: 1, bbox: [4, 2, 4, 3], area: 11, iscrowd: 0, segmentation, score: 0.75 },
        { id: 2, image_id: 1, category_id: 2, bbox: [0, 0, 20, 5], area: 100, iscrowd: 0 },
        { id: 3, image_id: 77, category_id: 2, bbox: [0, 0, 20, 5], area: 100, iscrowd: 0 }
      ],
      categories: [
        { id: 1, name: 'cow' },
        { id: 2, name: 'boat' }
      ]
    })
    expect(rleToMask(dataset.annotations[0]!.segmentation as never)).toEqual(mask)
  })

  it('takes the order of categories, and polygons', () => {
    const { annotations, categories } = toCoco([{ fileName: 'a', objects: [cow] }], {
      labels: ['boat', 'cow'],
      masks: 'polygons'
    })
    expect(categories.map(({ name }) => name)).toEqual(['boat', 'cow'])
    expect(annotations[0]!.category_id).toBe(2)
    const [ring] = annotations[0]!.segmentation as number[][]
    expect(ring).toHaveLength(8 + 8 + 4) // the outline, the hole, and the bridge there and back
    expect(toCoco([{ fileName: 'a', objects: [cow] }], { masks: 'none' }).annotations[0]).not.toHaveProperty(
      'segmentation'
    )
  })

  it.each([
    [[{ fileName: 'a', objects: [boat] }], {}, /size in pixels for pictures\[0\]\.width/],
    [[{ objects: [] }], {}, /string for pictures\[0\]\.fileName/],
    [[{ fileName: 'a', objects: [{}] }], {}, /pictures\[0\]\.objects\[0\]/],
    [[{ fileName: 'a', objects: [cow] }], { labels: ['boat'] }, /one of labels for pictures\[0\]\.objects\[0\]\.label/],
    [[1], {}, /for pictures/],
    [
      [
        { fileName: 'a', width: 1, height: 1, objects: [], id: 3 },
        { fileName: 'b', width: 1, height: 1, objects: [], id: 3 }
      ],
      {},
      /an id of its own for pictures\[1\]\.id/
    ]
  ])('refuses %j %j', (pictures, options, message) => {
    expect(() => toCoco(pictures as never, options)).toThrow(message)
  })
})

describe('toYolo', () => {
  const labels = ['boat', 'cow']
  it('writes a line for each object', () => {
    expect(toYolo([cow, boat, inverted], { labels })).toBe('1 0.3 0.35 0.2 0.3\n0 0.5 0.25 1 0.5\n')
    expect(toYolo([cow], { labels, scores: true })).toBe('1 0.3 0.35 0.2 0.3 0.75\n')
    expect(toYolo([boat], { labels, width: 40, height: 10 })).toBe('0 0.25 0.25 0.5 0.5\n')
    expect(toYolo([], { labels })).toBe('')
  })

  it('writes outlines in one ring', () => {
    const solid = { ...cow, mask: { ...mask, data: data.map((v, i) => (i === 3 * width + 5 ? 255 : v)) } }
    expect(toYolo([solid, boat], { labels, task: 'segment' })).toBe('1 0.4 0.2 0.4 0.5 0.2 0.5 0.2 0.2\n')
    const numbers = toYolo([cow], { labels, task: 'segment', tolerance: 0 }).trim().split(' ').map(Number)
    expect(numbers.length).toBeGreaterThan(1 + 8 + 8)
    expect(numbers.slice(1).every((value) => value >= 0 && value <= 1)).toBe(true)
  })

  it('refuses labels that are not classes, and pictures of no size', () => {
    expect(() => toYolo([cow], { labels: ['boat'] })).toThrow(/one of labels for objects\[0\]\.label/)
    expect(() => toYolo([boat], { labels })).toThrow(/size in pixels for options\.width/)
    expect(() => toYolo([boat], {} as never)).toThrow(/for labels/)
  })
})

describe('boxes', () => {
  it('have corners', () => {
    expect(toXyxy({ x: 1, y: 2, width: 3, height: 4 })).toEqual([1, 2, 4, 6])
    expect(fromXyxy([1, 2, 4, 6])).toEqual({ x: 1, y: 2, width: 3, height: 4 })
    expect(() => fromXyxy([1, 2, 3] as never)).toThrow(/\[x1, y1, x2, y2\] for corners/)
    expect(() => toXyxy({ x: 1 } as never)).toThrow(/for box\.y/)
  })

  const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => Math.floor(i / 3) % 251)
  const picture = { data: pixels, width, height, channels: 3 as const }
  const raw = async (png: Buffer): Promise<{ data: Buffer; info: OutputInfo }> =>
    await sharp(png).raw().toBuffer({ resolveWithObject: true })

  it('cut out what is inside, with padding as far as the picture goes', async () => {
    const { data: cut, info } = await raw(await cropBox(picture, cow))
    expect(info).toMatchObject({ width: 4, height: 3, channels: 3 })
    expect([cut[0], cut.at(-1)]).toEqual([44, 87])
    const padded = await raw(await cropBox(picture, cow.box, { padding: 3 }))
    expect(padded.info).toMatchObject({ width: 10, height: 8 })
    expect(padded.data[0]).toBe(1)
    const corner = await raw(await cropBox(picture, { x: -5, y: 8.5, width: 7.2, height: 9 }))
    expect(corner.info).toMatchObject({ width: 3, height: 2 })
  })

  it('cut out the object alone', async () => {
    const { data: cut, info } = await raw(await cropBox(picture, cow, { cutOut: true, padding: 1 }))
    expect(info).toMatchObject({ width: 6, height: 5, channels: 4 })
    const alpha = Array.from({ length: 30 }, (_, i) => cut[4 * i + 3])
    expect(alpha.filter((value) => value === 255)).toHaveLength(11)
    expect(cut[4 * 7]).toBe(44)
  })

  it.each([
    [{ x: 20, y: 0, width: 5, height: 5 }, {}, /area inside the picture of 20 x 10/],
    [{ x: 0, y: 0, width: -5, height: 5 }, {}, /area inside the picture/],
    [{ box: boat.box }, { cutOut: true }, /a mask .* for object\.mask/],
    [{ box: boat.box, mask: { width: 1, height: 1, data: new Uint8Array(1) } }, { cutOut: true }, /20 x 10 pixels, as/],
    [{}, {}, /for box\.x/]
  ])('refuse %j %j', async (box, options, message) => {
    await expect(cropBox(picture, box as never, options)).rejects.toThrow(message)
  })
})
