import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import { dequantizeTensor, type GeneratedToken, type LoadOptions, type PaliGemma } from '../../lib/index'
import { tempDir } from '../support/convert-helpers'
import type { GgufValue } from '../support/tiny-model'
import {
  tolerance,
  present,
  base,
  lora,
  image,
  cases,
  load,
  useAdapters,
  maxDifference,
  generate,
  expectReference,
  editedAdapter,
  wideAdapter,
  wholeAdapter,
  ggufAdapter
} from '../support/adapter-fixture'

useAdapters()

describe.skipIf(!present)('a PEFT adapter', () => {
  it("gives the reference's tokens, log-probabilities and vision features while the base stays as it is", async () => {
    const model = await load({ adapters: [lora] })
    expect(model.info.adapters).toEqual([
      { name: 'pg1-tiny-lora', path: lora, scale: 1, rank: 4, targets: 30, parameters: 18432 }
    ])
    await expectReference(model)
  })

  it('gives the same when it is merged at conversion', async () => {
    const out = join(tempDir(), 'merged.gguf')
    const { notes } = await convert({ source: base, out, type: 'f32', adapters: [lora] })
    expect(notes).toEqual([`${lora} is merged: 30 matrices changed`])
    await expectReference(await load({ model: out }))
  })

  it('can be named by one of its files', async () => {
    const model = await load({ adapters: [join(lora, 'adapter_model.safetensors')] })
    const { tokens } = await generate(model, cases[1]!)
    expect(tokens.map((t) => t.id)).toEqual(cases[1]!.greedy.tokens)
  })

  it.each([
    [
      'nested',
      (name: string) =>
        name
          .replace('language_model.model.', 'model.language_model.')
          .replace('model.vision_tower.', 'model.model.vision_tower.')
    ],
    ["ColPali's", (name: string) => name.replace('base_model.model.', 'base_model.model.model.')],
    [
      "the transformers port's",
      (name: string) =>
        name
          .replace('base_model.model.', 'base_model.model.vlm.')
          .replace('language_model.model.', 'model.language_model.')
    ],
    ['without vision_model', (name: string) => name.replace('vision_model.', '')],
    ['in-memory', (name: string) => name.replace(/\.weight$/, '.default.weight')],
    ['bare', (name: string) => name.replace('base_model.model.', '')]
  ])('may have %s names', async (_, name) => {
    const model = await load({ adapters: [editedAdapter({ name })] })
    const { tokens } = await generate(model, cases[1]!)
    expect(
      maxDifference(
        tokens.map((t) => t.logProb!),
        cases[1]!.greedy.logprobs
      )
    ).toBeLessThanOrEqual(tolerance.logits)
  })

  it('is scaled by alpha over the root of the rank with use_rslora', async () => {
    // alpha / sqrt(4) equals 8 / 4 for alpha 4
    const model = await load({ adapters: [editedAdapter({ config: { use_rslora: true, lora_alpha: 4 } })] })
    const { tokens } = await generate(model, cases[1]!)
    expect(
      maxDifference(
        tokens.map((t) => t.logProb!),
        cases[1]!.greedy.logprobs
      )
    ).toBeLessThanOrEqual(tolerance.logits)
  })

  it('takes its own alpha for modules of alpha_pattern', async () => {
    // alpha 8 where the pattern says so, 16 elsewhere with halved values
    const halved = editedAdapter({
      config: { lora_alpha: 16, alpha_pattern: { 'layers.\\d+.self_attn.q_proj': 8, down_proj: 8 } },
      values: (values, name) => {
        if (name.includes('lora_B') && !/q_proj|down_proj/.test(name))
          values.forEach((v, i) => {
            values[i] = v / 2
          })
      }
    })
    const model = await load({ adapters: [halved] })
    const { tokens } = await generate(model, cases[1]!)
    expect(
      maxDifference(
        tokens.map((t) => t.logProb!),
        cases[1]!.greedy.logprobs
      )
    ).toBeLessThanOrEqual(tolerance.logits)
  })
})

