/** JSON Schema as an expression: what does not need the engine. Texts that come out: json-schema.addon.test.ts. */
import { describe, expect, it } from 'vitest'
import { leastStandstill, longest } from '../support/hostile'
import { schemaToRegex, type JsonSchema } from '../../lib/output/schema/json-schema'
import { formats } from '../../lib/output/schema/formats'
import { decimals, integerBounds, integers, multiples } from '../../lib/output/schema/numbers'

const whole = (pattern: string): RegExp => new RegExp(`^(?:${pattern})$`, 'u')

describe('numbers within bounds', () => {
  it('are written exactly as far as they go', () => {
    for (const [least, most] of [
      [0, 0],
      [-5, 5],
      [0, 9],
      [7, 1234],
      [-1234, -7],
      [-100, 99],
      [998, 1002],
      [-1, 1000],
      [120, 120]
    ] as const) {
      const pattern = whole(integers(BigInt(least), BigInt(most)))
      for (let value = -1500; value <= 1500; value++)
        if (pattern.test(String(value)) !== (value >= least && value <= most))
          throw new Error(`${value} in ${least}..${most}`)
      expect(pattern.test('-0')).toBe(false)
      expect(pattern.test('007')).toBe(false)
    }
  })

  it('reach to the ends of what JavaScript holds exactly', () => {
    const most = BigInt(Number.MAX_SAFE_INTEGER)
    const pattern = whole(integers(-most, most))
    for (const text of ['0', '9007199254740991', '-9007199254740991', '9007199254740989', '123456789012345'])
      expect(pattern.test(text), text).toBe(true)
    for (const text of ['9007199254740992', '9007199254740999', '10000000000000000', '-9107199254740991'])
      expect(pattern.test(text), text).toBe(false)
    expect(integerBounds({ value: 0.5, open: false }, { value: 1e300, open: true })).toEqual([1n, most])
    expect(integerBounds({ value: -3, open: true }, { value: 2, open: true })).toEqual([-2n, 1n])
  })

  it('with fractions: every text that matches lies within, and all short ones within match', () => {
    for (const [low, high] of [
      [0, 1],
      [-1.25, 2.5],
      [0.1, 0.35],
      [12.75, 13],
      [-2, -0.5],
      [99.5, 120.25],
      [0.05, 11]
    ] as const)
      for (const open of [false, true]) {
        const pattern = whole(decimals({ value: low, open }, { value: high, open })!)
        for (let i = -300; i <= 13000; i++) {
          const text = (i / 100).toString()
          const value = Number(text)
          const inside = open ? value > low && value < high : value >= low && value <= high
          if (pattern.test(text) !== inside) throw new Error(`${text} in ${low}..${high}`)
        }
        for (const bad of ['1.', '.5', '01', '1e0', '+1', '-']) expect(pattern.test(bad), bad).toBe(false)
      }
    expect(whole(decimals({ value: 0, open: true })!).test('0.00')).toBe(false)
    expect(decimals({ value: 5, open: true }, { value: 5, open: false })).toBeUndefined()
    expect(decimals({ value: 1e15, open: false })).toBeUndefined()
  })

  it('list few multiples, and write tens as zeros', () => {
    const pattern = whole(multiples(-40n, 40n, 7n) as string)
    for (let value = -60; value <= 60; value++)
      expect(pattern.test(String(value)), String(value)).toBe(Math.abs(value) <= 40 && value % 7 === 0)
    const tens = whole(multiples(-99_999n, 123_456n, 100n) as string)
    for (let value = -130_000; value <= 130_000; value += 50)
      expect(tens.test(String(value)), String(value)).toBe(value >= -99_999 && value <= 123_456 && value % 100 === 0)
    expect(multiples(1n, 6n, 7n)).toBeUndefined()
    expect(multiples(0n, 10n ** 12n, 401n)).toBe('too large')
  })
})

describe('formats', () => {
  const cases: Record<string, [good: string[], bad: string[]]> = {
    date: [
      ['2024-02-29', '2000-02-29', '1999-12-31', '2023-04-30'],
      ['2023-02-29', '1900-02-29', '2023-04-31', '2023-13-01', '2023-00-10', '23-1-1']
    ],
    time: [
      ['23:59:59Z', '00:00:00.5+01:30'],
      ['24:00:00Z', '12:00Z', '12:00:00']
    ],
    'date-time': [
      ['2024-02-29T23:59:59.123Z', '2023-01-01T00:00:00-08:00'],
      ['2023-02-29T00:00:00Z', '2023-01-01 00:00:00Z']
    ],
    duration: [
      ['P1Y2M3DT4H5M6S', 'PT36H', 'P2W', 'P1D'],
      ['P', 'PT', 'P1S', '1D']
    ],
    uuid: [
      ['123e4567-e89b-12d3-a456-426614174000'],
      ['123e4567e89b12d3a456426614174000', '123e4567-e89b-12d3-a456-42661417400g']
    ],
    email: [['a.b+c@example.co.uk'], ['a@b', '@b.de', 'a b@c.de', 'a@-b.de', '.a@b.de']],
    ipv4: [
      ['0.0.0.0', '255.249.100.1'],
      ['256.0.0.1', '1.2.3', '01.2.3.4']
    ],
    ipv6: [
      ['::', '::1', '1::', '2001:db8::ff00:42:8329', '1:2:3:4:5:6:7:8'],
      ['1:2:3', ':::', '1::2::3', '12345::']
    ],
    uri: [
      ['https://example.com', 'http://a.example.org:8080/x/y?z=1'],
      ['example.com', 'https://']
    ]
  }
  it.each(Object.entries(cases))('%s', (name, [good, bad]) => {
    for (const text of good) expect(whole(formats[name]!).test(text), text).toBe(true)
    for (const text of bad) expect(whole(formats[name]!).test(text), text).toBe(false)
  })
})

