import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { openModel } from '../../lib/api/load-model'
import type { GenerateOptions } from '../../lib/api/options/options'
import { FakeNative, fakeInfo, picture } from '../support/fake-native'
import { endless, failure, open, refuseUnhandled, scripted } from '../support/fake-model'

refuseUnhandled()

describe('loadModel', () => {
  it('passes options on, reports progress and describes the model', async () => {
    const fake = new FakeNative()
    const progress: number[] = []
    const model = await open(fake, {
      threads: 3,
      kvCacheType: 'q8_0',
      vision: 'v.gguf',
      finalSoftcap: false,
      onProgress: (fraction) => progress.push(fraction)
    })
    expect(fake.loads).toEqual([
      { path: resolve('m.gguf'), visionPath: resolve('v.gguf'), threads: 3, kvCacheType: 'q8_0', finalSoftcap: false }
    ])
    expect(progress).toEqual([0, 1])
    expect(model.info).toMatchObject({
      architecture: 'paligemma2',
      variant: 'custom',
      imageSize: 8,
      imageTokens: 4,
      resize: 'bicubic'
    })
    fake.info = { ...fakeInfo, textHidden: 2304, imageSize: 448 }
    expect((await open(fake)).info.variant).toBe('3b-448')
    expect((await openModel(fake.binding, 'm.gguf')).info.isa).toBe('scalar')
  })

  it('rejects with the load error', async () => {
    const fake = new FakeNative()
    fake.loadError = { code: 'ERR_MODEL_NOT_FOUND', message: 'm.gguf: no such file' }
    const error = await open(fake).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(PaliGemmaError)
    expect(error).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: 'm.gguf: no such file',
      name: 'PaliGemmaError'
    })
    expect(fake.disposals).toBe(1)
  })

  it('rejects at once with the reason of an abort and frees the model', async () => {
    const fake = new FakeNative()
    fake.loadDelayMs = 10_000
    const control = new AbortController()
    const loading = open(fake, { signal: control.signal })
    while (fake.loads.length === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    control.abort(new Error('changed my mind'))
    await expect(loading).rejects.toThrow('changed my mind')
    expect(fake.disposals).toBe(1)
    await expect(open(fake, { signal: AbortSignal.abort('no') })).rejects.toBe('no')
    expect(fake.loads).toHaveLength(1)
  })

  it('checks options before any work', async () => {
    const fake = new FakeNative()
    const wrong: [object, string][] = [
      [{ threads: 0 }, 'Expected integer from 1 to 1024 for threads but received 0'],
      [
        { device: 'gpu' },
        'Expected "auto" or "cpu" or "cuda" or "cuda:1" (a number of listDevices()) or "metal" for device but ' +
          'received "gpu"'
      ],
      [{ locScale: 1000 }, 'Expected 1023 or 1024 for locScale but received 1000'],
      [{ thread: 1 }, 'Unknown option "thread" for loadModel, did you mean threads? Known options: model, vision,'],
      [{ model: '' }, 'Expected path, file: URL or name of a pulled model for model but received ""'],
      [{ model: undefined }, 'for model but received undefined'],
      [{ signal: {} }, 'Expected AbortSignal for signal but received an object']
    ]
    for (const [options, message] of wrong) {
      await expect(open(fake, options)).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(message) as unknown
      })
    }
    await expect(openModel(fake.binding, 5 as never)).rejects.toThrow(
      'Expected object for the options of loadModel but received 5'
    )
    expect(fake.loads).toEqual([])
  })

  it('takes the options as a second argument as well', async () => {
    const fake = new FakeNative()
    await openModel(fake.binding, 'm.gguf', { threads: 2 })
    await openModel(fake.binding, pathToFileURL(resolve('m.gguf')), {})
    expect(fake.loads).toEqual([{ path: resolve('m.gguf'), threads: 2 }, { path: resolve('m.gguf') }])
    const wrong: [unknown, unknown, string][] = [
      ['m.gguf', { thread: 2 }, 'Unknown option "thread" for loadModel, did you mean threads?'],
      ['m.gguf', 'Q8_0', 'Expected object for the options of loadModel but received "Q8_0"'],
      ['m.gguf', null, 'Expected object for the options of loadModel but received null'],
      ['m.gguf', new Map([['threads', 2]]), 'the options of loadModel but received an instance of Map'],
      ['m.gguf', Promise.resolve({}), 'the options of loadModel but received an instance of Promise'],
      ['m.gguf', { model: 'other.gguf' }, 'Expected model once for loadModel'],
      [{ model: 'm.gguf' }, { threads: 2 }, 'Expected path or name of a model for the first of two arguments'],
      [
        'm.gguf',
        new Proxy(
          {},
          {
            ownKeys: () => {
              throw new Error('no')
            }
          }
        ),
        'the options of loadModel to be readable'
      ]
    ]
    for (const [source, options, message] of wrong)
      await expect(openModel(fake.binding, source as never, options as never)).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(message) as unknown
      })
  })
})

