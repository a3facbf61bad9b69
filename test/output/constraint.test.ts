/** Constraints as users write them, and JSON Schema as a regular expression. */
import { describe, expect, it } from 'vitest'
import { constraintRule, toNativeConstraint, type Constraint } from '../../lib/output/constraint'
import { schemaToRegex, type JsonSchema } from '../../lib/output/json-schema'
import { boxOverlap, suppressOverlaps } from '../../lib/output/nms'

const matches = (schema: JsonSchema, text: string): boolean =>
  new RegExp(`^(?:${schemaToRegex(schema)})$`, 'u').test(text)

describe('a constraint', () => {
  it('has one of four forms and nothing else', () => {
    for (const good of [
      'detect',
      'segment',
      { kind: 'detect' },
      { kind: 'segment', labels: ['a'], maxObjects: 2 },
      { choices: ['a'] },
      { regex: 'a' },
      { regex: /a/ },
      { jsonSchema: {} },
      { regex: 'a', choices: undefined }
    ])
      expect(constraintRule.accepts(good), JSON.stringify(good)).toBe(true)
    for (const bad of [
      'draw',
      null,
      [],
      {},
      { kind: 'draw' },
      { kind: 'detect', label: [] },
      { labels: ['a'] },
      { choices: [] },
      { choices: [''] },
      { regex: 5 },
      { jsonSchema: 'x' },
      { jsonSchema: [] },
      { choices: ['a'], regex: 'b' },
      { regex: 'a', flags: 'i' }
    ])
      expect(constraintRule.accepts(bad), JSON.stringify(bad)).toBe(false)
  })

  it('reaches the engine as a kind with its data', () => {
    expect(toNativeConstraint(undefined)).toBeUndefined()
    expect(toNativeConstraint('detect')).toEqual({ kind: 'detect', labels: [] })
    expect(toNativeConstraint({ kind: 'segment', labels: ['a'], maxObjects: 3 })).toEqual({
      kind: 'segment',
      labels: ['a'],
      maxObjects: 3
    })
    expect(toNativeConstraint({ choices: ['a', 'b'] })).toEqual({ kind: 'choices', choices: ['a', 'b'] })
    expect(toNativeConstraint({ regex: /a\/b+/u })).toEqual({ kind: 'regex', pattern: 'a\\/b+' })
    expect(toNativeConstraint({ jsonSchema: { const: 'a.b' } })).toEqual({ kind: 'regex', pattern: '"a\\.b"' })
    expect(() => toNativeConstraint({ regex: /a/i })).toThrow(
      'Expected RegExp without flags other than "u" for constrain.regex but received "/a/i"'
    )
    expect(() => toNativeConstraint({ jsonSchema: { type: 'text' } } as Constraint)).toThrow('jsonSchema.type')
  })
})

