/** Importance matrices and quality reports. */
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import { readImportance, writeImportance } from '../../lib/convert/imatrix'
import { quantize } from '../../lib/convert/quantize'
import { ModelHost } from '../../lib/api/request/host'
import { collectImportance } from '../../lib/measure/importance'
import { dequantizeTensor, loadModel } from '../../lib/index'
import { native } from '../../lib/engine/native'
import { compareQuality, compareRows } from '../../lib/measure/quality'
import { readPrompts } from '../../lib/measure/samples'
import { command } from '../support/command'
import { readGguf, removeTempDirs, sourceFloats, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { readSafetensors } from '../support/safetensors'

afterAll(removeTempDirs)

const hf = (...parts: string[]) => golden('hf', ...parts)
const image = (model: string, name: string) => hf(model, 'images', `${name}.png`)

async function base(name: string, type: string): Promise<string> {
  const out = join(tempDir(), `${name}.gguf`)
  await convert({ source: hf(name), out, type })
  return out
}

function meanSquares(rows: Float32Array, cols: number): number[] {
  const sums = new Array<number>(cols).fill(0)
  rows.forEach((value, i) => {
    sums[i % cols]! += value * value
  })
  return sums.map((sum) => sum / (rows.length / cols))
}

function expectNear(found: Float32Array, expected: number[], what: string): void {
  expect(found.length, what).toBe(expected.length)
  const worst = found.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!) / expected[i]!), 0)
  expect(worst, what).toBeLessThan(1e-4)
}

describe.skipIf(!hasGolden)('collectImportance', () => {
  it('gathers the mean square of what enters each matrix', async () => {
    const model = await base('pg2-tiny', 'f32')
    const out = join(dirname(model), 'imatrix.gguf')
    // an empty answer: nothing but the prompt is run
    const result = await collectImportance({
      model,
      out,
      images: [image('pg2-tiny', 'd')],
      prompts: [{ prompt: 'caption en', answer: '' }]
    })
    const importance = await readImportance(out)
    expect(result).toMatchObject({ path: out, matrices: importance.size, samples: 1 })
    expect(importance.size).toBe(1 + 4 * 7 + 1 + 2 * 6 + 1)

    const host = await ModelHost.open(native(), { model, kvCacheType: 'f16' })
    const [prepared] = await host.prepareImages({ image: image('pg2-tiny', 'd') })
    const { stages } = (await host.run({ kind: 'trace', images: [prepared!.native], prompt: 'caption en' }, {}))!
    const { imageTokens } = host.info
    await host.dispose()
    const hidden = stages!.filter(({ name }) => name === 'hidden')
    expect(result.tokens).toBe(hidden[0]!.rows)
    expectNear(
      importance.get('mm.0.weight')!,
      meanSquares(stages!.find(({ name }) => name === 'vision')!.data, 64),
      'projector'
    )
    const { data: weight } = await dequantizeTensor(model, 'blk.0.attn_norm.weight')
    const normed = hidden[0]!.data.slice()
    for (let row = 0; row < hidden[0]!.rows; row++) {
      const values = normed.subarray(row * 96, (row + 1) * 96)
      const rms = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / 96 + 1e-6)
      values.forEach((value, i) => {
        values[i] = (value / rms) * weight[i]!
      })
    }
    // the picture's tokens and the prompt's count half each, however many there are
    const pictures = meanSquares(normed.subarray(0, imageTokens * 96), 96)
    const words = meanSquares(normed.subarray(imageTokens * 96), 96)
    const expected = pictures.map((value, i) => (value + words[i]!) / 2)
    for (const name of ['attn_q', 'attn_k', 'attn_v'])
      expectNear(importance.get(`blk.0.${name}.weight`)!, expected, name)
    // the head sees the last token only
    expectNear(importance.get('token_embd.weight')!, meanSquares(hidden.at(-1)!.data.subarray(-96), 96), 'head')
    expect(importance.get('blk.3.ffn_down.weight')).toHaveLength(192)
  })

  it("writes llama.cpp's layout: sums and counts, general.type imatrix", async () => {
    const out = join(tempDir(), 'imatrix.gguf')
    await writeImportance(
      out,
      [{ name: 'blk.0.ffn_up.weight', count: 4, sums: Float32Array.of(2, 4, 8) }],
      ['a.png'],
      1
    )
    const { metadata, tensors } = readGguf(out)
    expect(Object.fromEntries(metadata)).toMatchObject({
      'general.type': 'imatrix',
      'imatrix.datasets': ['a.png'],
      'imatrix.chunk_count': 1,
      'imatrix.chunk_size': 1
    })
    expect([...tensors.keys()]).toEqual(['blk.0.ffn_up.weight.in_sum2', 'blk.0.ffn_up.weight.counts'])
    expect(tensors.get('blk.0.ffn_up.weight.in_sum2')).toMatchObject({ type: 0, shape: [1, 3] })
    expect((await readImportance(out)).get('blk.0.ffn_up.weight')).toEqual(Float32Array.of(0.5, 1, 2))
  })

  it('gives the same bits for any number of threads', async () => {
    const model = await base('pg1-tiny', 'q8_0')
    const [one, two] = await Promise.all(
      [1, 2].map(async (threads) => {
        const out = join(dirname(model), `${threads}.gguf`)
        await collectImportance({
          model,
          out,
          threads,
          images: [image('pg1-tiny', 'a')],
          prompts: ['caption en', 'ocr'],
          maxTokens: 5
        })
        return readFileSync(out)
      })
    )
    expect(one!.equals(two!)).toBe(true)
  })
})

