/** Schemas as libraries write them: whatever weights, temperature and seed say, the texts satisfy them. */
import { rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, type JsonSchema, type PaliGemma } from '../../lib/index'
import { writeTinyModel } from '../support/tiny-model'

// The libraries by their values alone: their types take seconds to check.
const load = createRequire(__filename)
const { z } = load('zod')
const v = load('valibot')
const { toJsonSchema, toStandardJsonSchema } = load('@valibot/to-json-schema')
const { type } = load('arktype')
const { Type } = load('@sinclair/typebox')
const Ajv2020 = load('ajv/dist/2020').default
const Ajv7 = load('ajv').default
const addFormats = load('ajv-formats').default

let path: string
let model: PaliGemma
beforeAll(async () => {
  path = writeTinyModel({ seed: 3 })
  model = await loadModel({ model: path, threads: 2, maxSequences: 8, contextSize: 4096 })
})
afterAll(async () => {
  await model.dispose()
  rmSync(dirname(path), { recursive: true, force: true })
})

/** Texts drawn with many seeds; those without an end are left out where the schema has none. */
async function samples(jsonSchema: JsonSchema, seeds = 16): Promise<string[]> {
  const results = await model.generateBatch(
    Array.from({ length: seeds }, (_, seed) => ({
      prompt: 'answer en what',
      constrain: { jsonSchema },
      temperature: 1 + seed,
      seed,
      maxTokens: 300
    }))
  )
  return results.flatMap((result) => {
    if (result instanceof Error) throw result
    return result.finishReason === 'stop' ? [result.text] : []
  })
}

async function check(schema: JsonSchema, { different = 2, Ajv = Ajv2020 } = {}): Promise<unknown[]> {
  const ajv = new Ajv({ strict: false, allErrors: true })
  addFormats(ajv)
  const valid = ajv.compile(schema)
  const texts = await samples(schema)
  const values = texts.map((text) => JSON.parse(text) as unknown)
  values.forEach((value, i) => expect(valid(value), `${texts[i]}: ${JSON.stringify(valid.errors)}`).toBe(true))
  expect(new Set(texts).size, texts.join(' ')).toBeGreaterThanOrEqual(different)
  return values
}

