/**
 * PEFT adapters in every form that PEFT writes: what they change, and what is refused by name. Merged without the
 * addon.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readAdapters } from '../../../lib/api/options/adapters'
import { convert } from '../../../lib/convert'
import { readPeft } from '../../../lib/convert/adapters/peft'
import { readGguf, removeTempDirs, sourceFloats, tempDir, writeSafetensors } from '../../support/convert-helpers'
import { golden, hasGolden } from '../../support/golden'

afterAll(removeTempDirs)

interface Tensor {
  shape: number[]
  data: Float32Array
  dtype?: 'F32' | 'BF16' | 'I64'
}

const base = golden('hf', 'pg1-tiny')
const hidden = 64
const vocab = 2048
const embedName = 'language_model.model.embed_tokens'
const values = (count: number, seed: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.fround(Math.sin(seed + i * 0.7)))
const tensor = (shape: number[], seed: number): Tensor => ({
  shape,
  data: values(
    shape.reduce((product, n) => product * n, 1),
    seed
  )
})

function bytesOf({ data, dtype }: Tensor): Buffer {
  if (dtype === 'I64') return Buffer.from(BigInt64Array.from(data, BigInt).buffer)
  const bits = new Uint32Array(new Float32Array(data).buffer)
  return dtype === 'BF16'
    ? Buffer.from(Uint16Array.from(bits, (one) => (one + 0x7fff + ((one >>> 16) & 1)) >>> 16).buffer)
    : Buffer.from(bits.buffer)
}

function writeWeights(path: string, tensors: Record<string, Tensor>): void {
  const header: Parameters<typeof writeSafetensors>[1]['header'] = {}
  const parts: Buffer[] = []
  let end = 0
  for (const [name, one] of Object.entries(tensors)) {
    const bytes = bytesOf(one)
    header[name] = { dtype: one.dtype ?? 'F32', shape: one.shape, data_offsets: [end, (end += bytes.length)] }
    parts.push(bytes)
  }
  writeSafetensors(path, { header, data: Buffer.concat(parts) })
}

/** Every field that PEFT 0.19 writes, at its default. */
const defaults = {
  ...{ alora_invocation_tokens: null, alpha_pattern: {}, arrow_config: null, auto_mapping: null, bias: 'none' },
  ...{ base_model_name_or_path: 'org/base', corda_config: null, ensure_weight_tying: false, eva_config: null },
  ...{ exclude_modules: null, fan_in_fan_out: false, inference_mode: true, init_lora_weights: true },
  ...{ layer_replication: null, layers_pattern: null, layers_to_transform: null, loftq_config: {}, lora_alpha: 4 },
  ...{ lora_bias: false, lora_dropout: 0.05, megatron_config: null, megatron_core: 'megatron.core' },
  ...{ modules_to_save: null, peft_type: 'LORA', peft_version: '0.19.0', qalora_group_size: 16, r: 2 },
  ...{ rank_pattern: {}, revision: null, target_modules: ['q_proj'], target_parameters: null, task_type: 'CAUSAL_LM' },
  ...{ trainable_token_indices: null, use_bdlora: null, use_dora: false, use_qalora: false, use_rslora: false }
}
const query = 'language_model.model.layers.1.self_attn.q_proj'
const pair = { a: tensor([2, hidden], 1), b: tensor([128, 2], 2) }
const lora = (module = `base_model.model.${query}`, suffix = ''): Record<string, Tensor> => ({
  [`${module}.lora_A${suffix}.weight`]: pair.a,
  [`${module}.lora_B${suffix}.weight`]: pair.b
})

function adapter(tensors: Record<string, Tensor> | undefined, config: Record<string, unknown> = {}): string {
  const dir = join(tempDir(), 'adapter')
  mkdirSync(dir)
  writeFileSync(join(dir, 'adapter_config.json'), JSON.stringify({ ...defaults, ...config }))
  if (tensors) writeWeights(join(dir, 'adapter_model.safetensors'), tensors)
  return dir
}

