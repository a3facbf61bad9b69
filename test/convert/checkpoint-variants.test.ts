/** Checkpoints as trainers, newer libraries and strangers write them. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import { quantizedBy, quantizedTensors } from '../../lib/convert/checkpoint/quantized'
import {
  copyCheckpoint,
  edit,
  editJson,
  readGguf,
  removeTempDirs,
  tempDir,
  type TestCheckpoint
} from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'

afterEach(removeTempDirs)

const tiny = golden('hf', 'pg1-tiny')
const quantizeRows = async (data: Uint8Array) => data

async function converted(dir: string) {
  const out = join(tempDir(), 'model.gguf')
  const result = await convert({ source: dir, out, type: 'f32' }, { quantizeRows, verify: false })
  return { result, gguf: readGguf(out) }
}

/** The error of a conversion, which must be the package's own. */
async function refusal(dir: string): Promise<{ code: string; message: string }> {
  const error = await converted(dir).then(
    () => undefined,
    (reason: unknown) => reason
  )
  expect(error).toMatchObject({ name: 'PaliGemmaError' })
  return error as { code: string; message: string }
}

function changed(change: (checkpoint: TestCheckpoint) => void): string {
  const dir = copyCheckpoint(tiny)
  edit(dir, change)
  return dir
}

function addTensor(checkpoint: TestCheckpoint, name: string, dtype: string, shape: number[], data: Uint8Array): void {
  const at = checkpoint.data.length
  checkpoint.data = Buffer.concat([checkpoint.data, data])
  checkpoint.header[name] = { dtype, shape, data_offsets: [at, at + data.length] }
}

const embedding = 'language_model.model.embed_tokens.weight'
const width = 64

/** The embedding's rows from the start on, as float32. */
function embeddingRows({ header, data }: TestCheckpoint, rows: number): Float32Array {
  const [begin] = header[embedding]!.data_offsets as [number]
  return new Float32Array(Uint8Array.from(data.subarray(begin, begin + rows * width * 4)).buffer)
}