describe.skipIf(!hasGolden)('quantizing with an importance matrix', () => {
  it.each(['Q2_K', 'Q3_K', 'Q4_K', 'IQ4_XS', 'IQ4_NL', 'Q4_0', 'Q4_1'])(
    '%s: the error that matters falls',
    async (type) => {
      const rows = sourceFloats(hf('pg2-k'), 'model.language_model.layers.1.mlp.up_proj.weight')
      const cols = 256
      // as trained models have it: few columns carry most of the activation
      const importance = Float32Array.from({ length: cols }, (_, i) => (i % 16 === 3 ? 30 : 0.2 + (i % 5) * 0.1))
      const error = async (weights?: Float32Array) => {
        const packed = await native().quantizeRows(new Uint8Array(rows.buffer), 'F32', type, cols, weights)
        const back = new Float32Array((await native().quantizeRows(packed, type, 'F32', cols)).slice().buffer)
        return back.reduce((sum, value, i) => sum + importance[i % cols]! * (value - rows[i]!) ** 2, 0)
      }
      expect(await error(importance)).toBeLessThan(0.95 * (await error()))
    }
  )

  // Measured with 434 tokens: mean KL 5.04 -> 4.88, 3.19 -> 3.12, 2.64 -> 2.55. The weights are random, so no column
  // matters much more than another; trained models gain more.
  it.each(['Q2_K', 'Q3_K_S', 'Q3_K_M'])(
    "%s: teacher-forced log-probabilities come nearer the original's",
    async (type) => {
      const model = await base('pg2-k', 'bf16')
      const images = ['d', 'e', 'f'].map((name) => image('pg2-k', name))
      const prompts = ['caption en', 'detect cat', 'answer en what is this?', 'describe en']
      const imatrix = join(dirname(model), 'imatrix.gguf')
      await collectImportance({ model, out: imatrix, images, prompts })
      const [plain, weighted] = await Promise.all(
        [undefined, imatrix].map(async (given) => {
          const out = join(dirname(model), given ? 'weighted.gguf' : 'plain.gguf')
          await quantize({ source: model, out, type, imatrix: given })
          return await compareQuality({ model: out, against: model, images, prompts, maxTokens: 32 })
        })
      )
      expect(weighted!.kl.mean).toBeLessThan(plain!.kl.mean)
      expect(weighted!.logProbRms).toBeLessThan(plain!.logProbRms)
    }
  )

  it('fits a padded feed-forward, and convert takes it as well', async () => {
    const padded = await base('pg2-tiny', 'q8_0')
    const imatrix = join(dirname(padded), 'imatrix.gguf')
    await collectImportance({ model: padded, out: imatrix, images: [image('pg2-tiny', 'd')], maxTokens: 4 })
    expect((await readImportance(imatrix)).get('v.blk.0.ffn_down.weight')).toHaveLength(256)
    const [a, b] = ['a.gguf', 'b.gguf'].map((name) => join(dirname(padded), name)) as [string, string]
    await convert({ source: hf('pg2-tiny'), out: a, type: 'q4_0', visionType: 'q4_0', imatrix })
    await quantize({ source: await base('pg2-tiny', 'f32'), out: b, type: 'q4_0', visionType: 'q4_0', imatrix })
    const [one, other] = [readGguf(a), readGguf(b)]
    for (const [name, tensor] of one.tensors)
      expect(other.tensors.get(name)!.bytes.equals(tensor.bytes), name).toBe(true)
    const plain = join(dirname(padded), 'plain.gguf')
    await convert({ source: hf('pg2-tiny'), out: plain, type: 'q4_0', visionType: 'q4_0' })
    expect(
      readGguf(plain).tensors.get('blk.0.attn_q.weight')!.bytes.equals(one.tensors.get('blk.0.attn_q.weight')!.bytes)
    ).toBe(false)
  })

  it('refuses the matrix of another model and files that are none', async () => {
    const [model, other] = [await base('pg2-tiny', 'f32'), await base('pg1-tiny', 'f32')]
    const imatrix = join(dirname(other), 'imatrix.gguf')
    await collectImportance({ model: other, out: imatrix, images: [image('pg1-tiny', 'a')], maxTokens: 2 })
    const out = join(dirname(model), 'x.gguf')
    await expect(quantize({ source: model, out, type: 'q4_0', imatrix })).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining('another model')
    })
    await expect(quantize({ source: model, out, type: 'q4_0', imatrix: other })).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining('paligemma imatrix')
    })
    const strange = join(dirname(other), 'strange.gguf')
    await writeImportance(strange, [{ name: 'some.weight', count: 1, sums: Float32Array.of(1) }], [], 1)
    await expect(convert({ source: hf('pg2-tiny'), out, type: 'q4_0', imatrix: strange })).rejects.toThrow(
      'it knows none of'
    )
    await writeImportance(
      strange,
      [{ name: 'blk.0.attn_q.weight', count: 1, sums: new Float32Array(96).fill(-1) }],
      [],
      1
    )
    await expect(quantize({ source: model, out, type: 'q4_0', imatrix: strange })).rejects.toThrow('no sums of squares')
  })

  it('says which matrices it does not cover', async () => {
    const model = await base('pg2-tiny', 'f32')
    const imatrix = join(dirname(model), 'imatrix.gguf')
    await writeImportance(
      imatrix,
      [{ name: 'blk.0.attn_q.weight', count: 2, sums: new Float32Array(96).fill(1) }],
      [],
      1
    )
    const { notes } = await quantize({ source: model, out: join(dirname(model), 'x.gguf'), type: 'q4_0', imatrix })
    expect(notes.join()).toMatch(/without importance, which .* does not hold: token_embd\.weight, .* more/)
  })
})