async function merged(path: string): Promise<(name: string) => Float32Array> {
  const out = join(tempDir(), 'merged.gguf')
  await convert({ source: base, out, type: 'f32', adapters: [path] }, { verify: false })
  const { tensors } = readGguf(out)
  return (name) => new Float32Array(Uint8Array.from(tensors.get(name)!.bytes).buffer)
}

/** The error of loading beside the weights and that of merging. */
async function refusals(path: string): Promise<{ code: string; message: string }[]> {
  const fails = async (work: Promise<unknown>) =>
    (await work.then(
      () => ({ code: 'none', message: 'it was used' }),
      (error: unknown) => error
    )) as { code: string; message: string }
  return await Promise.all([fails(readAdapters([{ path, file: path }])), fails(merged(path))])
}
async function expectRefused(path: string, code: string, words: RegExp): Promise<void> {
  const [loading, merging] = await refusals(path)
  expect(loading).toMatchObject({ code, message: expect.stringMatching(words) })
  expect(merging!.message).toBe(loading!.message)
}

const baseQuery = hasGolden ? sourceFloats(base, `${query}.weight`) : new Float32Array()
const expectedQuery = (scale: number): Float32Array =>
  baseQuery.map((value, i) => {
    const [row, col] = [Math.floor(i / hidden), i % hidden]
    let sum = 0
    for (let r = 0; r < 2; r++) sum += Math.fround(pair.b.data[row * 2 + r]! * scale) * pair.a.data[r * hidden + col]!
    return value + sum
  })
const near = (a: Float32Array, b: Float32Array): boolean => a.every((value, i) => Math.abs(value - b[i]!) < 1e-5)

