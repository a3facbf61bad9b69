/** `onObject`: objects as the model writes them are those of the result, and come as early as they can. */
import { describe, expect, it } from 'vitest'
import type { Detection, Segmentation } from '../../lib/index'
import { picture, type Script } from '../support/fake-native'
import { open, refuseUnhandled, scripted } from '../support/fake-model'

refuseUnhandled()

const at = (y0: number, x0: number, y1: number, x1: number): string[] =>
  [y0, x0, y1, x1].map((step) => `<loc${String(step).padStart(4, '0')}>`)
const codes = Array.from({ length: 16 }, (_, i) => `<seg${String(i).padStart(3, '0')}>`)
const wait = 40

/** What is told. */
async function told<T extends 'detect' | 'segment'>(
  task: T,
  script: Script | ((heard: (objects: number) => () => Promise<void>) => Script),
  options: object = {}
): Promise<{ objects: Detection[]; result: Detection[] }> {
  const objects: Detection[] = []
  const waiting: [number, () => void][] = []
  /** The model writes no further until so many objects were told. */
  const heard = (count: number) => async (): Promise<void> =>
    await new Promise((resolve) => (objects.length >= count ? resolve() : waiting.push([count, resolve])))
  const model = await open(scripted(...(typeof script === 'function' ? script(heard) : script)))
  const result = await model[task](picture, ['cow', 'red boat'], {
    ...options,
    onObject: (object: Detection) => {
      objects.push(object)
      for (const [count, resolve] of waiting) if (objects.length >= count) resolve()
    }
  })
  return { objects, result }
}

describe('onObject', () => {
  it('gets each object when its name is over, with its scores', async () => {
    const { objects, result } = await told('detect', (heard) => [
      ...[...at(0, 0, 500, 500), ' cow', ' ;', heard(1)],
      ...[...at(9, 9, 800, 900), ' red', ' boat', ' ;', heard(2), 'x']
    ])
    expect(objects).toEqual([...result])
    expect(objects.map(({ label }) => label)).toEqual(['cow', 'red boat'])
    expect(objects[0]!.score).toBeLessThan(1)
  })

  it.each<[string, Script, string[]]>([
    ['no separator', [...at(0, 0, 500, 500), ' cow', ...at(9, 9, 800, 900), ' red boat'], ['cow', 'red boat']],
    ['lines', [...at(0, 0, 500, 500), ' cow', '\n', ...at(9, 9, 800, 900), ' red boat', '\n'], ['cow', 'red boat']],
    ['names that are missing', [...at(0, 0, 500, 500), ' ;', ...at(9, 9, 800, 900)], ['', '']],
    ['words around', ['I see ', ...at(0, 0, 500, 500), ' cow', ' ; ', 'nothing else'], ['cow']],
    ['nothing', ['nothing'], []],
    ['a name in pieces', [...at(0, 0, 500, 500), ' red', wait, ' bo', 'at', ' ;'], ['red boat']]
  ])('is told what the result has: %s', async (_, script, labels) => {
    const { objects, result } = await told('detect', script, { constrain: false })
    expect(objects).toEqual([...result])
    expect(objects.map(({ label }) => label)).toEqual(labels)
  })

  it('keeps to minScore and maxObjects', async () => {
    const script = [...at(0, 0, 500, 500), ' cow', ' ;', ...at(9, 9, 800, 900), ' red boat', ' ;', ...at(1, 1, 2, 2)]
    expect((await told('detect', script, { maxObjects: 1 })).objects.map(({ label }) => label)).toEqual(['cow'])
    expect((await told('detect', script, { minScore: 0.99 })).objects).toEqual([])
  })

  it('comes at the end where nms and tiles decide what stays', async () => {
    const script = [...at(0, 0, 500, 500), ' cow', ' ;', wait, ...at(0, 0, 500, 510), ' cow', ' ;']
    const nms = await told('detect', script, { nms: 0.5 })
    expect(nms.objects).toEqual([...nms.result])
    expect(nms.objects).toHaveLength(1)
    const tiled = await told('detect', script, { tiles: { columns: 2, rows: 1 } })
    expect(tiled.objects).toEqual([...tiled.result])
    expect(tiled.objects.length).toBeGreaterThan(0)
  })

  it('brings masks, in order, made while the model writes on', async () => {
    const { objects, result } = await told('segment', (heard) => [
      ...[...at(0, 0, 500, 500), ...codes, ' cow', ' ;', heard(1)],
      ...[...at(9, 9, 800, 900), ...codes, ' red boat']
    ])
    expect(objects).toEqual([...result])
    expect((objects as Segmentation[]).map(({ mask, codes }) => [mask.width, codes.length])).toEqual([
      [20, 16],
      [20, 16]
    ])
    // not all codes: an object without a mask, and not told before its name is there
    const cut = [...at(0, 0, 500, 500), ...codes.slice(0, 3), ' cow', ' ;']
    const { objects: bare, result: all } = await told('segment', cut, { constrain: false })
    expect(bare).toEqual([...all])
  })

  it('ends the call with what it throws', async () => {
    const reason = new Error('enough')
    for (const task of ['detect', 'segment'] as const) {
      const fake = scripted(...at(0, 0, 500, 500), ...codes, ' cow', ' ;', 20_000)
      const onObject = (): void => {
        throw reason
      }
      await expect((await open(fake))[task](picture, 'cow', { onObject })).rejects.toBe(reason)
      expect(fake.cancelled).toHaveLength(1)
    }
  })
})

describe('parse', () => {
  it('reads a text as the model’s own tasks would', async () => {
    const text = [...at(0, 0, 900, 500), ...codes, ' cow', ' ; ', ...at(9, 9, 5, 900), ' gone'].join('')
    const model = await open(scripted(text))
    const [cow, gone] = await model.parse(text, picture)
    const [segmented] = await model.segment(picture, 'cow', { constrain: false })
    expect(cow).toMatchObject({ label: 'cow', valid: true, box: segmented!.box, codes: segmented!.codes })
    expect(cow!.mask).toEqual(segmented!.mask)
    expect(gone).toMatchObject({ label: 'gone', valid: false })
    expect(gone).not.toHaveProperty('mask')
    const padded = await open(scripted(text), { fit: 'pad' })
    expect((await padded.parse(text, picture))[0]!.box).not.toEqual(cow!.box)
    expect(await model.parse('', picture)).toEqual([])
    await expect(model.parse(5 as never, picture)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })
})
