/** Original npz checkpoints: built here from the reference checkpoints by the inverse of what convert does. */
import { copyFileSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { convert, type ConvertOptions } from '../../lib/convert'
import { PartReader } from '../../lib/formats/npz-reader'
import { loadModel } from '../../lib/index'
import { NpzArchive } from '../../lib/formats/npz'
import {
  copyCheckpoint,
  readGguf,
  readSafetensors,
  removeTempDirs,
  tempDir,
  writeSafetensors,
  type TestCheckpoint
} from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { npy, zip } from '../support/npz-writer'

afterAll(removeTempDirs)

const hf = (name: string) => golden('hf', name)

interface NdArray {
  shape: number[]
  data: Float32Array
}
type Arrays = Map<string, NdArray>

/** shape and value(index...) to an array; written as slowly and plainly as can be. */
function build(shape: number[], value: (...index: number[]) => number): NdArray {
  const data = new Float32Array(shape.reduce((product, n) => product * n, 1))
  const index = shape.map(() => 0)
  for (let i = 0; i < data.length; i++) {
    data[i] = value(...index)
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]!; axis--) index[axis] = 0
  }
  return { shape, data }
}

interface Sizes {
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  visionLayers: number
  visionHeads: number
  patch: number
  vocab: number
}

const sizes: Record<string, Sizes> = {
  'pg1-tiny': { layers: 3, heads: 4, kvHeads: 1, headDim: 32, visionLayers: 3, visionHeads: 4, patch: 14, vocab: 0 },
  'pg2-tiny': { layers: 4, heads: 4, kvHeads: 2, headDim: 32, visionLayers: 2, visionHeads: 4, patch: 14, vocab: 0 }
}