describe.skipIf(!hasGolden)('settings of an adapter', () => {
  it.each([
    ['every default', {}],
    ['eva', { init_lora_weights: 'eva', eva_config: { rho: 2 } }],
    ['orthogonal', { init_lora_weights: 'orthogonal' }],
    ['gaussian', { init_lora_weights: 'gaussian' }],
    ['false', { init_lora_weights: false }],
    ['null', { init_lora_weights: null }],
    ['fan_in_fan_out, which PEFT turns off for linear layers', { fan_in_fan_out: true }],
    ['trained elsewhere', { target_modules: '.*q_proj', layers_to_transform: [1], bias: 'all', lora_dropout: 0.3 }],
    ['written by ms-swift', { swift_type: 'LORA', lora_dtype: 'fp32', lorap_lr_ratio: 16, lorap_emb_lr: 1e-6 }],
    [
      'by names of the modules',
      {
        exclude_modules: '.*vision.*',
        layers_pattern: 'layers',
        layers_to_transform: 1,
        auto_mapping: { unsloth_fixed: true }
      }
    ],
    ['unknown fields that are off', { new_one: null, another: false, list: [], table: {} }]
  ])('that leave the numbers alone: %s', async (_, config) => {
    const get = await merged(adapter(lora(), config))
    expect(near(get('blk.1.attn_q.weight'), expectedQuery(2))).toBe(true)
  })

  it.each([
    [{ use_rslora: true }, 4 / Math.sqrt(2)],
    [{ lora_alpha: 3 }, 1.5],
    [{ alpha_pattern: { 'layers.1.self_attn.q_proj': 6 } }, 3],
    [{ alpha_pattern: { 'self_attn.q': 6, '.*layers\\.(0|1)\\..*q_proj': 8 } }, 4],
    [{ r: 8, rank_pattern: { q_proj: 2 } }, 2],
    [{ alpha_pattern: { '^language_model\\.model\\.layers\\.[01]\\.self_attn\\.(?:q|k)_proj': 5 } }, 2.5],
    [{ alpha_pattern: { 'layers.0.self_attn.q_proj': 9, proj: 9, 'layers\\.\\d+\\..*': 3 } }, 1.5],
    [{ r: 8, rank_pattern: { '.*\\.1\\..*_proj$': 2 }, use_rslora: true }, 4 / Math.sqrt(2)],
    [{ lora_alpha: 0.5, alpha_pattern: {}, rank_pattern: null }, 0.25]
  ])('that change the factor: %j', async (config, scale) => {
    const get = await merged(adapter(lora(), config))
    expect(near(get('blk.1.attn_q.weight'), expectedQuery(scale))).toBe(true)
  })

  it.each(['pissa', 'pissa_niter_16', 'pissa_niter_4', 'olora', 'OLoRA', 'loftq', 'corda', 'lora_ga', 'something_new'])(
    'that begin by changing the base are refused: init_lora_weights %s',
    async (init_lora_weights) => {
      await expectRefused(
        adapter(lora(), { init_lora_weights }),
        'ERR_MODEL_UNSUPPORTED',
        new RegExp(`adapter_config\\.json: init_lora_weights is "${init_lora_weights}".*merge`)
      )
    }
  )

  it.each([
    { use_dora: true },
    { lora_bias: true },
    { use_qalora: true },
    { alora_invocation_tokens: [5, 6] },
    { layer_replication: [[0, 2]] },
    { target_parameters: ['q_proj.weight'] },
    { use_bdlora: { nblocks: 2 } },
    { arrow_config: { top_k: 2 } },
    { use_qa_lora: true },
    { use_merged_linear: true },
    { megatron_config: { tp: 2 } },
    { something_new: 'on' },
    { another_scale: 0 },
    { peft_type: 'LOHA' }
  ])('that change what is computed are refused by name: %j', async (config) => {
    const [name] = Object.keys(config)
    await expectRefused(
      adapter(lora(), config),
      'ERR_MODEL_UNSUPPORTED',
      new RegExp(`adapter_config\\.json: ${name} is`)
    )
  })

  it('that do not fit the weights are refused by name', async () => {
    await expectRefused(adapter(lora(), { r: 8 }), 'ERR_MODEL_INVALID', /r says rank 8 for .*q_proj.*2 rows/)
    await expectRefused(
      adapter(lora(), { rank_pattern: { q_proj: 3 } }),
      'ERR_MODEL_INVALID',
      /rank_pattern says rank 3/
    )
    await expectRefused(adapter(lora(), { init_lora_weights: 1 }), 'ERR_MODEL_UNSUPPORTED', /init_lora_weights/)
    await expectRefused(adapter(lora(), { alpha_pattern: { '(': 1 } }), 'ERR_MODEL_INVALID', /alpha_pattern.*"\("/)
  })

  it('with values that are no numbers are refused by file and tensor, loaded or merged', async () => {
    const broken = lora()
    const name = `base_model.model.${query}.lora_B.weight`
    broken[name] = { ...pair.b, data: pair.b.data.map((value, i) => (i === 5 ? NaN : value)) }
    await expectRefused(
      adapter(broken),
      'ERR_MODEL_INVALID',
      /adapter_model\.safetensors: tensor .*lora_B\.weight holds NaN/
    )
  })

  it('with tensors that no PaliGemma has, or no matrices, are refused by name', async () => {
    const whole = `base_model.model.${query}`
    for (const [tensors, name] of [
      [{ ...lora(), [`${whole}.ia3_l`]: tensor([1, 128], 3) }, 'ia3_l'],
      [{ ...lora(), [`${whole}.bias`]: tensor([128], 3) }, 'q_proj.bias'],
      [{ ...lora(), [`${whole}.lora_A.weight`]: tensor([], 3) }, 'lora_A.weight']
    ] as const)
      await expectRefused(adapter(tensors), 'ERR_MODEL_UNSUPPORTED', new RegExp(name.replace('.', '\\.')))
  })

  it('with a pattern that would match for ever are refused soon', async () => {
    await expectRefused(
      adapter(lora(), { alpha_pattern: { '(([a-z_.0-9]+)*)*X': 1 } }),
      'ERR_MODEL_INVALID',
      /alpha_pattern.*more than 100 ms/
    )
  })
})