describe('generate', () => {
  it('gives text, tokens, usage and timings', async () => {
    const model = await open(scripted('Hello', ' wor', 'ld'))
    const seen: string[] = []
    const result = await model.generate({
      prompt: 'caption en',
      image: picture,
      onToken: (chunk) => seen.push(chunk.text)
    })
    expect(result.text).toBe('Hello world')
    expect(result.tokens.map((token) => token.text)).toEqual(['Hello', ' wor', 'ld'])
    expect(seen).toEqual(['Hello', ' wor', 'ld'])
    expect(result.finishReason).toBe('stop')
    expect(result.usage).toEqual({ imageTokens: 4, promptTokens: 3, completionTokens: 3 })
    expect(result.timings).toMatchObject({
      queueMs: 1,
      visionMs: 2,
      prefillMs: 3,
      decodeMs: 5,
      decodeTokensPerSecond: 400
    })
    expect(result.timings.preprocessMs).toBeGreaterThan(0)
    expect(result.timings.firstTokenMs).toBeGreaterThanOrEqual(result.timings.preprocessMs)
  })

  it('submits pictures small, in order, and embeddings as they are', async () => {
    const fake = new FakeNative()
    const model = await open(fake)
    const embedding = await model.encodeImage(picture)
    expect([embedding.tokens, embedding.hidden, embedding.data.length]).toEqual([4, 3, 12])
    expect(embedding.transform).toMatchObject({ sourceWidth: 20, sourceHeight: 10, size: 8 })
    await model.generate({
      prompt: 'x',
      images: [picture, embedding, { ...picture, data: picture.data.map(() => 7) }],
      logProbs: true,
      constrain: 'detect',
      seed: 5,
      stop: ['.']
    })
    const request = fake.requests[1]!
    expect(request.images.map((image) => image.pixels?.length ?? image.embedding?.length)).toEqual([192, 12, 192])
    expect(request.images[2]!.pixels![0]).toBe(7)
    expect(request).toMatchObject({
      kind: 'generate',
      prompt: 'x',
      maxTokens: 256,
      logProbs: 0,
      constraint: { kind: 'detect', labels: [] },
      seed: 5,
      stop: ['.']
    })
    expect(Object.keys(request)).not.toContain('temperature')
    await expect(model.generate({ prompt: 'x', image: { ...embedding, data: new Float32Array(5) } })).rejects.toThrow(
      'Expected an ImageEmbedding of [4, 3] but received 5 values'
    )
  })

  it('rejects with native errors, in our class', async () => {
    await expect(
      (await open(scripted('a', failure('ERR_PROMPT_TOO_LONG', '120 tokens')))).generate({ prompt: 'x' })
    ).rejects.toMatchObject({ name: 'PaliGemmaError', code: 'ERR_PROMPT_TOO_LONG', message: '120 tokens' })
    await expect((await open(scripted(new Error('boom')))).generate({ prompt: 'x' })).rejects.toMatchObject({
      code: 'ERR_INTERNAL'
    })
  })

  it('checks options before any work', async () => {
    const fake = new FakeNative()
    const model = await open(fake)
    const wrong: [object, string][] = [
      [{ maxTokens: 0 }, 'Expected integer >= 1 for maxTokens but received 0'],
      [{ temperature: -1 }, 'Expected number >= 0 for temperature but received -1'],
      [{ topP: 0 }, 'Expected number > 0 and <= 1 for topP but received 0'],
      [{ seed: 1.5 }, 'for seed but received 1.5'],
      [{ stop: 'x' }, 'Expected array of non-empty strings for stop but received "x"'],
      [{ logProbs: -1 }, 'for logProbs but received -1'],
      [{ constrain: { kind: 'draw' } }, 'for constrain but received an object'],
      [{ constrain: { kind: 'detect', label: [] } }, 'for constrain but received an object'],
      [{ prompt: undefined }, 'Expected string for prompt but received undefined'],
      [{ maxtokens: 5 }, 'Unknown option "maxtokens" for generate, did you mean maxTokens?'],
      [{ beams: 0 }, 'Expected integer from 1 to 64 for beams but received 0'],
      [{ image: 5 }, 'for image but received 5'],
      [{ images: [picture, null] }, 'for images[1] but received null'],
      [{ image: picture, images: [picture] }, 'Expected image or images but received both']
    ]
    for (const [options, message] of wrong) {
      await expect(model.generate({ prompt: 'x', ...options } as GenerateOptions)).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(message) as unknown
      })
    }
    expect(fake.requests).toEqual([])
    expect(fake.resizes).toBe(0)
  })

  it('an abort rejects at once with the reason, and cancels', async () => {
    const fake = scripted(...endless)
    const model = await open(fake)
    const control = new AbortController()
    const reason = { any: 'thing' }
    let tokens = 0
    const running = model.generate({
      prompt: 'x',
      signal: control.signal,
      onToken: () => {
        if (++tokens === 3) control.abort(reason)
      }
    })
    await expect(running).rejects.toBe(reason)
    const heard = tokens
    expect(fake.cancelled).toEqual([1])
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(tokens).toBe(heard)
    expect(fake.running).toBe(0)
    await expect(model.generate({ prompt: 'x', image: picture, signal: control.signal })).rejects.toBe(reason)
    expect(fake.requests).toHaveLength(1)
    expect(fake.resizes).toBe(0)
  })

  it('what onToken throws ends the work and rejects', async () => {
    const fake = scripted(...endless)
    const model = await open(fake)
    const broken = new Error('broken callback')
    await expect(
      model.generate({
        prompt: 'x',
        onToken: () => {
          throw broken
        }
      })
    ).rejects.toBe(broken)
    expect(fake.cancelled).toEqual([1])
  })

  it('needs vision for pictures', async () => {
    const fake = new FakeNative()
    fake.info = { ...fakeInfo, hasVision: false }
    await expect((await open(fake)).generate({ prompt: 'x', image: picture })).rejects.toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringContaining('loadModel({ model, vision })') as unknown
    })
  })
})