describe('texts of a schema satisfy it', () => {
  const object = (properties: Record<string, unknown>, more: object = {}): JsonSchema => ({
    type: 'object',
    properties,
    required: Object.keys(properties),
    additionalProperties: false,
    ...more
  })
  it.each<[string, JsonSchema, number?]>([
    ['integers with a minimum', { type: 'integer', minimum: 18 }],
    ['integers with a maximum', { type: 'integer', maximum: -17 }],
    ['exclusive bounds', { type: 'integer', exclusiveMinimum: 0, exclusiveMaximum: 4 }],
    ['bounds that are no integers', { type: 'integer', minimum: 0.5, maximum: 7.5 }],
    ['bounds beyond what JavaScript holds', { type: 'integer', minimum: 0, maximum: 18446744073709552000 }],
    ['numbers within bounds', { type: 'number', minimum: -0.75, exclusiveMaximum: 100.5 }],
    ['positive numbers', { type: 'number', exclusiveMinimum: 0 }],
    ['multiples', { type: 'integer', multipleOf: 7, minimum: -1000 }],
    ['multiples with tens', { type: 'integer', multipleOf: 250, minimum: 1 }],
    ['halves', { type: 'number', multipleOf: 0.25, minimum: -1, maximum: 1 }],
    ['int32', object({ a: { type: 'integer', format: 'int32' }, b: { type: 'number', format: 'double', minimum: 0 } })],
    ['a pattern', { type: 'string', pattern: '^[a-c]{2,4}-\\d+$', maxLength: 9 }],
    ['a pattern anywhere', { type: 'string', pattern: 'cat|dog$', maxLength: 12 }],
    ['a pattern of quotes and backslashes', { type: 'string', pattern: '^["\\\\\\n/]{3,6}$' }],
    ['a pattern of anything', { type: 'string', pattern: '^..$' }],
    ['a pattern with lookaheads', { type: 'string', pattern: '^(?!.*aa)(?=.*b)[ab]{4,8}$' }],
    ['branches with anchors', { type: 'string', pattern: '^$|^(?:x|y)+$', maxLength: 5 }],
    ['lengths', { type: 'string', minLength: 3, maxLength: 4 }],
    ...['date', 'time', 'date-time', 'uuid', 'email', 'ipv4', 'ipv6', 'uri', 'duration', 'hostname'].map(
      (format): [string, JsonSchema] => [
        format,
        { type: 'string', format, ...(format === 'email' && { maxLength: 30 }) }
      ]
    ),
    [
      'tuples',
      {
        type: 'array',
        prefixItems: [{ type: 'boolean' }, { type: 'integer', minimum: 0, maximum: 9 }],
        items: false,
        minItems: 2
      }
    ],
    [
      'tuples with a rest',
      { type: 'array', prefixItems: [{ type: 'boolean' }], items: { enum: ['x', 'y'] }, maxItems: 4 }
    ],
    ["Pydantic's SecretStr", { type: 'string', format: 'password', writeOnly: true, maxLength: 4 }],
    ["Pydantic's Path", object({ p: { type: 'string', format: 'path', maxLength: 3 } })],
    ['several types', { type: ['integer', 'string', 'null'], maxLength: 3, minimum: 5 }],
    [
      'records',
      {
        type: 'object',
        additionalProperties: { type: 'integer', minimum: 0 },
        propertyNames: { pattern: '^[a-z]{1,3}$' }
      }
    ],
    [
      'named properties and others',
      {
        type: 'object',
        properties: { a: { type: 'integer' } },
        required: ['a'],
        additionalProperties: { type: 'null' }
      }
    ],
    ['allOf of one', { allOf: [{ $ref: '#/$defs/x' }], title: 'X', $defs: { x: object({ a: { type: 'boolean' } }) } }],
    [
      'allOf of objects',
      {
        allOf: [
          { type: 'object', properties: { a: { type: 'boolean' } }, required: ['a'] },
          { type: 'object', properties: { b: { type: 'boolean' }, a: {} }, required: ['b'] }
        ],
        unevaluatedProperties: false
      }
    ],
    ['keywords beside alternatives', { type: 'string', anyOf: [{ format: 'date' }, { maxLength: 2 }] }],
    [
      'oneOf told apart',
      { oneOf: [object({ kind: { const: 'a' }, n: { type: 'boolean' } }), object({ kind: { const: 'b' } })] }
    ],
    ['an enum of several types', { type: ['string', 'null'], enum: ['a', 'b', null] }],
    ['anything', object({ a: {}, b: { items: {}, type: 'array', maxItems: 2 } })],
    [
      'optional properties',
      { type: 'object', properties: Object.fromEntries([...'abcdefgh'].map((name) => [name, { type: 'boolean' }])) }
    ],
    [
      'many optional properties',
      {
        type: 'object',
        properties: Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`p${i}`, { const: i }]))
      },
      0
    ]
  ])('%s', async (_, schema, different = 2) => {
    await check(schema, { different })
  })

  it('nullable and draft 4 bounds, as OpenAPI has them', async () => {
    for (const text of await samples({
      type: 'integer',
      nullable: true,
      minimum: 3,
      exclusiveMinimum: true,
      maximum: 5
    }))
      expect(['4', '5', 'null']).toContain(text)
  })
})