describe.skipIf(!hasGolden)('names of tensors', () => {
  it.each([
    ['as saved', `base_model.model.${query}`, ''],
    ["with the adapter's name", `base_model.model.${query}`, '.default'],
    ['with an odd name', `base_model.model.${query}`, '.my adapter-2'],
    ['of transformers 5', 'base_model.model.model.language_model.layers.1.self_attn.q_proj', ''],
    ['without a prefix', query, '.default'],
    ['of a wrapped model', `module.base_model.model.${query}`, ''],
    ['of a compiled model', `_orig_mod.base_model.model.${query}`, ''],
    ['of compiled layers', 'base_model.model.language_model.model.layers.1._orig_mod.self_attn.q_proj', '.default'],
    ['wrapped twice', `base_model.model.base_model.model.${query}`, '']
  ])('%s', async (_, module, suffix) => {
    const get = await merged(adapter(lora(module, suffix)))
    expect(near(get('blk.1.attn_q.weight'), expectedQuery(2))).toBe(true)
  })

  it.each([
    ['base_model.model.multi_modal_projector.linear.bias', 'mm.0.bias', [hidden]],
    ['base_model.model.multi_modal_projector.modules_to_save.default.linear.bias', 'mm.0.bias', [hidden]],
    ['base_model.model.multi_modal_projector.modules_to_save.linear.bias', 'mm.0.bias', [hidden]],
    ['base_model.model.model.multi_modal_projector.linear.weight', 'mm.0.weight', [hidden, 48]],
    ['base_model.model.vision_tower.modules_to_save.default.vision_model.post_layernorm.bias', 'v.post_ln.bias', [48]],
    [
      'base_model.model.vision_tower.vision_model.embeddings.position_embedding.weight',
      'v.position_embd.weight',
      [16, 48]
    ],
    [
      'base_model.model.language_model.model.layers.0.mlp.up_proj.modules_to_save.default.weight',
      'blk.0.ffn_up.weight',
      [160, hidden]
    ],
    [`base_model.model.${embedName}.modules_to_save.default.weight`, 'token_embd.weight', [vocab, hidden]],
    [
      `base_model.model.${query.replace('q_proj', 'o_proj')}.base_layer.weight`,
      'blk.1.attn_output.weight',
      [hidden, 128]
    ]
  ])('whole tensors: %s', async (name, gguf, shape) => {
    const replacement = tensor(shape, 5)
    const path = adapter({ ...lora(), [name]: replacement }, { modules_to_save: ['x'] })
    expect(near((await merged(path))(gguf), replacement.data)).toBe(true)
    const [loading] = await refusals(path)
    expect(loading).toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/paligemma convert BASE --adapter/)
    })
  })

  it('norms get the 1 that the engine counts in', async () => {
    const norm = tensor([hidden], 3)
    const get = await merged(adapter({ ...lora(), 'base_model.model.language_model.model.norm.weight': norm }))
    expect(
      near(
        get('output_norm.weight'),
        norm.data.map((value) => value + 1)
      )
    ).toBe(true)
  })

  it('buffers, copies of the base and unused parts are left out', async () => {
    const dir = adapter({
      ...lora(),
      'base_model.model.vision_tower.vision_model.embeddings.position_ids': {
        shape: [1],
        data: Float32Array.of(3),
        dtype: 'I64'
      },
      'base_model.model.vision_tower.vision_model.head.probe': tensor([1, 1, 48], 1),
      'base_model.model.multi_modal_projector.original_module.linear.bias': tensor([hidden], 1)
    })
    const { replaced, updates } = await readPeft(dir)
    expect([replaced.size, updates.length]).toEqual([0, 1])
  })
})

