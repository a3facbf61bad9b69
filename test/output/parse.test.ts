import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { decodeLocation, encodeLocation, maskBox, parseOutput, parsePieces, visibleBox } from '../../lib/output/parse'
import type { ImageTransform } from '../../lib/images/transform'
import { golden, hasGoldens } from '../support/golden'

interface GoldenObject {
  content: string
  loc_yxyx?: number[]
  xyxy?: number[]
  xyxy_big_vision?: number[]
  seg?: number[] | null
  name?: string | null
}

describe.skipIf(!hasGoldens('segment/parse.json'))('published reference results', () => {
  const { cases } = hasGoldens('segment/parse.json')
    ? (JSON.parse(readFileSync(golden('segment', 'parse.json'), 'utf8')) as {
        cases: { text: string; width: number; height: number; objs: GoldenObject[] }[]
      })
    : { cases: [] }
  for (const locScale of [1023, 1024] as const) {
    it(`agree on all ${cases.length} cases with locScale ${locScale}`, () => {
      expect(cases.length).toBeGreaterThan(100)
      for (const { text, width, height, objs } of cases) {
        const pieces = parsePieces(text, { width, height, locScale })
        expect(pieces.map((piece) => piece.content)).toEqual(objs.map((obj) => obj.content))
        expect(
          pieces.map(
            ({ object }) =>
              object && {
                label: object.label,
                codes: object.codes,
                loc: object.locations,
                xyxy: [object.box.x, object.box.y, object.box.x + object.box.width, object.box.y + object.box.height]
              }
          )
        ).toEqual(
          objs.map((obj) =>
            obj.loc_yxyx
              ? {
                  label: (obj.name ?? '').trim(),
                  codes: obj.seg ?? null,
                  loc: obj.loc_yxyx,
                  xyxy: locScale === 1023 ? obj.xyxy_big_vision : obj.xyxy
                }
              : null
          )
        )
        for (const { object, nameSpan } of pieces) {
          if (object?.label) expect(text.slice(...nameSpan!).trim()).toBe(object.label)
        }
      }
    })
  }
})

describe('parseOutput', () => {
  const segs = Array.from({ length: 16 }, (_, i) => `<seg${String(i).padStart(3, '0')}>`).join('')

  it('gives pixels, fractions, codes and where the text stands', () => {
    const text = `so: <loc0000><loc0512><loc1023><loc1023>${segs} cat ; rest`
    expect(parseOutput(text, { width: 1023, height: 2046 })).toEqual([
      {
        label: 'cat',
        box: { x: 512, y: 0, width: 511, height: 2046 },
        normalized: { yMin: 0, xMin: 512 / 1023, yMax: 1, xMax: 1 },
        locations: [0, 512, 1023, 1023],
        codes: Array.from({ length: 16 }, (_, i) => i),
        valid: true,
        span: [4, text.length - 4]
      }
    ])
  })

  it('marks boxes and codes that cannot be', () => {
    const valid = (text: string): boolean[] =>
      parseOutput(text, { width: 100, height: 100 }).map((object) => object.valid)
    expect(valid('<loc0500><loc0500><loc0100><loc0100> a ; <loc0010><loc0010><loc0010><loc0020> b')).toEqual([
      false,
      false
    ])
    expect(valid('<loc0000><loc0000><loc1024><loc1000> a ; <loc0000><loc0000><loc1023><loc1000> b')).toEqual([
      false,
      true
    ])
    expect(valid(`<loc0000><loc0000><loc1000><loc1000>${segs.replace('<seg000>', '<seg128>')} a`)).toEqual([false])
  })

  it('maps padded pictures back', () => {
    // 200 x 100 in a 400 square: doubled, 100 pixels of border above and below
    const transform: ImageTransform = {
      scaleX: 2,
      scaleY: 2,
      offsetX: 0,
      offsetY: 100,
      size: 400,
      sourceWidth: 200,
      sourceHeight: 100
    }
    const options = { width: 200, height: 100, locScale: 1024 as const, transform }
    const [inside, border] = parseOutput(
      '<loc0256><loc0256><loc0768><loc0512> a ; <loc0000><loc0000><loc0512><loc1023> b',
      options
    )
    expect(inside!.box).toEqual({ x: 50, y: 0, width: 50, height: 100 })
    expect(inside!.normalized).toEqual({ yMin: 0, xMin: 0.25, yMax: 1, xMax: 0.5 })
    expect(border!.box).toEqual({ x: 0, y: 0, width: 200, height: 50 })
    expect(maskBox(border!, options)).toEqual({ x0: 0, y0: -50, x1: 200, y1: 50 })
    expect(maskBox(inside!, { width: 200, height: 100 })).toEqual({ x0: 50, y0: 0, x1: 100, y1: 100 })
  })

  describe('finds every object, whatever line it stands on', () => {
    const [a, b, c] = [
      '<loc0001><loc0002><loc0003><loc0004>',
      '<loc0010><loc0020><loc0030><loc0040>',
      '<loc0100><loc0200><loc0300><loc0400>'
    ]
    const found = (text: string): string[] =>
      parseOutput(text, { width: 100, height: 100 }).map(({ label, locations, span }) => {
        expect(text.slice(...span).startsWith(`<loc${String(locations[0]).padStart(4, '0')}>`)).toBe(true)
        return `${locations[0]} ${label}`
      })
    for (const [what, text, want] of [
      ['a heading', `I see:\n${a} cat ; ${b} dog`, ['1 cat', '10 dog']],
      ['a heading and empty lines', `# Objects\n\n\n${a} cat\n\n${b} dog\n`, ['1 cat', '10 dog']],
      ['Windows line breaks', `one:\r\n${a} cat\r\ntwo:\r\n${b} red dog\r\n`, ['1 cat', '10 red dog']],
      ['text between the objects', `${a} cat\nand then\n${b} dog ; or ${c} cow`, ['1 cat', '10 dog', '100 cow']],
      ['text after them', `${a} cat ; ${b} dog\nThat is all; nothing else <end>`, ['1 cat', '10 dog']],
      ['a list', `1. ${a} cat\n2. ${b} dog\n- ${c} cow`, ['1 cat', '10 dog', '100 cow']],
      ['a separator on the next line', `${a} cat\n; ${b} dog\n;${c} cow`, ['1 cat', '10 dog', '100 cow']],
      ['no separator', `${a} cat${b} dog${c}`, ['1 cat', '10 dog', '100 ']],
      ['codes', `here:\n${a}${segs} cat ; ${b} ${segs}\ndog\n`, ['1 cat', '10 dog']],
      ['locations alone, one set a line', `boxes\n${a}\n${b}\n`, ['1 ', '10 ']],
      ['incomplete ones between', `<loc0001><loc0002>\n${a} cat\n<loc0009>\n${b} dog`, ['1 cat', '10 dog']],
      ['old line breaks', `text\r${a} cat\r${b} dog`, ['1 cat', '10 dog']]
    ] as const)
      it(what, () => {
        expect(found(text)).toEqual(want)
        const pieces = parsePieces(text, { width: 100, height: 100 })
        expect(pieces.map(({ content }) => content).join('')).toBe(text)
      })
  })

  it('reads long text in time proportional to them', { tags: ['slow'] }, () => {
    const line = '<loc0001><loc0002><loc0003>\n  ; no object\n'
    expect(
      parseOutput(`${line.repeat(20_000)}<loc0001><loc0002><loc0003><loc0004>${' '.repeat(100_000)}\ncat`, {
        width: 10,
        height: 10
      })
    ).toMatchObject([{ label: 'cat' }])
    expect(
      parseOutput('<loc0001><loc0002><loc0003><loc0004>\n'.repeat(25_000), { width: 10, height: 10 })
    ).toHaveLength(25_000)
  })

  it('takes time in proportion to hostile text', () => {
    const text = '<loc0001>'.repeat(3) + '<loc0001><loc0002><loc0003>x'.repeat(20000)
    expect(parseOutput(text, { width: 10, height: 10 })).toHaveLength(1)
  })

  it('refuses wrong options but no text', () => {
    expect(() => parseOutput('', { width: 0, height: 1 })).toThrow('Expected number > 0 for width but received 0')
    expect(() => parseOutput('', {} as never)).toThrow('for width but received undefined')
    expect(() => parseOutput(5 as never, { width: 1, height: 1 })).toThrow('Expected string for text but received 5')
    expect(parseOutput('\0<loc', { width: 1, height: 1 })).toEqual([])
  })
})

