/** Tiny checkpoints against the public reference implementation, stage by stage; see golden/hf/README.md. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import { loadModel, preprocessImage, type GenerateResult, type LoadOptions, type PaliGemma } from '../../lib/index'
import { native, type NativeEvent, type NativeRequest } from '../../lib/engine/native'
import { golden, hasGoldens } from '../support/golden'
import { readSafetensors, type FloatTensor } from '../support/safetensors'

interface Variant {
  tokens?: number[]
  logprobs: number[]
}
interface Case {
  name: string
  kind: 'generate' | 'score'
  images: string[]
  prompt: string
  input_ids: number[]
  prefill_topk: { id: number; logit: number; logprob: number }[]
  greedy: { tokens: number[]; logprobs: number[]; text: string }
  suffix: string
  suffix_ids: number[]
  logprobs: number[]
  logprob_sum: number
  uncapped: Variant
  full_attention?: Variant
  window_in_prefix?: Variant
}
type Stages = Extract<NativeEvent, { kind: 'end' }>['stages']

const tolerance = { pixels: 1e-6, vision: 1e-3, logits: 2e-3 }

function maxDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length)
  let worst = 0
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!)
    if (!(d <= worst)) worst = d // also keeps NaN
  }
  return worst
}

/** One prefill with every intermediate value. */
async function trace(path: string, request: Omit<NativeRequest, 'kind'>): Promise<NonNullable<Stages>> {
  return await new Promise((resolve, reject) => {
    const model = new (native().Model)(
      { path, threads: 2, kvCacheType: 'f32', attentionWindow: 'suffix' },
      (events) => {
        for (const event of events) {
          if (event.kind === 'ready') model.submit({ kind: 'trace', ...request })
          if (event.kind === 'error') reject(new Error(event.message))
          if (event.kind === 'end') {
            model.dispose()
            resolve(event.stages!)
          }
        }
      }
    )
  })
}

const checkpoints = (['pg1-tiny', 'pg2-tiny', 'pg2-tiny-sharded', 'pg2-k'] as const).filter((name) =>
  hasGoldens(`hf/${name}`)
)

