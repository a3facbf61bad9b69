/** Files of any bytes, and right ones with some bytes changed: read, or refused by a coded error, in no time. */
import fc from 'fast-check'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { Fields } from '../../lib/formats/fields'
import { NpzArchive, parseNpyHeader } from '../../lib/formats/npz'
import { Safetensors } from '../../lib/formats/safetensors'
import { parseSentencePiece } from '../../lib/formats/sentencepiece'
import { parseTokenizerJson } from '../../lib/formats/tokenizer-json'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden } from '../support/golden'
import { threadMs } from '../support/hostile'
import { npy, zip } from '../support/npz-writer'

afterAll(removeTempDirs)

/** More by hand: PALIGEMMA_FUZZ_RUNS=100000 npx vitest run test/formats/properties */
const numRuns = Number(process.env.PALIGEMMA_FUZZ_RUNS ?? 150)
const slowestMs = 2000

/** Right bytes with some of them changed or left out, or anything at all. */
function broken(right: Buffer): fc.Arbitrary<Buffer> {
  const changes = fc.array(fc.tuple(fc.nat(right.length - 1), fc.nat(255)), { maxLength: 8 })
  const changed = fc.tuple(changes, fc.nat(right.length), fc.nat(3)).map(([list, cut, rare]) => {
    const bytes = Buffer.from(right)
    for (const [at, value] of list) bytes[at] = value
    return rare === 0 ? bytes.subarray(0, cut) : bytes
  })
  const any = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes))
  return fc.oneof({ weight: 4, arbitrary: changed }, { weight: 1, arbitrary: any })
}

/** Ends well or with one of our errors, in time. */
async function holds(read: () => unknown): Promise<void> {
  const start = threadMs()
  try {
    await read()
  } catch (error) {
    expect(error).toBeInstanceOf(PaliGemmaError)
    expect((error as PaliGemmaError).code).not.toBe('ERR_INTERNAL')
  }
  expect(threadMs() - start).toBeLessThan(slowestMs)
}

async function check(right: Buffer, read: (bytes: Buffer, path: string) => unknown): Promise<void> {
  const path = join(tempDir(), 'model.bin')
  const property = fc.asyncProperty(broken(right), async (bytes) => {
    writeFileSync(path, bytes)
    await holds(async () => await read(bytes, path))
  })
  await fc.assert(property, { numRuns })
}

const floats = (n: number): Buffer => Buffer.from(Float32Array.from({ length: n }, (_, i) => i).buffer)

describe('whatever stands in a file', () => {
  it('safetensors', { tags: ['slow'] }, async () => {
    const header = {
      a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
      b: { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
      __metadata__: { format: 'pt' }
    }
    const json = Buffer.from(JSON.stringify(header))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(json.length))
    await check(Buffer.concat([length, json, floats(8)]), async (_, path) => {
      const source = await Safetensors.openFiles([path])
      try {
        for (const tensor of source.tensors) await tensor.read(0, new Uint8Array(tensor.bytes))
      } finally {
        await source.close()
      }
    })
  })

  it.each([false, true])('npz, compressed: %s', { tags: ['slow'] }, async (deflate) => {
    const right = zip([
      { name: 'a.npy', data: npy('<f4', '(2, 3)', floats(6)), deflate },
      { name: 'params/b.npy', data: npy('|V2', '(4,)', floats(2), 'False', 2), deflate }
    ])
    await check(right, async (_, path) => {
      const archive = await NpzArchive.open(path)
      try {
        for (const array of archive.arrays.values()) await array.read()
      } finally {
        await archive.close()
      }
    })
  })

  it('the header of an npy', { tags: ['slow'] }, async () => {
    await check(npy('<f4', '(2, 3)', floats(6)), (bytes) => parseNpyHeader(bytes, 'a.npy'))
  })

  it('SentencePiece', { tags: ['slow'] }, async () => {
    const right = readFileSync(golden('hf', 'pg1-tiny', 'tokenizer.model'))
    // the first pieces, and what stands behind all of them
    const short = Buffer.concat([right.subarray(0, 300), right.subarray(-200)])
    await check(short, (bytes) => parseSentencePiece('tokenizer.model', bytes))
  })

  it('tokenizer.json', async () => {
    const vocab = fc.dictionary(fc.string({ unit: 'grapheme', maxLength: 4 }), fc.oneof(fc.nat(40), fc.jsonValue()))
    const merges = fc.array(fc.oneof(fc.string(), fc.array(fc.string(), { maxLength: 3 }), fc.jsonValue()))
    const model = fc.record(
      {
        type: fc.constantFrom('BPE', 'Unigram'),
        byte_fallback: fc.oneof(fc.constant(true), fc.jsonValue()),
        unk_token: fc.oneof(fc.constant('<unk>'), fc.jsonValue()),
        vocab: fc.oneof(vocab, fc.jsonValue()),
        merges: fc.oneof(merges, fc.jsonValue())
      },
      { requiredKeys: [] }
    )
    const file = fc.record(
      { model, normalizer: fc.jsonValue(), pre_tokenizer: fc.jsonValue() },
      { requiredKeys: ['model'] }
    )
    const property = fc.asyncProperty(fc.oneof(file, fc.dictionary(fc.string(), fc.jsonValue())), async (json) => {
      await holds(() => parseTokenizerJson(new Fields('tokenizer.json', json as Record<string, unknown>)))
    })
    await fc.assert(property, { numRuns })
  })
})
