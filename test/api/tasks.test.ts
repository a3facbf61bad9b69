import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { openModel } from '../../lib/api/load-model'
import { visibleBox } from '../../lib/output/parse'
import { FakeNative, fakeInfo, picture } from '../support/fake-native'
import { golden, hasGoldens } from '../support/golden'
import { open, refuseUnhandled, scripted } from '../support/fake-model'

refuseUnhandled()

describe('tasks', () => {
  it('send the prompts that the model was trained with', async () => {
    const fake = scripted('yes')
    const model = await open(fake)
    expect(await model.caption(picture)).toBe('yes')
    await model.caption(picture, { style: 'short', lang: 'de' })
    await model.caption(picture, { style: 'long', maxTokens: 9 })
    await model.answer(picture, 'where is the cow?')
    await model.ask(picture, 'a cow', { lang: 'fr' })
    await model.ocr(picture)
    await model.detect(picture, [' cow', 'boat', 'cow'])
    await model.segment(picture, 'red car', { maxObjects: 2, constrain: true })
    await model.segment(picture, 'red car', { constrain: false })
    expect(fake.requests.map((request) => request.prompt)).toEqual([
      'caption en',
      'cap de',
      'describe en',
      'answer en where is the cow?',
      'question fr a cow',
      'ocr',
      'detect cow ; boat',
      'segment red car',
      'segment red car'
    ])
    expect(fake.requests.map((request) => request.constraint)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
      { kind: 'detect', labels: ['cow', 'boat'] },
      { kind: 'segment', labels: ['red car'], maxObjects: 2 },
      undefined
    ])
    expect(fake.requests[2]!.maxTokens).toBe(9)
  })

  it('answer holds the model to the given choices', async () => {
    const fake = new FakeNative()
    const model = await open(fake)
    await model.answer(picture, 'is it a cow?', { choices: ['yes', 'no'] })
    expect(fake.requests[0]!.constraint).toEqual({ kind: 'choices', choices: ['yes', 'no'] })
    for (const choices of [[], [''], 'yes', [1]]) {
      await expect(model.answer(picture, 'what?', { choices: choices as string[] })).rejects.toThrow(
        /for choices but received/
      )
    }
  })

  it('detect leaves out what is unsure and what shows an object again', async () => {
    const box = (x: number): string =>
      `<loc0000><loc${String(x).padStart(4, '0')}><loc1000><loc${String(x + 500).padStart(4, '0')}>`
    // the fake's log-probability is -0.5 for every token
    const model = await open(
      scripted(box(0), ' cow', ' ; ', box(20), ' cow', ' ; ', box(20), ' boat', ' ; ', box(500), ' cow')
    )
    const at = async (options: object): Promise<number[]> =>
      (await model.detect(picture, ['cow', 'boat'], options)).map((found) => Math.round(found.normalized.xMin * 1023))
    expect(await at({})).toEqual([0, 20, 20, 500])
    expect(await at({ nms: 0.5 })).toEqual([0, 20, 500])
    expect(await at({ nms: 1 })).toEqual([0, 20, 20, 500])
    expect(await at({ minScore: 0.36 })).toEqual([0, 20, 20, 500])
    expect(await at({ minScore: 0.37 })).toEqual([])
    expect(await at({ nms: { iou: 0.5 } })).toEqual([0, 20, 500])
    expect((await at({ nms: { iou: 0.5, classAgnostic: true } })).length).toBeLessThan(3)
    await expect(at({ nms: 2 })).rejects.toThrow('Expected number from 0 to 1 or { iou: number from 0 to 1,')
    await expect(at({ nms: { iou: 0.5, other: 1 } as never })).rejects.toThrow('for nms but received an object')
    await expect(at({ nms: {} as never })).rejects.toThrow('for nms but received an object')
    await expect(at({ minScore: -1 })).rejects.toThrow('for minScore')
  })

  it('detect asks for the probabilities it needs and no others', async () => {
    const fake = new FakeNative()
    const model = await open(fake)
    await model.segment(picture, 'cow')
    await model.segment(picture, 'cow', { logProbs: true })
    await model.segment(picture, 'cow', { bestOf: 2, temperature: 1 })
    expect(fake.requests.map((request) => [request.logProbs, request.scoredOnly])).toEqual([
      [0, true],
      [0, false],
      [0, false],
      [0, false]
    ])
  })

  it('refuse wrong labels, styles and pictures', async () => {
    const model = await open(new FakeNative())
    for (const labels of [[], '', ['a', ' '], 'a;b', '<loc0001>', ['a\nb'], 5]) {
      await expect(model.detect(picture, labels as string)).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringMatching(/for labels but received/) as unknown
      })
    }
    await expect(model.caption(picture, { style: 'poem' as never })).rejects.toThrow(
      'Expected "short" or "coco" or "long" for style but received "poem"'
    )
    await expect(model.caption(picture, { lang: 'english please' })).rejects.toThrow(
      /language code such as "en" for lang/
    )
    await expect(model.caption(undefined as never)).rejects.toThrow('for image but received undefined')
    await expect(model.answer(picture, undefined as never)).rejects.toThrow(
      'Expected string for question but received undefined'
    )
    await expect(model.detect({ data: new Float32Array(12), tokens: 4, hidden: 3 }, 'x')).rejects.toThrow(
      /ImageEmbedding with its transform/
    )
  })

  it('detect gives pixels, fractions and scores from location and name tokens', async () => {
    const model = await open(
      scripted('<loc0000>', '<loc0000>', '<loc1023>', '<loc0512>', ' c', 'ow', ' ;', ' ', '<loc0100>', 'x')
    )
    const [cow, ...rest] = await model.detect(picture, ['cow', 'boat'])
    expect(rest).toEqual([])
    expect(cow).toEqual({
      label: 'cow',
      classId: 0,
      box: { x: 0, y: 0, width: 10, height: 10 },
      normalized: { yMin: 0, xMin: 0, yMax: 1, xMax: 512 / 1023 },
      score: Math.exp(-2) * Math.exp(-1),
      labelScore: Math.exp(-1),
      boxScore: Math.exp(-2)
    })
  })

  it('detect maps the boxes of padded pictures and embeddings back', async () => {
    const fake = scripted('<loc0256>', '<loc0256>', '<loc0768>', '<loc0768>', ' cow')
    const model = await open(fake, { fit: 'pad', locScale: 1024 })
    // 20 x 10 in a square of 8: scale 0.4, 2 pixels of border above and below
    const expected = [{ label: 'cow', box: { x: 5, y: 0, width: 10, height: 10 } }]
    expect(await model.detect(picture, 'cow')).toMatchObject(expected)
    expect(await model.detect(await model.encodeImage(picture), 'cow')).toMatchObject(expected)
  })

  it('a bare object takes the name of the only label', async () => {
    const model = await open(scripted('<loc0000>', '<loc0000>', '<loc1000>', '<loc0512>'))
    expect((await model.detect(picture, 'the left cow'))[0]!.label).toBe('the left cow')
    expect((await model.detect(picture, ['a', 'b']))[0]!.label).toBe('')
  })

  it('segment pastes masks and keeps objects whose mask is missing', async () => {
    const segs = Array.from({ length: 16 }, (_, i) => `<seg${String(i + 7).padStart(3, '0')}>`)
    const model = await open(
      scripted(
        '<loc0000><loc0000><loc1023><loc0512>',
        ...segs,
        ' cow ; ',
        '<loc0000><loc0000><loc1023><loc0512>',
        ' boat'
      )
    )
    const [cow, boat] = await model.segment(picture, ['cow', 'boat'])
    expect(cow!.codes).toEqual(Array.from({ length: 16 }, (_, i) => i + 7))
    expect([cow!.mask.width, cow!.mask.height]).toEqual([20, 10])
    expect([...cow!.mask.data.subarray(0, 20)]).toEqual([
      ...new Array<number>(10).fill(7),
      ...new Array<number>(10).fill(0)
    ])
    expect([boat!.label, boat!.codes, boat!.mask.data.some((value) => value > 0)]).toEqual(['boat', [], false])
  })

  it('segment and parse end at their deadline and with their signal while a mask is made', async () => {
    const segs = '<seg007>'.repeat(16)
    const binding = scripted(`<loc0000><loc0000><loc1023><loc0512>${segs}`, ' cow').binding()
    binding.Model.prototype.decodeMask = async () => await new Promise(() => {})
    await using model = await openModel(() => binding, { model: 'm.gguf' })
    for (const more of [{}, { onObject: () => {} }]) {
      await expect(model.segment(picture, 'cow', { deadlineMs: 20, ...more })).rejects.toMatchObject({
        code: 'ERR_DEADLINE'
      })
      const signal = AbortSignal.timeout(20)
      await expect(model.segment(picture, 'cow', { signal, ...more })).rejects.toMatchObject({ name: 'TimeoutError' })
    }
    const text = `<loc0000><loc0000><loc1023><loc0512>${segs} cow`
    const signal = AbortSignal.timeout(20)
    await expect(model.parse(text, picture, { signal })).rejects.toMatchObject({ name: 'TimeoutError' })
  })

  it('segment says how to get a mask decoder', async () => {
    const fake = new FakeNative()
    fake.info = { ...fakeInfo, hasMaskDecoder: false }
    await expect((await open(fake)).segment(picture, 'cow')).rejects.toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringContaining('vae-oid.npz') as unknown
    })
    expect(fake.requests).toEqual([])
  })

  it.skipIf(!hasGoldens('segment/parse.json'))(
    'detect and segment give the published results for every reference text',
    async () => {
      const { cases } = JSON.parse(readFileSync(golden('segment', 'parse.json'), 'utf8')) as {
        cases: {
          text: string
          width: number
          height: number
          objs: {
            loc_yxyx?: number[]
            name?: string | null
            xyxy: number[]
            xyxy_big_vision: number[]
            seg?: number[] | null
          }[]
        }[]
      }
      for (const locScale of [1023, 1024] as const) {
        let text = ''
        const model = await open(new FakeNative(() => (text === '' ? [] : text.split(/(?=<)/))), { locScale })
        for (const { width, height, objs, ...sample } of cases.filter(
          ({ width, height }) => width * height < 500_000
        )) {
          text = sample.text
          const image = { data: new Uint8Array(width * height), width, height, channels: 1 as const }
          const expected = objs
            .filter((obj) => obj.loc_yxyx)
            .map((obj) => {
              const [x0, y0, x1, y1] = (locScale === 1023 ? obj.xyxy_big_vision : obj.xyxy) as [
                number,
                number,
                number,
                number
              ]
              const [yMin, xMin, yMax, xMax] = obj.loc_yxyx as [number, number, number, number]
              // a pixel at least, where the published rule rounds to none
              const box = visibleBox(
                { box: { x: x0, y: y0, width: x1 - x0, height: y1 - y0 }, normalized: { yMin, xMin, yMax, xMax } },
                image
              )
              return { label: (obj.name ?? '').trim(), box }
            })
          const found = await model.detect(image, ['a', 'b'], { constrain: false })
          expect(found.map(({ label, box }) => ({ label, box }))).toEqual(expected)
          expect(found.every(({ score }) => score > 0 && score <= 1)).toBe(true)
          const segmented = await model.segment(image, ['a', 'b'], { constrain: false })
          expect(segmented.map(({ label, box, codes }) => ({ label, box, codes }))).toEqual(
            expected.map((object, i) => ({ ...object, codes: objs.filter((obj) => obj.loc_yxyx)[i]!.seg ?? [] }))
          )
        }
      }
    }
  )
})

