import { afterEach, describe, expect, it } from 'vitest'
import { removeTempDirs, type TestCheckpoint } from '../../support/convert-helpers'
import { hasGolden } from '../../support/golden'
import { tiny, converted, refusal, changed, addTensor } from '../../support/checkpoint-variants'

afterEach(removeTempDirs)

const embedding = 'language_model.model.embed_tokens.weight'
const width = 64

/** The embedding's rows from the start on, as float32. */
function embeddingRows({ header, data }: TestCheckpoint, rows: number): Float32Array {
  const [begin] = header[embedding]!.data_offsets as [number]
  return new Float32Array(Uint8Array.from(data.subarray(begin, begin + rows * width * 4)).buffer)
}

function bytesOf(values: Float32Array | Float64Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}

/** Rounded to the nearest bfloat16, ties to even. */
function bfloat16(values: Float32Array): Uint16Array {
  return Uint16Array.from(new Uint32Array(values.buffer), (bits) => (bits + 0x7fff + ((bits >> 16) & 1)) >>> 16)
}

/** Rounded towards the nearest float16; the tiny model's values are normal numbers or tiny. */
function float16(values: Float32Array): Uint16Array {
  return Uint16Array.from(values, (value) => {
    const size = Math.abs(value)
    const sign = value < 0 ? 0x8000 : 0
    if (size < 2 ** -14) return sign | Math.round(size * 2 ** 24)
    const exponent = Math.floor(Math.log2(size))
    return sign | (((exponent + 15) << 10) + Math.round((size / 2 ** exponent - 1) * 1024))
  })
}

describe.skipIf(!hasGolden)('a tied head that was saved once more', () => {
  const withHead = (
    dtype: string,
    convertTo: (values: Float32Array) => Float32Array | Float64Array | Uint16Array,
    rows = 2048
  ) =>
    changed((checkpoint) => {
      const values = convertTo(embeddingRows(checkpoint, rows))
      addTensor(checkpoint, 'language_model.lm_head.weight', dtype, [values.length / width, width], bytesOf(values))
    })
  const same = (values: Float32Array) => values

  it.each<[string, () => string]>([
    ['in the same type', () => withHead('F32', same)],
    ['in bfloat16', () => withHead('BF16', bfloat16)],
    ['in float16', () => withHead('F16', float16)],
    ['in float64', () => withHead('F64', (values) => Float64Array.from(values))],
    [
      'in bfloat16, beside an embedding in float16',
      () =>
        changed((checkpoint) => {
          const values = embeddingRows(checkpoint, 2048)
          const halves = bytesOf(float16(values))
          const [begin] = checkpoint.header[embedding]!.data_offsets as [number]
          checkpoint.data.set(halves, begin)
          Object.assign(checkpoint.header[embedding]!, { dtype: 'F16', data_offsets: [begin, begin + halves.length] })
          addTensor(checkpoint, 'language_model.lm_head.weight', 'BF16', [2048, width], bytesOf(bfloat16(values)))
        })
    ],
    ['without the padding rows', () => withHead('F32', same, 2005)],
    [
      'with more padding rows',
      () => withHead('F32', (values) => Float32Array.from([...values, ...new Array(64 * 64).fill(0)]))
    ],
    [
      'rounded to bfloat16 and saved as float32',
      () =>
        withHead('F32', (values) => new Float32Array(Uint32Array.from(bfloat16(values), (half) => half << 16).buffer))
    ]
  ])('%s is left out, with a note', { tags: ['slow'] }, async (_name, make) => {
    const { result, gguf } = await converted(make())
    expect(gguf.tensors.has('output.weight')).toBe(false)
    expect(result.notes.join()).toContain('language_model.lm_head.weight')
  })

  it.each<[string, () => string]>([
    [
      'two rows exchanged',
      () =>
        withHead('F32', (values) => {
          const row = values.slice(0, width)
          values.copyWithin(0, width, 2 * width)
          values.set(row, width)
          return values
        })
    ],
    [
      'one value of the last row changed',
      () =>
        withHead('F32', (values) => {
          values[values.length - 1]! += 0.001
          return values
        })
    ],
    ['trained apart, in bfloat16', () => withHead('BF16', (values) => bfloat16(values.map((value) => value * 1.01)))],
    [
      'no rows',
      () => changed((checkpoint) => addTensor(checkpoint, 'lm_head.weight', 'F32', [0, 64], new Uint8Array(0)))
    ],
    [
      'another width',
      () => changed((checkpoint) => addTensor(checkpoint, 'lm_head.weight', 'F32', [10, 32], new Uint8Array(1280)))
    ]
  ])('%s is a head of its own, and refused by name', async (_name, make) => {
    const { code, message } = await refusal(make())
    expect(code).toBe('ERR_MODEL_UNSUPPORTED')
    expect(message).toContain('lm_head.weight')
  })
})

