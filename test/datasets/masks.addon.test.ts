/** Masks of annotations to the codes of training data, by the encoder of vae-oid's layout. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convertDataset, convertModel, maskToRle } from '../../lib/index'
import { loadMaskEncoder } from '../../lib/output/masks/mask-encoder'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { npy, zip } from '../support/npz-writer'
import { maskDecoderShapes, writeTinyModel } from '../support/tiny-model'

let folder = ''
let npz = ''
const at = (name: string): string => join(folder, name)

let state = 7
function random(shape: number[], scale: number): { shape: number[]; data: Float32Array } {
  const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return scale * ((state >>> 8) / 2 ** 23 - 1)
  })
  return { shape, data }
}

/** An encoder of a few channels; in this order the numbers are those of the reference below. */
function encoderTensors(): Record<string, ReturnType<typeof random>> {
  const tensors: Record<string, ReturnType<typeof random>> = {}
  const layer = (name: string, shape: number[], scale: number): void => {
    tensors[`${name}.weight`] = random(shape, scale)
    tensors[`${name}.bias`] = random([shape[0]!], 0.2)
  }
  tensors['_vq_vae._embedding'] = random([128, 10], 2)
  let channels = 1
  for (const [i, out] of [4, 6, 8, 8].entries()) {
    layer(`encoder.${2 * i}`, [out, channels, 4, 4], 1.5 / Math.sqrt(channels * 4))
    channels = out
  }
  for (const block of [8, 9])
    for (const [step, size, scale] of [
      [0, 3, 0.3],
      [2, 3, 0.3],
      [4, 1, 0.5]
    ] as const)
      layer(`encoder.${block}.net.${step}`, [8, 8, size, size], scale)
  layer('encoder.10', [10, 8, 1, 1], 1)
  return tensors
}

function writeNpz(name: string, tensors: Record<string, { shape: number[]; data: Float32Array }>): string {
  const entries = Object.entries(tensors).map(([entry, { shape, data }]) => ({
    name: `${entry}.npy`,
    data: npy('<f4', `(${shape.join(', ')},)`, Buffer.from(data.buffer))
  }))
  writeFileSync(at(name), zip(entries))
  return at(name)
}

// Computed with numpy in double precision from the definition in big_vision's pp/proj/paligemma/segmentation.py, over
// the same weights; the nearest code is nearer than the next by 0.6 % and more.
const masks = {
  angle: {
    inside: (x: number, y: number) => x < 32 || y >= 48,
    codes: [81, 117, 50, 106, 38, 106, 50, 106, 123, 117, 120, 106, 123, 50, 50, 50]
  },
  chequered: {
    inside: (x: number, y: number) => ((x >> 3) + (y >> 4)) % 2 === 0,
    codes: [75, 87, 30, 47, 60, 60, 2, 50, 75, 75, 75, 75, 6, 60, 60, 75]
  }
}

const side = 64
function paint(inside: (x: number, y: number) => boolean, margin = 0) {
  const width = side + 2 * margin
  const data = new Uint8Array(width * width)
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) if (inside(x, y)) data[(y + margin) * width + x + margin] = 255
  return { data, width, height: width }
}

beforeAll(() => {
  folder = tempDir()
  npz = writeNpz('vae-oid.npz', encoderTensors())
  for (const name of ['a.ppm', 'images/b.ppm'])
    writeFileSync(makeParent(at(name)), `P6\n100 100\n255\n${'\0'.repeat(30_000)}`)
})
afterAll(removeTempDirs)

function makeParent(path: string): string {
  mkdirSync(dirname(path), { recursive: true })
  return path
}