describe('an importance matrix of the demo model', () => {
  const demo = join(__dirname, '../../demo/paligemma2-demo.gguf')
  const pictures = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) =>
      join(__dirname, `../fixtures/demo-eval/${String(from + i).padStart(3, '0')}.png`)
    )

  // What importance promises: smaller errors of those weights that meet large inputs, also of pictures and words that
  // it was not made of. What that does to the answers of so small a model is a matter of luck, a quarter up or down;
  // native/test/test_importance.cpp holds the outputs of every matrix to it.
  it('takes errors from weights that other pictures show to matter', { timeout: 120_000 }, async () => {
    const dir = tempDir()
    const file = (name: string) => join(dir, `${name}.gguf`)
    const observe = async (name: string, images: string[], prompts: string[]) => {
      await collectImportance({ model: demo, out: file(name), images, prompts })
      return await readImportance(file(name))
    }
    await observe('imatrix', pictures(0, 10), [
      'caption en',
      'detect green square',
      'answer en how many shapes are there?'
    ])
    const heldOut = await observe('other', pictures(20, 30), ['caption en', 'detect red circle ; blue star', 'ocr'])
    await quantize({ source: demo, out: file('base'), type: 'F32' })

    /** Squared errors of all matrices, each column's by what it meets, each matrix's in parts of its own size. */
    const weightedError = async (type: string, imatrix?: string) => {
      await quantize({ source: file('base'), out: file('small'), type, imatrix })
      let sum = 0
      for (const [name, importance] of heldOut) {
        const [before, after] = [
          await dequantizeTensor(file('base'), name),
          await dequantizeTensor(file('small'), name)
        ]
        let [error, size] = [0, 0]
        before.data.forEach((value, i) => {
          const weight = importance[i % importance.length]!
          error += weight * (value - after.data[i]!) ** 2
          size += weight * value ** 2
        })
        sum += error / size
      }
      return sum
    }
    for (const type of ['Q4_0', 'Q4_1', 'IQ4_NL']) {
      const ratio = (await weightedError(type, file('imatrix'))) / (await weightedError(type))
      expect(ratio, type).toBeLessThan(0.97)
    }
  })
})