describe('generateObject', () => {
  const request = { prompt: 'answer en what', temperature: 2, maxTokens: 1000 }

  it("gives zod's objects", async () => {
    const schema = z.object({
      kind: z.enum(['cow', 'horse']),
      count: z.int().min(0),
      change: z.int(),
      share: z.number().min(0).max(1),
      id: z.uuid(),
      mail: z.email().max(30),
      day: z.iso.date(),
      time: z.iso.time({ precision: 0 }),
      when: z.iso.datetime(),
      address: z.ipv4(),
      note: z.string().max(5).nullable(),
      pair: z.tuple([z.boolean(), z.literal('x')]),
      tags: z
        .array(
          z
            .string()
            .regex(/^[a-z]+$/)
            .max(4)
        )
        .max(2),
      more: z.discriminatedUnion('t', [z.object({ t: z.literal(1) }), z.object({ t: z.literal(2), u: z.boolean() })]),
      maybe: z.boolean().optional(),
      counts: z.record(z.enum(['a', 'b']), z.int().max(3)),
      merged: z.intersection(z.looseObject({ a: z.boolean() }), z.looseObject({ b: z.boolean() })),
      name: z.string().max(3).default('x')
    })
    for (let seed = 0; seed < 6; seed++) {
      const object = await model.generateObject({ ...request, seed, schema })
      expect(schema.safeParse(object).success).toBe(true)
    }
    const jsonSchema = z.toJSONSchema(schema)
    for (let seed = 0; seed < 3; seed++)
      expect(schema.safeParse(await model.generateObject({ ...request, seed, schema: jsonSchema })).success).toBe(true)
  })

  it("gives zod's host names, hashes and formats of one's own", async () => {
    const schema = z.object({
      host: z.hostname(),
      short: z.hostname().max(20),
      page: z.url().max(40),
      hash: z.hash('md5'),
      code: z.stringFormat('code', /^[A-Z]{2}-\d{3}$/)
    })
    for (let seed = 0; seed < 3; seed++) {
      const object = await model.generateObject({ ...request, seed, temperature: 1 + seed, schema, maxTokens: 1000 })
      expect(schema.safeParse(object)).toMatchObject({ success: true })
    }
    for (const schema of [z.emoji(), z.jwt(), z.stringFormat('own', () => true)])
      await expect(model.generateObject({ ...request, schema })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringMatching(/^jsonSchema\.(?:format|pattern): /) as unknown
      })
  })

  it('names the place of a pattern that is too large together with its format or lengths', async () => {
    const host = { type: 'string', format: 'hostname', pattern: '^(?=.{1,200}$)(?:[a-z]{1,60}\\.){1,9}[a-z]{1,60}$' }
    const schema = { type: 'object', properties: { n: { type: 'integer' }, list: { type: 'array', items: host } } }
    await expect(model.generateObject({ ...request, schema })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/^jsonSchema\.properties\.list\.items: .*too large.*maxLength/) as unknown
    })
  })

  it('names the short text with which many become too large', async () => {
    const properties = Object.fromEntries(
      Array.from({ length: 500 }, (_, i) => [`p${i}`, { type: 'string', maxLength: 90 }])
    )
    const schema = { type: 'object', properties, required: Object.keys(properties), additionalProperties: false }
    await expect(model.generateObject({ ...request, schema })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/^jsonSchema\.properties\.p\d+: .*too large/) as unknown
    })
  })

  it("gives valibot's, arktype's and typebox's", async () => {
    const fields = v.object({
      a: v.pipe(v.number(), v.integer(), v.minValue(1)),
      b: v.picklist(['x', 'y']),
      c: v.nullable(v.pipe(v.string(), v.isoDate()))
    })
    await expect(model.generateObject({ ...request, schema: fields })).rejects.toThrow(/valibot.*jsonSchema/)
    const beside = await model.generateObject({ ...request, seed: 1, schema: fields, jsonSchema: toJsonSchema(fields) })
    expect(v.is(fields, beside)).toBe(true)
    expect(
      v.is(fields, await model.generateObject({ ...request, seed: 2, schema: toStandardJsonSchema(fields) }))
    ).toBe(true)

    const thing = type({ a: 'number.integer > 0', b: "'x' | 'y'", 'c?': 'string <= 4', d: 'boolean[] < 3' })
    expect(thing.allows(await model.generateObject({ ...request, seed: 3, schema: thing }))).toBe(true)

    const box = Type.Object({
      a: Type.Integer({ minimum: 1 }),
      b: Type.Union([Type.Literal('x'), Type.Literal('y')]),
      c: Type.Tuple([Type.Boolean(), Type.Null()]),
      d: Type.Optional(Type.String({ format: 'date' })),
      e: Type.Record(Type.String(), Type.Boolean())
    })
    await check(JSON.parse(JSON.stringify(box)) as JsonSchema, { Ajv: Ajv7 })
    await check(
      JSON.parse(
        JSON.stringify(
          Type.Intersect([Type.Object({ a: Type.Boolean() }), Type.Object({ b: Type.Boolean() })], {
            unevaluatedProperties: false
          })
        )
      ) as JsonSchema
    )
  })

  it("gives Pydantic's, of version 1 and 2", async () => {
    await check({
      title: 'Animal',
      type: 'object',
      required: ['kind', 'age'],
      properties: {
        kind: { title: 'Kind', allOf: [{ $ref: '#/definitions/Kind' }] },
        age: { title: 'Age', exclusiveMinimum: 0, maximum: 40, type: 'integer' },
        home: { title: 'Home', default: { x: 1 }, allOf: [{ $ref: '#/definitions/Place' }] }
      },
      definitions: {
        Kind: { title: 'Kind', enum: ['cow', 'horse'], type: 'string' },
        Place: { title: 'Place', type: 'object', properties: { x: { type: 'number', minimum: 0, maximum: 1 } } }
      }
    })
    await check({
      $defs: {
        Kind: { enum: ['cow', 'horse'], title: 'Kind', type: 'string' },
        A: {
          properties: { t: { const: 'a', default: 'a', title: 'T', type: 'string' } },
          required: ['t'],
          title: 'A',
          type: 'object'
        },
        B: {
          properties: { t: { const: 'b', title: 'T', type: 'string' } },
          required: ['t'],
          title: 'B',
          type: 'object'
        }
      },
      properties: {
        kind: { $ref: '#/$defs/Kind', description: 'which' },
        born: { anyOf: [{ format: 'date', type: 'string' }, { type: 'null' }], default: null, title: 'Born' },
        size: {
          maxItems: 2,
          minItems: 2,
          prefixItems: [{ type: 'integer' }, { type: 'number' }],
          title: 'Size',
          type: 'array'
        },
        part: {
          discriminator: { mapping: { a: '#/$defs/A', b: '#/$defs/B' }, propertyName: 't' },
          oneOf: [{ $ref: '#/$defs/A' }, { $ref: '#/$defs/B' }],
          title: 'Part'
        },
        scores: { additionalProperties: { type: 'integer' }, title: 'Scores', type: 'object' }
      },
      required: ['kind', 'size', 'part'],
      title: 'Animal',
      type: 'object'
    })
  })

  it("gives Pydantic's decimals and addresses", async () => {
    const decimal = '^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$'
    const values = await check({
      type: 'object',
      properties: {
        price: { type: 'string', maxLength: 12, pattern: decimal },
        page: { type: 'string', format: 'uri', minLength: 1, maxLength: 2083 }
      },
      required: ['price', 'page']
    })
    for (const { price } of values as { price: string }[]) expect(Number.isNaN(Number.parseFloat(price))).toBe(false)
  })

  it('keeps to all patterns of one text, as startsWith and endsWith of zod write them', async () => {
    const schema = z.string().startsWith('ab').endsWith('z').regex(/\d/).max(8)
    for (const text of await check(z.toJSONSchema(schema))) expect(schema.safeParse(text).success).toBe(true)
  })

  it('takes what z.toJSONSchema wrote as it is written, of outputs too', async () => {
    const written = z.toJSONSchema(z.object({ flag: z.boolean().default(true), on: z.stringbool() }))
    for (const value of await check(written)) expect(Object.keys(value as object)).toEqual(['flag', 'on'])
  })

  it('names what it refuses, also inside patterns', async () => {
    const generate = async (jsonSchema: JsonSchema) =>
      await model.generate({ prompt: 'x', constrain: { jsonSchema }, maxTokens: 5 })
    for (const [schema, message] of [
      [
        { type: 'object', properties: { a: { type: 'string', pattern: '(a)\\1' } } },
        'jsonSchema.properties.a.pattern: A back reference'
      ],
      [{ type: 'string', pattern: 'é(' }, 'jsonSchema.pattern: A ( without )'],
      [{ type: 'string', pattern: '(?<=a)b' }, 'jsonSchema.pattern: A lookbehind'],
      [{ type: 'string', pattern: '^a$', minLength: 2 }, 'No text'],
      [{ type: 'string', pattern: '(a{9999}){9999}' }, 'too large'],
      [{ type: 'string', pattern: '(a|b)*a(a|b){30}', maxLength: 5000 }, 'too']
    ] as [JsonSchema, string][])
      await expect(generate(schema)).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(message) as unknown
      })
  })

  it('passes on what the schema itself makes of the value', async () => {
    const schema = z.object({
      n: z
        .int()
        .min(1)
        .max(9)
        .transform((n: number) => `n${n}`)
    })
    expect(await model.generateObject({ ...request, seed: 4, schema })).toMatchObject({
      n: expect.stringMatching(/^n[1-9]$/) as unknown
    })
    const refused = z
      .int()
      .min(1)
      .max(9)
      .refine(() => false, 'never')
    await expect(model.generateObject({ ...request, schema: refused })).rejects.toMatchObject({
      code: 'ERR_OUTPUT_INVALID',
      text: expect.stringMatching(/^[1-9]$/) as unknown
    })
    await expect(model.generateObject({ ...request, schema: z.string().min(40), maxTokens: 4 })).rejects.toMatchObject({
      code: 'ERR_OUTPUT_INCOMPLETE',
      text: expect.stringContaining('"') as unknown
    })
  })
})