function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
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
  const withHead = (dtype: string, convertTo: (values: Float32Array) => Float32Array | Uint16Array, rows = 2048) =>
    changed((checkpoint) => {
      const values = convertTo(embeddingRows(checkpoint, rows))
      addTensor(checkpoint, 'language_model.lm_head.weight', dtype, [values.length / width, width], bytesOf(values))
    })
  const same = (values: Float32Array) => values

  it.each<[string, () => string]>([
    ['in the same type', () => withHead('F32', same)],
    ['in bfloat16', () => withHead('BF16', bfloat16)],
    ['in float16', () => withHead('F16', float16)],
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
  ])('%s is left out, with a note', async (_name, make) => {
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

describe('a quantized checkpoint', () => {
  it.each<[string, unknown]>([
    ['bitsandbytes (4 bits)', { quantization_config: { quant_method: 'bitsandbytes', load_in_4bit: true } }],
    ['bitsandbytes (8 bits)', { quantization_config: { load_in_8bit: true } }],
    ['GPTQ (4 bits)', { quantization_config: { quant_method: 'gptq', bits: 4, desc_act: false } }],
    ['AWQ (4 bits)', { text_config: { quantization_config: { quant_method: 'awq', bits: 4 } } }],
    ['MLX (4 bits)', { quantization: { group_size: 64, bits: 4 } }],
    ['torchao', { quantization_config: { quant_method: 'torchao', quant_type: { default: {} } } }],
    ['compressed-tensors', { quantization_config: { quant_method: 'compressed-tensors', format: 'pack-quantized' } }],
    ['compressed-tensors', { compression_config: { config_groups: {} } }],
    ['FP8', { quantization_config: { quant_method: 'fp8' } }],
    ['quanto', { quantization_config: { quant_method: 'quanto', weights: 'int8' } }],
    ['EETQ', { quantization_config: { quant_method: 'eetq' } }],
    ['HQQ', { vlm_config: { quantization_config: { quant_method: 'hqq' } } }],
    ['NVIDIA ModelOpt (modelopt)', { quantization_config: { quant_algo: 'FP8', producer: { name: 'modelopt' } } }],
    ['somebodys-own', { quantization_config: { quant_method: 'somebodys-own' } }]
  ])('%s is told from config.json', (method, config) => {
    expect(quantizedBy(config)).toBe(method)
  })

  it.each<[string, unknown]>([
    ['null', { quantization_config: null }],
    ['empty', { quantization_config: {} }],
    [
      'switched off',
      { quantization_config: { quant_method: 'bitsandbytes', load_in_4bit: false, load_in_8bit: false } }
    ],
    ['a plain config', { torch_dtype: 'bfloat16', dtype: 'bfloat16' }]
  ])('%s is none', (_name, config) => {
    expect(quantizedBy(config)).toBeUndefined()
  })

  it.each<[string, { name: string; type: string }[]]>([
    [
      'bitsandbytes (4 bits)',
      [
        { name: 'a.weight', type: 'U8' },
        { name: 'a.weight.quant_state.bitsandbytes__nf4', type: 'U8' }
      ]
    ],
    [
      'bitsandbytes (8 bits)',
      [
        { name: 'a.weight', type: 'I8' },
        { name: 'a.SCB', type: 'F32' }
      ]
    ],
    [
      'GPTQ',
      [
        { name: 'a.qweight', type: 'I32' },
        { name: 'a.g_idx', type: 'I32' }
      ]
    ],
    [
      'AWQ',
      [
        { name: 'a.qweight', type: 'I32' },
        { name: 'a.qzeros', type: 'I32' }
      ]
    ],
    [
      'MLX',
      [
        { name: 'a.weight', type: 'U32' },
        { name: 'a.scales', type: 'F16' },
        { name: 'a.biases', type: 'F16' }
      ]
    ],
    [
      'compressed-tensors',
      [
        { name: 'a.weight_packed', type: 'I32' },
        { name: 'a.weight_scale', type: 'BF16' }
      ]
    ],
    ['FP8', [{ name: 'a.weight', type: 'F8_E4M3' }]],
    [
      'quanto',
      [
        { name: 'a.weight._data', type: 'I8' },
        { name: 'a.weight._scale', type: 'F16' }
      ]
    ],
    [
      'EETQ',
      [
        { name: 'a.weight', type: 'I8' },
        { name: 'a.weight_scales', type: 'F16' }
      ]
    ],
    ['HQQ', [{ name: 'a.W_q', type: 'U8' }]]
  ])('%s is told from the tensors where config.json is silent', (method, tensors) => {
    expect(quantizedTensors(tensors)).toBe(method)
  })

  it.skipIf(!hasGolden)('is refused before the weights have to be there, and says what to use instead', async () => {
    for (const name of ['config.json', 'quantize_config.json']) {
      const dir = copyCheckpoint(tiny)
      rmSync(join(dir, 'model.safetensors'))
      if (name === 'config.json')
        editJson(dir, name, (json) => {
          json.quantization_config = { quant_method: 'gptq', bits: 4 }
        })
      else writeFileSync(join(dir, name), '{"bits":4}')
      const { code, message } = await refusal(dir)
      expect(code).toBe('ERR_MODEL_UNSUPPORTED')
      expect(message).toMatch(/GPTQ.*original, unquantized model/)
    }
  })

  it.skipIf(!hasGolden)('with a silent config.json is refused from its tensors', async () => {
    const dir = changed((checkpoint) =>
      addTensor(checkpoint, 'language_model.model.layers.0.mlp.up_proj.SCB', 'F32', [1], new Uint8Array(4))
    )
    expect(await refusal(dir)).toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringContaining('bitsandbytes (8 bits)')
    })
  })
})

