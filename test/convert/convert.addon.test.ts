/** The converter with the engine's own quantizers, reader and tokenizer. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { convert, fileTypeNames, type ConvertOptions } from '../../lib/convert'
import { dequantizeTensor, inspectModel, loadMaskDecoder, loadModel, loadTokenizer } from '../../lib/index'
import { native } from '../../lib/engine/native'
import {
  copyCheckpoint,
  readGguf,
  readSafetensors,
  removeTempDirs,
  sourceFloats,
  tempDir,
  writeSafetensors
} from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'

afterAll(removeTempDirs)

const hf = (name: string) => golden('hf', name)

async function run(name: string, options: Partial<ConvertOptions> = {}) {
  const out = join(tempDir(), 'model.gguf')
  const result = await convert({ source: hf(name), out, ...options })
  return { out, result, info: await inspectModel(out, { maxArray: 0 }) }
}

const types = async (path: string) =>
  new Map((await inspectModel(path, { maxArray: 0 })).tensors.map(({ name, type }) => [name, type]))

describe.skipIf(!hasGolden)('converted vocabularies', () => {
  it.each(['pg1-tiny', 'pg2-tiny', 'pg2-tiny-sharded', 'pg2-k'])(
    "%s: the engine's tokenizer gives the reference's ids and texts",
    async (name) => {
      const { out } = await run(name, { type: 'bf16' })
      const tokenizer = await loadTokenizer(out)
      const { cases } = JSON.parse(readFileSync(join(hf(name), 'tokenizer_cases.json'), 'utf8')) as {
        cases: { text: string; ids: number[]; decoded: string; decoded_skip_special: string }[]
      }
      expect(cases.length).toBeGreaterThan(10)
      // The reference matches control tokens in the text first; ours does so only when it is asked to.
      for (const { text, ids, decoded, decoded_skip_special: plain } of cases) {
        expect(tokenizer.encode(text, { allowControlTokens: true }), text).toEqual(ids)
        // Which special tokens are shown is a choice; the other texts have none.
        if (decoded === plain) expect(tokenizer.decode(ids), text).toBe(decoded)
      }
    }
  )
})

describe.skipIf(!hasGolden)('convert to a quantized type', () => {
  it("stores exactly what the quantizer makes of the source's rows", async () => {
    const { out } = await run('pg2-k', { type: 'q4_k_s' })
    const { tensors } = readGguf(out)
    for (const [source, target, type] of [
      ['model.language_model.layers.2.mlp.up_proj.weight', 'blk.2.ffn_up.weight', 'Q4_K'],
      ['model.language_model.layers.3.self_attn.v_proj.weight', 'blk.3.attn_v.weight', 'Q5_K'],
      ['model.language_model.embed_tokens.weight', 'token_embd.weight', 'Q6_K'],
      ['model.vision_tower.vision_model.encoder.layers.1.self_attn.q_proj.weight', 'v.blk.1.attn_q.weight', 'Q8_0']
    ] as const) {
      const { header, data } = readSafetensors(join(hf('pg2-k'), 'model.safetensors'))
      const {
        shape,
        data_offsets: [begin, end]
      } = header[source]!
      const expected = await native().quantizeRows(data.subarray(begin, end), 'bf16', type, shape[1]!)
      expect(tensors.get(target)!.bytes.equals(expected), target).toBe(true)
    }
  })

  // Relative RMS error of 8-bit to 2-bit types on these weights; a wrong layout gives 1 or more.
  const most: Record<string, number> = {
    F32: 0,
    F16: 1e-3,
    BF16: 0,
    Q8_0: 0.008,
    Q6_K: 0.02,
    Q5_K: 0.05,
    Q5_0: 0.06,
    Q5_1: 0.05,
    Q4_K: 0.1,
    Q4_0: 0.11,
    Q4_1: 0.1,
    IQ4_NL: 0.1,
    IQ4_XS: 0.1,
    Q3_K: 0.2,
    Q2_K: 0.4
  }

  it.each(fileTypeNames)('%s: every text matrix is near its source, norms and biases are exact', async (type) => {
    const { out, info } = await run('pg2-k', { type })
    expect(info.tensors).toHaveLength(85)
    for (const [source, target] of [
      ['q', 'attn_q'],
      ['k', 'attn_k'],
      ['v', 'attn_v'],
      ['o', 'attn_output']
    ]
      .map(([from, to]) => [`self_attn.${from}_proj`, to])
      .concat([
        ['mlp.gate_proj', 'ffn_gate'],
        ['mlp.up_proj', 'ffn_up'],
        ['mlp.down_proj', 'ffn_down']
      ])) {
      const tensor = info.tensors.find(({ name }) => name === `blk.1.${target}.weight`)!
      const { data } = await dequantizeTensor(out, tensor.name)
      expect(
        relativeError(data, sourceFloats(hf('pg2-k'), `model.language_model.layers.1.${source}.weight`)),
        `${target} as ${tensor.type}`
      ).toBeLessThanOrEqual(most[tensor.type]!)
    }
    const norm = await dequantizeTensor(out, 'blk.1.post_ffw_norm.weight')
    expect(norm.data).toEqual(
      sourceFloats(hf('pg2-k'), 'model.language_model.layers.1.post_feedforward_layernorm.weight').map(
        (value) => value + 1
      )
    )
    const bias = await dequantizeTensor(out, 'v.blk.1.attn_v.bias')
    expect(bias.data).toEqual(
      sourceFloats(hf('pg2-k'), 'model.vision_tower.vision_model.encoder.layers.1.self_attn.v_proj.bias')
    )
  })

  it("pads SigLIP's feed-forward with zeros to a multiple of 256", async () => {
    const { out, info, result } = await run('pg2-tiny', { type: 'q8_0' })
    expect(info.metadata.find(({ key }) => key === 'clip.vision.feed_forward_length')!.value).toBe(256)
    expect(result.notes).toContain("SigLIP's feed-forward is padded with zeros from 112 to 256")
    const up = await dequantizeTensor(out, 'v.blk.0.ffn_up.weight')
    expect(up.shape).toEqual([256, 64])
    expect(up.data.subarray(112 * 64).every((value) => value === 0)).toBe(true)
    const source = sourceFloats(hf('pg2-tiny'), 'vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight')
    expect(relativeError(up.data.subarray(0, 112 * 64), source)).toBeLessThan(0.008)
    const bias = await dequantizeTensor(out, 'v.blk.0.ffn_up.bias')
    expect([...bias.data.subarray(112)]).toEqual(new Array(144).fill(0))
    const down = await dequantizeTensor(out, 'v.blk.0.ffn_down.weight')
    const fc2 = sourceFloats(hf('pg2-tiny'), 'vision_tower.vision_model.encoder.layers.0.mlp.fc2.weight')
    expect(down.shape).toEqual([64, 256])
    for (let row = 0; row < 64; row++) {
      expect(
        relativeError(down.data.subarray(row * 256, row * 256 + 112), fc2.subarray(row * 112, row * 112 + 112))
      ).toBeLessThan(0.01)
      expect(down.data.subarray(row * 256 + 112, row * 256 + 256).every((value) => value === 0)).toBe(true)
    }
  })

  it('replaces types whose blocks do not divide a width, and says so', async () => {
    const { out, result } = await run('pg2-tiny', { type: 'q4_k_m' })
    const stored = await types(out)
    expect(stored.get('blk.0.attn_q.weight')).toBe('Q5_0')
    expect(stored.get('token_embd.weight')).toBe('Q8_0')
    expect(result.notes).toContain("24 tensors of a width that the type's blocks do not divide: Q4_K by Q5_0")
    // 48 wide: no block type at all
    const narrow = await types((await run('pg1-tiny', { type: 'q8_0' })).out)
    expect(narrow.get('v.blk.0.attn_q.weight')).toBe('F16')
    expect(narrow.get('mm.0.weight')).toBe('F16')
    expect(narrow.get('blk.0.attn_q.weight')).toBe('Q8_0')
  })

  it("follows llama.cpp's mixes: Q4_K_M gives some value and down projections more bits", async () => {
    const stored = await types((await run('pg2-k', { type: 'Q4_K_M' })).out)
    // 4 layers: an eighth is none, the last (7/8 -> 3) and every third from index 2 on
    expect([0, 1, 2, 3].map((n) => stored.get(`blk.${n}.attn_v.weight`))).toEqual(['Q4_K', 'Q4_K', 'Q6_K', 'Q6_K'])
    expect([0, 1, 2, 3].map((n) => stored.get(`blk.${n}.ffn_down.weight`))).toEqual(['Q4_K', 'Q4_K', 'Q6_K', 'Q6_K'])
    expect(stored.get('blk.3.ffn_up.weight')).toBe('Q4_K')
    expect(stored.get('token_embd.weight')).toBe('Q6_K')
    expect(stored.get('v.blk.0.attn_q.weight')).toBe('Q8_0')
    expect(stored.get('v.patch_embd.weight')).toBe('F16')
    expect(stored.get('v.position_embd.weight')).toBe('F32')
  })

  it('reads float16 weights, norms among them', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    const path = join(dir, 'model.safetensors')
    const { header, data } = readSafetensors(path)
    const parts: Buffer[] = []
    let at = 0
    for (const [name, entry] of Object.entries(header)) {
      if (name === '__metadata__') continue
      const [begin, end] = entry.data_offsets as [number, number]
      parts.push(Buffer.from(await native().quantizeRows(data.subarray(begin, end), 'f32', 'f16', (end - begin) / 4)))
      header[name] = { ...entry, dtype: 'F16', data_offsets: [at, at + (end - begin) / 2] }
      at += (end - begin) / 2
    }
    writeSafetensors(path, { header, data: Buffer.concat(parts) })
    const out = join(tempDir(), 'model.gguf')
    await convert({ source: dir, out, type: 'f32' })
    for (const [source, target, plus] of [
      ['layers.2.mlp.down_proj', 'blk.2.ffn_down', 0],
      ['layers.0.input_layernorm', 'blk.0.attn_norm', 1],
      ['norm', 'output_norm', 1]
    ] as const) {
      const { data: values } = await dequantizeTensor(out, `${target}.weight`)
      const exact = sourceFloats(hf('pg1-tiny'), `language_model.model.${source}.weight`)
      const worst = values.reduce(
        (most, value, i) => Math.max(most, Math.abs(value - plus - exact[i]!) - Math.abs(exact[i]!) * 2 ** -11),
        0
      )
      expect(worst, target).toBeLessThan(2e-7)
    }
  })

  it('takes another type for the vision tower', async () => {
    const stored = await types((await run('pg2-k', { type: 'q4_0', visionType: 'f16' })).out)
    expect(stored.get('v.blk.0.ffn_up.weight')).toBe('F16')
    expect(stored.get('mm.0.weight')).toBe('F16')
    expect(stored.get('blk.0.ffn_up.weight')).toBe('Q4_0')
  })

  it("gives a model that scores the reference's output nearly as the reference does", async () => {
    const expected = JSON.parse(readFileSync(join(hf('pg2-k'), 'expected.json'), 'utf8'))
    const item = expected.cases.find((one: { kind: string }) => one.kind === 'score')
    const { out } = await run('pg2-k', { type: 'q8_0' })
    const model = await loadModel({ model: out, attentionWindow: 'suffix' })
    try {
      const result = await model.score({
        images: item.images.map((image: string) => join(hf('pg2-k'), 'images', image)),
        prompt: item.prompt,
        suffix: item.suffix
      })
      const error =
        result.logProbs.reduce((sum, value, i) => sum + Math.abs(value - item.logprobs[i]), 0) / result.logProbs.length
      expect(result.logProbs).toHaveLength(item.logprobs.length)
      // Random weights: log-probabilities are around -20 and far more sensitive than a trained model's.
      expect(error).toBeLessThan(1)
    } finally {
      await model.dispose()
    }
  })
})

describe.skipIf(!hasGolden)('convert with a mask decoder', () => {
  it.each([
    ['f32', 0],
    ['q8_0', 0.01]
  ] as const)('%s: the file decodes masks as the npz does', async (type, most) => {
    const npz = golden('segment', 'vae-oid.random.npz')
    const { out, info } = await run('pg2-tiny', { type, maskDecoder: npz })
    const names = info.tensors.map(({ name }) => name).filter((name) => name.startsWith('mask.'))
    expect(names).toContain('mask._vq_vae._embedding')
    expect(names).toContain('mask.encoder.0.weight')
    expect(names.filter((name) => name.includes('ema'))).toEqual([])
    const codes = [0, 1, 2, 3, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 127]
    const [ours, theirs] = await Promise.all(
      [out, npz].map(async (path) => await (await loadMaskDecoder(path)).decode(codes))
    )
    const worst = ours!.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs![i]!)), 0)
    expect(worst).toBeLessThanOrEqual(most)
  })

  it('refuses an archive that holds none, and leaves no file', async () => {
    const out = join(tempDir(), 'model.gguf')
    await expect(
      convert({ source: hf('pg2-tiny'), out, maskDecoder: join(hf('pg2-tiny'), 'config.json') })
    ).rejects.toMatchObject({ code: 'ERR_MODEL_INVALID' })
    expect(readdirSync(join(out, '..'))).toEqual([])
  })
})

function relativeError(values: Float32Array, expected: Float32Array): number {
  expect(values.length).toBe(expected.length)
  let error = 0
  let power = 0
  for (let i = 0; i < values.length; i++) {
    error += (values[i]! - expected[i]!) ** 2
    power += expected[i]! ** 2
  }
  return Math.sqrt(error / power)
}
