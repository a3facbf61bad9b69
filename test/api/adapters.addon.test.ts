/**
 * LoRA adapters, beside the weights and merged into them, against the reference's merged model
 * (golden/hf/pg1-tiny-lora).
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert, type ConvertOptions } from '../../lib/convert'
import { mergeIntoGguf } from '../../lib/convert/gguf/adapters'
import { dequantizeTensor, loadModel, type GeneratedToken, type LoadOptions, type PaliGemma } from '../../lib/index'
import {
  readGguf,
  readSafetensors as readRaw,
  removeTempDirs,
  tempDir,
  type TestGguf,
  writeSafetensors
} from '../support/convert-helpers'
import { golden, hasGoldens } from '../support/golden'
import { readSafetensors, type FloatTensor } from '../support/safetensors'
import { ggufBytes, type GgufValue } from '../support/tiny-model'

interface Case {
  name: string
  kind: 'generate' | 'score'
  images: string[]
  prompt: string
  greedy: { tokens: number[]; logprobs: number[] }
  suffix: string
  logprobs: number[]
}

const tolerance = { vision: 1e-3, logits: 2e-3 }
const present = hasGoldens('hf/pg1-tiny', 'hf/pg1-tiny-lora')
const base = golden('hf', 'pg1-tiny')
const lora = golden('hf', 'pg1-tiny-lora')
const image = (file: string) => join(lora, 'images', file)

const models: PaliGemma[] = []
let file = ''
let cases: Case[] = []

const load = async (options: Partial<LoadOptions> = {}): Promise<PaliGemma> => {
  const model = await loadModel({ model: file, kvCacheType: 'f32', threads: 2, ...options })
  models.push(model)
  return model
}

beforeAll(async () => {
  if (!present) return
  cases = (JSON.parse(readFileSync(join(lora, 'expected.json'), 'utf8')) as { cases: Case[] }).cases
  file = join(tempDir(), 'base.gguf')
  await convert({ source: base, out: file, type: 'f32' })
})
afterAll(async () => {
  for (const model of models) await model.dispose()
  removeTempDirs()
})

function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length)
  let worst = 0
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!))
  return worst
}

const generate = async (model: PaliGemma, c: Case, adapters?: LoadOptions['adapters'], maxTokens = 24) =>
  await model.generate({
    images: c.images.map(image),
    prompt: c.prompt,
    maxTokens,
    ignoreEos: true,
    logProbs: 5,
    ...(adapters && { adapters })
  })

async function expectReference(model: PaliGemma): Promise<void> {
  for (const c of cases) {
    if (c.kind === 'generate') {
      const { tokens } = await generate(model, c)
      expect(
        tokens.map((t) => t.id),
        c.name
      ).toEqual(c.greedy.tokens)
      expect(
        maxDifference(
          tokens.map((t) => t.logProb!),
          c.greedy.logprobs
        ),
        c.name
      ).toBeLessThanOrEqual(tolerance.logits)
    } else {
      const { logProbs } = await model.score({ images: c.images.map(image), prompt: c.prompt, suffix: c.suffix })
      expect(maxDifference(logProbs, c.logprobs), c.name).toBeLessThanOrEqual(tolerance.logits)
    }
  }
  const expected = readSafetensors(join(lora, 'expected.safetensors'))
  for (const name of ['a.png', 'b.png', 'c.png']) {
    const { data } = await model.encodeImage(image(name))
    expect(maxDifference(data, expected.get(`image.${name}.projector_output`)!.data), name).toBeLessThanOrEqual(
      tolerance.vision
    )
  }
}

/** The adapter with other tensor names, values or settings. */
function editedAdapter(edit: {
  name?: (name: string) => string
  config?: Record<string, unknown>
  values?: (values: Float32Array, name: string) => void
}): string {
  const dir = join(tempDir(), 'adapter')
  mkdirSync(dir)
  const config = JSON.parse(readFileSync(join(lora, 'adapter_config.json'), 'utf8')) as object
  writeFileSync(join(dir, 'adapter_config.json'), JSON.stringify({ ...config, ...edit.config }))
  const { header, data } = readRaw(join(lora, 'adapter_model.safetensors'))
  const copy = Buffer.from(data)
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue
    const [begin, end] = entry.data_offsets as [number, number]
    const values = new Float32Array(Uint8Array.from(copy.subarray(begin, end)).buffer)
    edit.values?.(values, name)
    Buffer.from(values.buffer).copy(copy, begin)
  }
  writeSafetensors(join(dir, 'adapter_model.safetensors'), {
    header: Object.fromEntries(
      Object.entries(header).map(([name, entry]) => [
        name === '__metadata__' ? name : (edit.name?.(name) ?? name),
        entry
      ])
    ),
    data: copy
  })
  return dir
}