describe('a JSON schema', () => {
  const cases: [JsonSchema, string[], string[]][] = [
    [{ type: 'boolean' }, ['true', 'false'], ['True', '']],
    [{ type: 'null' }, ['null'], ['0']],
    [{ type: 'integer' }, ['0', '-7', '123456789012345'], ['01', '1.5', '-', '1234567890123456']],
    [{ type: 'integer', minimum: -2, maximum: 11 }, ['-2', '0', '11'], ['-3', '12', '111']],
    [{ type: 'number' }, ['0', '-1.25', '3e10', '2.5E-3'], ['.5', '1.', '+1', '1e', 'NaN']],
    [{ type: 'string' }, ['""', '"a é 😀"', '"\\"\\\\\\n"', '"\\u001f"'], ['"', '"a', '"\n"', '"\\x"', 'a']],
    [{ type: 'string', minLength: 1, maxLength: 2 }, ['"a"', '"😀é"', '"\\"\\""'], ['""', '"abc"']],
    [{ enum: ['a"b', 1, null, { x: [1] }] }, ['"a\\"b"', '1', 'null', '{"x":[1]}'], ['a', '2']],
    [{ const: '1+1=(2)' }, ['"1+1=(2)"'], ['"11=2"']],
    [{ type: ['integer', 'null'] }, ['3', 'null'], ['"3"']],
    [{ anyOf: [{ type: 'boolean' }, { type: 'integer' }] }, ['true', '3'], ['"3"']],
    [{ type: 'array', items: { type: 'integer' } }, ['[]', '[1]', '[1,2,3]'], ['[1,]', '[,1]', '[1 ,2]']],
    [
      { type: 'array', items: { type: 'integer' }, minItems: 2, maxItems: 3 },
      ['[1,2]', '[1,2,3]'],
      ['[1]', '[]', '[1,2,3,4]']
    ],
    [{ type: 'array', items: { type: 'integer' }, maxItems: 1 }, ['[]', '[1]'], ['[1,2]']],
    [{ type: 'array', maxItems: 0 }, ['[]'], ['[1]']],
    [{ type: 'object' }, ['{}'], ['{"a":1}', '']],
    [
      {
        type: 'object',
        properties: { a: { type: 'integer' }, b: { type: 'boolean' } },
        required: ['a', 'b'],
        additionalProperties: false
      },
      ['{"a":1,"b":true}'],
      ['{"b":true,"a":1}', '{"a":1}', '{"a": 1,"b":true}']
    ],
    [
      { type: 'object', properties: { a: { const: 1 }, b: { const: 2 }, c: { const: 3 } }, required: ['b'] },
      ['{"b":2}', '{"a":1,"b":2}', '{"b":2,"c":3}', '{"a":1,"b":2,"c":3}'],
      ['{}', '{"a":1}', '{,"b":2}', '{"a":1,"c":3}', '{"a":1"b":2}']
    ],
    [
      { type: 'object', properties: { a: { const: 1 }, b: { const: 2 } } },
      ['{}', '{"a":1}', '{"b":2}', '{"a":1,"b":2}'],
      ['{"a":1,}', '{,}', '{"b":2,"a":1}']
    ],
    [
      {
        $ref: '#/$defs/point',
        $defs: { point: { type: 'object', properties: { x: { type: 'integer' } }, required: ['x'] } },
        title: 'ignored'
      },
      ['{"x":1}'],
      ['{}']
    ]
  ]
  it('allows its texts as JSON.stringify writes them, and no others', () => {
    for (const [schema, good, bad] of cases) {
      for (const text of good) {
        expect(matches(schema, text), `${JSON.stringify(schema)} with ${text}`).toBe(true)
        JSON.parse(text)
      }
      for (const text of bad) expect(matches(schema, text), `${JSON.stringify(schema)} with ${text}`).toBe(false)
    }
  })

  it('allows what JSON.stringify writes of any string', () => {
    for (const text of [
      '',
      'plain',
      'quote " and \\ and /',
      'tab\tline\nreturn\rfeed\fback\bnull\0bell\x07',
      'é 漢 😀 \u2028',
      '\x7f'
    ]) {
      expect(matches({ type: 'string' }, JSON.stringify(text)), JSON.stringify(text)).toBe(true)
    }
  })

  it('is refused by name where it asks for more', () => {
    const recursive = {
      $ref: '#/$defs/node',
      $defs: { node: { type: 'object', properties: { next: { $ref: '#/$defs/node' } } } }
    }
    const wrong: [unknown, string | RegExp][] = [
      [
        {},
        'jsonSchema.type: expected "object", "array", "string", "integer", "number", "boolean", "null" or a list of them but received undefined'
      ],
      [{ type: 'text' }, 'jsonSchema.type'],
      [{ type: [] }, 'expected at least one type'],
      [{ type: 'string', pattern: 'a+' }, 'jsonSchema: the keyword "pattern" is not supported here'],
      [
        { type: 'object', properties: { a: { type: 'string', format: 'date' } } },
        'jsonSchema.properties.a: the keyword "format"'
      ],
      [{ type: 'object', properties: { a: 5 } }, 'jsonSchema.properties.a: expected a schema object but received 5'],
      [{ type: 'object', properties: [] }, 'jsonSchema.properties'],
      [{ type: 'object', required: ['b'] }, 'jsonSchema.required: "b" is not among the properties'],
      [{ type: 'object', additionalProperties: { type: 'string' } }, 'jsonSchema.additionalProperties'],
      [{ type: 'array' }, 'needs items'],
      [{ type: 'array', items: { type: 'integer' }, minItems: 3, maxItems: 2 }, 'maxItems is less than minItems'],
      [{ type: 'array', items: { type: 'integer' }, maxItems: -1 }, 'jsonSchema.maxItems: expected an integer from 0'],
      [{ type: 'integer', minimum: 0 }, 'both minimum and maximum'],
      [{ type: 'integer', minimum: 0, maximum: 5000 }, 'at most 1000 apart'],
      [{ type: 'number', minimum: 0 }, 'the keyword "minimum"'],
      [{ enum: [] }, 'jsonSchema.enum'],
      [{ anyOf: [] }, 'jsonSchema.anyOf'],
      [{ anyOf: [{ type: 'x' }] }, 'jsonSchema.anyOf[0].type'],
      [{ $ref: '#/elsewhere' }, 'jsonSchema.$ref'],
      [{ $ref: '#/$defs/a', $defs: {} }, 'jsonSchema.$ref'],
      [recursive, 'nested more than 32 deep']
    ]
    for (const [schema, message] of wrong) {
      expect(() => schemaToRegex(schema as JsonSchema), JSON.stringify(schema)).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_OPTION',
          message: expect.stringContaining(message as string) as unknown
        }) as Error
      )
    }
    // every level doubles it
    let wide: JsonSchema = { type: 'boolean' }
    for (let i = 0; i < 20; i++) wide = { type: 'object', properties: { a: wide, b: wide } }
    expect(() => schemaToRegex(wide)).toThrow(/too large/)
  })
})