describe.skipIf(!present)('a GGUF adapter', () => {
  it("gives the reference's results", async () => {
    await expectReference(await load({ adapters: [ggufAdapter()] }))
  })

  it('must fit the model', async () => {
    const bad = async (options: Parameters<typeof ggufAdapter>[0]) =>
      await load({ adapters: [ggufAdapter(options)] }).then(
        () => 'loaded',
        (error: Error & { code: string }) => `${error.code}: ${error.message}`
      )
    expect(await bad({ metadata: { 'general.architecture': { type: 'string', value: 'gemma2' } } })).toMatch(
      /ERR_MODEL_UNSUPPORTED.*general\.architecture is "gemma2", expected "gemma"/
    )
    expect(await bad({ metadata: { 'general.type': undefined } })).toMatch(
      /ERR_MODEL_UNSUPPORTED.*general\.type is missing/
    )
    expect(await bad({ metadata: { 'adapter.type': { type: 'string', value: 'control_vector' } } })).toMatch(
      /ERR_MODEL_UNSUPPORTED.*only LoRA/
    )
    const tokens: GgufValue = { arrayOf: 'uint32', values: [5, 6] }
    expect(await bad({ metadata: { 'adapter.alora.invocation_tokens': tokens } })).toMatch(
      /ERR_MODEL_UNSUPPORTED.*adapter\.alora\.invocation_tokens/
    )
    expect(await bad({ keep: (name) => name !== 'blk.1.attn_q.weight.lora_b' })).toMatch(
      /ERR_MODEL_INVALID.*only one of lora_a and lora_b: blk\.1\.attn_q\.weight\.lora_a/
    )
    expect(await bad({ keep: () => false })).toMatch(/ERR_MODEL_INVALID.*holds no tensors/)
    expect(
      await bad({
        tensors: (tensors) => {
          tensors.set('blk.7.attn_q.weight.lora_a', tensors.get('blk.0.attn_q.weight.lora_a')!)
          tensors.set('blk.7.attn_q.weight.lora_b', tensors.get('blk.0.attn_q.weight.lora_b')!)
          tensors.set('blk.0.attn_k.weight.lora_b', { shape: [16, 4], data: new Float32Array(64) })
          tensors.get('blk.2.ffn_up.weight.lora_a')!.data[3] = NaN
          tensors.set('output.bias', { shape: [3], data: new Float32Array(3) })
        }
      })
    ).toMatch(
      new RegExp(
        'no such matrix in this model: blk\\.7\\.attn_q\\.weight, output\\.bias; ' +
          'wrong shape: blk\\.0\\.attn_k\\.weight: \\[16, 4\\] x \\[4, 64\\] for \\[32, 64\\]; ' +
          'values that are not finite: blk\\.2\\.ffn_up\\.weight'
      )
    )
  })
})

