/** `paligemma bench` on models that it makes up itself. Nothing here depends on how fast anything is. */
import { existsSync, readdirSync, readFileSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bench, type BenchResult } from '../../lib/measure/bench'
import { measureLimits } from '../../lib/measure/limits'
import { syntheticModel } from '../../lib/measure/synthetic'
import { execute } from '../../lib/cli/program'
import { dequantizeTensor, inspectModel, loadModel, loadTokenizer } from '../../lib/index'
import { native } from '../../lib/engine/native'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

let dir: string
const temporary = process.env['TMPDIR']
beforeAll(() => {
  dir = tempDir()
})
afterAll(() => {
  if (temporary === undefined) delete process.env['TMPDIR']
  else process.env['TMPDIR'] = temporary
  removeTempDirs()
})

async function paligemma(...args: string[]) {
  const out: string[] = []
  const err: string[] = []
  const context = {
    stdout: { write: (text: string) => out.push(text) },
    stderr: { write: (text: string) => err.push(text) },
    signal: new AbortController().signal
  }
  return { code: await execute(args, context), out: out.join(''), err: err.join('') }
}

describe('a synthetic model', () => {
  it("has the converter's types and the padded tower", async () => {
    const { path, bytes } = await syntheticModel({ size: 'tiny', type: 'Q4_K_M', dir })
    expect(statSync(path).size).toBe(bytes)
    const info = await inspectModel(path, { maxArray: 0 })
    const types = new Map(info.tensors.map(({ name, type }) => [name, type]))
    expect(
      Object.fromEntries(
        [
          'token_embd.weight',
          'blk.0.attn_q.weight',
          'output_norm.weight',
          'v.blk.0.attn_q.weight',
          'v.patch_embd.weight'
        ].map((name) => [name, types.get(name)])
      )
    ).toEqual({
      'token_embd.weight': 'Q6_K',
      'blk.0.attn_q.weight': 'Q4_K',
      'output_norm.weight': 'F32',
      'v.blk.0.attn_q.weight': 'Q8_0',
      'v.patch_embd.weight': 'F16'
    })
    expect(info.tensors.find(({ name }) => name === 'v.blk.0.ffn_up.weight')!.shape).toEqual([256, 128])
  })

  it.each(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q5_K_M', 'Q3_K_M', 'Q2_K', 'IQ4_XS'])(
    'of type %s holds noise of the right size, and norms of one',
    async (type) => {
      const { path } = await syntheticModel({ size: 'tiny', type, dir })
      const { data } = await dequantizeTensor(path, 'blk.1.ffn_up.weight')
      const mean = data.reduce((sum, x) => sum + x, 0) / data.length
      const deviation = Math.sqrt(data.reduce((sum, x) => sum + (x - mean) ** 2, 0) / data.length)
      expect(Math.abs(mean)).toBeLessThan(0.002)
      expect(deviation).toBeGreaterThan(0.017)
      expect(deviation).toBeLessThan(0.023)
      for (const name of ['output_norm.weight', 'blk.0.attn_norm.weight', 'v.blk.1.ln2.weight', 'v.post_ln.weight']) {
        expect(new Set((await dequantizeTensor(path, name)).data), name).toEqual(new Set([1]))
      }
    }
  )

  it('is taken again when it is there and whole, and is the same when it is written again', async () => {
    const options = { size: 'tiny', type: 'q8_0', dir }
    const first = await syntheticModel(options)
    const content = readFileSync(first.path)
    expect(await syntheticModel(options)).toEqual({ ...first, reused: true })
    truncateSync(first.path, 1000)
    expect(await syntheticModel(options)).toEqual({ ...first, reused: false })
    expect(readFileSync(first.path).equals(content)).toBe(true)
  })

  it('has neither tower nor projector where only text is asked for', async () => {
    const whole = await inspectModel((await syntheticModel({ size: 'tiny', type: 'Q8_0', dir })).path)
    const text = await inspectModel((await syntheticModel({ size: 'tiny', type: 'Q8_0', textOnly: true, dir })).path)
    const names = (model: typeof whole) => model.tensors.map(({ name }) => name)
    expect(names(text)).toEqual(names(whole).filter((name) => /^(?:blk|token_embd|output_norm)\./.test(name)))
    expect(text.tensors.length).toBeLessThan(whole.tensors.length)
  })

  it('leaves nothing behind when it is aborted', async () => {
    const empty = tempDir()
    const controller = new AbortController()
    const reason = new Error('enough')
    await expect(
      syntheticModel({
        size: 'tiny',
        type: 'F32',
        dir: empty,
        signal: controller.signal,
        onProgress: () => controller.abort(reason)
      })
    ).rejects.toBe(reason)
    expect(readdirSync(empty)).toEqual([])
  })

  it.each(['tiny', 'pg1-tiny'])('%s generates, and tokenizes words into merged pieces', async (size) => {
    const { path } = await syntheticModel({ size, type: 'Q4_0', dir })
    const model = await loadModel(path)
    try {
      expect(model.info).toMatchObject({
        architecture: size === 'tiny' ? 'paligemma2' : 'paligemma',
        imageTokens: 16,
        quantization: 'Q4_0'
      })
      const image = { data: new Uint8Array(30 * 20 * 3).fill(90), width: 30, height: 20 }
      const { tokens, usage } = await model.generate({
        image,
        prompt: 'caption en',
        maxTokens: 5,
        ignoreEos: true,
        logProbs: true
      })
      expect(usage).toMatchObject({ imageTokens: 16, completionTokens: 5 })
      for (const { logProb } of tokens) expect(logProb).toBeLessThan(0)
    } finally {
      await model.dispose()
    }
    const tokenizer = await loadTokenizer(path)
    expect(tokenizer.encode('<loc0012>')).toHaveLength(1)
    expect(tokenizer.encode('tea at ten').length).toBeLessThan('tea at ten'.length)
    expect(tokenizer.decode(tokenizer.encode('tea at ten'))).toBe('tea at ten')
  })
})