describe('stream', () => {
  it('yields chunks and resolves the result', async () => {
    const model = await open(scripted('a', 2, 'b', 'c'))
    const stream = model.stream({ prompt: 'x' })
    const texts: string[] = []
    for await (const chunk of stream) texts.push(chunk.text)
    expect(texts).toEqual(['a', 'b', 'c'])
    expect((await stream.result).text).toBe('abc')
    expect(() => stream[Symbol.asyncIterator]()).toThrow(/only once/)
  })

  it('leaving the loop cancels, and the result says abort', async () => {
    const fake = scripted(...endless)
    const model = await open(fake)
    const stream = model.stream({ prompt: 'hey\n', image: picture })
    for await (const chunk of stream) if (chunk.token!.id === 4) break
    const result = await stream.result
    expect(result.finishReason).toBe('abort')
    expect(result.tokens.length).toBeGreaterThanOrEqual(5)
    expect(result.usage).toEqual({ imageTokens: 4, promptTokens: 5, completionTokens: result.tokens.length })
    expect(fake.cancelled).toEqual([1])
  })

  it('leaving before the work began submits nothing', async () => {
    const fake = scripted(...endless)
    const model = await open(fake)
    const stream = model.stream({ prompt: 'x', image: picture })
    stream.cancel()
    expect(await stream.result).toMatchObject({ finishReason: 'abort', text: '', usage: { completionTokens: 0 } })
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(fake.requests).toEqual([])
  })

  it.each(['leaving', 'the end of the model'])('%s lets go of a picture that is still on its way', async (how) => {
    const fake = scripted(...endless)
    const model = await open(fake)
    let letGo = () => {}
    const gone = new Promise<void>((resolve) => (letGo = resolve))
    const neverThere = new ReadableStream({ cancel: () => letGo() })
    const stream = model.stream({ prompt: 'x', image: neverThere })
    await new Promise((resolve) => setTimeout(resolve, 20))
    if (how === 'leaving') {
      stream.cancel()
      expect(await stream.result).toMatchObject({ finishReason: 'abort', text: '' })
    } else {
      await model.dispose()
      await expect(stream.result).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    }
    await gone
    expect(fake.requests).toEqual([])
  })

  it('an abort throws its reason from the loop at once, dropping what is queued', async () => {
    const fake = new FakeNative(() => [...Array.from({ length: 50 }, () => 'a'), 10_000])
    const model = await open(fake)
    const control = new AbortController()
    const stream = model.stream({ prompt: 'x', signal: control.signal })
    let chunks = 0
    const reading = (async () => {
      for await (const _ of stream) if (++chunks === 2) control.abort(new Error('stop'))
    })()
    await expect(reading).rejects.toThrow('stop')
    expect(chunks).toBe(2)
    await expect(stream.result).rejects.toThrow('stop')
  })

  it('errors come out of the loop after the chunks before them', async () => {
    const model = await open(scripted('a', 'b', failure('ERR_OUT_OF_MEMORY')))
    const texts: string[] = []
    const reading = (async () => {
      for await (const chunk of model.stream({ prompt: 'x' })) texts.push(chunk.text)
    })()
    await expect(reading).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' })
    expect(texts).toEqual(['a', 'b'])
  })

  it('nobody has to look at a failure: no unhandled rejection', async () => {
    const model = await open(scripted(failure('ERR_OUT_OF_MEMORY')))
    model.stream({ prompt: 'x' })
    model.stream({ prompt: 5 } as never)
    model.stream(undefined as never)
    await new Promise((resolve) => setTimeout(resolve, 20))
  })

  it('becomes a readable stream of JSON lines', async () => {
    const model = await open(scripted('a', 'é\n'))
    const lines = (await new Response(model.stream({ prompt: 'x' }).toReadableStream()).text()).trimEnd().split('\n')
    expect(lines.map((line) => (JSON.parse(line) as { text: string }).text)).toEqual(['a', 'é\n'])
    const fake = scripted(...endless)
    const stream = (await open(fake)).stream({ prompt: 'x' })
    const reader = stream.toReadableStream().getReader()
    await reader.read()
    await reader.cancel()
    expect((await stream.result).finishReason).toBe('abort')
    const failing = (await open(scripted(failure('ERR_OUT_OF_MEMORY'))))
      .stream({ prompt: 'x' })
      .toReadableStream()
      .getReader()
    await expect(failing.read()).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' })
  })

  it('answers several pending reads in order', async () => {
    const iterator = (await open(scripted(2, 'a', 2, 'b'))).stream({ prompt: 'x' })[Symbol.asyncIterator]()
    const steps = await Promise.all([iterator.next(), iterator.next(), iterator.next(), iterator.next()])
    expect(steps.map((step) => step.value?.text)).toEqual(['a', 'b', undefined, undefined])
  })
})

