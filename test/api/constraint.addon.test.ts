/**
 * Constraints over the engine: whatever weights, temperature and seed say, the output has the form that was asked for.
 */
import { rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from 'vitest'
import { loadModel, parseOutput, type Constraint, type GenerateOptions, type PaliGemma } from '../../lib/index'
import type { JsonSchema } from '../../lib/output/schema/json-schema'
import { writeTinyModel } from '../support/tiny-model'

const image = {
  data: Uint8Array.from({ length: 60 * 40 * 3 }, (_, i) => (i * 37) % 256),
  width: 60,
  height: 40,
  channels: 3 as const
}
const files: string[] = []
const models: PaliGemma[] = []

beforeAll(async () => {
  for (const seed of [1, 2]) {
    const path = writeTinyModel({ seed, maskDecoder: true, architecture: seed === 1 ? 'gemma2' : 'gemma' })
    files.push(path)
    models.push(await loadModel({ model: path, threads: 2, maxSequences: 8 }))
  }
})
afterAll(async () => {
  for (const model of models) await model.dispose()
  for (const file of files) rmSync(dirname(file), { recursive: true, force: true })
})

/** Greedy and wild, on both models, all at once. */
async function runs(
  constrain: Constraint | 'detect' | 'segment',
  options: Partial<GenerateOptions> = {}
): Promise<{ text: string; finishReason: string }[]> {
  const requests = [0, 1, 2, 3, 4, 5].map((seed) => ({
    image,
    prompt: 'answer en what',
    constrain,
    temperature: seed === 0 ? 0 : seed * 0.7,
    seed,
    maxTokens: 200,
    ...options
  }))
  const results = await Promise.all(models.map(async (model) => await model.generateBatch(requests)))
  return results.flat().map((result) => {
    if (result instanceof Error) throw result
    return result
  })
}

describe('constrained generation', () => {
  it('answers with one of the choices', async () => {
    const choices = ['yes', 'no', 'not really', 'a cat and a dog', 'é 😀']
    const results = await runs({ choices })
    expect(results.every(({ text, finishReason }) => choices.includes(text) && finishReason === 'stop')).toBe(true)
    expect(new Set(results.map(({ text }) => text)).size).toBeGreaterThan(1)
    expect(['red', 'green']).toContain(await models[0]!.answer(image, 'which colour?', { choices: ['red', 'green'] }))
  })

  it('types answers as the union of the choices, and says when one was cut', async () => {
    const [model] = models
    const answer = await model!.answer(image, 'is it?', { choices: ['yes', 'no'] })
    expectTypeOf(answer).toEqualTypeOf<'yes' | 'no'>()
    expect(['yes', 'no']).toContain(answer)
    expectTypeOf(await model!.answer(image, 'is it?')).toEqualTypeOf<string>()
    const choices: string[] = ['a', 'b']
    expectTypeOf(await model!.answer(image, 'is it?', { choices })).toEqualTypeOf<string>()

    const request = { image, prompt: 'answer en is it?', constrain: { choices: ['yes', 'no'] } } as const
    const result = await model!.generate(request)
    if (result.finishReason === 'stop') expectTypeOf(result.text).toEqualTypeOf<'yes' | 'no'>()
    const [first] = await model!.generateBatch([request])
    if (first instanceof Error || first!.finishReason !== 'stop') throw new Error('was cut')
    expectTypeOf(first!.text).toEqualTypeOf<'yes' | 'no'>()
    expect(first!.text).toBe(result.text)

    await expect(
      model!.answer(image, 'is it?', { choices: ['not really at all'], maxTokens: 1 })
    ).rejects.toMatchObject({ code: 'ERR_OUTPUT_INCOMPLETE', text: expect.stringMatching(/^n/) as unknown })
    for (const wrong of [[], [''], new Array(3), new Array(2 ** 32 - 1), ['a', 5], 'yes'])
      await expect(model!.answer(image, 'x', { choices: wrong as string[] })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION'
      })
  })

  it('writes what matches the expression', async () => {
    for (const source of [
      '(cat|dog|cow)( and (cat|dog|cow)){0,2}',
      '[a-z]{3,8}: -?\\d{1,4}(\\.\\d)?',
      '\\d{4}-(0[1-9]|1[0-2])-[0-3]\\d',
      '[^a-z]{5}',
      'the answer is (yes|no)\\.'
    ]) {
      for (const { text, finishReason } of await runs({ regex: source })) {
        expect(finishReason, source).toBe('stop')
        expect(text, source).toMatch(new RegExp(`^(?:${source})$`, 'u'))
      }
    }
  })

  it('writes JSON of the schema', async () => {
    const jsonSchema: JsonSchema = {
      type: 'object',
      properties: {
        animal: { enum: ['cow', 'cat', 'dog'] },
        count: { type: 'integer', minimum: 0, maximum: 12 },
        names: { type: 'array', items: { type: 'string', maxLength: 4 }, maxItems: 3 },
        indoors: { type: ['boolean', 'null'] }
      },
      required: ['animal', 'count', 'names']
    }
    for (const { text, finishReason } of await runs({ jsonSchema }, { maxTokens: 400 })) {
      expect(finishReason).toBe('stop')
      const value = JSON.parse(text) as { animal: string; count: number; names: string[] }
      expect(['cow', 'cat', 'dog']).toContain(value.animal)
      expect(value.count).toBeLessThanOrEqual(12)
      expect(value.names.length).toBeLessThanOrEqual(3)
    }
  })

  it('writes boxes and masks that parse as a whole', async () => {
    for (const kind of ['detect', 'segment'] as const) {
      for (const labels of [['cat', 'red cow'], undefined]) {
        for (const { text, finishReason } of await runs(
          { kind, ...(labels && { labels }), maxObjects: 3 },
          { maxTokens: 300 }
        )) {
          const objects = parseOutput(text, { width: 60, height: 40 })
          expect(objects.length).toBeLessThanOrEqual(3)
          // a model of random weights may go on with a free name until maxTokens
          if (labels) expect(finishReason).toBe('stop')
          for (const object of objects) {
            expect(object.valid).toBe(true)
            if (labels) expect(labels).toContain(object.label)
            if (kind === 'segment') expect(object.codes).toHaveLength(16)
          }
          if (labels) {
            expect(text).toMatch(
              kind === 'detect'
                ? /^$|^((<loc\d{4}>){4} (cat|red cow)( ; (?!$)|$))+$/
                : /^$|^((<loc\d{4}>){4}(<seg\d{3}>){16} (cat|red cow)( ; (?!$)|$))+$/
            )
          }
        }
      }
    }
  })

  it('gives the same tokens with and without log-probabilities, alone and in company', async () => {
    // without them only a few rows of the head are computed and known tokens are fed together
    const constraints: Constraint[] = [
      { choices: ['a cat and a dog', 'the red cow', 'the red cat'] },
      { regex: 'the answer is (yes|no), (the|a) (cat|dog)' },
      { kind: 'segment', labels: ['red cow'], maxObjects: 2 },
      { kind: 'detect', labels: ['cat', 'the dog'], maxObjects: 3 }
    ]
    for (const model of models) {
      for (const temperature of [0, 1.5]) {
        const requests = constraints.map((constrain, seed) => ({
          image,
          prompt: 'detect cat',
          constrain,
          temperature,
          seed,
          maxTokens: 120
        }))
        const ids = ({ tokens }: { tokens: { id: number }[] }): number[] => tokens.map((token) => token.id)
        const alone = []
        for (const request of requests) alone.push(await model.generate(request))
        const scored = []
        for (const request of requests) scored.push(await model.generate({ ...request, logProbs: true }))
        const together = await model.generateBatch([
          ...requests,
          ...requests.map((request) => ({ ...request, logProbs: true }))
        ])
        for (const [i, result] of alone.entries()) {
          expect(ids(scored[i]!)).toEqual(ids(result))
          expect(ids(together[i] as typeof result)).toEqual(ids(result))
          expect((together[i + requests.length] as typeof result).tokens).toEqual(scored[i]!.tokens)
          expect(result.tokens.every((token) => token.logProb === undefined)).toBe(true)
          expect(scored[i]!.tokens.every((token) => token.logProb! <= 0)).toBe(true)
        }
      }
    }
  })

  it('reports every token, also those without a choice, with the probability that score gives them', async () => {
    const model = models[0]!
    const suffix = 'the cat and the dog'
    const streamed: string[] = []
    const result = await model.generate({
      image,
      prompt: 'caption en',
      constrain: { choices: [suffix] },
      logProbs: true,
      onToken: (chunk) => streamed.push(chunk.text)
    })
    const score = await model.score({ image, prompt: 'caption en', suffix })
    expect(streamed.join('')).toBe(suffix)
    expect(result.tokens.map((token) => token.id)).toEqual(score.tokens.slice(0, -1).map((token) => token.id))
    for (const [i, token] of result.tokens.entries()) expect(token.logProb).toBeCloseTo(score.logProbs[i]!, 2)
  })

  it('keeps to maxTokens and stop strings', async () => {
    const model = models[0]!
    const constrain = { regex: 'the cat and the dog and the cow' }
    const cut = await model.generate({ image, prompt: 'x', constrain, maxTokens: 3 })
    expect([cut.tokens.length, cut.finishReason]).toEqual([3, 'length'])
    expect(await model.generate({ image, prompt: 'x', constrain, maxTokens: 3, logProbs: true })).toMatchObject({
      text: cut.text,
      finishReason: 'length'
    })
    for (const logProbs of [false, true]) {
      expect(await model.generate({ image, prompt: 'x', constrain, stop: [' and the cow'], logProbs })).toMatchObject({
        text: 'the cat and the dog',
        finishReason: 'stop'
      })
    }
  })

  it('scores objects the same whether the output was constrained or not', async () => {
    const [object] = await models[0]!.segment(image, 'cat', { temperature: 1, seed: 4, maxObjects: 1 })
    if (!object) return expect(object).toBeUndefined()
    expect(object.codes).toHaveLength(16)
    for (const value of [object.score, object.labelScore, object.boxScore]) expect(value > 0 && value <= 1).toBe(true)
    expect(await models[0]!.segment(image, 'cat', { temperature: 1, seed: 4, maxObjects: 1, logProbs: true })).toEqual([
      object
    ])
  })

  it('says how to do without one where beams are asked for', async () => {
    await expect(models[0]!.detect(image, 'cow', { beams: 2 })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(
        /beams 1 with a constraint.*unless constrain is false \(--no-constrain\)/
      ) as unknown
    })
  })

  it('says what is wrong with a constraint', async () => {
    const generate = async (constrain: unknown) =>
      await models[0]!.generate({ image, prompt: 'x', constrain: constrain as Constraint })
    await expect(generate({ regex: 'a(b' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('A ( without ) at position 1 of the regular expression /a(b/') as unknown
    })
    await expect(generate({ regex: '(?=a)b' })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(generate({ choices: [] })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('for constrain but received an object') as unknown
    })
    await expect(generate({ jsonSchema: { type: 'string', not: {} } })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('"not"') as unknown
    })
    await expect(generate({ jsonSchema: { type: 'string', maxLength: 10000 } })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('too large') as unknown
    })
    expect(
      JSON.parse(
        (
          await models[0]!.generate({
            image,
            prompt: 'x',
            constrain: { jsonSchema: { type: 'string', minLength: 50, maxLength: 3000 } },
            stop: ['never'],
            maxTokens: 4000,
            temperature: 1
          })
        ).text
      )
    ).toBeTypeOf('string')
  })
})
