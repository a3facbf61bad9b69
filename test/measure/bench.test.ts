/** What `bench` computes around the engine. */
import { describe, expect, it } from 'vitest'
import { bench } from '../../lib/measure/bench'
import { costsOf } from '../../lib/measure/costs'
import { peakMemory, resetPeakMemory } from '../../lib/measure/memory'
import { parseSize, syntheticSizes } from '../../lib/measure/sizes'
import { median, medians, rounded } from '../../lib/measure/statistics'
import { syntheticVocabulary } from '../../lib/measure/vocabulary'
import { structureMetadata } from '../../lib/convert/checkpoint/metadata'
import { expectedTensors } from '../../lib/convert/checkpoint/names'
import type { ModelInfo } from '../../lib/api/inspect'

describe('statistics', () => {
  it('the median is the middle value, or the mean of the two', () => {
    expect(median([5, 1, 100])).toBe(5)
    expect(median([4, 1, 2, 100])).toBe(3)
    expect(median([7])).toBe(7)
    expect(median([])).toBeNaN()
  })

  it('does not sort what it is given', () => {
    const values = [3, 1, 2]
    median(values)
    expect(values).toEqual([3, 1, 2])
  })

  it('takes the median of every property by itself', () => {
    expect(
      medians([
        { a: 1, b: 30 },
        { a: 2, b: 10 },
        { a: 3, b: 20 }
      ])
    ).toEqual({ a: 2, b: 20 })
  })

  it('rounds to significant digits', () => {
    expect([rounded(1234.56), rounded(0.00123456), rounded(0.98765, 3)]).toEqual([1235, 0.001235, 0.988])
  })
})

/** The published model of a size as `inspectModel` would show it in F16. */
function published(name: string): ModelInfo {
  const { config, basePieces } = parseSize(name)
  const rows = syntheticVocabulary(basePieces).tokens.length
  const tensors = expectedTensors(config, rows).map(({ gguf, shape }) => ({
    name: gguf,
    type: 'F16',
    shape,
    offset: 0,
    bytes: 2 * shape.reduce((product, n) => product * n, 1)
  }))
  return {
    path: name,
    version: 3,
    alignment: 32,
    bytes: 0,
    quantization: 'F16',
    architecture: config.text.architecture,
    tensors,
    parameters: tensors.reduce((sum, { bytes }) => sum + bytes / 2, 0),
    metadata: structureMetadata(config, { vocab: rows, visionFfn: config.vision.ffn }).flatMap(([key, { value }]) =>
      typeof value === 'number' ? [{ key, type: 'uint32', value }] : []
    )
  }
}

describe('synthetic sizes', () => {
  // keras-hub's presets count the vocabulary's 257152 rows; 64 more pad it to 257216.
  it.each([
    ['pg1-3b-224', 2_923_335_408 + 64 * 2048],
    ['3b-224', 3_032_094_960 + 64 * 2304],
    ['10b-224', 9_662_409_456 + 64 * 3584],
    ['28b-224', 27_650_192_112 + 64 * 4608]
  ])('%s has as many parameters as the published model', (name, parameters) => {
    expect(published(name).parameters).toBe(parameters)
  })

  it('know three resolutions of four models, and three small ones', () => {
    expect(syntheticSizes).toHaveLength(15)
    const [small, whole] = ['small-224', '3b-224'].map((name) => parseSize(name).config)
    expect(small).toEqual({ ...whole, text: { ...whole!.text, layers: 3 }, vision: { ...whole!.vision, layers: 3 } })
    expect(parseSize('3B-448').config.vision).toMatchObject({ imageSize: 448, tokens: 1024 })
    expect(parseSize('pg1-3b-896').config.vision.tokens).toBe(4096)
  })

  it('refuse other names with the list', () => {
    expect(() => parseSize('7b')).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining('3b-224, 3b-448') })
    )
  })
})

describe('synthetic vocabulary', () => {
  it("has Gemma's size and its locations, segments and <image> at PaliGemma's ids", () => {
    const { tokens, scores, types, imageId } = syntheticVocabulary(256000)
    expect([tokens.length, scores.length, types.length]).toEqual([257216, 257216, 257216])
    expect([tokens[256000], tokens[257023], tokens[257024], tokens[257151], imageId]).toEqual([
      '<loc0000>',
      '<loc1023>',
      '<seg000>',
      '<seg127>',
      257152
    ])
    expect(types.filter((type) => type === 6)).toHaveLength(256)
  })

  it.each([256000, 1024])('of %d pieces holds none twice', (base) => {
    const { tokens } = syntheticVocabulary(base)
    expect(new Set(tokens).size).toBe(tokens.length)
    expect(tokens.indexOf('<loc0000>')).toBe(base)
    expect(tokens.length % 64).toBe(0)
  })
})

