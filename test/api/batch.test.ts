/** `model.batch` over a made-up engine. */
import { describe, expect, it } from 'vitest'
import { FakeNative, picture } from '../support/fake-native'
import { open, refuseUnhandled, scripted } from '../support/fake-model'

refuseUnhandled()

const location = '<loc0000><loc0000><loc1023><loc0512>'

describe('batch', () => {
  it('runs every task with the options of all items and of each', async () => {
    const fake = new FakeNative(({ prompt }) => (prompt.startsWith('detect') ? [`${location} cow`] : [prompt]))
    const model = await open(fake)
    const captions: unknown[] = []
    const items = [picture, { image: picture, lang: 'de' }, { image: picture, style: 'long' as const, lang: undefined }]
    for await (const { index, item, result, error } of model.batch(items, {
      task: 'caption',
      lang: 'fr',
      ordered: true
    }))
      captions.push([index, items.indexOf(item as never), result, error])
    expect(captions).toEqual([
      [0, 0, 'caption fr', undefined],
      [1, 1, 'caption de', undefined],
      [2, 2, 'describe fr', undefined]
    ])
    for await (const { result } of model.batch(new Set([picture]), { task: 'detect', labels: ['boat', 'cow'] })) {
      expect(result?.[0]).toMatchObject({ label: 'cow', classId: 1 })
      expect(result?.finishReason).toBe('stop')
    }
    for await (const { result } of model.batch([{ prompt: 'a' }, { prompt: 'b' }], { task: 'generate', ordered: true }))
      expect(result?.text).toMatch(/^[ab]$/)
    for await (const { result } of model.batch([{ image: picture, question: 'how many?' }], { task: 'answer' }))
      expect(result).toBe('answer en how many?')
    for await (const { result } of model.batch([picture], { task: 'encodeImage' })) expect(result?.tokens).toBe(4)
    for await (const { result } of model.batch([{ image: picture, suffix: 'x' }], { task: 'score', prompt: 'p' }))
      expect(result?.total).toBeLessThan(0)
  })

  it('says that only the ends of all are waited for, but where somebody follows tokens or objects', async () => {
    const fake = new FakeNative(() => ['a'])
    const model = await open(fake)
    const asked = async (work: () => Promise<unknown>): Promise<unknown[]> => {
      fake.requests.length = 0
      await work()
      return fake.requests.map(({ throughput }) => throughput)
    }
    const all = async (items: object[], options: object): Promise<void> => {
      for await (const { error } of model.batch(items as never[], { ordered: true, ...options } as never))
        expect(error).toBeUndefined()
    }
    const onToken = (): void => {}
    expect(await asked(async () => await all([picture, picture], { task: 'detect', labels: 'cow' }))).toEqual([
      true,
      true
    ])
    expect(await asked(async () => await all([picture], { task: 'answer', question: 'how many?' }))).toEqual([true])
    expect(
      await asked(async () => await all([{ prompt: 'a' }, { prompt: 'b', onToken }], { task: 'generate' }))
    ).toEqual([true, undefined])
    const followed = { image: picture, onObject: () => {} }
    expect(await asked(async () => await all([followed], { task: 'detect', labels: 'cow' }))).toEqual([undefined])
    const requests = [{ prompt: 'a' }, { prompt: 'b', onToken }]
    expect(await asked(async () => await model.generateBatch(requests))).toEqual([true, false])
    expect(await asked(async () => await model.ocr(picture, { tiles: { columns: 2, rows: 1 } }))).toEqual([true, true])
    const samples = { prompt: 'a', bestOf: 2, temperature: 1 }
    expect(await asked(async () => await model.generate(samples))).toEqual([true, true])
    expect(await asked(async () => await model.detect(picture, 'cow'))).toEqual([undefined])
    expect(await asked(async () => await model.stream({ prompt: 'a' }).result)).toEqual([undefined])
  })

  it("gives an item's failure as its result, and goes on", async () => {
    const model = await open(scripted('a'))
    const items = [
      picture,
      '/no/such/picture.png',
      { image: picture, maxTokens: 0 },
      { image: picture, colour: 'red' },
      7,
      null,
      { image: picture, signal: AbortSignal.abort(new Error('not this one')) },
      picture
    ]
    const errors: unknown[] = []
    for await (const { error } of model.batch(items as never[], { task: 'ocr', ordered: true })) errors.push(error)
    expect(errors[0]).toBeUndefined()
    expect(errors[7]).toBeUndefined()
    expect(errors.slice(1, 7)).toMatchObject([
      { code: 'ERR_IMAGE_INVALID' },
      { message: expect.stringContaining('for maxTokens') as string },
      { message: expect.stringContaining('Unknown option "colour"') as string },
      { code: 'ERR_INVALID_OPTION' },
      { code: 'ERR_INVALID_OPTION' },
      { message: 'not this one' }
    ])
    const detections = model.batch([picture], { task: 'detect' })
    expect((await detections.next()).value).toMatchObject({
      error: { message: expect.stringContaining('for labels') as string }
    })
    expect((await detections.next()).done).toBe(true)
  })

  it.each([
    [[picture], { task: 'paint' }, /Expected .* for task but received "paint"/],
    [[picture], {}, /for task/],
    [[picture], undefined, /the options of batch/],
    [[picture], { task: 'ocr', concurrency: 0 }, /integer from 1 to 1024 for concurrency/],
    [[picture], { task: 'ocr', labels: 'cow' }, /Unknown option "labels"/],
    [[picture], { task: 'detect', labels: 'a;b' }, /for labels/],
    [[picture], { task: 'ocr', onToken: () => {} }, /Unknown option "onToken"/],
    ['photo.jpg', { task: 'ocr' }, /an iterable or async iterable of pictures for items/],
    [Buffer.from('x'), { task: 'ocr' }, /for items/],
    [undefined, { task: 'ocr' }, /for items/]
  ])('refuses %j %j out of the loop', async (items, options, message) => {
    const model = await open(scripted('a'))
    await expect(model.batch(items as never, options as never).next()).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(message) as string
    })
  })

  it('keeps the engine busy and the next pictures ready, and no more', async () => {
    const fake = scripted(2, 'a')
    const model = await open(fake, { maxSequences: 3 })
    let read = 0
    function* items(): Generator<typeof picture> {
      for (; read < 60; read++) yield picture
    }
    for await (const { index } of model.batch(items(), { task: 'ocr' })) expect(read - index).toBeLessThan(25)
    expect(fake.mostRunning).toBe(6)
    const limited = scripted(1, 'a')
    const small = await open(limited, { maxSequences: 3, maxQueue: 2 })
    const others = Array.from({ length: 6 }, async () => await small.ocr(picture).catch((error: Error) => error))
    let good = 0
    for await (const { result } of small.batch([picture, picture, picture], { task: 'ocr' }))
      good += Number(result === 'a')
    expect(good).toBe(3) // it waits where others take up the queue
    expect(limited.mostRunning).toBeLessThanOrEqual(2)
    await Promise.all(others)
  })

  it('cancels what is in work when the loop is left or aborted', async () => {
    const fake = scripted(1000, 'a')
    const model = await open(fake)
    const control = new AbortController()
    const results = model.batch([picture, picture, picture], { task: 'ocr', signal: control.signal })
    const first = results.next()
    await new Promise((resolve) => setTimeout(resolve, 20))
    control.abort(new Error('enough'))
    await expect(first).rejects.toThrow('enough')
    expect(fake.cancelled).toEqual([1, 2, 3])
    const mixed = new FakeNative(({ prompt }) => (prompt === 'quick' ? ['a'] : [1000, 'a']))
    const other = await open(mixed)
    for await (const { result } of other.batch([{ prompt: 'quick' }, { prompt: 'slow' }], { task: 'generate' })) {
      expect(result?.text).toBe('a')
      break
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect([mixed.cancelled, mixed.running]).toEqual([[2], 0])
  })

  it.each(['return', 'throw'] as const)('ends at %s, also while a result is waited for', async (how) => {
    const model = await open(scripted())
    let letGo = () => {}
    const gone = new Promise<void>((resolve) => (letGo = resolve))
    const neverThere = new ReadableStream({ cancel: () => letGo() })
    const loop = model.batch([neverThere], { task: 'caption' })
    const waiting = loop.next()
    await new Promise((resolve) => setTimeout(resolve, 20))
    const ended = how === 'return' ? loop.return() : loop.throw(new Error('enough')).catch(({ message }) => message)
    expect(await waiting).toEqual({ done: true, value: undefined })
    expect(await ended).toEqual(how === 'return' ? { done: true, value: undefined } : 'enough')
    await gone
  })

  it('ends when the model is disposed', async () => {
    const model = await open(scripted(50, 'a'))
    const endless = function* (): Generator<typeof picture> {
      for (;;) yield picture
    }
    const next = model.batch(endless(), { task: 'ocr' }).next()
    setTimeout(() => void model.dispose(), 10)
    await expect(next).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await expect(model.batch([picture], { task: 'ocr' }).next()).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  })

  it('goes through 20,000 items without keeping anything', { timeout: 60_000, tags: ['slow'] }, async () => {
    const fake = scripted('a')
    const model = await open(fake)
    let count = 0
    const items = Array.from({ length: 20_000 }, () => ({ prompt: 'x' }))
    const { signal } = new AbortController()
    for await (const { result } of model.batch(items, { task: 'generate', signal })) {
      count += Number(result?.text === 'a')
      fake.requests.length = 0
    }
    expect(count).toBe(20_000)
    expect(fake.running).toBe(0)
  })
})
