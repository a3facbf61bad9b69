/** How training behaves: order, resuming, aborts, company, and what becomes of its adapters. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import { type FitExample, type FitOptions, loadModel, type PaliGemma, type TrainedAdapter } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden } from '../support/golden'
import { readSafetensors } from '../support/safetensors'
import { writeTinyModel } from '../support/tiny-model'

let path = ''
let model: PaliGemma
const picture = (shade: number) => ({ data: new Uint8Array(56 * 56 * 3).fill(shade), width: 56, height: 56 })
const examples: FitExample[] = Array.from({ length: 5 }, (_, i) => ({
  image: picture(i * 50),
  prompt: `what ${i}`,
  response: 'abcde'.slice(i)
}))
const few: FitOptions = { steps: 4, batchSize: 2, learningRate: 0.01, rank: 2, targets: ['q_proj', 'down_proj'] }

beforeAll(async () => {
  path = writeTinyModel({ seed: 3 })
  model = await loadModel({ model: path, threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  removeTempDirs()
})

const valuesOf = (adapter: TrainedAdapter): number[] => [...adapter.tensors.values()].flatMap(({ data }) => [...data])
const lossOf = async (adapters: TrainedAdapter[], on = model): Promise<number> =>
  -(await on.score({ image: picture(0), prompt: 'what 0', suffix: 'abcde', adapters })).mean

describe('fit', () => {
  it('lowers the loss, and its adapter works at once, by its scale, saved, loaded and merged', async () => {
    const { adapter, losses, evaluation } = await model.fit(
      { images: [picture(0)], prompts: 'what 0', responses: 'abcde' },
      { ...few, steps: 12, targets: ['all'], evaluate: [examples[1]!], evaluateEvery: 5 }
    )
    expect(losses).toHaveLength(12)
    expect(losses.at(-1)).toBeLessThan(losses[0]! - 0.5)
    expect(evaluation.map(({ step }) => step)).toEqual([5, 10, 12])
    const before = await lossOf([])
    expect(before).toBeCloseTo(losses[0]!, 2)
    const after = await lossOf([adapter])
    expect(after).toBeLessThan(before - 0.5)
    const half = await model.score({
      ...{ image: picture(0), prompt: 'what 0', suffix: 'abcde' },
      adapters: [{ path: adapter, scale: 0.5 }]
    })
    expect(-half.mean).toBeLessThan(before)
    expect(-half.mean).toBeGreaterThan(after)
    // requests that name none go on without it
    expect(-(await model.score({ image: picture(0), prompt: 'what 0', suffix: 'abcde' })).mean).toBe(before)

    const folder = join(tempDir(), 'adapter')
    await adapter.save(folder)
    await adapter.save(pathToFileURL(`${folder}.gguf`))
    await convert({ source: path, out: `${folder}-merged.gguf`, adapters: [folder] })
    await convert({ source: path, out: `${folder}-merged-too.gguf`, adapters: [adapter] })
    const merged = readFileSync(`${folder}-merged.gguf`)
    expect(merged.equals(readFileSync(`${folder}-merged-too.gguf`))).toBe(true)
    for (const options of [
      { adapters: [folder] },
      { adapters: [`${folder}.gguf`] },
      { adapters: [pathToFileURL(folder) as never] },
      { adapters: [{ path: pathToFileURL(folder).href }] },
      { adapters: [adapter] },
      { model: `${folder}-merged.gguf` }
    ]) {
      await using other = await loadModel({ model: path, threads: 2, ...options })
      const { mean } = await other.score({ image: picture(0), prompt: 'what 0', suffix: 'abcde' })
      expect(-mean).toBeCloseTo(after, 3)
    }
  }, 60_000)

  it('gives an adapter that a request names the scale that it was loaded with', async () => {
    const { adapter } = await model.fit(examples, few)
    await using other = await loadModel({ model: path, threads: 2, adapters: [{ path: adapter, scale: 0.5 }] })
    const request = { image: picture(0), prompt: 'what 0', suffix: 'abcde' }
    const asLoaded = await other.score(request)
    expect(await other.score({ ...request, adapters: [adapter] })).toEqual(asLoaded)
    const whole = await other.score({ ...request, adapters: [{ path: adapter, scale: 1 }] })
    expect(whole).not.toEqual(asLoaded)
    expect(whole).toEqual(await model.score({ ...request, adapters: [adapter] }))
  })

  it('saves what PEFT reads', async () => {
    const { adapter } = await model.fit(examples, {
      ...few,
      steps: 1,
      rslora: true,
      alpha: 3,
      targets: ['v_proj', 'fc1']
    })
    const folder = join(tempDir(), 'adapter')
    await adapter.save(folder)
    const config = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as Record<string, unknown>
    expect(config).toMatchObject({
      peft_type: 'LORA',
      r: 2,
      lora_alpha: 3,
      use_rslora: true,
      target_modules: adapter.modules
    })
    // PEFT refuses fields that its LoraConfig does not have; these are in every version since 0.7
    expect([
      ...['auto_mapping', 'base_model_name_or_path', 'bias', 'fan_in_fan_out', 'inference_mode', 'init_lora_weights'],
      ...['lora_alpha', 'lora_dropout', 'modules_to_save', 'peft_type', 'r', 'target_modules', 'task_type'],
      'use_rslora'
    ]).toEqual(expect.arrayContaining(Object.keys(config)))
    const tensors = readSafetensors(join(folder, 'adapter_model.safetensors'))
    const stem = 'base_model.model.model'
    expect([...tensors.keys()].filter((name) => name.includes('.0.'))).toEqual([
      `${stem}.language_model.layers.0.self_attn.v_proj.lora_A.weight`,
      `${stem}.language_model.layers.0.self_attn.v_proj.lora_B.weight`,
      `${stem}.vision_tower.vision_model.encoder.layers.0.mlp.fc1.lora_A.weight`,
      `${stem}.vision_tower.vision_model.encoder.layers.0.mlp.fc1.lora_B.weight`
    ])
  })

  it('gives the same bits on any number of threads, in company, and in either form of the examples', async () => {
    const want = valuesOf((await model.fit(examples, few)).adapter)
    await using single = await loadModel({ model: path, threads: 1 })
    const [trained, answer] = await Promise.all([
      single.fit(
        (async function* () {
          yield* examples.map(({ image, prompt, response }) => ({
            images: [image!],
            prefix: prompt!,
            suffix: response!
          }))
        })(),
        few
      ),
      single.generate({ prompt: 'a', maxTokens: 30, ignoreEos: true })
    ])
    expect(valuesOf(trained.adapter)).toEqual(want)
    expect(answer.usage.completionTokens).toBe(30)
    const lists = {
      images: examples.map(({ image }) => image!),
      prompts: examples.map(({ prompt }) => prompt!),
      responses: examples.map(({ response }) => response!)
    }
    expect(valuesOf((await model.fit(lists, few)).adapter)).toEqual(want)
    expect(valuesOf((await model.fit(examples, { ...few, seed: 1 })).adapter)).not.toEqual(want)
  })

  it('takes every example once an epoch, in the order given or another', async () => {
    const orderOf = async (options: FitOptions): Promise<number[][]> => {
      const seen: number[][] = []
      const { steps: _, ...rest } = few
      await model.fit(examples, { ...rest, epochs: 2, ...options, onStep: ({ examples }) => seen.push(examples) })
      return seen
    }
    expect(await orderOf({ shuffle: false })).toEqual([[0, 1], [2, 3], [4], [0, 1], [2, 3], [4]])
    const shuffled = await orderOf({})
    expect(shuffled.map((batch) => batch.length)).toEqual([2, 2, 1, 2, 2, 1])
    for (const epoch of [shuffled.slice(0, 3), shuffled.slice(3)]) expect(epoch.flat().sort()).toEqual([0, 1, 2, 3, 4])
    expect(shuffled.slice(0, 3)).not.toEqual(shuffled.slice(3))
    expect(await orderOf({})).toEqual(shuffled)
  })

  it('goes on after an abort as if nothing had come between', async () => {
    const want = await model.fit(examples, { ...few, evaluate: examples.slice(0, 1), evaluateEvery: 1 })
    const checkpoint = join(tempDir(), 'run')
    const stop = new AbortController()
    const options: FitOptions = { ...few, checkpoint, resume: true, evaluate: examples.slice(0, 1), evaluateEvery: 1 }
    const aborted = model.fit(examples, {
      ...options,
      signal: stop.signal,
      onStep: ({ step }) => {
        if (step === 2) stop.abort(new Error('enough'))
      }
    })
    await expect(aborted).rejects.toThrow('enough')
    expect(existsSync(join(checkpoint, 'checkpoint.safetensors'))).toBe(true)
    const steps: number[] = []
    const got = await model.fit(examples, { ...options, onStep: ({ step }) => steps.push(step) })
    expect(steps).toEqual([3, 4])
    expect(got.losses).toEqual(want.losses)
    expect(valuesOf(got.adapter)).toEqual(valuesOf(want.adapter))
    // nothing is left to do
    const again = await model.fit(examples, options)
    expect(valuesOf(again.adapter)).toEqual(valuesOf(want.adapter))

    for (const [changed, name] of [
      [{ learningRate: 0.02 }, 'learningRate'],
      [{ rank: 3 }, 'adapter'],
      [{ steps: 5 }, 'steps']
    ] as const)
      await expect(model.fit(examples, { ...options, ...changed })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(name) as string
      })
    await expect(model.fit(examples.slice(1), options)).rejects.toThrow(/Expected examples as in the run/)
  })

  it('drops what seed and example say: on any number of threads, and after an abort', async () => {
    const options: FitOptions = { ...few, targets: ['all'], dropout: 0.3 }
    const want = valuesOf((await model.fit(examples, options)).adapter)
    expect(valuesOf((await model.fit(examples, { ...options, dropout: 0 })).adapter)).not.toEqual(want)
    await using single = await loadModel({ model: path, threads: 1 })
    expect(valuesOf((await single.fit(examples, options)).adapter)).toEqual(want)

    const stop = new AbortController()
    const kept = { ...options, checkpoint: join(tempDir(), 'run'), resume: true }
    const aborted = model.fit(examples, { ...kept, signal: stop.signal, onStep: () => stop.abort(new Error('enough')) })
    await expect(aborted).rejects.toThrow('enough')
    await expect(model.fit(examples, { ...kept, dropout: 0.2 })).rejects.toThrow(/Expected dropout as in the run/)
    const { adapter } = await model.fit(examples, kept)
    expect(valuesOf(adapter)).toEqual(want)

    const folder = tempDir()
    await adapter.save(folder)
    const config = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as object
    expect(config).toMatchObject({ lora_dropout: 0.3 })
  })

  it('trains over quantized weights', async () => {
    const base = golden('hf', 'pg1-tiny')
    if (!existsSync(base)) return
    const folder = tempDir()
    for (const type of ['Q8_0', 'Q4_0'] as const) {
      const file = join(folder, `${type}.gguf`)
      await convert({ source: base, out: file, type })
      await using small = await loadModel({ model: file, threads: 2 })
      const { adapter, losses } = await small.fit([{ prompt: 'ocr', response: 'two words' }], {
        ...{ steps: 10, learningRate: 0.01 }
      })
      expect(losses.at(-1)).toBeLessThan(losses[0]! - 1)
      const { mean } = await small.score({ prompt: 'ocr', suffix: 'two words', adapters: [adapter] })
      expect(-mean).toBeLessThan(losses.at(-1)! + 0.1)
    }
  }, 60_000)

  it.each<[string, unknown, FitOptions, RegExp]>([
    ['no examples', [], {}, /at least one example for examples/],
    ['no list', 5, {}, /for examples but received 5/],
    ['an example without response', [{ prompt: 'a' }], {}, /string for examples\[0\]\.response/],
    ['both words', [{ prompt: 'a', prefix: 'b', response: 'c' }], {}, /prompt or prefix/],
    ['lists of two lengths', { prompts: ['a', 'b'], responses: ['c'] }, {}, /as many prompts as responses/],
    ['a picture that is none', [{ image: 5, prompt: 'a', response: 'b' }], {}, /image/],
    ['unknown targets', examples, { targets: ['qproj'] }, /for targets but received "qproj"/],
    ['rank beside from', examples, { from: '/nowhere', rank: 4 }, /no rank beside from/],
    ['resume alone', examples, { resume: true }, /checkpoint/],
    ['a rate of 0', examples, { learningRate: 0 }, /learningRate/],
    ['all dropped', examples, { dropout: 1 }, /from 0 to 0.99 for dropout but received 1/]
  ])('refuses %s', async (_, given, options, message) => {
    await expect(model.fit(given as FitExample[], options)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(model.fit(given as FitExample[], options)).rejects.toThrow(message)
  })

  it('names the example that cannot be used', async () => {
    const bad = [...examples.slice(0, 2), { image: '/nowhere.png', prompt: 'a', response: 'b' }]
    await expect(model.fit(bad, { ...few, shuffle: false })).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringMatching(/step 2 of 4, examples\[2\]: .*nowhere\.png/) as string
    })
    const long = [{ prompt: 'a'.repeat(9000), response: 'b' }]
    await expect(model.fit(long, few)).rejects.toMatchObject({
      code: 'ERR_PROMPT_TOO_LONG',
      message: expect.stringContaining('examples[0]') as string
    })
  })
})
