/** Original npz checkpoints against the Hugging Face directories of the same values. */
import { copyFileSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { convert, type ConvertOptions } from '../../../lib/convert'
import { loadModel } from '../../../lib/index'
import { readGguf, readSafetensors, removeTempDirs, tempDir } from '../../support/convert-helpers'
import { hasGolden } from '../../support/golden'
import {
  hf,
  type NdArray,
  type Arrays,
  sizes,
  bigVision,
  weightsOf,
  type ArchiveOptions,
  archive,
  twins
} from '../../support/big-vision'

afterAll(removeTempDirs)

async function converted(source: string, options: Partial<ConvertOptions> = {}): Promise<string> {
  const out = join(tempDir(), 'out.gguf')
  await convert({ source, out, type: 'f32', ...options })
  return out
}

/** Bit for bit; the embedding as far as it goes. */
function expectTwins(fromNpz: string, fromHf: string): void {
  const [ours, theirs] = [readGguf(fromNpz), readGguf(fromHf)]
  expect(ours.order).toEqual(theirs.order)
  for (const [name, tensor] of ours.tensors) {
    const other = theirs.tensors.get(name)!
    expect(tensor.type, name).toBe(other.type)
    if (name !== 'token_embd.weight') expect(tensor.shape, name).toEqual(other.shape)
    expect(tensor.bytes.equals(other.bytes.subarray(0, tensor.bytes.length)), name).toBe(true)
  }
}

describe.skipIf(!hasGolden)('convert of an npz checkpoint', () => {
  it.each([
    ['pg1-tiny', {}],
    ['pg2-tiny', {}],
    ['pg1-tiny', { dtype: 'V2', prefix: 'params/' }],
    ['pg2-tiny', { dtype: 'V2' }],
    ['pg2-tiny', { prefix: 'params/', zip64: true }],
    ['pg1-tiny', { deflate: true }],
    ['pg1-tiny', { rows: 'all' }]
  ] as const)("%s, %o: every tensor is bit-equal to the Hugging Face conversion's", async (name, options) => {
    const { dir, npz } = twins(name, options)
    const [ours, theirs] = [await converted(npz, { tokenizer: dir }), await converted(dir)]
    expectTwins(ours, theirs)
  })

  it('derives the sizes from the shapes and takes what shapes do not tell from the published models', async () => {
    const { dir, npz, trained } = twins('pg2-tiny')
    const [ours, theirs] = [
      readGguf(await converted(npz, { tokenizer: dir })).metadata,
      readGguf(await converted(dir)).metadata
    ]
    const different = [...theirs]
      .filter(([key, value]) => JSON.stringify(ours.get(key)) !== JSON.stringify(value))
      .map(([key]) => key)
    // The reference checkpoint states another scale and window than any published one; <image> has no row in the
    // archive.
    expect(different.sort()).toEqual(
      [
        'gemma2.attention.query_pre_attn_scalar',
        'gemma2.attention.sliding_window',
        'gemma2.vocab_size',
        'general.name',
        'tokenizer.ggml.scores',
        'tokenizer.ggml.token_type',
        'tokenizer.ggml.tokens'
      ].sort()
    )
    expect(ours.get('gemma2.attention.query_pre_attn_scalar')).toBe(32)
    expect(ours.get('gemma2.attention.sliding_window')).toBe(4096)
    expect(ours.get('gemma2.vocab_size')).toBe(trained)
    expect(ours.get('general.name')).toBe('pg2-tiny')
    const tokens = ours.get('tokenizer.ggml.tokens') as string[]
    expect(tokens).toEqual((theirs.get('tokenizer.ggml.tokens') as string[]).slice(0, trained))
    expect(tokens).not.toContain('<image>')
  })

  it('finds tokenizer.model beside it, or takes that of a file or a GGUF', async () => {
    const { dir, npz } = twins('pg1-tiny')
    const gguf = await converted(dir)
    const expected = readGguf(await converted(npz, { tokenizer: dir })).metadata.get('tokenizer.ggml.tokens')
    expect(readGguf(await converted(npz, { tokenizer: gguf })).metadata.get('tokenizer.ggml.tokens')).toEqual(expected)
    expect(
      readGguf(await converted(npz, { tokenizer: join(dir, 'tokenizer.model') })).metadata.get('tokenizer.ggml.tokens')
    ).toEqual(expected)
    copyFileSync(join(dir, 'tokenizer.model'), join(dirname(npz), 'tokenizer.model'))
    expect(readGguf(await converted(npz)).metadata.get('tokenizer.ggml.tokens')).toEqual(expected)
  })

  it("gives a model that generates the reference's tokens", async () => {
    const { dir, npz } = twins('pg1-tiny')
    const { cases } = JSON.parse(readFileSync(join(hf('pg1-tiny'), 'expected.json'), 'utf8'))
    const item = cases.find((one: { kind: string }) => one.kind === 'generate')
    await using model = await loadModel({ model: await converted(npz, { tokenizer: dir }), kvCacheType: 'f32' })
    const { tokens } = await model.generate({
      images: item.images.map((file: string) => join(hf('pg1-tiny'), 'images', file)),
      prompt: item.prompt,
      maxTokens: 24,
      ignoreEos: true
    })
    expect(tokens.map(({ id }) => id)).toEqual(item.greedy.tokens)
  })

  it('quantizes as the conversion from the directory does', async () => {
    const { dir, npz } = twins('pg2-tiny')
    expectTwins(await converted(npz, { tokenizer: dir, type: 'q8_0' }), await converted(dir, { type: 'q8_0' }))
  })

  it.each([{}, { deflate: true }])(
    'merges a LoRA adapter as the conversion from the directory does; archive %o',
    async (options) => {
      const { dir, npz } = twins('pg1-tiny', options)
      const adapters = [hf('pg1-tiny-lora'), { path: hf('pg1-tiny-lora'), scale: 0.5 }]
      for (const type of ['f32', 'q8_0']) {
        const ours = await converted(npz, { tokenizer: dir, adapters, type })
        expectTwins(ours, await converted(dir, { adapters, type }))
        const [merged, plain] = [ours, await converted(npz, { tokenizer: dir, type })].map(
          (path) => readGguf(path).tensors
        )
        const changed = [...merged!].filter(([name, tensor]) => !plain!.get(name)!.bytes.equals(tensor.bytes))
        expect(changed).toHaveLength(30)
      }
    }
  )

  it('reads query, key and value from one array where they have as many heads', async () => {
    const { dir } = twins('pg1-tiny')
    const checkpoint = readSafetensors(join(dir, 'model.safetensors'))
    // as many key and value heads as query heads: the query's weights once more, turned around
    const weights = weightsOf(checkpoint)
    for (let l = 0; l < 3; l++) {
      const { shape, data } = weights.get(`language_model.model.layers.${l}.self_attn.q_proj.weight`)!
      weights.set(`language_model.model.layers.${l}.self_attn.k_proj.weight`, {
        shape,
        data: data.map((value) => value * 2)
      })
      weights.set(`language_model.model.layers.${l}.self_attn.v_proj.weight`, {
        shape,
        data: data.map((value) => value * 3)
      })
    }
    const arrays = bigVision(weights, { ...sizes['pg1-tiny']!, kvHeads: 4, vocab: 2004 })
    const [q, kv] = ['q', 'kv'].map((name) => arrays.get(`llm/layers/attn/${name}_einsum/w`)!) as [NdArray, NdArray]
    const [layers, heads, hidden, headDim] = q.shape as [number, number, number, number]
    const one = heads * hidden * headDim
    arrays.delete('llm/layers/attn/q_einsum/w')
    arrays.delete('llm/layers/attn/kv_einsum/w')
    const data = new Float32Array(layers * 3 * one)
    for (let l = 0; l < layers; l++) {
      data.set(q.data.subarray(l * one, (l + 1) * one), l * 3 * one)
      data.set(kv.data.subarray(l * 2 * one, (l + 1) * 2 * one), (l * 3 + 1) * one)
    }
    arrays.set('llm/layers/attn/qkv_einsum/w', { shape: [layers, 3, heads, hidden, headDim], data })
    const npz = join(tempDir(), 'fused.npz')
    writeFileSync(npz, archive(arrays))
    const { metadata, tensors } = readGguf(await converted(npz, { tokenizer: dir }))
    expect(metadata.get('gemma.attention.head_count_kv')).toBe(4)
    for (const [name, source] of [
      ['attn_q', 'q_proj'],
      ['attn_k', 'k_proj'],
      ['attn_v', 'v_proj']
    ]) {
      const values = new Float32Array(Uint8Array.from(tensors.get(`blk.2.${name}.weight`)!.bytes).buffer)
      expect(values).toEqual(weights.get(`language_model.model.layers.2.self_attn.${source}.weight`)!.data)
    }
  })
})

describe.skipIf(!hasGolden)('convert of an npz checkpoint refuses', () => {
  async function refused(
    change: (arrays: Arrays) => void,
    code: string,
    parts: string[],
    options: ArchiveOptions = {}
  ): Promise<void> {
    const dir = hf('pg2-tiny')
    const arrays = bigVision(weightsOf(readSafetensors(join(dir, 'model.safetensors'))), {
      ...sizes['pg2-tiny']!,
      vocab: 100
    })
    change(arrays)
    const npz = join(tempDir(), 'x.npz')
    writeFileSync(npz, archive(arrays, options))
    const out = join(tempDir(), 'out.gguf')
    const error = await convert({ source: npz, out, type: 'f32', tokenizer: dir }).catch((reason) => reason)
    expect(error).toMatchObject({ name: 'PaliGemmaError', code })
    for (const part of [npz, ...parts]) expect(error.message).toContain(part)
    expect(readdirSync(dirname(out))).toEqual([])
  }

  it('missing, unknown and misshapen arrays, by name, in one message', async () => {
    await refused(
      (arrays) => {
        arrays.delete('llm/layers/pre_ffw_norm/scale')
        arrays.set('img/head/gain', { shape: [1], data: new Float32Array(1) })
        arrays.get('img/embedding/bias')!.shape = [32, 2]
      },
      'ERR_MODEL_INVALID',
      [
        'missing: llm/layers/pre_ffw_norm/scale',
        'unknown: img/head/gain',
        'wrong shape: img/embedding/bias is [32, 2] instead of [64]'
      ]
    )
  })

  it('an archive of something else', async () => {
    await refused(
      (arrays) => {
        for (const name of [...arrays.keys()]) if (name.startsWith('llm/')) arrays.delete(name)
      },
      'ERR_MODEL_INVALID',
      ['no PaliGemma checkpoint', 'llm/embedder/input_embedding']
    )
    await refused(
      (arrays) => {
        arrays.get('llm/layers/mlp/linear')!.shape = [4 * 192, 96]
      },
      'ERR_MODEL_INVALID',
      ['llm/layers/mlp/linear', 'expected 3 axes']
    )
  })

  it('a tokenizer with more tokens than the embedding has rows', async () => {
    const dir = hf('pg2-tiny')
    const npz = join(tempDir(), 'x.npz')
    writeFileSync(
      npz,
      archive(
        bigVision(weightsOf(readSafetensors(join(dir, 'model.safetensors'))), { ...sizes['pg2-tiny']!, vocab: 100 })
      )
    )
    await expect(convert({ source: npz, out: join(tempDir(), 'x'), tokenizer: dir })).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining('hold 2004 tokens, but the embedding has only 100 rows')
    })
  })

  it('no tokenizer anywhere, saying which option helps', async () => {
    const { npz } = twins('pg1-tiny')
    await expect(convert({ source: npz, out: join(tempDir(), 'x') })).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('--tokenizer')
    })
    await expect(
      convert({ source: npz, out: join(tempDir(), 'x'), tokenizer: join(tempDir(), 'no') })
    ).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
  })
})
