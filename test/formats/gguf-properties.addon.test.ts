/** The writer and the engine's reader: what one writes the other sees, bit by bit. */
import fc from 'fast-check'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { inspectModel } from '../../lib/index'
import { layoutGguf, type Metadata, tensorBytes } from '../../lib/formats/gguf-writer'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const numRuns = Number(process.env.PALIGEMMA_FUZZ_RUNS ?? 60)
const name = fc.stringMatching(/^[a-z][a-z0-9_.é]{0,20}$/)
const text = fc.string({ unit: 'grapheme', maxLength: 12 })
const value = fc.oneof(
  fc.record({ type: fc.constant('u32' as const), value: fc.nat(2 ** 32 - 1) }),
  fc.record({ type: fc.constant('f32' as const), value: fc.float({ noNaN: true }) }),
  fc.record({ type: fc.constant('bool' as const), value: fc.boolean() }),
  fc.record({ type: fc.constant('string' as const), value: text }),
  fc.record({ type: fc.constant('strings' as const), value: fc.array(text, { maxLength: 9 }) }),
  fc.record({ type: fc.constant('f32s' as const), value: fc.array(fc.float({ noNaN: true }), { maxLength: 9 }) }),
  fc.record({ type: fc.constant('i32s' as const), value: fc.array(fc.nat(2 ** 31 - 1), { maxLength: 9 }) })
)
const tensor = fc.record({
  name,
  type: fc.constantFrom('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0'),
  rows: fc.integer({ min: 1, max: 5 }),
  blocks: fc.integer({ min: 1, max: 3 })
})
const contents = fc.record({
  metadata: fc.uniqueArray(fc.tuple(name, value), { selector: ([key]) => key, maxLength: 6 }),
  tensors: fc.uniqueArray(tensor, { selector: (one) => one.name, maxLength: 6 })
})

async function written(
  metadata: Metadata,
  tensors: { name: string; type: string; shape: number[] }[]
): Promise<Buffer> {
  const { header, bytes } = await layoutGguf(metadata, tensors)
  const file = Buffer.alloc(bytes)
  header.copy(file)
  return file
}

it('what was written is read', async () => {
  const path = join(tempDir(), 'x.gguf')
  const property = fc.asyncProperty(contents, async ({ metadata, tensors }) => {
    const shaped = tensors.map(({ name: own, type, rows, blocks }) => ({ name: own, type, shape: [rows, 32 * blocks] }))
    writeFileSync(path, await written(metadata as Metadata, shaped))
    const seen = await inspectModel(path)
    expect(seen.tensors.map(({ name: own, type, shape }) => ({ name: own, type, shape }))).toEqual(shaped)
    expect(seen.tensors.map(({ bytes }) => bytes)).toEqual(shaped.map(tensorBytes))
    for (const [key, { value: want }] of metadata) {
      const found = seen.metadata.find((entry) => entry.key === key)
      expect([key, JSON.stringify(found?.value)]).toEqual([key, expect.stringContaining(JSON.stringify(want))])
    }
  })
  await fc.assert(property, { numRuns })
})

it('with bytes changed it is read or refused by a coded error', async () => {
  const path = join(tempDir(), 'x.gguf')
  const right = await written(
    [
      ['general.architecture', { type: 'string', value: 'gemma' }],
      ['tokens', { type: 'strings', value: ['a', 'b'] }],
      ['scores', { type: 'f32s', value: [1, 2] }]
    ],
    [{ name: 'w', type: 'Q8_0', shape: [2, 64] }]
  )
  const changes = fc.array(fc.tuple(fc.nat(right.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 })
  const property = fc.asyncProperty(changes, fc.nat(right.length), fc.boolean(), async (list, cut, whole) => {
    const bytes = Buffer.from(right)
    for (const [at, byte] of list) bytes[at] = byte
    writeFileSync(path, whole ? bytes : bytes.subarray(0, cut))
    await inspectModel(path).catch((error: unknown) => {
      if (!(error instanceof PaliGemmaError)) throw error
      expect(error.code).toMatch(/^ERR_MODEL_/)
    })
  })
  await fc.assert(property, { numRuns: 3 * numRuns })
})