/** big_vision's arrays of a Hugging Face checkpoint: facts of models/ppp/gemma.py and models/vit.py. */
function bigVision(
  weights: Map<string, NdArray>,
  { layers, heads, kvHeads, headDim, visionLayers, visionHeads, patch, vocab }: Sizes
): Arrays {
  const get = (name: string): NdArray => {
    const tensor = weights.get(name)
    if (!tensor) throw new Error(`no tensor ${name}`)
    return tensor
  }
  const at = (name: string, ...index: number[]): number => {
    const { shape, data } = get(name)
    return data[index.reduce((offset, i, axis) => offset * shape[axis]! + i, 0)]!
  }
  const llm = (layer: number, name: string) => `language_model.model.layers.${layer}.${name}.weight`
  const vit = (layer: number, name: string, part: string) =>
    `vision_tower.vision_model.encoder.layers.${layer}.${name}.${part}`
  const [, hidden] = get('language_model.model.embed_tokens.weight').shape as [number, number]
  const [ffn] = get(llm(0, 'mlp.up_proj')).shape as [number]
  const [tokens, width] = get('vision_tower.vision_model.embeddings.position_embedding.weight').shape as [
    number,
    number
  ]
  const [visionFfn] = get(vit(0, 'mlp.fc1', 'weight')).shape as [number]
  const second = weights.has(llm(0, 'pre_feedforward_layernorm'))
  const arrays: Arrays = new Map()
  const add = (name: string, shape: number[], value: (...index: number[]) => number) => {
    arrays.set(name, build(shape, value))
  }

  add('llm/embedder/input_embedding', [vocab, hidden], (id, d) => at('language_model.model.embed_tokens.weight', id, d))
  add('llm/final_norm/scale', [hidden], (d) => at('language_model.model.norm.weight', d))
  const norms = second
    ? {
        pre_attention_norm: 'input_layernorm',
        post_attention_norm: 'post_attention_layernorm',
        pre_ffw_norm: 'pre_feedforward_layernorm',
        post_ffw_norm: 'post_feedforward_layernorm'
      }
    : { pre_attention_norm: 'input_layernorm', pre_ffw_norm: 'post_attention_layernorm' }
  for (const [name, from] of Object.entries(norms))
    add(`llm/layers/${name}/scale`, [layers, hidden], (l, d) => at(llm(l, from), d))
  add('llm/layers/attn/q_einsum/w', [layers, heads, hidden, headDim], (l, n, d, h) =>
    at(llm(l, 'self_attn.q_proj'), n * headDim + h, d)
  )
  add('llm/layers/attn/kv_einsum/w', [layers, 2, kvHeads, hidden, headDim], (l, c, k, d, h) =>
    at(llm(l, c === 0 ? 'self_attn.k_proj' : 'self_attn.v_proj'), k * headDim + h, d)
  )
  add('llm/layers/attn/attn_vec_einsum/w', [layers, heads, headDim, hidden], (l, n, h, d) =>
    at(llm(l, 'self_attn.o_proj'), d, n * headDim + h)
  )
  add('llm/layers/mlp/gating_einsum', [layers, 2, hidden, ffn], (l, c, d, f) =>
    at(llm(l, c === 0 ? 'mlp.gate_proj' : 'mlp.up_proj'), f, d)
  )
  add('llm/layers/mlp/linear', [layers, ffn, hidden], (l, f, d) => at(llm(l, 'mlp.down_proj'), d, f))

  const embeddings = 'vision_tower.vision_model.embeddings'
  add('img/embedding/kernel', [patch, patch, 3, width], (y, x, c, w) =>
    at(`${embeddings}.patch_embedding.weight`, w, c, y, x)
  )
  add('img/embedding/bias', [width], (w) => at(`${embeddings}.patch_embedding.bias`, w))
  add('img/pos_embedding', [1, tokens, width], (_, n, w) => at(`${embeddings}.position_embedding.weight`, n, w))
  const block = 'img/Transformer/encoderblock'
  for (const norm of [0, 1]) {
    add(`${block}/LayerNorm_${norm}/scale`, [visionLayers, width], (l, w) =>
      at(vit(l, `layer_norm${norm + 1}`, 'weight'), w)
    )
    add(`${block}/LayerNorm_${norm}/bias`, [visionLayers, width], (l, w) =>
      at(vit(l, `layer_norm${norm + 1}`, 'bias'), w)
    )
  }
  const visionDim = width / visionHeads
  const attention = `${block}/MultiHeadDotProductAttention_0`
  for (const [name, from] of [
    ['query', 'q_proj'],
    ['key', 'k_proj'],
    ['value', 'v_proj']
  ]) {
    add(`${attention}/${name}/kernel`, [visionLayers, width, visionHeads, visionDim], (l, w, n, h) =>
      at(vit(l, `self_attn.${from}`, 'weight'), n * visionDim + h, w)
    )
    add(`${attention}/${name}/bias`, [visionLayers, visionHeads, visionDim], (l, n, h) =>
      at(vit(l, `self_attn.${from}`, 'bias'), n * visionDim + h)
    )
  }
  add(`${attention}/out/kernel`, [visionLayers, visionHeads, visionDim, width], (l, n, h, w) =>
    at(vit(l, 'self_attn.out_proj', 'weight'), w, n * visionDim + h)
  )
  add(`${attention}/out/bias`, [visionLayers, width], (l, w) => at(vit(l, 'self_attn.out_proj', 'bias'), w))
  add(`${block}/MlpBlock_0/Dense_0/kernel`, [visionLayers, width, visionFfn], (l, w, f) =>
    at(vit(l, 'mlp.fc1', 'weight'), f, w)
  )
  add(`${block}/MlpBlock_0/Dense_0/bias`, [visionLayers, visionFfn], (l, f) => at(vit(l, 'mlp.fc1', 'bias'), f))
  add(`${block}/MlpBlock_0/Dense_1/kernel`, [visionLayers, visionFfn, width], (l, f, w) =>
    at(vit(l, 'mlp.fc2', 'weight'), w, f)
  )
  add(`${block}/MlpBlock_0/Dense_1/bias`, [visionLayers, width], (l, w) => at(vit(l, 'mlp.fc2', 'bias'), w))
  for (const [part, from] of [
    ['scale', 'weight'],
    ['bias', 'bias']
  ]) {
    add(`img/Transformer/encoder_norm/${part}`, [width], (w) =>
      at(`vision_tower.vision_model.post_layernorm.${from}`, w)
    )
  }
  add('img/head/kernel', [width, hidden], (w, d) => at('multi_modal_projector.linear.weight', d, w))
  add('img/head/bias', [hidden], (d) => at('multi_modal_projector.linear.bias', d))
  return arrays
}

function weightsOf(checkpoint: TestCheckpoint): Map<string, NdArray> {
  return new Map(
    Object.entries(checkpoint.header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            shape,
            data_offsets: [begin, end]
          }
        ]) => [name, { shape, data: new Float32Array(Uint8Array.from(checkpoint.data.subarray(begin, end)).buffer) }]
      )
  )
}

/** float32 with the low half of every value zero: bfloat16 without rounding. */
function truncate(checkpoint: TestCheckpoint): void {
  const data = Buffer.from(checkpoint.data)
  for (let i = 0; i < data.length; i += 4) data.writeUInt16LE(0, i)
  checkpoint.data = data
}

interface ArchiveOptions {
  dtype?: 'f4' | 'V2' | 'f2'
  prefix?: string
  deflate?: boolean
  zip64?: boolean
}

function archive(
  arrays: Arrays,
  { dtype = 'f4', prefix = '', deflate = false, zip64 = false }: ArchiveOptions = {}
): Buffer {
  const encode = (data: Float32Array): Buffer => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    if (dtype === 'f4') return bytes
    return Buffer.concat(Array.from({ length: data.length }, (_, i) => bytes.subarray(4 * i + 2, 4 * i + 4)))
  }
  return zip(
    [...arrays].map(([name, { shape, data }]) => ({
      name: `${prefix}${name}.npy`,
      data: npy(dtype === 'V2' ? '|V2' : `<${dtype}`, `(${shape.join(', ')},)`, encode(data)),
      deflate
    })),
    zip64
  )
}