describe('costs', () => {
  // By hand: 27 (4 x 1152^2 + 2 x 1152 x 4304) matrices, the patches, the projector and 27 layers of attention.
  it('of vision are those of SigLIP So400m at 224 px', () => {
    const matrices = 27 * (4 * 1152 ** 2 + 2 * 1152 * 4304) + 588 * 1152 + 1152 * 2304
    expect(costsOf([published('3b-224')]).visionOps).toBe(2 * 256 * matrices + 4 * 256 ** 2 * 1152 * 27)
  })

  it('of prefill are the matrices for every token, attention for every pair, the head once', () => {
    const layer = 2 * 2304 * 2048 + 2 * 2304 * 1024 + 3 * 2304 * 9216
    expect(costsOf([published('3b-224')]).wholePrefillOps(260)).toBe(
      2 * 260 * 26 * layer + 2 * 257216 * 2304 + 4 * 260 ** 2 * 2048 * 26
    )
  })

  // 251 of 260 tokens leave the last layer's keys and values and nothing else.
  it('of prefill leave out what nobody asks of the last layer', () => {
    const { prefillOps, wholePrefillOps } = costsOf([published('3b-224')])
    const rest = 2 * (2 * 2304 * 2048 + 3 * 2304 * 9216) + 4 * 260 * 2048
    expect(wholePrefillOps(260) - prefillOps(260)).toBe(251 * rest)
    expect(prefillOps(9)).toBe(wholePrefillOps(9))
    expect(prefillOps(5)).toBe(wholePrefillOps(5))
  })

  it("of decoding grow with the depth by keys and values in the cache's type", () => {
    const model = published('3b-224')
    const perToken = 2 * 26 * 4 * 256
    const at = (depth: number, type?: 'f16' | 'q8_0' | 'f32') => costsOf([model], type).decodeBytes(depth)
    const text = model.tensors
      .filter(({ name }) => /^(?:blk\.|token_embd)/.test(name))
      .reduce((sum, { bytes }) => sum + bytes, 0)
    expect(at(0)).toBe(text)
    expect(at(100) - at(0)).toBe(100 * perToken * 2)
    expect(at(100, 'f32') - at(0)).toBe(100 * perToken * 4)
    expect(at(32, 'q8_0') - at(0)).toBe(perToken * 34)
  })

  it('of a model in two files are the same', () => {
    const model = published('pg1-3b-224')
    const isVision = ({ name }: { name: string }) => /^(?:v|mm)\./.test(name)
    const text = {
      ...model,
      tensors: model.tensors.filter((tensor) => !isVision(tensor)),
      metadata: model.metadata.filter(({ key }) => !key.startsWith('clip.'))
    }
    const vision = {
      ...model,
      architecture: 'clip',
      tensors: model.tensors.filter(isVision),
      metadata: model.metadata.filter(({ key }) => key.startsWith('clip.'))
    }
    expect(costsOf([text, vision]).visionOps).toBe(costsOf([model]).visionOps)
    expect(costsOf([text, vision]).prefillOps(7)).toBe(costsOf([model]).prefillOps(7))
    expect(costsOf([text]).visionOps).toBe(0)
  })
})

describe('peak memory', () => {
  it('counts what was in use, and can be forgotten where the system allows it', () => {
    const size = 64 << 20
    const before = peakMemory()
    expect(before).toBeGreaterThan(1 << 20)
    Buffer.alloc(size, 1)
    const after = peakMemory()
    expect(after).toBeGreaterThanOrEqual(before)
    resetPeakMemory()
    expect(peakMemory()).toBeLessThanOrEqual(after)
  })
})

describe('bench refuses', () => {
  it.each([
    [{}, 'model'],
    [{ model: 'x', runs: 0 }, 'Expected integer from 1 to 1000 for runs but received 0'],
    [{ model: 'x', tokens: 1 }, 'Expected integer >= 2 for tokens but received 1'],
    [{ model: 'x', concurrency: 0 }, 'concurrency'],
    [{ model: 'x', threads: 1.5 }, 'threads'],
    [{ model: 'x', kvCacheType: 'q4_0' }, '"f16" or "q8_0" or "f32"'],
    [{ model: 'x', rums: 3 }, 'did you mean runs?'],
    [{ model: 'x', paper: true, tokens: 12 }, 'Expected no depth and tokens with paper']
  ])('%j', async (options, message) => {
    await expect(bench(options as never)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining(message)
    })
  })
})
