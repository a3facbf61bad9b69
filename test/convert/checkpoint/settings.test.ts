/** The processor's settings and numbers that no checkpoint has. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { copyCheckpoint, editJson, removeTempDirs } from '../../support/convert-helpers'
import { hasGolden } from '../../support/golden'
import { tiny, converted, refusal } from '../../support/checkpoint-variants'

afterEach(removeTempDirs)

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

  it('may be nested in preprocessor_config.json, too', async () => {
    const dir = copyCheckpoint(tiny)
    const nested = { image_processor: { ...preprocessor, resample: 2 }, processor_class: 'PaliGemmaProcessor' }
    writeFileSync(join(dir, 'preprocessor_config.json'), JSON.stringify(nested))
    expect((await converted(dir)).gguf.metadata.get('paligemma.image.resize')).toBe('bilinear')
    nested.image_processor = { ...preprocessor, do_center_crop: true }
    writeFileSync(join(dir, 'preprocessor_config.json'), JSON.stringify(nested))
    expect((await refusal(dir)).message).toContain('preprocessor_config.json: image_processor.do_center_crop is')
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

  it.each<[string, object]>([
    [
      'per layer type, with one base',
      {
        rope_parameters: {
          sliding_attention: { rope_type: 'default', rope_theta: 10000 },
          full_attention: { rope_type: 'default', rope_theta: 10000.0 }
        }
      }
    ],
    ['spelt twice', { rope_theta: 10000, rope_scaling: null, rope_parameters: { rope_theta: 10000 } }],
    ['with attention that sees the prompt whole', { use_bidirectional_attention: true, dtype: 'torch.bfloat16' }],
    ['with types by part', { dtype: { text_config: 'bfloat16' }, torch_dtype: null, use_bidirectional_attention: null }]
  ])('a text_config %s changes nothing', async (_name, text) => {
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'config.json', (json) => Object.assign(json.text_config, text))
    expect((await converted(dir)).gguf.metadata).toEqual((await converted(copyCheckpoint(tiny))).gguf.metadata)
  })

  it('attention and rotary positions that Gemma does not have are refused by name', async () => {
    const bases = { sliding_attention: { rope_theta: 10000 }, full_attention: { rope_theta: 1000000 } }
    for (const [name, text] of Object.entries({
      use_bidirectional_attention: { use_bidirectional_attention: false },
      rope_parameters: { rope_parameters: bases },
      'rope_parameters.partial_rotary_factor': { rope_parameters: { partial_rotary_factor: 0.5 } },
      'text_config.partial_rotary_factor': { partial_rotary_factor: 0.5 }
    })) {
      const dir = copyCheckpoint(tiny)
      editJson(dir, 'config.json', (json) => Object.assign(json.text_config, text))
      expect(await refusal(dir)).toMatchObject({
        code: 'ERR_MODEL_UNSUPPORTED',
        message: expect.stringContaining(name)
      })
    }
  })

  it('another vision tower is refused by name', async () => {
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'config.json', (json) => Object.assign(json.vision_config, { model_type: 'siglip2_vision_model' }))
    expect(await refusal(dir)).toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringContaining('vision_config.model_type is "siglip2_vision_model"')
    })
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

  it.each(['text_config', 'vision_config'])(
    '%s: every size is refused at once, by its name',
    { tags: ['slow'] },
    async (config) => {
      const dir = copyCheckpoint(tiny)
      const whole = readFileSync(join(dir, 'config.json'), 'utf8')
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
    }
  )

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
