/** The endpoints of the model's own tasks, as JSON and as forms. */
import { describe, expect, it } from 'vitest'
import { FakeNative } from '../support/fake-native'
import { endless, refuseUnhandled } from '../support/fake-model'
import { closeServers, eventually, form, serve, tinyPicture, tinyUrl } from '../support/served'

refuseUnhandled()
closeServers()

const box = ['<loc0000>', '<loc0000>', '<loc0512>', '<loc1023>', ' cow']

describe('tasks that give text', () => {
  it.each([
    ['/v1/caption', {}, 'caption en'],
    ['/v1/caption', { style: 'long', lang: 'de' }, 'describe de'],
    ['/v1/answer', { question: 'what is it?' }, 'answer en what is it?'],
    ['/v1/ocr', {}, 'ocr']
  ])('%s %j asks for %j', async (path, body, prompt) => {
    const fake = new FakeNative()
    const { post } = await serve(fake)
    const asJson = await post(path, { image: tinyUrl, temperature: 0.5, ...body })
    expect(asJson.status).toBe(200)
    expect(await asJson.json()).toMatchObject({
      model: 'fake',
      text: 'abc',
      finish_reason: 'stop',
      usage: { prompt_tokens: 7, completion_tokens: 3 },
      timings: { vision_ms: 2, prefill_ms: 3 }
    })
    const asForm = await post(path, form({ temperature: '0.5', ...body }))
    expect(await asForm.json()).toMatchObject({ text: 'abc' })
    expect(fake.requests).toMatchObject([
      { prompt, temperature: 0.5 },
      { prompt, temperature: 0.5 }
    ])
  })

  it('name the field that is missing, or the mistaken name of it', async () => {
    const { post } = await serve(new FakeNative())
    const problem = async (path: string, body: object) =>
      ((await (await post(path, form(body as Record<string, string>))).json()) as { error: { message: string } }).error
    expect(await problem('/v1/detect', {})).toMatchObject({
      message: 'labels: Expected string or array, but it is not there',
      param: 'labels'
    })
    expect(await problem('/v1/answer', {})).toMatchObject({
      message: 'question: Expected string, but it is not there'
    })
    expect(await problem('/v1/detect', { label: 'cow' })).toMatchObject({
      message: 'Unrecognized request argument supplied: label',
      param: 'label'
    })
  })

  it('take the picture itself as the body, with the other fields in the query', async () => {
    const fake = new FakeNative()
    const { url } = await serve(fake)
    const send = async (target: string, type = 'image/png', body: Buffer | string = tinyPicture) =>
      await fetch(`${url}${target}`, { method: 'POST', headers: { 'content-type': type }, body } as never)
    for (const type of ['image/png', 'IMAGE/JPEG; charset=binary', 'application/octet-stream'])
      expect(await (await send('/v1/caption?style=long&lang=de&temperature=0.5', type)).json()).toMatchObject({
        text: 'abc'
      })
    await send('/v1/answer?question=42&choices=yes&choices=no')
    await send('/v1/detect?labels=cow;boat&max_objects=3')
    expect(fake.requests).toMatchObject([
      ...[1, 2, 3].map(() => ({ prompt: 'describe de', temperature: 0.5, images: [{}] })),
      { prompt: 'answer en 42', constraint: { kind: 'choices', choices: ['yes', 'no'] } },
      { prompt: 'detect cow ; boat' }
    ])
    const failure = async (answer: Response) =>
      [answer.status, ((await answer.json()) as { error: { message: string } }).error.message] as const
    expect(await failure(await send('/v1/caption?temperture=1'))).toEqual([400, expect.stringMatching(/temperture/)])
    expect(await failure(await send('/v1/caption?image=x'))).toEqual([400, expect.stringMatching(/both/)])
    expect(await failure(await send('/v1/caption', 'image/png', ''))).toEqual([400, expect.stringMatching(/empty/)])
    expect(await failure(await send('/v1/caption', 'image/png', 'text'))).toEqual([400, expect.any(String)])
    const form = 'application/x-www-form-urlencoded' // what curl says where it is told nothing
    expect(await failure(await send('/v1/caption', form))).toEqual([415, expect.stringMatching(/image\/\* \(the pict/)])
    expect(await failure(await send('/v1/chat/completions'))).toEqual([415, expect.stringMatching(/data: URLs/)])
  })

  it('answer takes several pictures and choices', async () => {
    const fake = new FakeNative(() => ['yes'])
    const { post } = await serve(fake)
    const body = { images: [tinyUrl, tinyPicture.toString('base64')], question: 'same?', choices: ['yes', 'no'] }
    expect(await (await post('/v1/answer', body)).json()).toMatchObject({ text: 'yes' })
    expect(fake.requests[0]).toMatchObject({
      images: [{}, {}],
      constraint: { kind: 'choices', choices: ['yes', 'no'] }
    })
    await post('/v1/answer', form({ question: '42', choices: ['yes', 'no'] }))
    await post('/v1/answer', form({ question: 'x', choices: '["yes","no"]' }))
    await post('/v1/answer', form({ question: 'x', choices: 'yes' }))
    expect(fake.requests.slice(1)).toMatchObject([
      { prompt: 'answer en 42', constraint: { choices: ['yes', 'no'] } },
      { constraint: { choices: ['yes', 'no'] } },
      { constraint: { choices: ['yes'] } }
    ])
  })
})

describe('/v1/detect', () => {
  it('gives boxes in pixels with scores', async () => {
    const fake = new FakeNative(() => box)
    const { post } = await serve(fake)
    const response = await post('/v1/detect', { image: tinyUrl, labels: ['cow', 'boat'], logprobs: true })
    expect(await response.json()).toMatchObject({
      objects: [
        {
          label: 'cow',
          box: { x: 0, y: 0, width: 2, height: 1 },
          normalized: { y_min: 0, x_min: 0, x_max: 1 },
          score: expect.any(Number)
        }
      ],
      finish_reason: 'stop',
      text: box.join(''),
      tokens: box.map((text) => ({ text, logprob: -0.5 })),
      timings: { total_ms: expect.any(Number) }
    })
    expect(fake.requests[0]).toMatchObject({ prompt: 'detect cow ; boat', constraint: { labels: ['cow', 'boat'] } })
  })

  it('takes forms: labels in one text or several, numbers, booleans, lists', async () => {
    const fake = new FakeNative(() => box)
    const { post } = await serve(fake)
    const forms = [
      { labels: 'cow; boat' },
      { labels: ['cow', 'boat'], max_objects: '3', constrain: 'true' },
      { labels: '["cow", "boat"]', nms: '{"iou": 0.5, "class_agnostic": true}' }
    ]
    for (const fields of forms) expect((await post('/v1/detect', form(fields))).status).toBe(200)
    for (const { prompt } of fake.requests) expect(prompt).toBe('detect cow ; boat')
    expect(fake.requests[1]!.constraint).toMatchObject({ maxObjects: 3 })
    expect((await post('/v1/detect', form({ labels: '7' }))).status).toBe(200)
    expect(fake.requests[3]!.prompt).toBe('detect 7')
  })

  it('leaves out what min_score says', async () => {
    const { post } = await serve(new FakeNative(() => box))
    const response = await post('/v1/detect', form({ labels: 'cow', min_score: '0.99' }))
    expect(await response.json()).toMatchObject({ objects: [] })
  })
})

describe('/v1/segment', () => {
  const codes = Array.from({ length: 16 }, (_, i) => `<seg${String(i).padStart(3, '0')}>`)
  const fake = (): FakeNative => new FakeNative(() => [...box.slice(0, 4), ...codes, ' cow'])

  it('gives masks as run lengths, as PNG, or none', async () => {
    const { post } = await serve(fake())
    const objects = async (mask_format?: string): Promise<{ mask?: unknown; codes: number[] }[]> => {
      const response = await post('/v1/segment', { image: tinyUrl, labels: 'cow', ...(mask_format && { mask_format }) })
      expect(response.status).toBe(200)
      return ((await response.json()) as { objects: { mask?: unknown; codes: number[] }[] }).objects
    }
    const [plain] = await objects()
    expect(plain).toMatchObject({ mask: { size: [1, 2], counts: expect.any(String) } })
    expect(plain!.codes).toEqual(Array.from({ length: 16 }, (_, i) => i))
    const [drawn] = await objects('png')
    expect(
      Buffer.from(drawn!.mask as string, 'base64')
        .subarray(1, 4)
        .toString()
    ).toBe('PNG')
    expect((await objects('none'))[0]).not.toHaveProperty('mask')
  })
})

describe('/v1/score', () => {
  it('gives log-probabilities', async () => {
    const { post } = await serve(new FakeNative(() => ['a', 'b']))
    const response = await post('/v1/score', { image: tinyUrl, prompt: 'caption en', suffix: 'ab' })
    expect(await response.json()).toEqual({
      model: 'fake',
      tokens: [
        { text: 'a', logprob: -0.5 },
        { text: 'b', logprob: -0.5 }
      ],
      log_probs: [-0.5, -0.5],
      total: -1,
      mean: -0.5
    })
  })
})

describe('/v1/embeddings', () => {
  it('of a model that cannot is 400', async () => {
    const { client } = await serve(new FakeNative())
    await expect(client.embeddings.create({ model: 'fake', input: 'invoice' })).rejects.toMatchObject({
      status: 400,
      code: 'ERR_MODEL_UNSUPPORTED'
    })
  })
})

describe('/v1/models', () => {
  it('lists the models by name, also with a slash', async () => {
    const { client } = await serve(new FakeNative(), { models: { demo: 'a.gguf', 'org/name:Q4': 'b.gguf' } })
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual(['demo', 'org/name:Q4'])
    expect(await client.models.retrieve('org/name:Q4')).toMatchObject({ id: 'org/name:Q4', object: 'model' })
    await expect(client.models.retrieve('nope')).rejects.toMatchObject({ status: 404, code: 'ERR_MODEL_NOT_FOUND' })
  })
})

describe('pictures', () => {
  const refused = async (image: string): Promise<{ status: number; error: { code: string; message: string } }> => {
    const { post } = await serve(new FakeNative(), { remoteImages: true })
    const response = await post('/v1/caption', { image })
    return { status: response.status, ...((await response.json()) as { error: { code: string; message: string } }) }
  }

  it.each(['/etc/passwd', 'file:///etc/hostname', './package.json', 'ftp://x/y.png', 'data:image/png;base64,', 'x'])(
    'are never read from %s',
    async (image) => {
      expect(await refused(image)).toMatchObject({ status: 400, error: { code: 'ERR_IMAGE_INVALID' } })
    }
  )

  it.each([
    'http://127.0.0.1:9/x.png',
    'http://localhost:9/x.png',
    'http://169.254.169.254/latest/meta-data',
    'http://[::1]:9/x.png',
    'http://[::ffff:10.0.0.1]/x.png',
    'http://0x7f000001/x.png'
  ])('are never fetched from %s, whatever the environment says', async (image) => {
    process.env['PALIGEMMA_ALLOW_PRIVATE_ADDRESSES'] = '1'
    try {
      const answer = await refused(image)
      expect(answer).toMatchObject({ status: 400, error: { code: 'ERR_IMAGE_INVALID' } })
      expect(answer.error.message).toMatch(/private network/)
    } finally {
      delete process.env['PALIGEMMA_ALLOW_PRIVATE_ADDRESSES']
    }
  })

  it('by URL are off by default', async () => {
    const { post } = await serve(new FakeNative())
    const response = await post('/v1/caption', { image: 'https://example.org/cow.jpg' })
    expect(response.status).toBe(400)
    expect(await response.text()).toContain('remoteImages')
  })

  it('that are too many are 413', async () => {
    const { post } = await serve(new FakeNative(), { maxImages: 2 })
    const response = await post('/v1/answer', { images: [tinyUrl, tinyUrl, tinyUrl], question: 'x' })
    expect(response.status).toBe(413)
    expect(await response.json()).toMatchObject({ error: { code: 'ERR_IMAGE_TOO_LARGE' } })
  })

  it('with too many pixels are 413', async () => {
    const { post } = await serve(new FakeNative(), { models: { fake: { model: 'x.gguf', maxImagePixels: 1 } } })
    expect((await post('/v1/caption', { image: tinyUrl })).status).toBe(413)
  })
})

/** The data of server-sent events; the last must be [DONE]. */
async function events(response: Response): Promise<any[]> {
  expect(response.headers.get('content-type')).toMatch('text/event-stream')
  const data = (await response.text())
    .trim()
    .split('\n\n')
    .map((event) => event.replace(/^data: /, ''))
  expect(data.pop()).toBe('[DONE]')
  return data.map((text) => JSON.parse(text))
}

describe('with stream', () => {
  it('texts come in parts, and then the answer', async () => {
    const { post } = await serve(new FakeNative())
    const got = await events(await post('/v1/caption', form({ stream: 'true' })))
    expect(got.slice(0, -1)).toEqual([{ delta: 'a' }, { delta: 'b' }, { delta: 'c' }])
    expect(got.at(-1)).toMatchObject({ text: 'abc', usage: { completion_tokens: 3 } })
  })

  it('objects come one by one, and then the rest of the answer', async () => {
    const { post } = await serve(new FakeNative(() => [...box, ' ; ', ...box]))
    const body = { image: tinyUrl, labels: 'cow', logprobs: true }
    const { objects, ...rest } = (await (await post('/v1/detect', body)).json()) as { objects: object[] }
    expect(objects).toHaveLength(2)
    const got = await events(await post('/v1/detect', { ...body, stream: true }))
    expect(got.slice(0, -1)).toEqual(objects.map((object) => ({ object })))
    expect({ ...got.at(-1), seed: 0, timings: 0 }).toEqual({ ...rest, seed: 0, timings: 0 })
    const masked = await events(await post('/v1/segment', { ...body, stream: true, mask_format: 'png' }))
    expect(masked.slice(0, -1).map(({ object }) => object.label)).toEqual(['cow', 'cow'])
  })

  it('tiles are told as they are done', async () => {
    const { post } = await serve(new FakeNative(() => box))
    const body = { image: tinyUrl, labels: 'cow', tiles: { columns: 2, rows: 1 } }
    const got = await events(await post('/v1/detect', { ...body, stream: true }))
    expect(got.slice(0, 3)).toEqual([1, 2, 3].map((done) => ({ tiles: { done, all: 3 } })))
    expect(got.at(-1)).toMatchObject({ model: 'fake', finish_reason: 'stop' })
    const views = (await (await post('/v1/detect', body)).json()) as { tiles: object[]; objects: object[] }
    expect(views).toMatchObject({ finish_reason: 'stop', tiles: got.at(-1).tiles })
    expect(views.tiles).toHaveLength(3)
    for (const object of views.objects) expect(object).toMatchObject({ info: { tiles: [expect.any(Object)] } })
    expect(await (await post('/v1/detect', { ...body, tiles: null })).json()).not.toHaveProperty('tiles')
  })

  it('a page is read in tiles, too', async () => {
    const fake = new FakeNative()
    const { post } = await serve(fake)
    const tiles = { columns: 2, rows: 1 }
    const read = await post('/v1/ocr', form({ tiles: JSON.stringify(tiles) }))
    expect(await read.json()).toEqual({ model: 'fake', text: 'abc', timings: { total_ms: expect.any(Number) } })
    expect(fake.requests.map(({ prompt }) => prompt)).toEqual(['ocr', 'ocr'])
    const got = await events(await post('/v1/ocr', { image: tinyUrl, tiles, stream: true }))
    expect(got.slice(0, 2)).toEqual([1, 2].map((done) => ({ tiles: { done, all: 2 } })))
    expect(got.slice(2)).toMatchObject([{ text: 'abc' }])
  })

  it('tiles that are none are told what would be', async () => {
    const { post } = await serve(new FakeNative())
    const failure = async (path: string, body: object): Promise<object> =>
      ((await (await post(path, { image: tinyUrl, labels: 'cow', ...body })).json()) as { error: object }).error
    for (const tiles of ['2x2', 300, true, { columns: 2 }, { size: 800, rows: 1 }, { size: 3 }]) {
      expect(await failure('/v1/detect', { tiles })).toMatchObject({
        code: 'ERR_INVALID_OPTION',
        param: expect.stringMatching(/^tiles/)
      })
    }
    expect(await failure('/v1/segment', { tiles: '2x2' })).toMatchObject({
      message: 'tiles: Expected "auto", { columns, rows, overlap? } or { size, overlap? }, in a form as JSON'
    })
    expect(await failure('/v1/detect', { tiles: 'auto', logprobs: true })).toMatchObject({ param: 'logprobs' })
  })

  it('what is wrong with the request is a status, later errors an event', async () => {
    const gone = Object.assign(new Error('gone'), { code: 'ERR_MODEL_CHANGED' })
    const { post } = await serve(new FakeNative(() => [...box, ' ; ', 5, gone]))
    const body = { image: tinyUrl, labels: 'cow', stream: true }
    expect((await post('/v1/detect', { ...body, labels: '<' })).status).toBe(400)
    const text = await (await post('/v1/detect', body)).text()
    expect(text).toMatch(/^data: \{"object":.*\n\ndata: \{"error":.*ERR_MODEL_CHANGED/)
  })

  it('the client’s leaving ends the search', { tags: ['slow'] }, async () => {
    const fake = new FakeNative(() => [...box, ' ; ', ...endless])
    const { post } = await serve(fake)
    const response = await post('/v1/segment', { image: tinyUrl, labels: 'cow', stream: true })
    const reader = response.body!.getReader()
    await reader.read()
    await reader.cancel()
    await eventually(() => fake.running === 0)
  })
})

describe('/v1/parse', () => {
  it('says where a text’s objects are', async () => {
    const { post } = await serve(new FakeNative())
    const text = [...box.slice(0, 4), ...new Array(16).fill('<seg001>'), ' cow'].join('')
    const body = { image: tinyUrl, text }
    expect(await (await post('/v1/parse', body)).json()).toMatchObject({
      objects: [{ label: 'cow', valid: true, box: { x: 0, y: 0, width: 2 }, mask: { size: [1, 2] } }]
    })
    expect(await (await post('/v1/parse', form({ text: '12', mask_format: 'none' }))).json()).toEqual({ objects: [] })
  })
})