describe('locations', () => {
  it('invert each other for all 1024 values and both scales', () => {
    for (const locScale of [1023, 1024] as const) {
      for (let i = 0; i < 1024; i++) {
        const token = `<loc${String(i).padStart(4, '0')}>`
        expect(decodeLocation(token, { locScale })).toBe(i / locScale)
        expect(encodeLocation(decodeLocation(i, { locScale }), { locScale })).toBe(token)
      }
    }
  })

  it('are clipped when written and refused when read out of range', () => {
    expect([encodeLocation(-1), encodeLocation(0.5), encodeLocation(2)]).toEqual([
      '<loc0000>',
      '<loc0512>',
      '<loc1023>'
    ])
    for (const wrong of [1024, -1, 0.5, '<loc1024>', '<loc12>', '0012'])
      expect(() => decodeLocation(wrong)).toThrow(/for location but received/)
    expect(() => encodeLocation(NaN)).toThrow('Expected number from 0 to 1 for value but received NaN')
  })
})

describe('boxes of detections', () => {
  const seen = (text: string, width: number, height: number, locScale: 1023 | 1024 = 1023) => {
    const [object] = parseOutput(text, { width, height, locScale })
    return visibleBox(object!, { width, height })
  }
  it('cover at least a pixel of the picture where the object has an extent', () => {
    for (const text of ['<loc0000><loc0000><loc1022><loc1022> a', '<loc0900><loc0900><loc1020><loc1021> a'])
      expect(seen(text, 1, 1)).toEqual({ x: 0, y: 0, width: 1, height: 1 })
    expect(seen('<loc0000><loc0000><loc1023><loc1023> a', 1, 1)).toEqual({ x: 0, y: 0, width: 1, height: 1 })
    // demo code's rounding puts both edges on the picture's far border
    expect(seen('<loc1020><loc1020><loc1023><loc1023> a', 3, 2, 1024)).toEqual({ x: 2, y: 1, width: 1, height: 1 })
    expect(seen('<loc0000><loc0000><loc0500><loc0001> a', 100, 100)).toEqual({ x: 0, y: 0, width: 1, height: 48 })
  })
  it('stay as the model wrote them where they have none, or enough', () => {
    expect(seen('<loc0100><loc0100><loc0100><loc0500> a', 100, 100)).toEqual({ x: 9, y: 9, width: 39, height: 0 })
    expect(seen('<loc0500><loc0500><loc0100><loc0100> a', 100, 100)).toMatchObject({ width: -39, height: -39 })
  })
})
