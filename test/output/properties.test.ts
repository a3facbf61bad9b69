/** Output of a model and schemas of strangers: whatever they hold, an answer or a coded error, in no time. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { type JsonSchema, schemaToRegex } from '../../lib/output/schema/json-schema'
import { maskToRle, rleToMask } from '../../lib/output/masks/mask-forms'
import { decodeLocation, encodeLocation, parseOutput } from '../../lib/output/parse'

const numRuns = Number(process.env.PALIGEMMA_FUZZ_RUNS ?? 300)
const size = { width: 640, height: 480 }
const four = (value: number): string => `<loc${String(value).padStart(4, '0')}>`
const seg = (value: number): string => `<seg${String(value).padStart(3, '0')}>`

const location = fc.integer({ min: 0, max: 1023 })
const object = fc.record({
  locations: fc.tuple(location, location, location, location),
  codes: fc.option(fc.array(fc.integer({ min: 0, max: 127 }), { minLength: 16, maxLength: 16 })),
  label: fc.stringMatching(/^[a-zé]{1,8}( [a-z]{1,5})?$/)
})
const written = (one: { locations: number[]; codes: number[] | null; label: string }): string =>
  `${one.locations.map(four).join('')}${(one.codes ?? []).map(seg).join('')} ${one.label}`

describe('parseOutput', () => {
  it('finds every object in order, whatever stands between them', () => {
    const separator = fc.constantFrom(' ; ', ';', '\n', ' ;\n', '\r\n', ' ; \n- ')
    const heading = fc.constantFrom('', 'Here:\n', 'found ', '1. ', '```\n')
    fc.assert(
      fc.property(heading, fc.array(object, { maxLength: 6 }), separator, (before, objects, between) => {
        const text = before + objects.map(written).join(between)
        const found = parseOutput(text, size)
        expect(found.map(({ label, locations, codes }) => ({ label, locations, codes }))).toEqual(objects)
        for (const { span } of found) expect(text.slice(...span)).toMatch(/^<loc/)
      }),
      { numRuns }
    )
  })

  it('takes any text: spans go up, boxes are whole pixels, and pieces of a text are found in it again', () => {
    const piece = fc.oneof(
      location.map(four),
      fc.integer({ min: 0, max: 999 }).map(seg),
      fc.constantFrom('<loc', '>', '<seg12', ' ; ', '\n', '\u2028', '<', ';'),
      fc.string({ unit: 'binary', maxLength: 6 })
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        const text = pieces.join('')
        let at = 0
        for (const { span, box, locations } of parseOutput(text, size)) {
          expect(span[0]).toBeGreaterThanOrEqual(at)
          expect(text.slice(...span).startsWith(locations.map(four).join(''))).toBe(true)
          expect(Object.values(box).every(Number.isInteger)).toBe(true)
          at = span[1]
        }
      }),
      { numRuns }
    )
  })

  it('locations come back as they were written', () => {
    fc.assert(
      fc.property(location, (value) => {
        expect(encodeLocation(decodeLocation(four(value)))).toBe(four(value))
      }),
      { numRuns }
    )
  })
})

describe('a JSON Schema of any content', () => {
  const numbers = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(2 ** 53, -0, 1e300, Number.NaN))
  const { schema } = fc.letrec<{ schema: unknown }>((tie) => {
    const list = fc.array(tie('schema'), { maxLength: 2 })
    const table = fc.dictionary(fc.string({ maxLength: 4 }), tie('schema'), { maxKeys: 2 })
    const keywords: Record<string, fc.Arbitrary<unknown>> = {
      type: fc.constantFrom('object', 'array', 'string', 'number', 'integer', 'boolean', ['string', 'null'], 'x'),
      ...{ properties: table, $defs: table, additionalProperties: fc.oneof(fc.boolean(), tie('schema')) },
      required: fc.array(fc.string({ maxLength: 4 }), { maxLength: 3 }),
      ...{ items: tie('schema'), prefixItems: list, anyOf: list, oneOf: list, allOf: list, not: tie('schema') },
      ...{ minItems: numbers, maxItems: numbers, minLength: numbers, maxLength: numbers, multipleOf: numbers },
      ...{ minimum: numbers, maximum: numbers, exclusiveMinimum: numbers, exclusiveMaximum: numbers },
      pattern: fc.string({ maxLength: 8 }),
      format: fc.constantFrom('date', 'email', 'uuid', 'no-such-format'),
      $ref: fc.constantFrom('#', '#/$defs/a', '#/nothing', 'https://host/schema'),
      ...{ enum: fc.array(fc.jsonValue(), { maxLength: 3 }), const: fc.jsonValue(), nullable: fc.jsonValue() }
    }
    const entry = fc.oneof(...Object.entries(keywords).map(([name, of]) => of.map((value) => [name, value] as const)))
    const typed = fc.tuple(keywords['type']!, fc.array(entry, { maxLength: 3 }))
    return {
      schema: fc.oneof(
        { maxDepth: 3, depthIdentifier: 'schema' },
        { weight: 1, arbitrary: fc.oneof(fc.boolean(), fc.jsonValue({ maxDepth: 1 })) },
        { weight: 6, arbitrary: typed.map(([type, more]) => ({ type, ...Object.fromEntries(more) })) },
        { weight: 3, arbitrary: fc.array(entry, { maxLength: 3 }).map((entries) => Object.fromEntries(entries)) }
      )
    }
  })

  it('becomes an expression, or is refused by a coded error', async () => {
    await fc.assert(
      fc.asyncProperty(schema, async (value) => {
        try {
          expect(typeof (await schemaToRegex(value as JsonSchema))).toBe('string')
        } catch (error) {
          if (!(error instanceof PaliGemmaError)) throw error
          expect(error.code).toBe('ERR_INVALID_OPTION')
        }
      }),
      { numRuns }
    )
  })
})

describe('run lengths', () => {
  const side = fc.integer({ min: 1, max: 24 })
  it('come back as the mask that they were, in both forms', () => {
    const mask = fc.tuple(side, side, fc.array(fc.boolean(), { minLength: 576, maxLength: 576 }))
    fc.assert(
      fc.property(mask, ([width, height, bits]) => {
        const data = Uint8Array.from(bits.slice(0, width * height), (bit) => (bit ? 255 : 0))
        for (const form of ['compressed', 'uncompressed'] as const)
          expect(rleToMask(maskToRle({ width, height, data }, { form }))).toEqual({ width, height, data })
      }),
      { numRuns }
    )
  })

  it('of strangers become a mask of their size, or are refused by a coded error', () => {
    const number = fc.oneof(fc.nat(40), fc.integer(), fc.double(), fc.constant(2 ** 53))
    const counts = fc.oneof(fc.string({ maxLength: 12 }), fc.array(number, { maxLength: 8 }), fc.jsonValue())
    const sizes = fc.oneof(fc.tuple(side, side), fc.array(number, { maxLength: 3 }))
    fc.assert(
      fc.property(fc.record({ size: sizes, counts }), (rle) => {
        try {
          const { width, height, data } = rleToMask(rle as never)
          expect([height, width, data.length]).toEqual([...rle.size, width * height])
        } catch (error) {
          if (!(error instanceof PaliGemmaError)) throw error
          expect(error.code).toBe('ERR_INVALID_OPTION')
        }
      }),
      { numRuns }
    )
  })
})