describe.each(checkpoints)('%s', (name) => {
  const folder = golden('hf', name)
  const expected = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as {
    cases: Case[]
    image_tokens: number
  }
  const generates = expected.cases.filter((c) => c.kind === 'generate')
  const scores = expected.cases.filter((c) => c.kind === 'score')
  let dir = ''
  let path = ''
  let tensors = new Map<string, FloatTensor>()
  const models: PaliGemma[] = []

  const load = async (options: Partial<LoadOptions> = {}): Promise<PaliGemma> => {
    const model = await loadModel({ model: path, kvCacheType: 'f32', attentionWindow: 'suffix', ...options })
    models.push(model)
    return model
  }
  const images = (c: Case): string[] => c.images.map((file) => join(folder, 'images', file))
  const tensor = (key: string): FloatTensor => {
    const t = tensors.get(key)
    if (!t) throw new Error(`no tensor ${key}`)
    return t
  }

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'paligemma-golden-'))
    path = join(dir, 'f32.gguf')
    await convert({ source: folder, out: path, type: 'f32' })
    tensors = readSafetensors(join(folder, 'expected.safetensors'))
  }, 60_000)
  afterAll(async () => {
    for (const model of models) await model.dispose()
    rmSync(dir, { recursive: true, force: true })
  })

  it("sees the reference's pixels, vision states and projector output", async () => {
    const model = await load()
    for (const file of new Set(expected.cases.flatMap((c) => c.images))) {
      const image = await preprocessImage(join(folder, 'images', file), { size: model.info.imageSize })
      const wanted = tensor(`image.${file}.pixel_values`)
      const side = model.info.imageSize
      const pixels = new Float32Array(3 * side * side)
      for (let c = 0; c < 3; c++) {
        for (let i = 0; i < side * side; i++) pixels[c * side * side + i] = (image.data[i * 3 + c]! / 255 - 0.5) / 0.5
      }
      expect(maxDifference(pixels, wanted.data)).toBeLessThanOrEqual(tolerance.pixels)
      const stages = await trace(path, { images: [{ pixels: image.data }], prompt: '' })
      const vision = stages.find((s) => s.name === 'vision')!
      const projector = stages.find((s) => s.name === 'projector')!
      expect(maxDifference(vision.data, tensor(`image.${file}.vision_last_hidden_state`).data)).toBeLessThanOrEqual(
        tolerance.vision
      )
      expect(maxDifference(projector.data, tensor(`image.${file}.projector_output`).data)).toBeLessThanOrEqual(
        tolerance.vision
      )
      const embedding = await model.encodeImage(join(folder, 'images', file))
      expect(maxDifference(embedding.data, projector.data)).toBe(0)
    }
  })

  it("has the reference's hidden states after every layer and its logits at every position", async () => {
    const c = generates.find((c) => c.name === 'caption')!
    const model = await load()
    const image = await preprocessImage(images(c)[0]!, { size: model.info.imageSize })
    const stages = await trace(path, { images: [{ pixels: image.data }], prompt: c.prompt })
    const hidden = stages.filter((s) => s.name === 'hidden')
    const wanted = tensor('caption.hidden_states')
    const [layers, tokens, width] = wanted.shape as [number, number, number]
    expect(hidden.length).toBe(layers)
    hidden.forEach((stage, i) => {
      expect([stage.rows, stage.cols]).toEqual([tokens, width])
      const slice = wanted.data.subarray(i * tokens * width, (i + 1) * tokens * width)
      const scale = Math.max(1, slice.reduce((m, v) => Math.max(m, Math.abs(v)), 0) / 100)
      expect(maxDifference(stage.data, slice), `layer ${i}`).toBeLessThanOrEqual(tolerance.logits * scale)
    })
    const logits = stages.find((s) => s.name === 'logits')!
    expect(maxDifference(logits.data, tensor('caption.prefill_logits_all').data)).toBeLessThanOrEqual(tolerance.logits)
  })

  const expectTokens = async (model: PaliGemma, c: Case, tokens: number[], logprobs: number[]): Promise<void> => {
    const result = await model.generate({
      images: images(c),
      prompt: c.prompt,
      maxTokens: tokens.length,
      ignoreEos: true,
      logProbs: 0
    })
    expect(
      result.tokens.map((t) => t.id),
      c.name
    ).toEqual(tokens)
    result.tokens.forEach((t, i) =>
      expect(Math.abs(t.logProb! - logprobs[i]!), `${c.name} token ${i}`).toBeLessThanOrEqual(tolerance.logits)
    )
    expect(result.usage.imageTokens + result.usage.promptTokens).toBe(c.input_ids.length)
  }

  it("generates the reference's tokens with its log-probabilities", async () => {
    const model = await load()
    for (const c of generates) await expectTokens(model, c, c.greedy.tokens, c.greedy.logprobs)
  })

  it("lists the reference's best alternatives", async () => {
    const model = await load()
    for (const c of generates) {
      const { tokens } = await model.generate({
        images: images(c),
        prompt: c.prompt,
        maxTokens: 1,
        ignoreEos: true,
        logProbs: 10
      })
      const top = tokens[0]!.top!
      expect(top.map((t) => t.id)).toEqual(c.prefill_topk.map((t) => t.id))
      top.forEach((t, i) =>
        expect(Math.abs(t.logProb - c.prefill_topk[i]!.logprob)).toBeLessThanOrEqual(tolerance.logits)
      )
    }
  })

  it("decodes the reference's text", async () => {
    const model = await load()
    // bytes that make no character are shown as the tokenizer's own rule says, see golden/tokenizer
    for (const c of generates.filter((c) => !c.greedy.text.includes('\ufffd'))) {
      const { text } = await model.generate({ images: images(c), prompt: c.prompt, maxTokens: 24, ignoreEos: true })
      expect(text).toBe(c.greedy.text)
    }
  })

  it('generates the same tokens with the default f16 cache, for any number of threads', async () => {
    for (const threads of [1, 3]) {
      const model = await load({ threads, kvCacheType: 'f16' })
      for (const c of generates) {
        const result = await model.generate({ images: images(c), prompt: c.prompt, maxTokens: 24, ignoreEos: true })
        expect(
          result.tokens.map((t) => t.id),
          c.name
        ).toEqual(c.greedy.tokens)
      }
    }
  })

  it('scores a suffix as the reference', async () => {
    const model = await load()
    for (const c of scores) {
      const score = await model.score({ images: images(c), prompt: c.prompt, suffix: c.suffix })
      expect(score.tokens.map((t) => t.id)).toEqual(c.suffix_ids)
      score.logProbs.forEach((p, i) => expect(Math.abs(p - c.logprobs[i]!)).toBeLessThanOrEqual(tolerance.logits))
      expect(Math.abs(score.total - c.logprob_sum)).toBeLessThanOrEqual(tolerance.logits * c.logprobs.length)
      expect(score.mean).toBeCloseTo(score.total / c.logprobs.length, 5)
    }
  })

  it('gives the log-probabilities without the final soft cap', async () => {
    const model = await load({ finalSoftcap: false })
    for (const c of generates) await expectTokens(model, c, c.greedy.tokens, c.uncapped.logprobs)
    for (const c of scores) {
      const { logProbs } = await model.score({ images: images(c), prompt: c.prompt, suffix: c.suffix })
      logProbs.forEach((p, i) => expect(Math.abs(p - c.uncapped.logprobs[i]!)).toBeLessThanOrEqual(tolerance.logits))
    }
  })

  it.each([
    ['none', 'full_attention'],
    ['causal', 'window_in_prefix']
  ] as const)('matches the variant attentionWindow: %s', async (attentionWindow, key) => {
    const model = await load({ attentionWindow })
    for (const c of expected.cases) {
      const variant = c[key]
      if (!variant) continue
      if (c.kind === 'generate' && variant.tokens) await expectTokens(model, c, variant.tokens, variant.logprobs)
      if (c.kind === 'score') {
        const { logProbs } = await model.score({ images: images(c), prompt: c.prompt, suffix: c.suffix })
        logProbs.forEach((p, i) => expect(Math.abs(p - variant.logprobs[i]!)).toBeLessThanOrEqual(tolerance.logits))
      }
    }
  })

  it('answers concurrent requests exactly as one at a time', async () => {
    const model = await load({ maxSequences: 3 })
    const run = async (c: Case) =>
      await model.generate({ images: images(c), prompt: c.prompt, maxTokens: 24, ignoreEos: true, logProbs: 0 })
    const alone: GenerateResult[] = []
    for (const c of generates) alone.push(await run(c))
    const together = await Promise.all(generates.map(run))
    together.forEach((result, i) => expect(result.tokens).toEqual(alone[i]!.tokens))
  })

  it('takes an embedding in place of its picture', async () => {
    const model = await load()
    const c = generates.find((c) => c.name === 'two_images')!
    const [first, second] = images(c)
    const embedding = await model.encodeImage(first!)
    const result = await model.generate({
      images: [embedding, second!],
      prompt: c.prompt,
      maxTokens: 24,
      ignoreEos: true
    })
    expect(result.tokens.map((t) => t.id)).toEqual(c.greedy.tokens)
  })

  it('keeps log-probabilities close when quantized', async () => {
    // Mean error over teacher-forced tokens of random weights: what the types lose, with room for rounding elsewhere.
    const limits: Record<string, number> = { bf16: 0.02, q8_0: 0.2 }
    const c = generates.find((c) => c.name === 'caption')!
    for (const [type, limit] of Object.entries(limits)) {
      const file = join(dir, `${type}.gguf`)
      await convert({ source: folder, out: file, type })
      const model = await load({ model: file })
      const { tokens } = await model.generate({
        images: images(c),
        prompt: c.prompt,
        maxTokens: 1,
        ignoreEos: true,
        logProbs: 10
      })
      const error = c.prefill_topk.slice(0, 3).map((t) => {
        const ours = tokens[0]!.top!.find((o) => o.id === t.id)
        return ours ? Math.abs(ours.logProb - t.logprob) : Infinity
      })
      expect(Math.max(...error), type).toBeLessThanOrEqual(limit * 5)
    }
  })

  it('keeps teacher-forced log-probabilities of whole suffixes close when quantized', async () => {
    // Mean absolute error over every suffix token, against the float32 reference: about twice what 8-bit activations
    // give (docs/lab-book.md); with random weights these log-probabilities are near -20.
    const limits: Record<string, number> = { bf16: 0.15, q8_0: 0.8, q6_k: 1, q4_0: 3.5 }
    for (const [type, limit] of Object.entries(limits)) {
      const file = join(dir, `forced-${type}.gguf`)
      await convert({ source: folder, out: file, type })
      const model = await load({ model: file })
      const errors: number[] = []
      for (const c of scores) {
        const { logProbs } = await model.score({ images: images(c), prompt: c.prompt, suffix: c.suffix })
        logProbs.forEach((p, i) => errors.push(Math.abs(p - c.logprobs[i]!)))
      }
      const mean = errors.reduce((sum, e) => sum + e, 0) / errors.length
      expect(errors.length).toBeGreaterThan(20)
      expect(mean, type).toBeLessThanOrEqual(limit)
    }
  })
})