describe('compareRows', () => {
  it('is the divergence by definition', () => {
    const [found, reference] = [Float32Array.of(1, 2, 0.5, -3), Float32Array.of(0.5, 2.5, 1, -200)]
    const softmax = (row: Float32Array) => {
      const e = [...row].map(Math.exp)
      const sum = e.reduce((a, b) => a + b, 0)
      return e.map((value) => value / sum)
    }
    const [p, q] = [softmax(reference), softmax(found)]
    const expected = p.reduce((sum, value, i) => sum + (value > 0 ? value * Math.log(value / q[i]!) : 0), 0)
    expect(compareRows(found, reference).kl).toBeCloseTo(expected, 12)
    expect(compareRows(found, reference).agree).toBe(true)
    expect(compareRows(Float32Array.of(3, 2), Float32Array.of(1, 2)).agree).toBe(false)
    expect(compareRows(reference, reference)).toEqual({ kl: 0, agree: true })
    // logits far apart overflow neither way
    expect(compareRows(Float32Array.of(1e4, -1e4), Float32Array.of(-1e4, 1e4)).kl).toBeCloseTo(2e4, 6)
  })
})

describe.skipIf(!hasGolden)('compareQuality', () => {
  let model: string
  beforeAll(async () => {
    model = await base('pg2-k', 'bf16')
  })

  it("scores with logits give the reference's rows", async () => {
    const { cases } = JSON.parse(readFileSync(hf('pg2-k', 'expected.json'), 'utf8'))
    const expected = readSafetensors(hf('pg2-k', 'expected.safetensors'))
    const host = await ModelHost.open(native(), {
      model: await base('pg2-k', 'f32'),
      kvCacheType: 'f32',
      attentionWindow: 'suffix'
    })
    for (const item of cases.filter((one: { kind: string }) => one.kind === 'score')) {
      const [prepared] = await host.prepareImages({ image: hf('pg2-k', 'images', item.images[0]) })
      const { stages, scored } = (await host.run(
        { kind: 'score', images: [prepared!.native], prompt: item.prompt, suffix: item.suffix, logits: true },
        {}
      ))!
      const {
        data,
        shape: [rows, cols]
      } = expected.get(`${item.name}.suffix_logits`)!
      expect(stages).toMatchObject([{ name: 'logits', rows, cols }])
      expect(scored).toHaveLength(rows!)
      expect(
        stages![0]!.data.reduce((most, value, i) => Math.max(most, Math.abs(value - data[i]!)), 0),
        item.name
      ).toBeLessThan(2e-3)
    }
    await host.dispose()
  })

  it('a model against itself: no divergence, and the perplexity of score', async () => {
    const answer = 'on the beach'
    const result = await compareQuality({
      model,
      against: model,
      images: [image('pg2-k', 'd')],
      prompts: [{ prompt: 'answer en where is the cow standing?', answer }]
    })
    expect(result).toMatchObject({
      samples: 1,
      topAgreement: 1,
      kl: { mean: 0, median: 0, p99: 0, max: 0 },
      logProbRms: 0
    })
    expect(result.perplexity.model).toBe(result.perplexity.against)
    await using loaded = await loadModel({ model })
    const { mean, tokens } = await loaded.score({
      image: image('pg2-k', 'd'),
      prompt: 'answer en where is the cow standing?',
      suffix: answer
    })
    expect(result.tokens).toBe(tokens.length)
    expect(result.perplexity.model).toBeCloseTo(Math.exp(-mean), 6)
  })

  it('orders types by their bits', async () => {
    const divergence = await Promise.all(
      ['q8_0', 'q5_k_s', 'q3_k_s'].map(async (type) => {
        const out = join(tempDir(), 'x.gguf')
        await quantize({ source: model, out, type })
        return (
          await compareQuality({
            model: out,
            against: model,
            images: [image('pg2-k', 'd')],
            prompts: ['caption en', 'ocr'],
            maxTokens: 24
          })
        ).kl.mean
      })
    )
    expect(divergence[0]).toBeGreaterThan(0)
    expect(divergence[0]).toBeLessThan(divergence[1]!)
    expect(divergence[1]).toBeLessThan(divergence[2]!)
  })

  it('refuses models of different vocabularies, long answers and wrong options', async () => {
    const images = [image('pg2-k', 'd')]
    await expect(
      compareQuality({ model: await base('pg2-tiny-sharded', 'bf16'), against: model, images })
    ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(
      compareQuality({ model, against: model, images, prompts: [{ prompt: 'ocr', answer: '<loc0001>'.repeat(300) }] })
    ).rejects.toMatchObject({ code: 'ERR_PROMPT_TOO_LONG', message: expect.stringContaining('256') })
    await expect(compareQuality({ model, against: model, images: [] })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
    await expect(compareQuality({ model, against: model, images, prompts: [] })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
  })

  it('a request for importance of a model that was not loaded for it is refused', async () => {
    const host = await ModelHost.open(native(), { model })
    await expect(host.run({ kind: 'importance', images: [], prompt: '' }, {})).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
    await host.dispose()
  })
})

describe.skipIf(!hasGolden)('paligemma imatrix, quantize and quality', () => {
  it('measure, quantize and judge', async () => {
    const model = await base('pg2-k', 'bf16')
    const dir = dirname(model)
    const prompts = join(dir, 'prompts.txt')
    writeFileSync(prompts, '# what we ask\ncaption en\n\nanswer en where is the cow standing?\ton the beach\n')
    const [imatrix, small, smaller] = ['i.gguf', 'q4.gguf', 'q2.gguf'].map((name) => join(dir, name)) as [
      string,
      string,
      string
    ]
    const images = hf('pg2-k', 'images', '*.png')
    const observed = await command(
      'imatrix',
      '--model',
      model,
      '--images',
      images,
      '--prompts',
      prompts,
      '--out',
      imatrix,
      '--max-tokens',
      '8',
      '--json'
    )
    expect(observed).toMatchObject({ code: 0, err: '' })
    expect(JSON.parse(observed.out)).toMatchObject({ path: imatrix, samples: 6 })
    for (const [out, type] of [
      [small, 'q4_k_m'],
      [smaller, 'q2_k']
    ] as const) {
      expect(await command('quantize', model, out, '--type', type, '--imatrix', imatrix)).toMatchObject({ code: 0 })
    }
    const judge = [
      'quality',
      '--model',
      small,
      '--model',
      smaller,
      '--against',
      model,
      '--images',
      images,
      '--prompts',
      prompts,
      '--max-tokens',
      '8'
    ]
    const { out } = await command(...judge, '--json')
    const { against, results } = JSON.parse(out)
    expect(against).toBe(model)
    expect(results.map((result: { model: string }) => result.model)).toEqual([small, smaller])
    expect(results[0].kl.mean).toBeLessThan(results[1].kl.mean)
    const table = (await command(...judge)).out.trimEnd().split('\n')
    expect(table).toHaveLength(4)
    const shown = table[2]!.trim().split(' ')[0]
    expect(Number(shown).toPrecision(6)).toBe(results[0].perplexity.model.toPrecision(6))
  })

  it('say what is wrong with a file of prompts', async () => {
    const empty = join(tempDir(), 'empty.txt')
    writeFileSync(empty, '# nothing\n')
    await expect(readPrompts(empty)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining(empty)
    })
    const args = [
      'quality',
      '--model',
      'a',
      '--against',
      'b',
      '--images',
      hf('pg2-k', 'images', 'd.png'),
      '--prompts',
      join(tempDir(), 'no.txt')
    ]
    expect(await command(...args)).toMatchObject({ code: 2, err: expect.stringContaining('no.txt') })
  })
})
