/** The demo model judged on the picture that ships with it. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { execute } from '../../lib/cli/program'
import { convertDataset, demoImage, encodeLocation, evaluateModel, loadModel, maskToRle } from '../../lib/index'
import type { Detection, EvaluatedRow, ObjectList, PaliGemma, Segmentation } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

let folder = ''
let model: PaliGemma
let caption = ''
let found: ObjectList<Segmentation>
let boxes: ObjectList<Detection>
const labels = ['heart', 'ring']

const data = (...rows: object[]): string => {
  const file = join(folder, 'val.jsonl')
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join('\n'))
  return file
}

beforeAll(async () => {
  folder = tempDir()
  model = await loadModel({ model: 'demo', threads: 2 })
  caption = await model.caption(demoImage)
  found = await model.segment(demoImage, labels)
  boxes = await model.detect(demoImage, labels)
  expect([found.length, boxes.length].every((count) => count > 1)).toBe(true)
})
afterAll(async () => {
  await model.dispose()
  removeTempDirs()
})

describe('texts', () => {
  it('are compared with every metric, row by row', async () => {
    const rows = [
      { image: demoImage, prefix: 'caption en', suffix: caption },
      { image: demoImage, prefix: 'caption en', suffix: 'something else entirely' }
    ]
    for (const [metric, score] of [
      ['exact', 0.5],
      ['vqa', 0.5],
      ['anls', 0.5]
    ] as const) {
      const seen: EvaluatedRow[] = []
      const result = await evaluateModel({ model, data: data(...rows), metric, onRow: (row) => seen.push(row) })
      expect(result).toEqual({ metric, rows: 2, score })
      expect(seen).toMatchObject([
        { line: 1, prediction: caption, score: 1 },
        { line: 2, prediction: caption, score: 0 }
      ])
    }
    // rows about one picture are one with two answers; with a single picture every n-gram is everywhere
    const cider = await evaluateModel({ model, data: data(...rows), metric: 'cider' })
    expect(cider).toEqual({ metric: 'cider', rows: 1, score: 0 })
    const two = await evaluateModel({
      ...{ model, metric: 'cider' },
      data: data(rows[0]!, { image: demoImage, prefix: 'answer en what color is the heart?', suffix: 'none of these' })
    })
    expect(two).toMatchObject({ rows: 2, score: 5 })
  }, 60_000)

  it('name the row that cannot be asked', async () => {
    const missing = data({ image: demoImage, prefix: 'a', suffix: 'b' }, { image: 'no.png', prefix: 'a', suffix: 'b' })
    await expect(evaluateModel({ model, data: missing, metric: 'exact' })).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringMatching(/val\.jsonl:2: .*no\.png/) as string
    })
    const wrong = data({ image: demoImage, prefix: 'caption en', suffix: 'b' })
    await expect(evaluateModel({ model, data: wrong, metric: 'detection' })).rejects.toThrow(/val\.jsonl:1: expected a/)
    await expect(evaluateModel({ model, data: wrong, metric: 'exact', threads: 1 })).rejects.toThrow(
      /no threads beside/
    )
    const answers = data({ image: demoImage, prefix: 'a', suffix: 'b', answers: [] })
    await expect(evaluateModel({ model, data: answers, metric: 'vqa' })).rejects.toThrow(/val\.jsonl:1: .* for answers/)
  })
})

// pycocotools adds an epsilon to the divisor, so do we
const one = expect.closeTo(1, 12) as number

describe('objects', () => {
  type Found = readonly (Detection & Partial<Segmentation>)[]
  const suffixOf = (list: Found): string =>
    list
      .map(({ label, normalized: { yMin, xMin, yMax, xMax }, codes = [] }) => {
        const places = [yMin, xMin, yMax, xMax].map((side) => encodeLocation(side)).join('')
        return `${places}${codes.map((code) => `<seg${String(code).padStart(3, '0')}>`).join('')} ${label}`
      })
      .join(' ; ')
  const exactOf = (list: Found, change: (box: number[]) => number[] = (box) => box) =>
    list.map(({ label, box, mask }) => ({
      ...{ label, bbox: change([box.x, box.y, box.width, box.height]) },
      ...(mask && { segmentation: maskToRle(mask) })
    }))
  const prefixOf = (task: string): string => `${task} ${labels.join(' ; ')}`

  it('are right where they are what the model says', async () => {
    const row = { image: demoImage, prefix: prefixOf('detect'), suffix: suffixOf(boxes) }
    const judged = await evaluateModel({ model, data: data(row), metric: 'detection' })
    expect(judged.coco).toMatchObject({ AP50: one, AR100: 1 })
    expect(judged.coco!.meanIoU).toBeGreaterThan(0.95)
    expect(Object.keys(judged.labels!).sort()).toEqual(labels)
    const asked = { image: demoImage, prefix: prefixOf('segment'), suffix: suffixOf(found) }
    const masks = await evaluateModel({ model, data: data(asked), metric: 'mask' })
    expect(masks).toMatchObject({ score: one, coco: { AP: one, meanIoU: 1 } })
  }, 60_000)

  it('are compared with exact truth, groups and what is missing', async () => {
    const { width, height } = found
    const row = { image: demoImage, prefix: prefixOf('segment'), suffix: 'x', width, height }
    const masks = await evaluateModel({ model, data: data({ ...row, objects: exactOf(found) }), metric: 'mask' })
    expect(masks.coco).toMatchObject({ AP: one, meanIoU: 1 })
    const moved = exactOf(boxes, ([x, y, w, h]) => [x! + w!, y!, w!, h!])
    const none = await evaluateModel({ model, data: data({ ...row, objects: moved }), metric: 'detection' })
    expect(none.coco!.AP50).toBe(0)
    const more = [...exactOf(boxes), { label: 'star', bbox: [0, 0, 5, 5] }]
    const missed = await evaluateModel({ model, data: data({ ...row, objects: more }), metric: 'detection' })
    expect(missed.labels).toMatchObject({ star: 0 })
    const crowd = [...exactOf(boxes), { label: 'star', bbox: [0, 0, 5, 5], iscrowd: 1 }]
    const passed = await evaluateModel({ model, data: data({ ...row, objects: crowd }), metric: 'detection' })
    expect(passed.labels).toMatchObject({ star: null })
    await expect(
      evaluateModel({ model, data: data({ ...row, width: 5, objects: exactOf(found) }), metric: 'mask' })
    ).rejects.toThrow(/objects are of a picture of 5 x/)
  }, 60_000)

  it('of COCO are judged by the command, with an adapter path refused by name', async () => {
    const { width, height } = found
    const coco = {
      images: [{ id: 1, file_name: demoImage, width, height }],
      categories: labels.map((name, id) => ({ id, name })),
      annotations: exactOf(boxes).map(({ label, ...rest }, id) => {
        return { id, image_id: 1, category_id: labels.indexOf(label), iscrowd: 0, ...rest }
      })
    }
    const source = join(folder, 'coco.json')
    writeFileSync(source, JSON.stringify(coco))
    const val = join(folder, 'coco.jsonl')
    await convertDataset({ source, out: val, truth: true })
    const out: string[] = []
    const run = async (...args: string[]): Promise<number> =>
      await execute(['evaluate', '--model', 'demo', '--threads', '2', '--data', val, ...args], {
        stdout: { write: (text) => out.push(text) },
        stderr: { write: (text) => out.push(text) },
        signal: new AbortController().signal
      })
    const said = join(folder, 'said.jsonl')
    expect(await run('--metric', 'detection', '--predictions', said)).toBe(0)
    expect(out.join('')).toMatch(/box AP [01]\.\d{4} \(1 rows\)\n {2}AP +[01]\.\d+\n {2}AP50 +1\.0000/)
    expect(JSON.parse(readFileSync(said, 'utf8'))).toMatchObject({
      line: 1,
      prediction: boxes.map(({ label }) => ({ label }))
    })
    expect(await run('--metric', 'detection', '--adapter', join(folder, 'none'))).toBe(1)
    expect(out.join('')).toContain('ERR_MODEL_NOT_FOUND')
    expect(await run('--metric', 'bleu')).toBe(2)
  }, 60_000)
})