describe("the machine's limits", () => {
  it('are positive numbers, with any number of threads', async () => {
    const { readGBps, int8Gops } = await measureLimits(1)
    expect(readGBps).toBeGreaterThan(0)
    expect(int8Gops).toBeGreaterThanOrEqual(0)
    expect((await native().machineLimits(3)).readGBps).toBeGreaterThan(0)
  })

  it.each([0, 1.5, 5000, 'two', null])('refuse %j threads', (threads) => {
    expect(() => native().machineLimits(threads as number)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining('threads') })
    )
  })

  it("reject with the signal's reason", async () => {
    const reason = new Error('enough')
    const controller = new AbortController()
    const limits = measureLimits(1, controller.signal)
    controller.abort(reason)
    await expect(limits).rejects.toBe(reason)
  })
})

function expectSane(result: BenchResult): void {
  const positive = [
    'threads',
    'runs',
    'modelBytes',
    'loadMs',
    'imageTokens',
    'visionMs',
    'visionGops',
    'prefillTokens',
    'prefillMs',
    'prefillTokensPerSecond',
    'prefillGops',
    'decodeTokens',
    'decodeTokensPerSecond',
    'decodeGBps',
    'firstTokenMs',
    'secondQuestionMs',
    'totalMs',
    'cpuShare',
    'peakRssBytes',
    'memoryFactor'
  ] as const
  for (const name of positive) expect(result[name], name).toBeGreaterThan(0)
  expect(result.limits.readGBps).toBeGreaterThan(0)
  expect(result.isa).toBe(native().cpuInfo().isa)
  expect(result.totalMs).toBeGreaterThanOrEqual(result.firstTokenMs)
  expect((result.prefillTokensPerSecond * result.prefillMs) / result.prefillTokens).toBeCloseTo(1000, -1)
  expect(result.peakRssBytes).toBeGreaterThan(result.modelBytes)
  expect((result.shares.decode! * result.limits.readGBps) / result.decodeGBps).toBeCloseTo(1, 1)
  expect(result.shares.prefill === null).toBe(result.limits.int8Gops === 0)
}