describe.skipIf(!hasGolden)("the processor's settings", () => {
  const preprocessor = JSON.parse(hasGolden ? readFileSync(join(tiny, 'preprocessor_config.json'), 'utf8') : '{}')
  const withSettings = (settings: object, nested = false) => {
    const dir = copyCheckpoint(tiny)
    const all = { ...preprocessor, ...settings }
    if (nested) {
      rmSync(join(dir, 'preprocessor_config.json'))
      writeFileSync(join(dir, 'processor_config.json'), JSON.stringify({ image_processor: all, image_seq_length: 16 }))
    } else writeFileSync(join(dir, 'preprocessor_config.json'), JSON.stringify(all))
    return dir
  }
  const close = (values: unknown, wanted: number[]) =>
    (values as number[]).forEach((value, i) => expect(value).toBeCloseTo(wanted[i]!, 5))

  it.each<[string, object, number[], number[]]>([
    ['the usual', {}, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]],
    ['do_normalize: false', { do_normalize: false }, [0, 0, 0], [1, 1, 1]],
    [
      'other means',
      { image_mean: [0.48, 0.45, 0.4], image_std: [0.26, 0.27, 0.28] },
      [0.48, 0.45, 0.4],
      [0.26, 0.27, 0.28]
    ],
    ['one number for all channels', { image_mean: 0.4, image_std: 0.25 }, [0.4, 0.4, 0.4], [0.25, 0.25, 0.25]],
    // v / 127.5 - 1
    [
      'another factor',
      { rescale_factor: 1 / 127.5, image_mean: [1, 1, 1], image_std: [1, 1, 1] },
      [0.5, 0.5, 0.5],
      [0.5, 0.5, 0.5]
    ],
    [
      'do_rescale: false',
      { do_rescale: false, image_mean: [127.5, 127.5, 127.5], image_std: [127.5, 127.5, 127.5] },
      [0.5, 0.5, 0.5],
      [0.5, 0.5, 0.5]
    ]
  ])('%s: obeyed, in either file', async (_name, settings, mean, std) => {
    for (const nested of [false, true]) {
      const { metadata } = (await converted(withSettings(settings, nested))).gguf
      close(metadata.get('clip.vision.image_mean'), mean)
      close(metadata.get('clip.vision.image_std'), std)
    }
  })

  it('nested ones count before those of preprocessor_config.json', async () => {
    const dir = withSettings({ resample: 3 })
    writeFileSync(
      join(dir, 'processor_config.json'),
      JSON.stringify({ image_processor: { ...preprocessor, resample: 2 } })
    )
    expect((await converted(dir)).gguf.metadata.get('paligemma.image.resize')).toBe('bilinear')
  })

  it.each<[string, object]>([
    ['do_resize', { do_resize: false }],
    ['do_center_crop', { do_center_crop: true, crop_size: 56 }],
    ['do_pad', { do_pad: true }],
    ['resample', { resample: 1 }],
    ['size', { size: { shortest_edge: 56 } }],
    ['size', { size: { height: 56, width: 28 } }],
    ['size', { size: { height: 224, width: 224 } }],
    ['image_processor_type', { image_processor_type: 'CLIPImageProcessor' }]
  ])('%s that the engine cannot obey is refused by file and field', async (field, settings) => {
    const { code, message } = await refusal(withSettings(settings))
    expect(code).toBe('ERR_MODEL_UNSUPPORTED')
    expect(message).toContain(`preprocessor_config.json: ${field} is`)
    expect((await refusal(withSettings(settings, true))).message).toContain(
      `processor_config.json: image_processor.${field} is`
    )
  })

  it('that give no finite pixels are refused by name', async () => {
    for (const settings of [
      { image_std: [0, 0, 0] },
      { image_std: [1e-30, 1, 1] },
      { rescale_factor: 1e-300 },
      { rescale_factor: 1e300 },
      { image_mean: [0.5, 0.5] }
    ])
      expect(await refusal(withSettings(settings))).toMatchObject({
        code: 'ERR_MODEL_INVALID',
        message: expect.stringContaining(Object.keys(settings)[0]!)
      })
  })

  it.each<[string, object]>([
    ['rope_scaling { type: default }', { rope_scaling: { type: 'default' } }],
    ['rope_scaling { rope_type: default }', { rope_scaling: { rope_type: 'default' } }],
    ['rope_parameters', { rope_parameters: { rope_type: 'default', rope_theta: 10000 } }],
    [
      'rope_parameters per layer type',
      { rope_parameters: { full_attention: { rope_type: 'default', rope_theta: 10000 } } }
    ]
  ])('%s changes nothing', async (_name, text) => {
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'config.json', (json) => Object.assign(json.text_config, text, { dtype: 'float32' }))
    expect((await converted(dir)).gguf.metadata).toEqual((await converted(copyCheckpoint(tiny))).gguf.metadata)
  })

  it.each(['linear', 'dynamic', 'yarn', 'llama3'])('rope_scaling of type %s is refused by name', async (type) => {
    for (const key of ['rope_scaling', 'rope_parameters']) {
      const dir = copyCheckpoint(tiny)
      editJson(dir, 'config.json', (json) => {
        json.text_config[key] = { rope_type: type, factor: 2 }
      })
      expect(await refusal(dir)).toMatchObject({
        code: 'ERR_MODEL_UNSUPPORTED',
        message: expect.stringContaining(`${key}.rope_type`)
      })
    }
  })
})