describe.skipIf(!present)('adapters of a loaded model', () => {
  const other = () =>
    editedAdapter({
      values: (values, name) =>
        values.reverse().forEach((v, i) => {
          values[i] = name.includes('vision') ? 0 : -v
        })
    })

  const searched = async (model: PaliGemma) =>
    await model.generate({ image: image('a.png'), prompt: 'caption en', beams: 3, maxTokens: 6 })

  it('are switched per request without a trace of the one before', async () => {
    const plain = await load()
    const [bare, adapted] = [
      await generate(plain, cases[1]!),
      await generate(await load({ adapters: [lora] }), cases[1]!)
    ]
    const model = await load({ adapters: [{ path: lora, scale: 0 }] })
    for (let round = 0; round < 2; round++) {
      expect((await generate(model, cases[1]!)).tokens).toEqual(bare.tokens)
      expect((await generate(model, cases[1]!, [{ path: 'pg1-tiny-lora', scale: 1 }])).tokens).toEqual(adapted.tokens)
      expect((await generate(model, cases[1]!, [])).tokens).toEqual(bare.tokens)
      expect((await generate(model, cases[1]!, [lora])).tokens).toEqual(bare.tokens) // as loaded: scale 0
    }
    expect(bare.tokens).not.toEqual(adapted.tokens)
    const [withOut, withIt] = [
      await model.encodeImage(image('a.png')),
      await model.encodeImage(image('a.png'), { adapters: [{ path: lora, scale: 1 }] })
    ]
    expect(maxDifference(withOut.data, (await plain.encodeImage(image('a.png'))).data)).toBe(0)
    expect(maxDifference(withOut.data, withIt.data)).toBeGreaterThan(0.01)
    const score = async (adapters: NonNullable<LoadOptions['adapters']>) =>
      (await model.score({ image: image('a.png'), prompt: 'caption en', suffix: 'cow', adapters })).total
    expect(await score([{ path: lora, scale: 1 }])).not.toBe(await score([]))
  })

  it('share one batch, every request as if alone', async () => {
    const second = other()
    const model = await load({ adapters: [lora, { path: second, scale: 0.5 }], maxSequences: 6 })
    const choices: NonNullable<LoadOptions['adapters']>[] = [
      [],
      [lora],
      [second],
      [{ path: lora, scale: 0.3 }],
      [second, lora],
      []
    ]
    const requests = choices.flatMap((adapters, i) =>
      [1, 2].map((n) => [cases[(i + n) % 5]!, adapters, 8 + 3 * ((i * n) % 5)] as const)
    )
    const alone: GeneratedToken[][] = []
    for (const [c, adapters, length] of requests) alone.push((await generate(model, c, adapters, length)).tokens)
    const together = await Promise.all(
      requests.map(async ([c, adapters, length]) => await generate(model, c, adapters, length))
    )
    together.forEach((result, i) => expect(result.tokens, `request ${i}`).toEqual(alone[i]))
  })

  it('add up, whatever their order, as they do when merged', async () => {
    const second = other()
    const merged = join(tempDir(), 'merged.gguf')
    await convert({ source: base, out: merged, type: 'f32', adapters: [lora, { path: second, scale: 0.5 }] })
    const model = await load({ adapters: [lora, { path: second, scale: 0.5 }] })
    const both = await generate(model, cases[1]!)
    const whole = await load({ model: merged })
    const reference = await generate(whole, cases[1]!)
    const [beams, wanted] = [await searched(model), await searched(whole)]
    expect(beams.tokens.map((t) => t.id)).toEqual(wanted.tokens.map((t) => t.id))
    expect(both.tokens.map((t) => t.id)).toEqual(reference.tokens.map((t) => t.id))
    expect(
      maxDifference(
        both.tokens.map((t) => t.logProb!),
        reference.tokens.map((t) => t.logProb!)
      )
    ).toBeLessThanOrEqual(tolerance.logits)
    expect((await generate(model, cases[1]!, [second, lora])).tokens).toEqual(both.tokens)
  })

  it('work on quantized weights, padded feed-forwards included', async () => {
    const quantized = join(tempDir(), 'q8.gguf')
    await convert({ source: base, out: quantized, type: 'q8_0', visionType: 'q8_0' })
    const wide = wideAdapter()
    for (const adapter of [lora, wide]) {
      const exact = await generate(await load({ adapters: [adapter] }), cases[1]!, undefined, 1)
      const {
        tokens: [token]
      } = await generate(await load({ model: quantized, adapters: [adapter] }), cases[1]!, undefined, 1)
      // what 8 bits lose on random weights
      const near = exact.tokens[0]!.top!.slice(0, 2).map((t) =>
        Math.abs((token!.top!.find((o) => o.id === t.id)?.logProb ?? Infinity) - t.logProb)
      )
      expect(Math.max(...near)).toBeLessThan(0.5)
    }
  })

  it('refuse what is not loaded, twice or no adapter', async () => {
    const model = await load({ adapters: [lora] })
    const refuse = async (adapters: unknown) =>
      await generate(model, cases[1]!, adapters as [], 1).then(
        () => 'done',
        (error: Error & { code: string }) => `${error.code}: ${error.message}`
      )
    expect(await refuse(['nobody'])).toBe(
      'ERR_INVALID_OPTION: Expected a loaded adapter for adapters but received "nobody"; loaded are pg1-tiny-lora'
    )
    expect(await refuse([lora, { path: lora }])).toMatch(/^ERR_INVALID_OPTION: Expected each adapter once/)
    expect(await refuse([{ path: lora, weight: 1 }])).toMatch(/^ERR_INVALID_OPTION: Expected array of paths or/)
    expect(await refuse(lora)).toMatch(/^ERR_INVALID_OPTION/)
    await expect(load({ adapters: [lora, lora] })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(load({ adapters: ['/nowhere'] })).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    await expect(load({ adapters: [base] })).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('adapter_config.json')
    })
  })

  it('refuse directories that are not LoRA or do not fit, naming everything', async () => {
    const error = async (edit: Parameters<typeof editedAdapter>[0]) => {
      const dir = editedAdapter(edit)
      const [running, merging] = await Promise.all(
        [
          load({ adapters: [dir] }),
          convert({ source: base, out: join(tempDir(), 'x.gguf'), type: 'f32', adapters: [dir] })
        ].map(
          async (work: Promise<unknown>) =>
            await work.then(
              () => 'done',
              (error: Error & { code: string }) => `${error.code}: ${error.message}`
            )
        )
      )
      return { running, merging }
    }
    for (const message of Object.values(await error({ config: { peft_type: 'IA3' } })))
      expect(message).toMatch(/ERR_MODEL_UNSUPPORTED.*peft_type is "IA3"/)
    for (const message of Object.values(await error({ config: { use_dora: true } })))
      expect(message).toMatch(/ERR_MODEL_UNSUPPORTED.*use_dora/)
    for (const message of Object.values(await error({ config: { alpha_pattern: { '(': 1 } } })))
      expect(message).toMatch(/ERR_MODEL_INVALID.*alpha_pattern/)
    const unknown = await error({
      name: (name) =>
        name
          .replace('layers.1.self_attn.q_proj', 'layers.9.self_attn.q_proj')
          .replace('layers.2.mlp.up_proj', 'layers.2.mlp.side_proj')
    })
    expect(unknown.running).toMatch(
      new RegExp(
        'no such matrix in this model: blk\\.9\\.attn_q\\.weight, text\\.layers\\.2\\.mlp\\.side_proj\\.weight, ' +
          'v\\.blk\\.9\\.attn_q\\.weight'
      )
    )
    expect(unknown.merging).toMatch(/no such matrix in this model: .*layers\.9\.self_attn\.q_proj\.weight.*side_proj/)
    const embedding = await error({
      name: (name) => name.replace(/layers\.0\.mlp\.up_proj\.lora_([AB])\.weight/, 'embed_tokens.lora_embedding_$1')
    })
    for (const message of Object.values(embedding)) expect(message).toMatch(/ERR_MODEL_UNSUPPORTED.*lora_embedding_A/)
  })

  it('replace whole tensors only when they are merged', async () => {
    const bias = Float32Array.from({ length: 64 }, (_, i) => i / 64)
    const dir = wholeAdapter({ 'multi_modal_projector.linear.modules_to_save.bias': bias })
    await expect(load({ adapters: [dir] })).rejects.toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/projector\.bias.*paligemma convert/)
    })
    const out = join(tempDir(), 'whole.gguf')
    await convert({ source: base, out, type: 'f32', adapters: [dir] })
    expect((await dequantizeTensor(out, 'mm.0.bias')).data).toEqual(bias)
    await expect(
      convert({ source: base, out, type: 'f32', adapters: [{ path: dir, scale: 0.5 }] })
    ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })
})