/** The adapter with an update of a SigLIP feed-forward, which block types store wider than it is. */
function wideAdapter(): string {
  const dir = editedAdapter({
    config: { rank_pattern: { 'layers.2.mlp.fc1': 2 } },
    name: (name) =>
      name.replace(
        /(vision_tower.*layers\.2\.self_attn)\.q_proj/,
        (_, path: string) => `${path.replace('self_attn', 'mlp')}.fc1`
      )
  })
  const { header, data } = readRaw(join(dir, 'adapter_model.safetensors'))
  const name = Object.keys(header).find((key) => key.includes('fc1.lora_B'))!
  header[name] = { ...header[name]!, shape: [96, 2] }
  const half = header[name.replace('lora_B', 'lora_A')]!
  half.shape = [2, 48]
  half.data_offsets[1] = half.data_offsets[0]! + 384
  writeSafetensors(join(dir, 'adapter_model.safetensors'), { header, data })
  return dir
}

/** The adapter with whole tensors besides its updates. */
function wholeAdapter(tensors: Record<string, Float32Array>): string {
  const dir = join(tempDir(), 'whole')
  cpSync(lora, dir, { recursive: true })
  const { header, data } = readRaw(join(lora, 'adapter_model.safetensors'))
  let end = data.length
  for (const [name, { length }] of Object.entries(tensors)) {
    header[`base_model.model.${name}`] = { dtype: 'F32', shape: [length], data_offsets: [end, (end += 4 * length)] }
  }
  const added = Object.values(tensors).map((values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength))
  writeSafetensors(join(dir, 'adapter_model.safetensors'), { header, data: Buffer.concat([data, ...added]) })
  return dir
}

/** The adapter as a GGUF in llama.cpp's layout. */
function ggufAdapter(
  options: {
    metadata?: Record<string, GgufValue | undefined>
    keep?: (name: string) => boolean
    tensors?: (tensors: Map<string, FloatTensor>) => void
  } = {}
): string {
  const names: [RegExp, string][] = [
    [/language_model\.model\.layers\.(\d+)/, 'blk.$1'],
    [/vision_tower\.vision_model\.encoder\.layers\.(\d+)/, 'v.blk.$1'],
    [/self_attn\.([qkv])_proj/, 'attn_$1'],
    [/self_attn\.o_proj/, 'attn_output'],
    [/mlp\.(\w+)_proj/, 'ffn_$1'],
    [/base_model\.model\./, '']
  ]
  const tensors = new Map<string, FloatTensor>()
  for (const [name, tensor] of readSafetensors(join(lora, 'adapter_model.safetensors'))) {
    const gguf = names
      .reduce((text, [from, to]) => text.replace(from, to), name)
      .replace(/\.lora_([AB])\.weight$/, (_, half: string) => `.weight.lora_${half.toLowerCase()}`)
    if (options.keep?.(gguf) ?? true) tensors.set(gguf, tensor)
  }
  options.tensors?.(tensors)
  const path = join(tempDir(), 'adapter.gguf')
  const metadata: Record<string, GgufValue | undefined> = {
    'general.type': { type: 'string', value: 'adapter' },
    'general.architecture': { type: 'string', value: 'gemma' },
    'adapter.type': { type: 'string', value: 'lora' },
    'adapter.lora.alpha': { type: 'float32', value: 8 },
    ...options.metadata
  }
  const given = Object.fromEntries(Object.entries(metadata).filter(([, value]) => value !== undefined)) as Record<
    string,
    GgufValue
  >
  writeFileSync(
    path,
    ggufBytes(
      given,
      [...tensors].map(([name, tensor]) => ({ name, ...tensor }))
    )
  )
  return path
}

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
      'nowhere.modules_to_save.weight': bias
    })
    await expect(made({ source: file, adapters: [wrong] })).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringMatching(/projector\.bias \[63\] instead of \[64\].*nowhere\.weight \[64\]/)
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