describe('generateBatch', () => {
  it('keeps order, reports each, and one bad item rejects only itself', async () => {
    const fake = new FakeNative((request) =>
      request.prompt === 'bad'
        ? [failure('ERR_PROMPT_TOO_LONG')]
        : [request.prompt === '0' ? 30 : 1, `<${request.prompt}>`]
    )
    const model = await open(fake)
    const ended: number[] = []
    const results = await model.generateBatch(
      [
        { prompt: '0' },
        { prompt: 'bad' },
        { prompt: '2', image: picture },
        { prompt: 5 } as never,
        { prompt: '4', signal: AbortSignal.abort('no') },
        { prompt: '5' }
      ],
      { onResult: (_, index) => ended.push(index) }
    )
    expect(
      results.map((result) =>
        result instanceof Error ? ((result as { code?: string }).code ?? result.message) : result.text
      )
    ).toEqual(['<0>', 'ERR_PROMPT_TOO_LONG', '<2>', 'ERR_INVALID_OPTION', 'no', '<5>'])
    expect(ended.sort()).toEqual([0, 1, 2, 3, 4, 5])
    expect(await model.generateBatch([])).toEqual([])
  })

  it('holds a bounded number of requests at a time', async () => {
    const fake = scripted(1, 'a')
    const model = await open(fake, { maxSequences: 3 })
    const results = await model.generateBatch(Array.from({ length: 50 }, () => ({ prompt: 'x', image: picture })))
    expect(results).toHaveLength(50)
    expect(fake.mostRunning).toBeLessThanOrEqual(5)
    expect(fake.mostRunning).toBeGreaterThanOrEqual(3)
  })

  it('an abort rejects the batch with the reason and cancels what runs', async () => {
    const fake = scripted(...endless)
    const model = await open(fake)
    const control = new AbortController()
    const batch = model.generateBatch(
      Array.from({ length: 20 }, () => ({ prompt: 'x' })),
      { signal: control.signal }
    )
    setTimeout(() => control.abort('enough'), 10)
    await expect(batch).rejects.toBe('enough')
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(fake.running).toBe(0)
    expect(fake.requests.length).toBeLessThan(20)
  })

  it('what onResult throws rejects the batch and cancels the rest', async () => {
    const fake = new FakeNative((request) => (request.prompt === '0' ? ['a'] : endless))
    const model = await open(fake)
    const broken = new Error('broken callback')
    await expect(
      model.generateBatch(
        Array.from({ length: 9 }, (_, i) => ({ prompt: String(i) })),
        {
          onResult: () => {
            throw broken
          }
        }
      )
    ).rejects.toBe(broken)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(fake.running).toBe(0)
  })
})

describe('dispose', () => {
  it('ends running work and everything after with ERR_DISPOSED', async () => {
    const fake = scripted(...endless)
    const model = await open(fake)
    const running = [
      model.generate({ prompt: 'x' }),
      model.stream({ prompt: 'x' }).result,
      model.generate({ prompt: 'x', image: picture })
    ]
    setTimeout(() => {
      void model.dispose()
    }, 10)
    for (const work of running) await expect(work).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await model.dispose()
    expect(fake.disposals).toBe(1)
    await expect(model.generate({ prompt: 'x' })).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await expect(model.detect(picture, 'x')).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await expect(model.segment(picture, 'x')).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await expect(model.encodeImage(picture)).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await expect(model.score({ prompt: 'a', suffix: 'b' })).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    expect(() => model.tokenize('x')).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
  })

  it('comes with await using', async () => {
    const fake = new FakeNative()
    const model = await open(fake)
    await model[Symbol.asyncDispose]()
    expect(fake.disposals).toBe(1)
  })
})