describe('other calls', () => {
  it('score gives one log-probability per suffix token', async () => {
    const fake = scripted('a', 'b', '')
    const model = await open(fake)
    expect(await model.score({ image: picture, prompt: 'p', suffix: 'ab' })).toEqual({
      tokens: [
        { id: 0, text: 'a', logProb: -0.5 },
        { id: 1, text: 'b', logProb: -0.5 },
        { id: 2, text: '<token 2>', logProb: -0.5 }
      ],
      logProbs: [-0.5, -0.5, -0.5],
      total: -1.5,
      mean: -0.5
    })
    expect(fake.requests[0]).toMatchObject({ kind: 'score', prompt: 'p', suffix: 'ab' })
    await expect(model.score({ prompt: 'p' } as never)).rejects.toThrow(
      'Expected string for suffix but received undefined'
    )
  })

  it('tokenize, detokenize and decodeMask check their arguments', async () => {
    const model = await open(new FakeNative())
    expect(model.tokenize('ab')).toEqual([97, 98])
    expect(model.tokenize('a', { allowControlTokens: true })).toEqual([1097])
    expect(model.detokenize([97])).toBe('a')
    expect(() => model.tokenize(5 as never)).toThrow(
      /^Expected string of at most 1048576 characters .*for text but received 5/
    )
    expect(() => model.detokenize([1.5])).toThrow(/for ids but received \[1.5\]/)
    expect((await model.decodeMask(new Array<number>(16).fill(3)))[0]).toBe(3)
    await expect(model.decodeMask([1])).rejects.toThrow('Expected 16 integers from 0 to 127 for codes but received [1]')
    await expect(model.decodeMask(new Array<number>(16).fill(128))).rejects.toThrow(/for codes/)
  })
})
