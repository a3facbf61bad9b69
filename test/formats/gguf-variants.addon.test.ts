/** GGUFs as splitters, other converters and diverged trainings leave them. */
import { copyFileSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convertModel, estimateMemory, inspectModel, loadModel, loadTokenizer, quantizeModel } from '../../lib'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { type EditGguf, type EditTensor, openGguf, splitGguf, withKey, writeGguf } from '../support/gguf-edit'
import { golden, hasGolden } from '../support/golden'

const source = golden('hf', 'pg1-tiny')
const image = join(source, 'images', 'a.png')

describe.skipIf(!hasGolden)('a GGUF of another making', () => {
  let dir = ''
  let whole = ''
  let gguf: EditGguf
  let tokens: number[]
  let files = 0

  beforeAll(async () => {
    dir = tempDir()
    whole = join(dir, 'whole.gguf')
    await convertModel({ source, out: whole, type: 'F32' })
    gguf = await openGguf(whole)
    tokens = await firstTokens(whole)
  })
  afterAll(removeTempDirs)

  const path = (name: string) => join(dir, `${files++}-${name}`)

  async function firstTokens(file: string): Promise<number[]> {
    const model = await loadModel(file)
    try {
      const { tokens } = await model.generate({ image, prompt: 'caption en', maxTokens: 6, ignoreEos: true })
      return tokens.map(({ id }) => id)
    } finally {
      await model.dispose()
    }
  }

  async function refusal(
    work: Promise<unknown> | (() => Promise<unknown>)
  ): Promise<{ code: string; message: string }> {
    const error = await (typeof work === 'function' ? work() : work).then(
      () => undefined,
      (reason: unknown) => reason
    )
    expect(error).toMatchObject({ name: 'PaliGemmaError' })
    return error as { code: string; message: string }
  }

  describe('in parts', () => {
    let parts: string[]
    beforeAll(async () => {
      parts = await splitGguf(path('model'), gguf, 3)
    })

    it('loads as the whole, from any part', async () => {
      for (const part of parts) expect(await firstTokens(part)).toEqual(tokens)
    })

    it('is inspected, tokenized, estimated, quantized and converted as the whole', async () => {
      const [all, one] = [await inspectModel(whole), await inspectModel(parts[1]!)]
      expect(one.tensors.map(({ name }) => name)).toEqual(all.tensors.map(({ name }) => name))
      expect(one.parameters).toBe(all.parameters)
      expect((await loadTokenizer(parts[2]!)).encode('caption en')).toEqual(
        (await loadTokenizer(whole)).encode('caption en')
      )
      expect((await estimateMemory(parts[1]!)).weights).toEqual((await estimateMemory(whole)).weights)
      const [a, b] = [path('a.gguf'), path('b.gguf')]
      await quantizeModel({ source: whole, out: a, type: 'Q8_0' })
      await quantizeModel({ source: parts[2]!, out: b, type: 'Q8_0' })
      expect(readFileSync(b).equals(readFileSync(a))).toBe(true)
      await convertModel({ source: parts, out: a })
      expect(await firstTokens(a)).toEqual(tokens)
      expect((await inspectModel(a)).metadata.some(({ key }) => key.startsWith('split.'))).toBe(false)
    })

    it('is found through links that have the names, as download caches keep them', async () => {
      const blobs = parts.map((part, i) => {
        const blob = path(`blob${i}`)
        copyFileSync(part, blob)
        return blob
      })
      const stem = path('linked')
      for (const [i, blob] of blobs.entries()) symlinkSync(blob, `${stem}-0000${i + 1}-of-00003.gguf`)
      expect(await firstTokens(`${stem}-00002-of-00003.gguf`)).toEqual(tokens)
      expect(await refusal(loadModel(blobs[0]!))).toMatchObject({
        code: 'ERR_MODEL_INVALID',
        message: expect.stringContaining('part 1 of 3')
      })
    })

    it('names the part that is missing, in every call', async () => {
      const [first, second] = await splitGguf(path('gap'), gguf, 2)
      rmSync(second!)
      for (const work of [
        () => loadModel(first!),
        () => inspectModel(first!),
        () => convertModel({ source: first!, out: path('x.gguf') })
      ])
        expect(await refusal(work)).toMatchObject({
          code: 'ERR_MODEL_NOT_FOUND',
          message: expect.stringContaining('-00002-of-00002.gguf')
        })
    })

    it('says which key is missing or wrong, instead of a tensor that another part has', async () => {
      const without = (key: string) => (part: EditGguf) => ({
        ...part,
        metadata: part.metadata.filter(([name]) => name !== key)
      })
      const count =
        (value: number, of = 'uint16') =>
        (part: EditGguf) =>
          withKey(part, 'split.count', { type: 'copy', of, value })
      const bare = (part: EditGguf) => ({
        ...part,
        metadata: part.metadata.filter(([name]) => !name.startsWith('split.'))
      })
      for (const [edit, words] of [
        [without('split.count'), /"split\.count".* is missing/],
        [bare, /"split\.count".* is missing, but by its name this is part \d of 2/],
        [count(0), /"split\.count".* is 0, but/],
        [count(1), /"split\.count".* is 1, but/],
        [count(-1, 'int32'), /"split\.count".* is -1, but/],
        [count(3), /by its name it is one of 2 parts, but key "split\.count" is 3/]
      ] as const)
        for (const file of await splitGguf(path('wrong'), gguf, 2, edit))
          for (const work of [() => loadModel(file), () => inspectModel(file)])
            expect(await refusal(work)).toMatchObject({
              code: 'ERR_MODEL_INVALID',
              message: expect.stringMatching(words)
            })
      // in one part alone: the file that lacks it is named, whichever part is opened
      const [first, second] = await splitGguf(path('second'), gguf, 2, (part, i) =>
        i === 1 ? without('split.count')(part) : part
      )
      for (const file of [first!, second!])
        expect((await refusal(loadModel(file))).message).toMatch(
          /00002-of-00002\.gguf: key "split\.count".* is missing/
        )
      // merged again, under the name of a part
      const merged = await writeGguf(path('merged-00001-of-00002.gguf'), count(0)(gguf))
      expect(await firstTokens(merged)).toEqual(tokens)
    })

    it('names parts that do not belong together', async () => {
      const mixed = await splitGguf(path('mixed'), gguf, 2)
      const other = await splitGguf(path('other'), gguf, 3)
      copyFileSync(other[1]!, mixed[1]!)
      expect(await refusal(loadModel(mixed[0]!))).toMatchObject({
        code: 'ERR_MODEL_INVALID',
        message: expect.stringContaining('split.count')
      })
      const swapped = await splitGguf(path('swapped'), gguf, 3)
      const spare = path('spare')
      renameSync(swapped[1]!, spare)
      renameSync(swapped[2]!, swapped[1]!)
      renameSync(spare, swapped[2]!)
      expect(await refusal(loadModel(swapped[0]!))).toMatchObject({
        code: 'ERR_MODEL_INVALID',
        message: expect.stringContaining('split.no')
      })
      const twice = await splitGguf(path('twice'), gguf, 2, (part, i) =>
        i === 1 ? { ...part, tensors: [...part.tensors, gguf.tensors[0]!] } : part
      )
      expect(await refusal(loadModel(twice[0]!))).toMatchObject({
        code: 'ERR_MODEL_INVALID',
        message: expect.stringContaining(gguf.tensors[0]!.name)
      })
      const fewer = await splitGguf(path('fewer'), gguf, 2, (part, i) =>
        i === 1 ? { ...part, tensors: part.tensors.slice(1) } : part
      )
      expect(await refusal(loadModel(fewer[0]!))).toMatchObject({
        code: 'ERR_MODEL_INVALID',
        message: expect.stringContaining('split.tensors.count')
      })
    })
  })

  describe('with an LM head', () => {
    const embedding = () => gguf.tensors.find(({ name }) => name === 'token_embd.weight')!
    const withHead = async (head: Partial<EditTensor>) =>
      await writeGguf(path('head.gguf'), {
        ...gguf,
        tensors: [...gguf.tensors, { ...embedding(), name: 'output.weight', ...head }]
      })
    const both = (file: string) => [() => loadModel(file), () => convertModel({ source: file, out: path('out.gguf') })]

    it('that is a copy of the embedding leaves it out: same type, another, other padding', async () => {
      const { shape, bytes } = embedding()
      const half = Buffer.from(
        Uint16Array.from(
          new Uint32Array(Uint8Array.from(bytes).buffer),
          (bits) => (bits + 0x7fff + ((bits >> 16) & 1)) >>> 16
        ).buffer
      )
      const { native } = await import('../../lib/engine/native')
      const q8 = Buffer.from(await native().quantizeRows(bytes, 'F32', 'Q8_0', shape[1]!))
      for (const head of [
        {},
        { type: 'BF16', bytes: half },
        { type: 'Q8_0', bytes: q8 },
        { shape: [2005, shape[1]!], bytes: bytes.subarray(0, 2005 * shape[1]! * 4) }
      ]) {
        const file = await withHead(head)
        expect(await firstTokens(file)).toEqual(tokens)
        const out = path('out.gguf')
        await convertModel({ source: file, out })
        expect((await inspectModel(out)).tensors.some(({ name }) => name === 'output.weight')).toBe(false)
        expect(await firstTokens(out)).toEqual(tokens)
      }
    })

    it('of its own is refused by name, loaded or converted', async () => {
      const bytes = Buffer.from(embedding().bytes)
      bytes.writeFloatLE(bytes.readFloatLE(400) + 0.5, 400)
      for (const work of both(await withHead({ bytes })))
        expect(await refusal(work)).toMatchObject({
          code: 'ERR_MODEL_UNSUPPORTED',
          message: expect.stringContaining('output.weight')
        })
    })
  })

  it('with rope_freqs of 1 is the same model; other factors and scaled positions are refused by name', async () => {
    const factors = async (values: number[]) =>
      await writeGguf(path('rope.gguf'), {
        ...gguf,
        tensors: [
          ...gguf.tensors,
          { name: 'rope_freqs.weight', type: 'F32', shape: [16], bytes: Buffer.from(Float32Array.from(values).buffer) }
        ]
      })
    const ones = await factors(new Array(16).fill(1))
    expect(await firstTokens(ones)).toEqual(tokens)
    await convertModel({ source: ones, out: path('out.gguf') })
    const other = await factors([...new Array(15).fill(1), 8])
    for (const work of [() => loadModel(other), () => convertModel({ source: other, out: path('out.gguf') })])
      expect(await refusal(work)).toMatchObject({
        code: 'ERR_MODEL_UNSUPPORTED',
        message: expect.stringContaining('rope_freqs')
      })
    const scaled = await writeGguf(
      path('scaled.gguf'),
      withKey(
        withKey(gguf, 'gemma.rope.scaling.type', { type: 'string', value: 'linear' }),
        'gemma.rope.scaling.factor',
        { type: 'f32', value: 4 }
      )
    )
    expect(await refusal(loadModel(scaled))).toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringContaining('rope.scaling.type')
    })
  })

  it('with a tensor that the engine has no place for is refused by name', async () => {
    const extra = { name: 'blk.0.attn_q.bias', type: 'F32', shape: [128], bytes: Buffer.alloc(512, 1) }
    expect(
      await refusal(loadModel(await writeGguf(path('bias.gguf'), { ...gguf, tensors: [...gguf.tensors, extra] })))
    ).toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringContaining('blk.0.attn_q.bias')
    })
  })

  it.each<[string, number]>([
    ['gemma.block_count', 4e9],
    ['gemma.block_count', 500],
    ['gemma.embedding_length', 4e9],
    ['gemma.attention.head_count', 4e9],
    ['gemma.attention.head_count_kv', 3],
    ['clip.vision.block_count', 4e9],
    ['clip.vision.patch_size', 4e9],
    ['clip.vision.image_size', 4e9]
  ])('that claims %s = %d is refused, by the key or a tensor', async (key, value) => {
    const file = await writeGguf(path('claim.gguf'), withKey(gguf, key, { type: 'u32', value }))
    for (const work of [() => loadModel(file), () => convertModel({ source: file, out: path('out.gguf') })]) {
      const { code, message } = await refusal(work)
      expect(code).toBe('ERR_MODEL_INVALID')
      if (value === 4e9) expect(message).toContain(key.split('.').at(-1)!)
    }
  })

  it.each<[string, number]>([
    ['gemma.attention.layer_norm_rms_epsilon', 3e38],
    ['gemma.rope.freq_base', 0],
    ['gemma.attention.query_pre_attn_scalar', 1e-38],
    ['clip.vision.attention.layer_norm_epsilon', NaN]
  ])('whose %s is %d is refused by the key', async (key, value) => {
    expect(
      await refusal(loadModel(await writeGguf(path('number.gguf'), withKey(gguf, key, { type: 'f32', value }))))
    ).toMatchObject({ code: 'ERR_MODEL_INVALID', message: expect.stringContaining(key) })
  })

  describe('whose weights are not finite', () => {
    const spoiled = async (name: string, spoil: (bytes: Buffer) => void, from = gguf) => {
      const tensors = from.tensors.map((tensor) => {
        if (tensor.name !== name) return tensor
        const bytes = Buffer.from(tensor.bytes)
        spoil(bytes)
        return { ...tensor, bytes }
      })
      return await writeGguf(path('spoiled.gguf'), { ...from, tensors })
    }

    it('ends requests with ERR_MODEL_INVALID, in float32 and inside blocks', async () => {
      const q8 = path('q8.gguf')
      await quantizeModel({ source: whole, out: q8, type: 'Q8_0' })
      const blocks = await openGguf(q8)
      const halfNan = (bytes: Buffer) => void bytes.writeUInt16LE(0x7e00, 34 * 5)
      const halfInfinity = (bytes: Buffer) => void bytes.writeUInt16LE(0x7c00, 0)
      for (const file of [
        await spoiled('blk.1.ffn_gate.weight', (bytes) => void bytes.writeUInt32LE(0x7fc00000, 28)),
        await spoiled('token_embd.weight', (bytes) => void bytes.writeUInt32LE(0x7fc00000, bytes.length - 4)),
        await spoiled('blk.0.ffn_up.weight', halfNan, blocks),
        await spoiled('blk.2.attn_q.weight', halfNan, blocks),
        await spoiled('blk.1.ffn_down.weight', halfInfinity, blocks),
        await spoiled('v.blk.0.ffn_up.weight', halfNan, blocks)
      ]) {
        const model = await loadModel(file)
        try {
          expect(await refusal(model.generate({ image, prompt: 'caption en', maxTokens: 3 }))).toMatchObject({
            code: 'ERR_MODEL_INVALID'
          })
          expect(await refusal(model.score({ image, prompt: 'caption en', suffix: 'a b' }))).toMatchObject({
            code: 'ERR_MODEL_INVALID'
          })
        } finally {
          await model.dispose()
        }
      }
    })

    it('is neither converted nor quantized: the tensor and the row are named', async () => {
      const nan = await spoiled(
        'blk.1.ffn_gate.weight',
        (bytes) => void bytes.writeUInt32LE(0x7fc00000, 64 * 4 * 3 + 28)
      )
      for (const work of [
        () => convertModel({ source: nan, out: path('o.gguf') }),
        () => quantizeModel({ source: nan, out: path('o.gguf'), type: 'Q4_0' }),
        () => quantizeModel({ source: nan, out: path('o.gguf'), type: 'F32' })
      ])
        expect(await refusal(work)).toMatchObject({
          code: 'ERR_MODEL_INVALID',
          message: expect.stringMatching(/blk\.1\.ffn_gate\.weight: row 3 holds NaN in column 7/)
        })
      const large = await spoiled('blk.0.attn_k.weight', (bytes) => void bytes.writeFloatLE(70000, 0))
      expect(await refusal(quantizeModel({ source: large, out: path('o.gguf'), type: 'F16' }))).toMatchObject({
        code: 'ERR_MODEL_INVALID',
        message: expect.stringMatching(/blk\.0\.attn_k\.weight: row 0 holds 70000 .* beyond F16/)
      })
      await quantizeModel({ source: large, out: path('ok.gguf'), type: 'BF16' })
      await quantizeModel({ source: large, out: path('ok.gguf'), type: 'Q8_0' })
      const huge = await spoiled('blk.0.attn_k.weight', (bytes) => void bytes.writeFloatLE(1e30, 0))
      for (const type of ['Q8_0', 'Q4_0', 'Q5_1'])
        expect(await refusal(quantizeModel({ source: huge, out: path('o.gguf'), type }))).toMatchObject({
          code: 'ERR_MODEL_INVALID',
          message: expect.stringContaining('blk.0.attn_k.weight')
        })
    })
  })

  it('without an extension is told by its first bytes, also as the tokenizer of another', async () => {
    const blob = path('sha256-0123abcd')
    copyFileSync(whole, blob)
    expect(await firstTokens(blob)).toEqual(tokens)
    const out = path('out.gguf')
    await convertModel({ source, out, type: 'F32', tokenizer: blob })
    expect(await firstTokens(out)).toEqual(tokens)
    await convertModel({ source: blob, out })
    writeFileSync(path('nothing'), 'hello')
  })
})
