/** The public API over the engine, on a tiny model with random weights: shapes, life cycle, errors. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import v8 from 'node:v8'
import vm from 'node:vm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dequantizeTensor, inspectModel, loadModel, PaliGemmaError, type PaliGemma } from '../../lib/index'
import { leastStandstill, longest } from '../support/hostile'
import { writeTinyModel } from '../support/tiny-model'

const image = {
  data: Uint8Array.from({ length: 60 * 40 * 3 }, (_, i) => (i * 37) % 256),
  width: 60,
  height: 40,
  channels: 3 as const
}
const other = { ...image, data: image.data.map((value) => 255 - value) }

v8.setFlagsFromString('--expose-gc')
const collectGarbage = vm.runInNewContext('gc') as () => void

describe('a tiny model', () => {
  const folders: string[] = []
  let path: string
  let model: PaliGemma
  const write = (options: Parameters<typeof writeTinyModel>[0] = {}): string => {
    const file = writeTinyModel(options)
    folders.push(dirname(file))
    return file
  }
  beforeAll(async () => {
    path = write({ maskDecoder: true })
    model = await loadModel({ model: path, threads: 2 })
  })
  afterAll(async () => {
    await model.dispose()
    for (const folder of folders) rmSync(folder, { recursive: true, force: true })
  })

  it('says what it is', () => {
    expect(model.info).toMatchObject({
      architecture: 'paligemma2',
      variant: 'custom',
      imageSize: 56,
      imageTokens: 16,
      device: 'cpu',
      hasVision: true,
      hasMaskDecoder: true,
      threads: 2,
      quantization: 'F32'
    })
    expect(model.info.bytes).toBeGreaterThan(1e5)
    expect(Object.isFrozen(model.info)).toBe(true)
  })

  it('generates the same text alone, in a batch, from an embedding and as a stream', async () => {
    const request = { image, prompt: 'caption en', maxTokens: 8, ignoreEos: true, logProbs: 2 }
    const alone = await model.generate(request)
    expect(alone.tokens).toHaveLength(8)
    expect(alone.usage).toMatchObject({ imageTokens: 16, completionTokens: 8 })
    expect(alone.finishReason).toBe('length')
    expect(
      alone.tokens.every(
        ({ logProb, top }) => logProb! <= 0 && top!.length === 2 && top![0]!.logProb >= top![1]!.logProb
      )
    ).toBe(true)
    expect(alone.timings.firstTokenMs).toBeGreaterThanOrEqual(alone.timings.preprocessMs)
    expect(alone.text).toBe(model.detokenize(alone.tokens.map((token) => token.id)))
    const ids = alone.tokens.map((token) => token.id)

    const batch = await model.generateBatch([
      request,
      { ...request, image: other },
      { ...request, prompt: 'answer en how' },
      { ...request, maxTokens: 0 } as never,
      request
    ])
    expect((batch[0] as typeof alone).tokens.map((token) => token.id)).toEqual(ids)
    expect((batch[4] as typeof alone).tokens.map((token) => token.id)).toEqual(ids)
    expect(batch[3]).toBeInstanceOf(PaliGemmaError)

    const embedding = await model.encodeImage(image)
    expect([embedding.data.length, embedding.tokens, embedding.hidden]).toEqual([
      16 * model.info.textHidden,
      16,
      model.info.textHidden
    ])
    const reused = await model.generate({ ...request, image: embedding })
    expect(reused.tokens.map((token) => token.id)).toEqual(ids)

    const stream = model.stream(request)
    let text = ''
    for await (const chunk of stream) text += chunk.text
    expect(text).toBe(alone.text)
    expect((await stream.result).tokens.map((token) => token.id)).toEqual(ids)
  })

  it('scores as it generates', async () => {
    const generated = await model.generate({
      image,
      prompt: 'caption en',
      maxTokens: 3,
      ignoreEos: true,
      logProbs: true
    })
    const score = await model.score({ image, prompt: 'caption en', suffix: 'cat' })
    expect(score.logProbs).toHaveLength(model.tokenize('cat').length + 1)
    expect(score.total).toBeCloseTo(score.logProbs.reduce((a, b) => a + b, 0))
    expect(score.mean).toBeCloseTo(score.total / score.logProbs.length)
    expect(generated.tokens[0]!.logProb!).toBeGreaterThanOrEqual(score.logProbs[0]! - 1e-4)
  })

  it('detects and segments within the grammar, inside the picture', async () => {
    const found = await model.detect(image, ['cat', 'red cow'], { maxObjects: 2, maxTokens: 60 })
    for (const { label, box, normalized, score } of found) {
      expect(['cat', 'red cow']).toContain(label)
      expect(box.x).toBeGreaterThanOrEqual(0)
      expect(box.x + box.width).toBeLessThanOrEqual(60)
      expect(box.y + box.height).toBeLessThanOrEqual(40)
      expect([normalized.yMin, normalized.xMax].every((value) => value >= 0 && value <= 1)).toBe(true)
      expect(score).toBeGreaterThan(0)
      expect(score).toBeLessThanOrEqual(1)
    }
    for (const { codes, mask } of await model.segment(image, 'cat', { maxObjects: 1, maxTokens: 60 })) {
      expect(codes).toHaveLength(16)
      expect([mask.width, mask.height, mask.data.length]).toEqual([60, 40, 2400])
      expect(mask.data.every((value) => value === 0 || value === 255)).toBe(true)
      expect(await model.decodeMask(codes)).toHaveLength(4096)
    }
  })

  it('tells what is in use', async () => {
    const idle = model.stats()
    expect(idle).toMatchObject({ requests: 0, kvPageTokens: 64 })
    expect(idle.kvPages).toBeGreaterThanOrEqual(model.info.contextSize / 64)
    const busy: ReturnType<PaliGemma['stats']>[] = []
    const prompt = 'a cat is not a dog, and this has never been asked before'
    await model.generate({ prompt, maxTokens: 3, ignoreEos: true, onToken: () => void busy.push(model.stats()) })
    expect(busy[0]!.requests).toBe(1)
    expect(busy[0]!.kvPagesUsed).toBeGreaterThan(0)
    expect(busy[0]!.kvPagesUsed).toBeLessThanOrEqual(idle.kvPages)
    expect(model.stats().requests).toBe(0)
  })

  it("aborts at once with the signal's reason, before and during the work", async () => {
    const reason = new Error('enough')
    await expect(model.generate({ image, prompt: 'x', signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const control = new AbortController()
    await expect(
      model.generate({
        image,
        prompt: 'x',
        maxTokens: 5000,
        ignoreEos: true,
        signal: control.signal,
        onToken: () => control.abort(reason)
      })
    ).rejects.toBe(reason)
    const soon = new AbortController()
    const running = model.generate({ image, prompt: 'x', maxTokens: 5000, ignoreEos: true, signal: soon.signal })
    setTimeout(() => soon.abort(reason), 1)
    await expect(running).rejects.toBe(reason)
  })

  it('leaving a stream ends with finishReason abort, and the model goes on', async () => {
    const stream = model.stream({ image, prompt: 'caption en', maxTokens: 5000, ignoreEos: true })
    let count = 0
    for await (const _ of stream) if (++count === 3) break
    const { finishReason, usage } = await stream.result
    expect(finishReason).toBe('abort')
    const full = await model.generate({ image, prompt: 'caption en', maxTokens: 1 })
    expect(usage.promptTokens).toBe(full.usage.promptTokens)
    expect(usage.imageTokens).toBe(full.usage.imageTokens)
  })

  it('tells what does not fit', async () => {
    const small = await loadModel({ model: path, contextSize: 64 })
    await expect(small.generate({ images: [image, image, image, image, image], prompt: 'x' })).rejects.toMatchObject({
      name: 'PaliGemmaError',
      code: 'ERR_PROMPT_TOO_LONG'
    })
    const { finishReason, tokens } = await small
      .generate({ image, prompt: 'x', maxTokens: 1000, ignoreEos: true })
      .catch((error: PaliGemmaError) => {
        expect(error.code).toBe('ERR_PROMPT_TOO_LONG')
        return { finishReason: 'length', tokens: [] }
      })
    expect(finishReason).toBe('length')
    expect(tokens.length).toBeLessThan(64)
    await small.dispose()
  })

  it('reports files that are missing, damaged or something else', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'models-'))
    folders.push(folder)
    const bad = join(folder, 'bad.gguf')
    writeFileSync(bad, 'GGUF and nothing else')
    const text = write({ vision: false })
    await expect(loadModel(join(folder, 'none.gguf'))).rejects.toMatchObject({
      name: 'PaliGemmaError',
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('none.gguf') as unknown
    })
    await expect(loadModel(bad)).rejects.toMatchObject({
      name: 'PaliGemmaError',
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining('bad.gguf') as unknown
    })
    await expect(loadModel({ model: path, maskDecoder: bad })).rejects.toMatchObject({
      name: 'PaliGemmaError',
      code: 'ERR_MODEL_INVALID'
    })
    await expect(loadModel({ model: path, device: 'cuda' })).rejects.toMatchObject({
      name: 'PaliGemmaError',
      code: 'ERR_DEVICE_UNAVAILABLE'
    })
    await expect(
      (async () => {
        const model = await loadModel(text)
        try {
          await model.generate({ image, prompt: 'x' })
        } finally {
          await model.dispose()
        }
      })()
    ).rejects.toMatchObject({ name: 'PaliGemmaError', code: 'ERR_MODEL_UNSUPPORTED' })
  })

  it('works on after many requests at once, and dispose ends the rest with ERR_DISPOSED', async () => {
    const busy = await loadModel({ model: path, maxSequences: 2 })
    const done = await Promise.all(
      Array.from(
        { length: 12 },
        async (_, i) =>
          await busy.generate({ image: i % 2 ? image : other, prompt: 'caption en', maxTokens: 4, ignoreEos: true })
      )
    )
    expect(new Set(done.map(({ tokens }) => tokens.map((token) => token.id).join())).size).toBeLessThanOrEqual(2)
    const work = Array.from(
      { length: 5 },
      async () => await busy.generate({ image, prompt: 'x', maxTokens: 5000, ignoreEos: true })
    )
    const ends = Promise.allSettled(work)
    await new Promise((resolve) => setTimeout(resolve, 20))
    await busy.dispose()
    for (const end of await ends) expect(end).toMatchObject({ status: 'rejected', reason: { code: 'ERR_DISPOSED' } })
    await busy.dispose()
    await expect(busy.generate({ prompt: 'x' })).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  })

  it('an idle model that nobody holds is collected', async () => {
    const references = await (async () => {
      const list: WeakRef<object>[] = []
      for (let i = 0; i < 3; i++) {
        const model = await loadModel({
          model: path,
          threads: 1,
          onProgress: () => {},
          signal: new AbortController().signal
        })
        await model.generate({ prompt: 'x', image, maxTokens: 2, ignoreEos: true })
        list.push(new WeakRef(model))
      }
      return list
    })()
    for (let i = 0; i < 50 && references.some((reference) => reference.deref()); i++) {
      await new Promise((resolve) => setTimeout(resolve, 10))
      collectGarbage()
    }
    expect(references.map((reference) => reference.deref())).toEqual([undefined, undefined, undefined])
  })

  it('keeps the event loop free', async () => {
    const busy = async (): Promise<unknown> =>
      await Promise.all(
        Array.from(
          { length: 4 },
          async () => await model.generate({ image, prompt: 'caption en', maxTokens: 100, ignoreEos: true })
        )
      )
    expect(await leastStandstill(busy)).toBeLessThan(longest)
  })

  it('can be looked into without loading', async () => {
    const info = await inspectModel(path, { maxArray: 3 })
    expect(info).toMatchObject({ version: 3, architecture: 'gemma2', quantization: 'F32' })
    expect(info.parameters).toBe(model.info.parameters) // the mask decoder is counted nowhere
    expect(info.tensors.some(({ name }) => name === 'token_embd.weight')).toBe(true)
    const tokens = info.metadata.find(({ key }) => key === 'tokenizer.ggml.tokens')!
    expect([tokens.type, (tokens.value as unknown[]).length, tokens.count! > 1000]).toEqual(['array<string>', 3, true])
    expect(JSON.parse(JSON.stringify(info))).toMatchObject({ architecture: 'gemma2' })
    const { shape, data } = await dequantizeTensor(path, 'output_norm.weight')
    expect([shape, data.length]).toEqual([[model.info.textHidden], model.info.textHidden])
    await expect(dequantizeTensor(path, 'none')).rejects.toMatchObject({
      name: 'PaliGemmaError',
      message: expect.stringContaining('none') as unknown
    })
    await expect(inspectModel('/none.gguf')).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
  })
})