describe.skipIf(!hasGolden)('names of tensors', () => {
  const renamed = (rename: (name: string) => string) =>
    changed((checkpoint) => {
      checkpoint.header = Object.fromEntries(
        Object.entries(checkpoint.header).map(([name, entry]) => [name === '__metadata__' ? name : rename(name), entry])
      )
    })

  it.each<[string, (name: string) => string]>([
    ['module.', (name) => `module.${name}`],
    ['_orig_mod.', (name) => `_orig_mod.${name}`],
    ['module._orig_mod.model.', (name) => `module._orig_mod.model.${name}`],
    ['base_model.model.', (name) => `base_model.model.${name}`],
    ['base_model.model.model.module.', (name) => `base_model.model.model.module.${name}`],
    ['a prefix that only the trainer knows', (name) => `student.net.${name}`],
    ['torch.compile inside', (name) => name.replace('language_model.', 'language_model._orig_mod.')],
    [
      'FSDP inside',
      (name) => name.replace(/layers\.(\d+)\./, 'layers.$1._fsdp_wrapped_module._checkpoint_wrapped_module.')
    ],
    ['PEFT inside', (name) => name.replace(/_proj\.weight$/, '_proj.base_layer.weight')]
  ])('wrapped with %s are the same model', async (_name, rename) => {
    const [plain, wrapped] = [await converted(tiny), await converted(renamed(rename))]
    expect(wrapped.gguf.order).toEqual(plain.gguf.order)
    for (const [name, { bytes }] of plain.gguf.tensors)
      expect(wrapped.gguf.tensors.get(name)!.bytes.equals(bytes), name).toBe(true)
  })

  it('of an adapter that is still around the model are refused with the advice to merge it', async () => {
    const lora = 'language_model.model.layers.0.self_attn.q_proj.lora_A.default.weight'
    const dir = changed((checkpoint) => addTensor(checkpoint, lora, 'F32', [1, 64], new Uint8Array(256)))
    expect(await refusal(dir)).toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringMatching(/q_proj\.lora_A\.default\.weight.*merge_and_unload/)
    })
  })

  it('of what PaliGemma does not use are left out, with a note', async () => {
    const dir = changed((checkpoint) => {
      const add = (name: string) => addTensor(checkpoint, name, 'F32', [2, 2], new Uint8Array(16))
      add('vision_tower.vision_model.head.attention.in_proj_weight')
      add('vision_tower.vision_model.head.mlp.fc1.bias')
      add('vision_tower.vision_model.embeddings.position_ids')
      add('language_model.model.layers.0.self_attn.rotary_emb.inv_freq')
    })
    const { result, gguf } = await converted(dir)
    expect(gguf.order).toEqual((await converted(tiny)).gguf.order)
    expect(result.notes.join()).toMatch(/does not use.*head\.attention\.in_proj_weight/)
  })

  it('two models in one file are not mixed', async () => {
    const dir = changed((checkpoint) => {
      for (const [name, entry] of Object.entries({ ...checkpoint.header }))
        if (name !== '__metadata__') checkpoint.header[`module.${name}`] = entry
    })
    expect(await refusal(dir)).toMatchObject({ message: expect.stringMatching(/overlap|twice/) })
  })
})
