/** LoRA adapters merged into a GGUF, against the adapter beside the weights and the merge at conversion. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { convert, type ConvertOptions } from '../../../lib/convert'
import { mergeIntoGguf } from '../../../lib/convert/gguf/adapters'
import { dequantizeTensor } from '../../../lib/index'
import {
  readGguf,
  readSafetensors as readRaw,
  tempDir,
  type TestGguf,
  writeSafetensors
} from '../../support/convert-helpers'
import {
  present,
  base,
  lora,
  file,
  load,
  useAdapters,
  maxDifference,
  expectReference,
  wideAdapter,
  wholeAdapter
} from '../../support/adapter-fixture'

useAdapters()

describe.skipIf(!present)('merging into a GGUF', () => {
  const made = async (options: Partial<ConvertOptions> & { source: string }) => {
    const out = join(tempDir(), 'merged.gguf')
    return { ...(await convert({ out, ...options })), file: readGguf(out) }
  }
  const expectSame = (one: TestGguf, other: TestGguf) => {
    expect(one.order).toEqual(other.order)
    for (const [name, tensor] of one.tensors)
      expect(other.tensors.get(name)!.bytes.equals(tensor.bytes), name).toBe(true)
  }
  const blockTypes: Record<number, string> = { 8: 'Q8_0', 2: 'Q4_0', 3: 'Q4_1' }

  it.each([undefined, 'q8_0', 'q4_0'])(
    'gives what merging into the checkpoint gives, bit for bit, where the GGUF is exact; type %s',
    async (type) => {
      const adapters = [lora, { path: lora, scale: -0.25 }]
      const { notes, file: ours } = await made({ source: file, type, adapters })
      expect(notes).toContain(`${lora} is merged: 30 matrices changed`)
      expect(notes.join()).not.toContain('second time')
      expectSame(ours, (await made({ source: base, type: type ?? 'f32', adapters })).file)
    }
  )

  it.each(['q8_0', 'q4_0', 'q4_1'])(
    'a GGUF of %s keeps its types: what is changed is rounded again, the rest is copied',
    async (type) => {
      const quantized = (await made({ source: base, type, visionType: type })).path
      const { notes, file: merged, path } = await made({ source: quantized, adapters: [lora] })
      expect(notes.join('\n')).toMatch(new RegExp(`quantized before \\(${type}\\) and are rounded a second time`, 'i'))
      const before = readGguf(quantized)
      const exact = (await made({ source: base, type: 'f32', adapters: [lora] })).path
      const changed: string[] = []
      for (const [name, tensor] of merged.tensors) {
        expect(tensor.type, name).toBe(before.tensors.get(name)!.type)
        if (tensor.bytes.equals(before.tensors.get(name)!.bytes)) continue
        changed.push(name)
        // No worse than twice rounding at this type: the step of a block is its range over the number of codes.
        const [found, wanted] = [(await dequantizeTensor(path, name)).data, (await dequantizeTensor(exact, name)).data]
        const cols = wanted.length / tensor.shape[0]!
        const width = tensor.shape.at(-1)!
        for (let row = 0; row < Math.min(tensor.shape[0]!, wanted.length / cols); row++) {
          for (let begin = 0; begin < cols; begin += 32) {
            const block = wanted.subarray(row * cols + begin, row * cols + Math.min(cols, begin + 32))
            const most = block.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
            const worst = block.reduce((a, b, i) => Math.max(a, Math.abs(b - found[row * width + begin + i]!)), 0)
            expect(worst, name).toBeLessThan(most * (blockTypes[tensor.type] === 'Q8_0' ? 2 / 127 : 2.6 / 8) + 1e-3)
          }
        }
      }
      expect(changed).toHaveLength(30)
    }
  )

  it('runs as the adapter beside exact weights does', async () => {
    await expectReference(await load({ model: (await made({ source: file, adapters: [lora] })).path }))
  })

  it('fits a feed-forward that the GGUF has padded', async () => {
    const dir = wideAdapter()
    const quantized = (await made({ source: base, type: 'q8_0', visionType: 'q8_0' })).path
    const { file: merged, path } = await made({ source: quantized, adapters: [dir] })
    const up = merged.tensors.get('v.blk.2.ffn_up.weight')!
    expect(up.shape[0]).toBeGreaterThan(96)
    const [before, after, exact] = (await Promise.all(
      [quantized, path, (await made({ source: base, type: 'f32', adapters: [dir] })).path].map(
        async (path) => (await dequantizeTensor(path, 'v.blk.2.ffn_up.weight')).data
      )
    )) as [Float32Array, Float32Array, Float32Array]
    expect(maxDifference(after.subarray(0, exact.length), exact)).toBeLessThan(
      0.2 * maxDifference(before.subarray(0, exact.length), exact)
    )
    expect(after.subarray(exact.length).every((value) => value === 0)).toBe(true)
  })

  it('replaces whole tensors, norms with 1 added', async () => {
    const [bias, norm] = [
      Float32Array.from({ length: 64 }, (_, i) => i / 64),
      Float32Array.from({ length: 64 }, (_, i) => i / 32)
    ]
    const dir = wholeAdapter({
      'multi_modal_projector.linear.modules_to_save.bias': bias,
      'language_model.model.norm.modules_to_save.weight': norm
    })
    const { path, notes } = await made({ source: (await made({ source: base, type: 'q8_0' })).path, adapters: [dir] })
    expect(notes).toContain(`${dir} is merged: 30 matrices changed, 2 tensors replaced`)
    expect((await dequantizeTensor(path, 'mm.0.bias')).data).toEqual(bias)
    expect((await dequantizeTensor(path, 'output_norm.weight')).data).toEqual(norm.map((value) => value + 1))
    const wrong = wholeAdapter({
      'multi_modal_projector.linear.modules_to_save.bias': bias.subarray(1),
      'language_model.model.layers.9.input_layernorm.modules_to_save.weight': bias
    })
    await expect(made({ source: file, adapters: [wrong] })).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringMatching(
        /projector\.bias \[63\] instead of \[64\].*layers\.9\.input_layernorm\.weight \[64\]/
      )
    })
    await expect(made({ source: file, adapters: [{ path: dir, scale: 0.5 }] })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
  })

  it('replaces the rows of single tokens', async () => {
    const dir = wholeAdapter({})
    const config = JSON.parse(readFileSync(join(dir, 'adapter_config.json'), 'utf8')) as object
    writeFileSync(join(dir, 'adapter_config.json'), JSON.stringify({ ...config, trainable_token_indices: [700, 3] }))
    const { header, data } = readRaw(join(dir, 'adapter_model.safetensors'))
    const rows = Float32Array.from({ length: 2 * 64 }, (_, i) => i / 64)
    header['base_model.model.language_model.model.embed_tokens.token_adapter.trainable_tokens_delta'] = {
      dtype: 'F32',
      shape: [2, 64],
      data_offsets: [data.length, data.length + 512]
    }
    writeSafetensors(join(dir, 'adapter_model.safetensors'), {
      header,
      data: Buffer.concat([data, Buffer.from(rows.buffer)])
    })
    const want = (await dequantizeTensor(file, 'token_embd.weight')).data.slice()
    want.set(rows.subarray(0, 64), 700 * 64)
    want.set(rows.subarray(64), 3 * 64)
    const out = join(tempDir(), 'rows.gguf')
    await convert({ source: file, out, type: 'f32', adapters: [dir] })
    expect((await dequantizeTensor(out, 'token_embd.weight')).data).toEqual(want)
  })

  it('asks for a type where the GGUF has one that is only read', () => {
    const source = {
      name: 'blk.0.attn_q.weight',
      file: 'x.gguf',
      type: 'IQ2_XXS',
      shape: [1, 256],
      bytes: 66,
      read: async () => {}
    }
    const planned = {
      name: source.name,
      type: source.type,
      shape: source.shape,
      source,
      rows: 1,
      cols: 256,
      plusOne: false
    }
    const expected = [
      {
        source: 'text.layers.0.self_attn.q_proj.weight',
        gguf: source.name,
        shape: source.shape,
        role: 'attnQ' as const,
        layer: 0
      }
    ]
    const half = { shape: [1, 256], data: new Float32Array(256) }
    const adapter = {
      dir: 'a',
      scale: 1,
      replaced: new Map(),
      updates: [{ target: expected[0]!.source, a: half, b: { shape: [1, 1], data: new Float32Array(1) } }]
    }
    const merge = (type: string) => mergeIntoGguf('x.gguf', [{ ...planned, type }], expected, [adapter], [])
    expect(() => merge('IQ2_XXS')).toThrow(/blk\.0\.attn_q\.weight \(IQ2_XXS\); give --type/)
    expect(merge('Q2_K')[0]!.updates).toHaveLength(1)
  })
})
