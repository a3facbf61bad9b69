/** Reading what a GGUF holds: others have their turns meanwhile, and files of millions of things are refused. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { readStructure } from '../../lib/engine/structure'
import { layoutGguf, type Metadata } from '../../lib/formats/gguf-writer'
import { inspectModel } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const written = async (metadata: Metadata): Promise<string> => {
  const path = join(tempDir(), 'made.gguf')
  writeFileSync(path, (await layoutGguf(metadata, [])).header)
  return path
}

it('a vocabulary of 257 thousand pieces comes in slices, whole or as much as is wanted', {
  tags: ['slow']
}, async () => {
  const pieces = Array.from({ length: 257_216 }, (_, i) => `▁pièce${i}`)
  const path = await written([
    ['tokens', { type: 'strings', value: pieces }],
    ['scores', { type: 'f32s', value: pieces.map((_, i) => i) }],
    ['name', { type: 'string', value: 'a' }]
  ])
  let turns = 0
  let going = true
  const others = (async () => {
    for (; going; turns++) await new Promise((resolve) => setImmediate(resolve))
  })()
  const { metadata } = await inspectModel(path)
  going = false
  await others
  expect(turns).toBeGreaterThan(10)
  const want = [pieces, pieces.map((_, i) => i), 'a']
  expect(JSON.stringify(metadata.map(({ value }) => value)) === JSON.stringify(want)).toBe(true)
  const some = await readStructure(path, 3)
  expect(some.metadata[0]!.value).toEqual({ arrayOf: 'string', count: pieces.length, values: pieces.slice(0, 3) })
})

it('64-bit numbers and arrays of arrays are shown as they are; huge ones inside are refused', async () => {
  const nested = (count: number) => ({
    arrayOf: 'array',
    count: 1,
    values: [{ arrayOf: 'uint8', count, values: new Array<number>(count).fill(7) }]
  })
  const wide = { arrayOf: 'uint64', count: 2, values: [1n, 2n ** 63n] }
  const path = await written([
    ['wide', { type: 'copy', of: 'array', value: wide }],
    ['nested', { type: 'copy', of: 'array', value: nested(2) }]
  ])
  const { metadata } = await inspectModel(path)
  expect(metadata.map(({ type, value }) => [type, value])).toEqual([
    ['array<uint64>', [1, 2n ** 63n]],
    ['array<array<uint8>>', [[7, 7]]]
  ])
  const huge = await written([['nested', { type: 'copy', of: 'array', value: nested(70_000) }]])
  await expect(inspectModel(huge)).rejects.toMatchObject({ code: 'ERR_MODEL_UNSUPPORTED' })
  await expect(inspectModel(huge, { maxArray: 0 })).resolves.toBeDefined()
})

it.each([8, 16])('more things than any model has are refused before they are read (count at byte %i)', async (at) => {
  const path = await written([['name', { type: 'string', value: 'a'.repeat(100_000) }]])
  const file = readFileSync(path)
  file.writeBigUInt64LE(70_000n, at)
  writeFileSync(path, file)
  await expect(inspectModel(path)).rejects.toMatchObject({
    code: 'ERR_MODEL_INVALID',
    message: expect.stringContaining(`(at byte ${at}); at most 65536 are read`)
  })
})