describe('the mask encoder', () => {
  it.each(Object.entries(masks))('finds the codes of the definition: %s', async (_, { inside, codes }) => {
    const encoder = await loadMaskEncoder(npz)
    expect(await encoder.encode(paint(inside))).toEqual(codes)
    // of any size: each pixel four times
    const { data } = paint(inside)
    const large = new Uint8Array(16 * side * side).map((_, i) => {
      const [x, y] = [(i % (4 * side)) >> 2, Math.floor(i / (4 * side)) >> 2]
      return data[y * side + x]!
    })
    const again = await encoder.encode({ data: large, width: 4 * side, height: 4 * side })
    expect(again.filter((code, i) => code === codes[i]).length).toBeGreaterThan(12)
  })

  it('is missing from files without it', async () => {
    const { 'encoder.4.weight': _, ...rest } = encoderTensors()
    await expect(loadMaskEncoder(writeNpz('part.npz', rest))).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringMatching(/part\.npz: The mask encoder has no tensor encoder\.4\.weight/) as string
    })
    await expect(loadMaskEncoder(writeTinyModel({ maskDecoder: true }))).rejects.toThrow(/no tensor encoder\.0\.weight/)
    await expect(loadMaskEncoder(at('nowhere.npz'))).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    const encoder = await loadMaskEncoder(npz)
    await expect(encoder.encode({ data: new Uint8Array(3), width: 2, height: 2 })).rejects.toThrow(/4 bytes/)
  })

  it('is kept by a conversion', async () => {
    const decoder = Object.entries(maskDecoderShapes).map(([name, shape]) => [name, random(shape, 0.02)] as const)
    const whole = { ...encoderTensors(), ...Object.fromEntries(decoder) }
    // the halves share their codes: an encoder that ends in as many values
    whole['encoder.10.weight'] = random([512, 8, 1, 1], 1)
    whole['encoder.10.bias'] = random([512], 0.2)
    const file = writeNpz('whole.npz', whole)
    await convertModel({ source: writeTinyModel({}), out: at('model.gguf'), maskDecoder: file })
    const [own, kept] = await Promise.all([loadMaskEncoder(file), loadMaskEncoder(at('model.gguf'))])
    const { inside } = masks.chequered
    expect(await kept.encode(paint(inside))).toEqual(await own.encode(paint(inside)))
  })
})

describe('segmentation data', () => {
  const answer = (codes: number[], locs: string): string =>
    `${locs}${codes.map((code) => `<seg${String(code).padStart(3, '0')}>`).join('')} thing`
  const rowOf = async (source: string): Promise<Record<string, unknown>> => {
    const out = at('out.jsonl')
    await convertDataset({ source, out, task: 'segment', maskEncoder: npz })
    return JSON.parse(readFileSync(out, 'utf8')) as Record<string, unknown>
  }
  // the angle, 10 pixels from the corner of a picture of 100
  const angle = [10, 10, 42, 10, 42, 58, 74, 58, 74, 74, 10, 74]
  const locs = '<loc0102><loc0102><loc0757><loc0757>'
  const expected = { prefix: 'segment thing', suffix: answer(masks.angle.codes, locs) }

  it('of COCO has the same codes from polygons, runs and compressed runs', async () => {
    const mask = paint(masks.angle.inside, 10)
    const whole = new Uint8Array(10_000)
    for (let y = 0; y < 84; y++) whole.set(mask.data.subarray(y * 84, (y + 1) * 84), y * 100)
    const full = { data: whole, width: 100, height: 100 }
    for (const segmentation of [[angle], maskToRle(full), maskToRle(full, { form: 'uncompressed' })]) {
      const annotation = {
        id: 1,
        image_id: 1,
        category_id: 1,
        bbox: [10, 10, 64, 64],
        area: 1,
        iscrowd: 0,
        segmentation
      }
      const images = [{ id: 1, file_name: 'a.ppm', width: 100, height: 100 }]
      const json = { images, annotations: [annotation], categories: [{ id: 1, name: 'thing' }] }
      writeFileSync(at('coco.json'), JSON.stringify(json))
      expect(await rowOf(at('coco.json'))).toMatchObject(expected)
    }
  })

  it('of YOLO has them from outlines', async () => {
    writeFileSync(makeParent(at('labels/b.txt')), `0 ${angle.map((place) => place / 100).join(' ')}`)
    writeFileSync(at('data.yaml'), 'train: images\nnames: [thing]')
    expect(await rowOf(at('data.yaml'))).toMatchObject(expected)
    writeFileSync(at('labels/b.txt'), '0 0.5 0.5 0.1 0.1')
    await expect(rowOf(at('data.yaml'))).rejects.toThrow(/b\.txt:1: it has a box only, where segment needs an outline/)
  })

  it.each([
    [[[1, 2, 3]], /polygons .* at least three points for .*segmentation/],
    [{ size: [50, 100], counts: '0' }, /Expected runs of \[100, 100\]/],
    [{ size: [100, 100], counts: [1, 2] }, /Expected runs of 100 x 100 = 10000 pixels/],
    [undefined, /has no segmentation/]
  ])('that is wrong is named: %j', async (segmentation, message) => {
    const annotation = { id: 1, image_id: 1, category_id: 1, bbox: [10, 10, 64, 64], segmentation }
    const images = [{ id: 1, file_name: 'a.ppm', width: 100, height: 100 }]
    const json = { images, annotations: [annotation], categories: [{ id: 1, name: 'thing' }] }
    writeFileSync(at('coco.json'), JSON.stringify(json))
    await expect(rowOf(at('coco.json'))).rejects.toThrow(message)
  })
})