describe('paligemma bench', () => {
  it('--synthetic --json prints every figure, keeps the model and says where', async () => {
    process.env['TMPDIR'] = tempDir()
    const { code, out, err } = await paligemma(
      'bench',
      '--synthetic',
      'tiny',
      '--type',
      'Q4_0',
      '--runs',
      '2',
      '--tokens',
      '4',
      '--threads',
      '2',
      '--json'
    )
    expect(code).toBe(0)
    const result = JSON.parse(out) as BenchResult
    expectSane(result)
    expect(result).toMatchObject({
      runs: 2,
      threads: 2,
      imageTokens: 16,
      prefillTokens: 20,
      decodeTokens: 4,
      variant: 'paligemma2 custom Q4_0'
    })
    expect(result.model.startsWith(process.env['TMPDIR'])).toBe(true)
    expect(result.modelBytes).toBe(statSync(result.model).size)
    expect(err).toContain(result.model)
    expect(result).not.toHaveProperty('concurrent')

    const again = await paligemma(
      'bench',
      '--synthetic',
      'tiny',
      '--type',
      'Q4_0',
      '--runs',
      '1',
      '--tokens',
      '2',
      '--json',
      '--discard'
    )
    expect(again).toMatchObject({ code: 0, err: '' })
    expect(existsSync(result.model)).toBe(false)
  })

  it('prints a table for people', async () => {
    const { path } = await syntheticModel({ size: 'tiny', type: 'Q4_0', dir })
    const { code, out } = await paligemma(
      'bench',
      '--model',
      path,
      '--runs',
      '1',
      '--tokens',
      '3',
      '--concurrency',
      '2'
    )
    expect(code).toBe(0)
    for (const line of [
      'this machine: reads',
      'vision',
      'prefill',
      'decode',
      '2 streams',
      'first token',
      'answer',
      'load',
      'memory'
    ])
      expect(out).toMatch(new RegExp(`^ *${line} `, 'm'))
    expect(out).not.toMatch(/NaN|undefined|Infinity/)
  })

  it('--depth fills the prompt to exactly so many tokens', async () => {
    const { path } = await syntheticModel({ size: 'tiny', type: 'Q4_0', dir })
    const result = await bench({ model: path, depth: 300, tokens: 2, runs: 1 })
    expectSane(result)
    expect(result.prefillTokens).toBe(300)
    expect((await bench({ model: path, depth: 18, tokens: 2, runs: 1 })).prefillTokens).toBe(18)
  })

  it('--concurrency counts the tokens of all streams', async () => {
    const { path } = await syntheticModel({ size: 'pg1-tiny', type: 'Q8_0', dir })
    const { concurrent } = await bench({ model: path, tokens: 8, runs: 1, concurrency: 5 })
    expect(concurrent).toMatchObject({ streams: 5 })
    for (const value of Object.values(concurrent!)) expect(value).toBeGreaterThan(0)
  })

  it('--oversubscribe runs the same with twice the threads', async () => {
    const { path } = await syntheticModel({ size: 'tiny', type: 'Q4_0', dir })
    const seen: number[] = []
    const result = await bench({
      model: path,
      tokens: 4,
      runs: 2,
      threads: 2,
      oversubscribe: true,
      onProgress: (fraction) => seen.push(fraction)
    })
    expect(result).toMatchObject({ threads: 2, oversubscribed: { threads: 4 } })
    expect(Object.keys(result.oversubscribed!.ratios)).toEqual(['vision', 'prefill', 'decode', 'total'])
    for (const [name, ratio] of Object.entries(result.oversubscribed!.ratios)) expect(ratio, name).toBeGreaterThan(0)
    expect(seen).toEqual([...seen].sort((a, b) => a - b))
    expect(seen.at(-1)).toBe(1)
    const { code, out } = await paligemma(
      'bench',
      '--model',
      path,
      '--runs',
      '1',
      '--tokens',
      '2',
      '--threads',
      '1',
      '--oversubscribe'
    )
    expect(code).toBe(0)
    expect(out).toMatch(/^ {2}2 threads +[\d.]+ times .*as long as with 1$/m)
    expect(out).not.toMatch(/NaN|undefined|Infinity/)
  })

  it.each([
    [{ depth: 17 }, 'Expected a depth from 18'],
    [{ depth: 8180 }, 'to 8160'],
    [{ paper: true }, 'Expected a model for 224 px']
  ])('refuses %j for this model', async (options, message) => {
    const { path } = await syntheticModel({ size: 'tiny', type: 'Q4_0', dir })
    await expect(bench({ model: path, ...options })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining(message)
    })
  })

  it('a missing model is a failure', async () => {
    const { code, err } = await paligemma('bench', '--model', join(dir, 'nothing.gguf'))
    expect(code).toBe(1)
    expect(err).toContain('ERR_MODEL_NOT_FOUND')
  })

  it("rejects with the signal's reason", async () => {
    const { path } = await syntheticModel({ size: 'tiny', type: 'Q4_0', dir })
    const controller = new AbortController()
    const reason = new Error('enough')
    await expect(
      bench({ model: path, signal: controller.signal, onProgress: () => controller.abort(reason) })
    ).rejects.toBe(reason)
  })
})
