import { beforeAll, describe, expect, it } from 'vitest'
import {
  native,
  type NativeBinding,
  type NativeEvent,
  type NativeModel,
  type NativeRequest
} from '../../lib/engine/native'
import { writeTinyModel } from '../support/tiny-model'
import { wrong, odd, codeOf } from '../support/odd-values'

let addon: NativeBinding
let path = ''

beforeAll(() => {
  addon = native()
  path = writeTinyModel({ maskDecoder: true })
})

const size = 56
const pixels = () => new Uint8Array(size * size * 3).map((_, i) => (i * 7) % 256)

async function open(file = path): Promise<{
  model: NativeModel
  events: NativeEvent[]
  run: (request: Partial<NativeRequest>) => Promise<NativeEvent[]>
}> {
  const events: NativeEvent[] = []
  const waiting: { matches: (event: NativeEvent) => boolean; resolve: () => void }[] = []
  const model = new addon.Model({ path: file, threads: 2 }, (batch) => {
    events.push(...batch)
    for (const entry of [...waiting]) if (batch.some(entry.matches)) entry.resolve()
  })
  const until = (matches: (event: NativeEvent) => boolean) =>
    new Promise<void>((resolve) => waiting.push({ matches, resolve }))
  await until((event) => event.kind === 'ready' || event.kind === 'error')
  const run = async (request: Partial<NativeRequest>) => {
    const job = model.submit({
      kind: 'generate',
      images: [],
      prompt: 'caption en',
      maxTokens: 4,
      ignoreEos: true,
      ...request
    })
    await until((event) => event.job === job && (event.kind === 'end' || event.kind === 'error'))
    return events.filter((event) => event.job === job)
  }
  return { model, events, run }
}

