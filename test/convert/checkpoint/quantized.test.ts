/** Checkpoints that something else has quantized. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { quantizedBy, quantizedTensors } from '../../../lib/convert/checkpoint/quantized'
import { copyCheckpoint, editJson, removeTempDirs } from '../../support/convert-helpers'
import { hasGolden } from '../../support/golden'
import { tiny, refusal, changed, addTensor } from '../../support/checkpoint-variants'

afterEach(removeTempDirs)

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
    ['somebodys-own', { quantization_config: { quant_method: 'somebodys-own' } }],
    // as transformers, unsloth, AutoGPTQ, GPTQModel, AutoAWQ, mlx-vlm, torchao, llm-compressor, vLLM and ModelOpt write
    [
      'bitsandbytes (4 bits)',
      { quantization_config: { _load_in_4bit: true, _load_in_8bit: false, bnb_4bit_quant_type: 'nf4' } }
    ],
    ['bitsandbytes (4 bits)', { quantization_config: { quant_method: 'BITS_AND_BYTES', load_in_4bit: true } }],
    ['bitsandbytes', { quantization_config: { quant_method: 'QuantizationMethod.BITS_AND_BYTES' } }],
    [
      'GPTQ (4 bits)',
      {
        quantization_config: { quant_method: 'gptq', bits: 4, checkpoint_format: 'gptq_v2', meta: {}, sym: true }
      }
    ],
    ['GPTQ (8 bits)', { quantization_config: { bits: 8, damp_percent: 0.1, desc_act: true, group_size: 128 } }],
    ['AWQ (4 bits)', { quantization_config: { zero_point: true, q_group_size: 128, w_bit: 4, version: 'GEMM' } }],
    ['AWQ (4 bits)', { quantization_config: { quant_method: 'awq', bits: 4, version: 'gemm', zero_point: true } }],
    [
      'MLX (4 bits)',
      {
        quantization: { group_size: 64, bits: 4, mode: 'affine', 'vision_tower.x': false },
        quantization_config: { group_size: 64, bits: 4 }
      }
    ],
    ['MLX (8 bits)', { quantization_config: { group_size: 32, bits: 8 } }],
    ['torchao', { quantization_config: { quant_method: 'torchao', quant_type: 'int4_weight_only' } }],
    [
      'torchao',
      { quantization_config: { quant_type: { default: { _type: 'Int8WeightOnlyConfig', _version: 2, _data: {} } } } }
    ],
    [
      'compressed-tensors',
      { quantization_config: { config_groups: { group_0: {} }, format: 'float-quantized', ignore: ['lm_head'] } }
    ],
    [
      'FP8',
      { quantization_config: { quant_method: 'fp8', activation_scheme: 'dynamic', weight_block_size: [128, 128] } }
    ],
    ['FP8 (fbgemm_fp8)', { quantization_config: { quant_method: 'fbgemm_fp8', activation_scale_ub: 1200 } }],
    ['NVIDIA ModelOpt (modelopt)', { quantization_config: { quant_method: 'modelopt', quant_algo: 'NVFP4' } }],
    ['EXL3 (2.6 bits)', { quantization_config: { quant_method: 'exl3', bits: 2.6, head_bits: 4 } }],
    ['HIGGS (4 bits)', { text_config: { quantization_config: { quant_method: 'higgs', bits: 4 } } }]
  ])('%s is told from config.json', (method, config) => {
    expect(quantizedBy(config)).toBe(method)
  })

  it.each<[string, unknown]>([
    ['null', { quantization_config: null }],
    ['empty', { quantization_config: {} }],
    ['none', { quantization_config: { quant_method: 'none' } }],
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