describe.skipIf(!hasGolden)('numbers that no checkpoint has', () => {
  const odd = [1e9, 5e6, -1, 0, 2.5, 2 ** 32 + 3, 1e308, '3', null, [3], {}]
  const fields = [
    'hidden_size',
    'intermediate_size',
    'num_hidden_layers',
    'num_attention_heads',
    'num_key_value_heads',
    'head_dim'
  ]

  it.each(['text_config', 'vision_config'])('%s: every size is refused at once, by its name', async (config) => {
    const dir = copyCheckpoint(tiny)
    const whole = readFileSync(join(dir, 'config.json'), 'utf8')
    const start = performance.now()
    for (const field of [
      ...fields,
      ...(config === 'vision_config' ? ['image_size', 'patch_size'] : ['max_position_embeddings'])
    ]) {
      if (config === 'vision_config' && /head_dim|key_value/.test(field)) continue
      for (const value of odd) {
        if (value === null || (field === 'max_position_embeddings' && value === 5e6)) continue
        writeFileSync(join(dir, 'config.json'), whole)
        editJson(dir, 'config.json', (json) => {
          json[config][field] = value
        })
        const { code, message } = await refusal(dir)
        expect(code).toBe('ERR_MODEL_INVALID')
        expect(message, `${field} ${JSON.stringify(value)}`).toContain(field)
      }
    }
    expect(performance.now() - start).toBeLessThan(20_000)
  })

  it('sizes that the weights do not have are named, too', async () => {
    for (const [field, value] of [
      ['num_hidden_layers', 1024],
      ['hidden_size', 128],
      ['intermediate_size', 320]
    ] as const) {
      const dir = copyCheckpoint(tiny)
      editJson(dir, 'config.json', (json) => {
        json.text_config[field] = value
      })
      expect(await refusal(dir)).toMatchObject({
        message: expect.stringContaining(`text_config.${field} is ${value}, but the weights have`)
      })
    }
  })

  it.each<[string, unknown]>([
    ['rms_norm_eps', 1e300],
    ['rms_norm_eps', 1e-50],
    ['rms_norm_eps', 0],
    ['rope_theta', 1e300],
    ['rope_theta', -5],
    ['rope_theta', '10000']
  ])('text_config.%s = %s', async (field, value) => {
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'config.json', (json) => {
      json.text_config[field] = value
    })
    expect(await refusal(dir)).toMatchObject({ code: 'ERR_MODEL_INVALID', message: expect.stringContaining(field) })
  })

  it.each(['bos_token_id', 'eos_token_id', 'pad_token_id', 'image_token_index'])(
    '%s beyond the vocabulary',
    async (field) => {
      for (const value of [5e9, 2048, -1, 1.5]) {
        const dir = copyCheckpoint(tiny)
        rmSync(join(dir, 'generation_config.json'))
        editJson(dir, 'config.json', (json) => {
          json[field] = value
        })
        expect(await refusal(dir)).toMatchObject({ code: 'ERR_MODEL_INVALID', message: expect.stringContaining(field) })
      }
    }
  )

  it('a directory, or nesting without end, in place of a file or a number', async () => {
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'config.json', (json) => {
      json.text_config.hidden_size = 'deep'
    })
    const deep = '['.repeat(20_000) + ']'.repeat(20_000)
    writeFileSync(join(dir, 'config.json'), readFileSync(join(dir, 'config.json'), 'utf8').replace('"deep"', deep))
    expect(await refusal(dir)).toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining('hidden_size')
    })
    rmSync(join(dir, 'config.json'))
    mkdirSync(join(dir, 'config.json'))
    expect(await refusal(dir)).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('config.json')
    })
  })
})