describe('Model', () => {
  it('says what it loaded', async () => {
    const { model, events } = await open()
    expect(events[0]).toMatchObject({
      kind: 'ready',
      job: 0,
      info: {
        architecture: 'gemma2',
        name: 'tiny',
        imageSize: size,
        imageTokens: 16,
        textLayers: 2,
        textHidden: 64,
        hasVision: true,
        hasMaskDecoder: true,
        threads: 2
      }
    })
    model.dispose()
  })

  it('streams tokens, then the end with usage and timings', async () => {
    const { model, run } = await open()
    const events = await run({ images: [{ pixels: pixels() }], logProbs: 2 })
    expect(events.map((event) => event.kind)).toEqual(['token', 'token', 'token', 'token', 'end'])
    const first = events[0]
    if (first?.kind !== 'token') throw new Error('no token came')
    expect(first.token.logProb).toBeLessThanOrEqual(0)
    expect(first.token.top).toHaveLength(2)
    expect(first.token.top?.[0]).toEqual({
      id: first.token.id,
      text: first.token.tokenText,
      logProb: first.token.logProb
    })
    const end = events.at(-1)
    if (end?.kind !== 'end') throw new Error('no end came')
    expect(end.finishReason).toBe('length')
    expect(end.usage).toEqual({ imageTokens: 16, promptTokens: expect.any(Number), completionTokens: 4 })
    expect(Object.keys(end.timings).sort()).toEqual(['decodeMs', 'firstTokenMs', 'prefillMs', 'queueMs', 'visionMs'])
    model.dispose()
  })

  it('gives log-probabilities only where asked', async () => {
    const { model, run } = await open()
    const [token] = await run({})
    if (token?.kind !== 'token') throw new Error('no token came')
    expect(Object.keys(token.token).sort()).toEqual(['id', 'tokenText'])
    model.dispose()
  })

  it('takes an encoded image in place of its pixels, with the same tokens', async () => {
    const { model, run } = await open()
    const [encoded] = await run({ kind: 'encodeImage', images: [{ pixels: pixels() }], prompt: '' })
    if (encoded?.kind !== 'end') throw new Error('no end came')
    expect(encoded.embedding).toBeInstanceOf(Float32Array)
    expect(encoded.embedding).toHaveLength(16 * 64)
    const ids = (events: NativeEvent[]) => events.flatMap((event) => (event.kind === 'token' ? [event.token.id] : []))
    const fromPixels = ids(await run({ images: [{ pixels: pixels() }] }))
    expect(fromPixels).toHaveLength(4)
    expect(ids(await run({ images: [{ embedding: encoded.embedding! }] }))).toEqual(fromPixels)
    model.dispose()
  })

  it('copies pixels when they are submitted', async () => {
    const { model, run } = await open()
    const ids = (events: NativeEvent[]) =>
      events.flatMap((event) => (event.kind === 'token' ? [event.token.id, event.token.logProb] : []))
    const wanted = ids(await run({ images: [{ pixels: pixels() }], logProbs: 0 }))
    const mine = pixels()
    const later = run({ images: [{ pixels: mine }], logProbs: 0 })
    mine.fill(0)
    structuredClone(mine.buffer, { transfer: [mine.buffer] })
    expect(ids(await later)).toEqual(wanted)
    model.dispose()
  })

  it('scores a suffix token by token, eos last', async () => {
    const { model, run } = await open()
    const [end] = await run({ kind: 'score', suffix: 'cat' })
    if (end?.kind !== 'end') throw new Error('no end came')
    expect(end.scored?.map((token) => token.id)).toEqual([...model.tokenize('cat', false), 1])
    expect(end.scored?.every((token) => token.logProb! < 0)).toBe(true)
    model.dispose()
  })

  it('refuses wrong requests naming the option', async () => {
    const { model } = await open()
    const good: NativeRequest = { kind: 'generate', images: [], prompt: 'x' }
    const cases: [Partial<Record<keyof NativeRequest, unknown>>, string, RegExp][] = [
      [{ kind: 'train' }, 'ERR_INVALID_OPTION', /one of 'generate', .* for kind but received "train"/],
      [{ images: 'cow.jpg' }, 'ERR_INVALID_OPTION', /array for images/],
      [{ images: [{}] }, 'ERR_INVALID_OPTION', /either pixels or embedding in images\[0\]/],
      [
        { images: [{ pixels: new Uint8Array(5) }] },
        'ERR_IMAGE_INVALID',
        /images\[0\]\.pixels holds 5 bytes; this model takes 56 x 56/
      ],
      [{ images: [{ embedding: new Float32Array(5) }] }, 'ERR_IMAGE_INVALID', /images\[0\]\.embedding holds 5 values/],
      [
        { images: [{ pixels: [1, 2, 3] }] },
        'ERR_INVALID_OPTION',
        /Uint8Array for images\[0\]\.pixels but received an array/
      ],
      [{ images: new Array(100000).fill({ pixels: pixels() }) }, 'ERR_PROMPT_TOO_LONG', /100000 images of 16 tokens/],
      [{ kind: 'encodeImage' }, 'ERR_INVALID_OPTION', /one image for images but received 0/],
      [{ prompt: 5 }, 'ERR_INVALID_OPTION', /string for prompt but received 5/],
      [{ maxTokens: 0 }, 'ERR_INVALID_OPTION', /integer from 1 to 2147483647 for maxTokens but received 0/],
      [{ maxTokens: NaN }, 'ERR_INVALID_OPTION', /maxTokens but received NaN/],
      [{ temperature: -0.1 }, 'ERR_INVALID_OPTION', /temperature but received -0.1/],
      [{ topP: 1.5 }, 'ERR_INVALID_OPTION', /number from 0 to 1 for topP/],
      [{ seed: 2 ** 53 }, 'ERR_INVALID_OPTION', /seed/],
      [{ stop: ['a', ''] }, 'ERR_INVALID_OPTION', /non-empty string for stop\[1\]/],
      // eslint-disable-next-line no-sparse-arrays
      [{ stop: ['a', , 'b'] }, 'ERR_INVALID_OPTION', /string for stop\[1\] but received undefined/],
      [{ constraint: { kind: 'detect' } }, 'ERR_INVALID_OPTION', /array for constraint\.labels/]
    ]
    for (const [change, code, message] of cases) {
      expect(() => model.submit(wrong({ ...good, ...change }))).toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(message) })
      )
    }
    model.dispose()
  })

  it('survives any value in any place', async () => {
    const { model, run } = await open()
    const keys = [
      'kind',
      'images',
      'prompt',
      'suffix',
      'allowControlTokens',
      'maxTokens',
      'temperature',
      'topK',
      'topP',
      'minP',
      'repeatPenalty',
      'seed',
      'logProbs',
      'stop',
      'ignoreEos',
      'constraint'
    ]
    for (const key of keys) {
      for (const value of odd) {
        await codeOf(() => {
          model.cancel(model.submit(wrong({ kind: 'generate', images: [], prompt: 'x', maxTokens: 2, [key]: value })))
        })
      }
    }
    for (const value of odd) {
      await codeOf(() => model.submit(wrong(value)))
      await codeOf(() => model.cancel(wrong(value)))
      await codeOf(() => model.tokenize(wrong(value), wrong(value)))
      await codeOf(() => model.detokenize(wrong(value)))
      await codeOf(() => model.decodeMask(wrong(value)))
      for (const image of [value, { pixels: value }, { embedding: value }])
        await codeOf(() => model.submit(wrong({ kind: 'generate', images: [image], prompt: 'x' })))
      await codeOf(() => new addon.Model(wrong(value), wrong(value)))
      await codeOf(() => new addon.Model({ path }, wrong(typeof value === 'function' ? 1 : value)))
      expect(() => model.tokenize.call(wrong(value), 'x', false)).toThrow() // V8's own TypeError
    }
    expect((await run({})).at(-1)?.kind).toBe('end')
    model.dispose()
  })

  it('lets exceptions of getters through', async () => {
    const { model } = await open()
    expect(() =>
      model.submit(
        wrong({
          get kind() {
            throw new RangeError('mine')
          }
        })
      )
    ).toThrow(new RangeError('mine'))
    model.dispose()
  })

  it('may be disposed by a getter of the request that it reads', async () => {
    const { model } = await open()
    const request = {
      kind: 'generate',
      images: [],
      get prompt() {
        model.dispose()
        return 'x'
      }
    }
    expect(await codeOf(() => model.submit(wrong(request)))).toBe('ERR_DISPOSED')
  })

  it('refuses load options naming them', () => {
    const cases: [object, RegExp][] = [
      [{ path: 5 }, /string for path but received 5/],
      [{ path: '' }, /path for path/],
      [{ path: 'a\0b' }, /path for path/],
      [{ path, threads: 0 }, /integer from 1 to 1024 for threads but received 0/],
      [{ path, device: 5 }, /string for device but received 5/],
      [{ path, kvCacheType: 'f64' }, /kvCacheType/],
      [{ path, attentionWindow: true }, /attentionWindow but received true/],
      [
        { path, maskDecoder: { 'decoder.0.bias': { shape: [2], data: new Float32Array(3) } } },
        /maskDecoder\["decoder\.0\.bias"\]\.data holds 3 values, its shape 2/
      ]
    ]
    for (const [options, message] of cases) {
      expect(() => new addon.Model(wrong(options), () => {})).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(message) })
      )
    }
  })

  it('is a class of its own: no call without `new`, no methods on foreign objects', async () => {
    const call = addon.Model as unknown as (options: object, onEvents: () => void) => void
    expect(() => {
      call({ path }, () => {})
    }).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }))
    const tokenizer = await addon.openTokenizer(path)
    const { model } = await open()
    expect(() => model.tokenize.call(tokenizer as never, 'x', false)).toThrow('Illegal invocation')
    expect(() => tokenizer.encode.call(model as never, 'x', false)).toThrow(/not a tokenizer/)
    model.dispose()
  })
})