describe('overlapping boxes', () => {
  const box = (label: string, score: number, xMin: number, xMax: number, yMin = 0, yMax = 1) => ({
    label,
    score,
    normalized: { xMin, xMax, yMin, yMax }
  })

  it('are measured by intersection over union', () => {
    const at = (xMin: number, xMax: number) => box('a', 1, xMin, xMax).normalized
    expect(boxOverlap(at(0, 1), at(0, 1))).toBe(1)
    expect(boxOverlap(at(0, 0.5), at(0.5, 1))).toBe(0)
    expect(boxOverlap(at(0, 0.5), at(0.25, 0.75))).toBeCloseTo(1 / 3)
    expect(boxOverlap(at(0.2, 0.2), at(0.2, 0.2))).toBe(0)
    expect(boxOverlap(at(0.5, 0), at(0, 1))).toBe(0)
  })

  it('keep the best of each label, in order', () => {
    const boxes = [
      box('a', 0.5, 0, 0.5),
      box('b', 0.4, 0, 0.5),
      box('a', 0.9, 0.01, 0.5),
      box('a', 0.1, 0.6, 1),
      box('a', 0.9, 0.02, 0.5)
    ]
    expect(suppressOverlaps(boxes, 0.5)).toEqual([boxes[1], boxes[2], boxes[3]])
    expect(suppressOverlaps(boxes, 1)).toEqual(boxes)
    expect(suppressOverlaps([], 0.5)).toEqual([])
  })

  it('of any labels suppress each other with classAgnostic', () => {
    const boxes = [box('a', 0.5, 0, 0.5), box('b', 0.9, 0.01, 0.5), box('c', 0.4, 0.6, 1), box('a', 0.9, 0.6, 0.99)]
    expect(suppressOverlaps(boxes, 0.5)).toEqual(boxes)
    expect(suppressOverlaps(boxes, 0.5, { classAgnostic: true })).toEqual([boxes[1], boxes[3]])
  })

  it('do not chain: what overlaps only a dropped box stays', () => {
    const boxes = [box('a', 0.9, 0, 0.4), box('a', 0.8, 0.1, 0.5), box('a', 0.7, 0.2, 0.6)]
    expect(suppressOverlaps(boxes, 0.5)).toEqual([boxes[0], boxes[2]])
  })
})