describe.skipIf(!hasGolden)('the embedding and the head that shares it', () => {
  const whole = tensor([vocab, hidden], 9)
  const rounded: Tensor = { ...whole, dtype: 'BF16' }
  const embed = `base_model.model.${embedName}.weight`
  const head = 'base_model.model.language_model.lm_head.weight'

  it.each([
    ['a copy', { [embed]: whole, [head]: whole }],
    ['a copy in another type', { [embed]: whole, [head]: rounded }],
    [
      'names of transformers 5',
      { 'base_model.model.model.language_model.embed_tokens.weight': whole, 'base_model.model.lm_head.weight': whole }
    ],
    [
      'copies as modules_to_save',
      {
        [`base_model.model.${embedName}.modules_to_save.default.weight`]: whole,
        'base_model.model.lm_head.modules_to_save.default.weight': whole
      }
    ]
  ])('%s of the embedding is the embedding', async (_, tensors) => {
    const get = await merged(adapter({ ...lora(), ...(tensors as Record<string, Tensor>) }))
    expect(near(get('token_embd.weight'), whole.data)).toBe(true)
  })

  it('a head alone is the embedding only where the two were tied', async () => {
    const get = await merged(adapter({ ...lora(), [head]: whole }, { ensure_weight_tying: true }))
    expect(near(get('token_embd.weight'), whole.data)).toBe(true)
    await expectRefused(
      adapter({ ...lora(), [head]: whole }),
      'ERR_MODEL_UNSUPPORTED',
      /lm_head\.weight was trained without/
    )
    const other = { shape: whole.shape, data: whole.data.map((value, i) => value + (i === 77_777 ? 0.01 : 0)) }
    await expectRefused(
      adapter({ ...lora(), [embed]: whole, [head]: other }),
      'ERR_MODEL_UNSUPPORTED',
      /lm_head\.weight differs/
    )
    await expectRefused(adapter(lora('base_model.model.lm_head')), 'ERR_MODEL_UNSUPPORTED', /lm_head\.lora_A/)
  })

  it.each([
    ['a list', [700, 3, 31], 'token_adapter.trainable_tokens_delta', {}],
    ['a list, in-memory names', [700, 3, 31], 'token_adapter.trainable_tokens_delta.default', {}],
    ['by module', { embed_tokens: [700, 3, 31] }, 'token_adapter.trainable_tokens_delta', {}],
    ['by module path', { 'model.embed_tokens': [700, 3, 31] }, 'token_adapter.trainable_tokens_delta', {}],
    [
      'the method TRAINABLE_TOKENS',
      null,
      'trainable_tokens_delta',
      { peft_type: 'TRAINABLE_TOKENS', token_indices: [700, 3, 31] }
    ]
  ])('rows of single tokens replace the rows: %s', async (_, trainable_token_indices, suffix, more) => {
    const rows = tensor([3, hidden], 4)
    const path = adapter(
      { ...lora(), [`base_model.model.${embedName}.${suffix}`]: rows },
      { trainable_token_indices, ...more }
    )
    const want = sourceFloats(base, `${embedName}.weight`)
    for (const [i, token] of [700, 3, 31].entries())
      want.set(rows.data.subarray(i * hidden, (i + 1) * hidden), token * hidden)
    const get = await merged(path)
    expect(get('token_embd.weight')).toEqual(want)
    expect(near(get('blk.1.attn_q.weight'), expectedQuery(2))).toBe(true)
    const [loading] = await refusals(path)
    expect(loading!.message).toMatch(/3 rows of the embedding.*paligemma convert/)
  })

  it('rows replace those of an embedding that was saved with them, and copies for the head say nothing', async () => {
    const rows = tensor([1, hidden], 4)
    const delta = 'token_adapter.trainable_tokens_delta'
    const path = adapter(
      {
        [`base_model.model.${embedName}.token_adapter.base_layer.weight`]: whole,
        [`base_model.model.${embedName}.${delta}`]: rows,
        [`base_model.model.lm_head.${delta}`]: rows
      },
      { trainable_token_indices: { embed_tokens: [5], lm_head: [5] } }
    )
    const want = Float32Array.from(whole.data)
    want.set(rows.data, 5 * hidden)
    expect((await merged(path))('token_embd.weight')).toEqual(want)
  })

  it('rows that do not fit are refused, naming the field', async () => {
    const rows = (count: number, indices: unknown, width = hidden) =>
      adapter(
        {
          ...lora(),
          [`base_model.model.${embedName}.token_adapter.trainable_tokens_delta`]: tensor([count, width], 1)
        },
        { trainable_token_indices: indices }
      )
    const code = 'ERR_MODEL_INVALID'
    await expectRefused(rows(2, [1]), code, /trainable_token_indices lists 1 tokens/)
    await expectRefused(rows(2, [1, 1]), code, /repetitions for trainable_token_indices/)
    await expectRefused(rows(1, [-1]), code, /trainable_token_indices/)
    await expectRefused(rows(1, null), code, /trainable_token_indices does not say/)
    await expect(merged(rows(1, [vocab]))).rejects.toMatchObject({
      code,
      message: expect.stringMatching(/token 2048.*2048 rows/)
    })
    await expect(merged(rows(1, [1], 32))).rejects.toMatchObject({ code, message: expect.stringMatching(/32 values/) })
    const head = { 'base_model.model.lm_head.token_adapter.trainable_tokens_delta': tensor([1, hidden], 1) }
    await expectRefused(
      adapter({ ...lora(), ...head }, { trainable_token_indices: { lm_head: [1] } }),
      'ERR_MODEL_UNSUPPORTED',
      /lm_head's trained tokens/
    )
  })
})