/** A checkpoint as Hugging Face directory and as npz, of the same values. */
function twins(
  name: string,
  options: ArchiveOptions & { rows?: 'trained' | 'all' } = {}
): { dir: string; npz: string; trained: number } {
  const dir = copyCheckpoint(hf(name))
  const path = join(dir, 'model.safetensors')
  const checkpoint = readSafetensors(path)
  if (options.dtype === 'V2') truncate(checkpoint)
  writeSafetensors(path, checkpoint)
  const weights = weightsOf(checkpoint)
  const all = weights.get('language_model.model.embed_tokens.weight')!.shape[0]!
  // big_vision's table ends where the tokenizer does: before <image>
  const trained = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')).image_token_index as number
  const arrays = bigVision(weights, { ...sizes[name]!, vocab: options.rows === 'all' ? all : trained })
  const npz = join(tempDir(), `${name}.npz`)
  writeFileSync(npz, archive(arrays, options))
  return { dir, npz, trained }
}

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

describe('PartReader', () => {
  it.each([false, true])(
    'gives the same rows whatever its windows, and in any order of reads; compressed: %s',
    async (deflate) => {
      const [parts, groups, inputs, outputs] = [3, 2, 10, 7]
      const data = Float32Array.from({ length: parts * groups * inputs * outputs }, (_, i) => i)
      const path = join(tempDir(), 'a.npz')
      writeFileSync(
        path,
        zip([
          {
            name: 'a.npy',
            data: npy('<f4', `(${parts}, ${groups}, ${inputs}, ${outputs})`, Buffer.from(data.buffer)),
            deflate
          }
        ])
      )
      const file = await NpzArchive.open(path)
      try {
        for (const windowRows of [1, 3, 5, 14, 100]) {
          for (const blockRows of [1, 4, 10]) {
            const reader = new PartReader({
              scratchDir: dirname(path),
              windowBytes: windowRows * inputs * 4,
              blockBytes: blockRows * outputs * 4
            })
            const place = { array: 'a', shape: [], part: 1, parts, transposed: { groups, inputs, outputs } }
            const reads = [
              [0, 14],
              [5, 4],
              [13, 1],
              [6, 3],
              [0, 2]
            ].map(async ([first, rows]) => {
              const target = new Uint8Array(rows! * inputs * 4)
              await reader.read(file.get('a'), place, first! * inputs * 4, target)
              const values = new Float32Array(target.buffer)
              for (let r = 0; r < rows!; r++) {
                const [group, output] = [Math.floor((first! + r) / outputs), (first! + r) % outputs]
                for (let i = 0; i < inputs; i++)
                  expect(values[r * inputs + i]).toBe(data[((groups + group) * inputs + i) * outputs + output])
              }
            })
            await Promise.all(reads)
            await reader.close()
            expect(readdirSync(dirname(path))).toEqual(['a.npz'])
          }
        }
      } finally {
        await file.close()
      }
    }
  )

  // A layer of the 28B model's feed-forward is 340 MB; here a layer is 1 MB and a window 64 KB.
  it('holds one window and small blocks of a compressed archive, however large a layer is', async () => {
    const [layers, inputs, outputs] = [3, 256, 1024]
    const [windowBytes, blockBytes] = [64 << 10, 8 << 10]
    const data = Float32Array.from({ length: layers * inputs * outputs }, (_, i) => Math.imul(i, 2654435761) >> 16)
    const path = join(tempDir(), 'a.npz')
    writeFileSync(
      path,
      zip([
        {
          name: 'a.npy',
          data: npy('<f4', `(${layers}, ${inputs}, ${outputs})`, Buffer.from(data.buffer)),
          deflate: true
        }
      ])
    )
    const file = await NpzArchive.open(path)
    const reader = new PartReader({ scratchDir: dirname(path), windowBytes, blockBytes })
    const allocated: number[] = []
    const allocate = Buffer.allocUnsafeSlow
    const spy = vi.spyOn(Buffer, 'allocUnsafeSlow').mockImplementation((size) => {
      allocated.push(size)
      return allocate(size)
    })
    try {
      const rows = 16
      const target = new Float32Array(rows * inputs)
      for (let part = 0; part < layers; part++) {
        const place = { array: 'a', shape: [], part, parts: layers, transposed: { groups: 1, inputs, outputs } }
        for (let first = 0; first < outputs; first += rows) {
          await reader.read(file.get('a'), place, first * inputs * 4, new Uint8Array(target.buffer))
          for (const [row, input] of [
            [0, 0],
            [3, 200],
            [rows - 1, inputs - 1]
          ] as const) {
            expect(target[row * inputs + input]).toBe(data[(part * inputs + input) * outputs + first + row])
          }
        }
      }
      expect(Math.max(...allocated)).toBe(windowBytes)
      // the window is one buffer that is used again; the rest are blocks, of which one is alive
      expect(allocated.filter((size) => size > blockBytes)).toEqual([windowBytes])
    } finally {
      spy.mockRestore()
      await reader.close()
      await file.close()
    }
  })
})