describe('a schema that is refused', () => {
  const at = async (schema: unknown): Promise<string> =>
    await schemaToRegex(schema as JsonSchema).then(
      () => 'accepted',
      (error: { code: string; message: string }) => {
        expect(error.code).toBe('ERR_INVALID_OPTION')
        return error.message
      }
    )
  const object = (properties: object): object => ({ type: 'object', properties })

  it.each<[string, unknown, string]>([
    ['minimum above maximum', { type: 'integer', minimum: 5, maximum: 4 }, 'minimum and maximum'],
    [
      'nothing between',
      object({ n: { type: 'integer', exclusiveMinimum: 1, exclusiveMaximum: 2 } }),
      'jsonSchema.properties.n'
    ],
    ['beyond what JavaScript holds', { type: 'integer', minimum: 2 ** 53 }, 'JavaScript holds exactly'],
    ['a bound that is no number', { type: 'number', minimum: '0' }, 'jsonSchema.minimum'],
    ['a value that is no number', object({ a: { enum: [1, NaN] } }), 'jsonSchema.properties.a: NaN cannot be written'],
    ['an infinite value', { const: { a: [-Infinity] } }, 'jsonSchema: -Infinity cannot be written as JSON'],
    ['a gap in a value', { const: [1, undefined] }, 'jsonSchema: undefined cannot be written as JSON'],
    ['multiples of 0', { type: 'integer', multipleOf: 0 }, 'multipleOf'],
    ['multiples of 0.1', { type: 'number', multipleOf: 0.1, minimum: 0, maximum: 1 }, 'jsonSchema.multipleOf: 0.1'],
    ['endless fractions', { type: 'number', multipleOf: 0.5 }, 'jsonSchema.multipleOf'],
    ['pattern properties', { type: 'object', patternProperties: { '^a': {} } }, '"patternProperties"'],
    ['unique items', { type: 'array', items: { type: 'null' }, uniqueItems: true }, '"uniqueItems"'],
    ['contains', { type: 'array', items: { type: 'null' }, contains: {} }, '"contains"'],
    ['not', object({ a: { not: {} } }), 'jsonSchema.properties.a: the keyword "not"'],
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
    ['if', { type: 'object', if: {}, then: {} }, '"if"'],
    ['an unknown format', { type: 'string', format: 'idn-email' }, 'jsonSchema.format'],
    ['dependentRequired', { type: 'object', dependentRequired: {} }, '"dependentRequired"'],
    ['minProperties', { ...object({ a: { type: 'null' } }), minProperties: 1 }, '"minProperties"'],
    [
      'recursion',
      { $ref: '#/$defs/a', $defs: { a: object({ next: { $ref: '#/$defs/a' } }) } },
      '"#/$defs/a" leads back to itself'
    ],
    ['recursion through allOf', { type: 'object', properties: { a: { allOf: [{ $ref: '#' }] } } }, '"#" leads back'],
    ['a reference to nothing', { $ref: '#/$defs/b', $defs: {} }, 'jsonSchema.$ref'],
    [
      'objects that forbid each other',
      {
        allOf: [
          { ...object({ a: { type: 'null' } }), required: ['a'], additionalProperties: false },
          { ...object({ b: { type: 'null' } }), required: ['b'], additionalProperties: false }
        ]
      },
      'additionalProperties'
    ],
    ['types without anything in common', { allOf: [{ type: 'string' }, { type: 'null' }] }, 'type in common'],
    [
      'two formats',
      {
        allOf: [
          { type: 'string', format: 'date' },
          { type: 'string', format: 'time' }
        ]
      },
      '"format"'
    ],
    ['alternatives that overlap', { oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'jsonSchema.oneOf'],
    ['a const like a book', object({ a: { const: 'x'.repeat(100_001) } }), 'jsonSchema.properties.a: a text of more'],
    [
      'a format of JSON Schema beside a pattern',
      { type: 'string', format: 'iri', pattern: '^x' },
      'jsonSchema.format: the format "iri"'
    ],
    [
      'a format of one’s own without a pattern',
      { type: 'string', format: 'own' },
      'jsonSchema.format: the format "own"'
    ],
    ['false', object({ a: { anyOf: [false] } }), 'false allows no value'],
    ['a const of another type', { type: 'string', const: 5 }, 'const'],
    ['no schema', object({ a: 5 }), 'jsonSchema.properties.a'],
    ['a typed array', object({ a: new Uint8Array(1e8) }), 'jsonSchema.properties.a'],
    ['holes', { enum: new Array(2 ** 32 - 1) }, 'jsonSchema.enum'],
    ['holes of types', { type: new Array(2 ** 32 - 1) }, 'jsonSchema.type'],
    ['holes of names', { type: 'object', required: new Array(2 ** 32 - 1) }, 'jsonSchema.required'],
    [
      'a throwing getter',
      {
        get type() {
          throw new TypeError('boom')
        }
      },
      'boom'
    ],
    [
      'a revoked proxy',
      (() => {
        const { proxy, revoke } = Proxy.revocable({}, {})
        revoke()
        return { type: 'object', properties: { a: proxy } }
      })(),
      'jsonSchema'
    ],
    [
      'a value that contains itself',
      (() => {
        const a: object[] = []
        a.push(a)
        return { const: a }
      })(),
      'jsonSchema'
    ]
  ])('%s', async (_, schema, message) => expect(await at(schema)).toContain(message))

  it('by its size, as a whole and of one value', async () => {
    const listed = Array.from({ length: 100_000 }, (_, i) => i)
    expect(await at(object({ a: { enum: [listed] } }))).toContain('more than 30000 values')
    expect(await at({ const: 'x'.repeat(1e7) })).toContain('more than 2000000 characters')
    expect(await at({ const: listed.slice(0, 6000) })).toContain('more than 5000 values')
    expect(
      await at({ type: 'string', ...Object.fromEntries(listed.slice(0, 200).map((i) => [`k${i}`, i])) })
    ).toContain('more than 100 keywords')
    expect(await at(object(Object.fromEntries(listed.map((i) => [`p${i}`, {}]))))).toContain('jsonSchema.properties')
  })

  it('or translated, without holding up the event loop', { tags: ['slow'] }, async () => {
    const big = (n: number, value: (i: number) => unknown): object =>
      Object.fromEntries(Array.from({ length: n }, (_, i) => [`p${i}`, value(i)]))
    const deep = (n: number): object =>
      Array.from({ length: n }).reduce<object>((inner) => object({ a: inner }), { type: 'null' })
    const endless: object = new Proxy(
      {},
      {
        get: (_, name) => (name === 'type' ? 'object' : endless),
        ownKeys: () => ['type', 'properties'],
        getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true })
      }
    )
    const doubling = Object.fromEntries(
      Array.from({ length: 25 }, (_, i) => [
        `d${i}`,
        object({ a: { $ref: `#/$defs/d${i + 1}` }, b: { $ref: `#/$defs/d${i + 1}` } })
      ])
    )
    const empty = Object.fromEntries(
      Array.from({ length: 31 }, (_, i) => [
        `e${i}`,
        i === 30 ? {} : { allOf: [1, 2].map(() => ({ $ref: `#/$defs/e${i + 1}` })) }
      ])
    )
    for (const schema of [
      object(big(5000, () => ({ type: 'integer' }))),
      object(big(5000, () => ({ type: 'number', minimum: 0, maximum: 1 }))),
      { ...object(big(9999, () => ({ type: 'string' }))), required: Array.from({ length: 9999 }, (_, i) => `p${i}`) },
      { enum: Array.from({ length: 10_000 }, (_, i) => `value ${i}`) },
      { enum: Array.from({ length: 100_000 }, (_, i) => i) },
      { type: 'string', pattern: 'a'.repeat(1e6 + 1) },
      { type: 'string', pattern: 'a'.repeat(9e5) },
      deep(1000),
      endless,
      { $ref: '#/$defs/d0', $defs: { ...doubling, d25: { type: 'null' } } },
      { anyOf: Array.from({ length: 9000 }, (_, i) => ({ const: i })) },
      { allOf: Array.from({ length: 9000 }, () => ({ type: 'string' })) },
      { oneOf: Array.from({ length: 9000 }, (_, i) => ({ const: i })) },
      { enum: [Array.from({ length: 100_000 }, (_, i) => i)] },
      { enum: [big(40_000, (i) => i)] },
      { enum: [big(20_000, (i) => i)] },
      { type: 'string', ...big(20_000, (i) => i) },
      {
        prefixItems: Array.from({ length: 3000 }, () => ({ $ref: 'last' })),
        $defs: big(5000, (i) => ({ $id: i === 4999 ? 'last' : `id${i}` }))
      },
      { const: 'x'.repeat(1e7) },
      { default: Array.from({ length: 1000 }, () => 'y'.repeat(10_000)), type: 'string' },
      { allOf: Array.from({ length: 2 }, () => ({ enum: Array.from({ length: 10_000 }, (_, i) => ({ i })) })) },
      { oneOf: Array.from({ length: 200 }, (_, j) => ({ enum: Array.from({ length: 200 }, (_, i) => j * 200 + i) })) },
      { $ref: '#/$defs/e0', $defs: empty },
      { allOf: [object(big(4000, () => ({ type: 'null' }))), object(big(4000, () => ({ const: null })))] }
    ]) {
      expect(await leastStandstill(async () => await at(schema))).toBeLessThan(longest)
    }
  })
})