describe('where an adapter lies', () => {
  const files = (dir: string, ...names: string[]): void => {
    for (const name of names) {
      mkdirSync(join(dir, name, '..'), { recursive: true })
      writeFileSync(join(dir, name), '{}')
    }
  }

  it.skipIf(!hasGolden)("a folder of the adapter's name inside the given one is found", async () => {
    for (const inside of ['default', 'receipts', join('saved', 'default')]) {
      const dir = tempDir()
      mkdirSync(join(dir, inside), { recursive: true })
      for (const name of ['adapter_config.json', 'adapter_model.safetensors'])
        writeFileSync(join(dir, inside, name), readFileSync(join(adapter(lora()), name)))
      writeFileSync(join(dir, 'README.md'), '')
      expect(near((await merged(dir))('blk.1.attn_q.weight'), expectedQuery(2))).toBe(true)
      expect((await readAdapters([{ path: dir, file: dir }])).adapters[0]).toMatchObject({
        name: dir,
        tensors: expect.anything()
      })
    }
  })

  it('several of them are listed', async () => {
    const dir = tempDir()
    files(dir, 'one/adapter_config.json', 'two/adapter_config.json')
    await expectRefused(dir, 'ERR_MODEL_NOT_FOUND', /several adapters: one, two; name one/)
  })

  it('pickled weights are named, with the way out', async () => {
    const dir = adapter(undefined)
    files(dir, 'adapter_model.bin')
    await expectRefused(dir, 'ERR_MODEL_UNSUPPORTED', /adapter_model\.bin.*pickled.*save_pretrained/)
    await expectRefused(join(dir, 'adapter_model.bin'), 'ERR_MODEL_UNSUPPORTED', /adapter_model\.bin.*pickled/)
    await expectRefused(adapter(undefined), 'ERR_MODEL_NOT_FOUND', /adapter_model\.safetensors does not exist/)
  })

  it('folders of other things are told', async () => {
    const model = tempDir()
    files(model, 'config.json', 'model.safetensors')
    await expectRefused(model, 'ERR_MODEL_NOT_FOUND', /adapter_config\.json.*whole model.*paligemma convert/)
    const half = tempDir()
    files(half, 'adapter_model.safetensors')
    await expectRefused(half, 'ERR_MODEL_NOT_FOUND', /adapter_config\.json.*download it too/)
    await expectRefused(tempDir(), 'ERR_MODEL_NOT_FOUND', /adapter_config\.json/)
  })
})
