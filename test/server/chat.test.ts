/** `/v1/chat/completions` as the openai client uses it. */
import OpenAI, { type APIError } from 'openai'
import { describe, expect, it } from 'vitest'
import { FakeNative } from '../support/fake-native'
import { endless, refuseUnhandled } from '../support/fake-model'
import { ask, closeServers, eventually, serve, tinyUrl } from '../support/served'

refuseUnhandled()
closeServers()

const says = (...words: string[]): FakeNative => new FakeNative(() => words)

describe('a chat completion', () => {
  it('is the text for the last user message and its pictures', async () => {
    const fake = says('a', ' cow')
    const { client } = await serve(fake)
    const { choices, usage, model } = await client.chat.completions.create({
      model: 'fake',
      messages: [{ role: 'system', content: 'You are helpful.' }, ...ask('caption en', tinyUrl, tinyUrl)]
    })
    expect(model).toBe('fake')
    expect(choices).toMatchObject([
      { index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'a cow' } }
    ])
    expect(usage).toMatchObject({ prompt_tokens: 8 + 3, completion_tokens: 2, total_tokens: 13 })
    expect(fake.requests[0]).toMatchObject({ prompt: 'caption en', images: [{}, {}] })
  })

  it('about earlier pictures, where a follow-up question brings none', async () => {
    const fake = says('red')
    const { client } = await serve(fake)
    const messages = [
      ...ask('caption en', tinyUrl),
      { role: 'assistant' as const, content: 'a cow' },
      { role: 'user' as const, content: 'answer en what colour?' }
    ]
    await client.chat.completions.create({ model: 'fake', messages })
    expect(fake.requests[0]).toMatchObject({ prompt: 'answer en what colour?', images: [{}] })
  })

  it('takes the sampling parameters of OpenAI, and null for what is not set', async () => {
    const fake = says('x')
    const { client } = await serve(fake)
    await client.chat.completions.create({
      model: 'fake',
      messages: ask('ocr'),
      temperature: 0.5,
      top_p: 0.9,
      seed: -3,
      stop: ['\n', 'END'],
      max_tokens: 7,
      max_completion_tokens: 9,
      frequency_penalty: 0,
      presence_penalty: null,
      logit_bias: {},
      tools: [],
      user: 'someone',
      store: false
    })
    expect(fake.requests[0]).toMatchObject({
      temperature: 0.5,
      topP: 0.9,
      seed: 2 ** 48 - 3,
      stop: ['\n', 'END'],
      maxTokens: 9
    })
    await client.chat.completions.create({ model: 'fake', messages: ask('ocr'), stop: 'END', temperature: null })
    expect(fake.requests[1]).toMatchObject({ stop: ['END'] })
    expect(fake.requests[1]).not.toHaveProperty('temperature')
  })

  it('comes n times, with seeds of their own', async () => {
    const fake = says('x', 'y')
    const { client } = await serve(fake)
    const { choices, usage } = await client.chat.completions.create({
      model: 'fake',
      messages: ask('caption en'),
      n: 3,
      temperature: 1,
      seed: 10
    })
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2])
    expect(fake.requests.map(({ seed }) => seed)).toEqual([10, 11, 12])
    expect(usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 6 })
  })

  it('has log-probabilities where asked for', async () => {
    const { client } = await serve(says('a', 'é'))
    const { choices } = await client.chat.completions.create({
      model: 'fake',
      messages: ask('caption en'),
      logprobs: true,
      top_logprobs: 2
    })
    expect(choices[0]!.logprobs?.content).toEqual([
      { token: 'a', logprob: -0.5, bytes: [97], top_logprobs: [] },
      { token: 'é', logprob: -0.5, bytes: [195, 169], top_logprobs: [] }
    ])
  })

  it('is held to a JSON Schema by response_format', async () => {
    const fake = says('{}')
    const { client } = await serve(fake)
    const schema = {
      type: 'object',
      properties: { n: { type: 'integer' } },
      required: ['n'],
      additionalProperties: false
    }
    await client.chat.completions.create({
      model: 'fake',
      messages: ask('caption en'),
      response_format: { type: 'json_schema', json_schema: { name: 'count', strict: true, schema } }
    })
    expect(fake.requests[0]!.constraint).toMatchObject({ kind: 'schema', pattern: expect.stringContaining('"n"') })
    await client.chat.completions.create({
      model: 'fake',
      messages: ask('caption en'),
      response_format: { type: 'json_object' }
    })
    expect(fake.requests[1]!.constraint).toMatchObject({ kind: 'schema' })
  })

  it('answers requests without a model with the first', async () => {
    const { post } = await serve(says('x'), { models: { one: 'a.gguf', two: 'b.gguf' } })
    const response = await post('/v1/chat/completions', { messages: ask('caption en') })
    expect(await response.json()).toMatchObject({ model: 'one' })
  })
})

describe('a stream', () => {
  it('brings the text as it comes, the end, usage where asked for', async () => {
    const { client } = await serve(says('a', ' ', 'cow'))
    const stream = await client.chat.completions.create({
      model: 'fake',
      messages: ask('caption en'),
      stream: true,
      stream_options: { include_usage: true }
    })
    const chunks: OpenAI.Chat.ChatCompletionChunk[] = []
    for await (const chunk of stream) chunks.push(chunk)
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1)
    expect(chunks[0]!.choices[0]!.delta).toMatchObject({ role: 'assistant', content: '' })
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe('a cow')
    expect(chunks.at(-2)!.choices[0]!.finish_reason).toBe('stop')
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 3 } })
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true)
  })

  it('of several choices brings each under its index', async () => {
    const { client } = await serve(says('x', 'y'))
    const stream = await client.chat.completions.create({
      model: 'fake',
      messages: ask('caption en'),
      stream: true,
      n: 2,
      temperature: 1
    })
    const texts = ['', '']
    let ends = 0
    for await (const { choices } of stream)
      for (const { index, delta, finish_reason } of choices) {
        texts[index] += delta.content ?? ''
        if (finish_reason) ends++
      }
    expect(texts).toEqual(['xy', 'xy'])
    expect(ends).toBe(2)
  })

  it('ends the work when the client aborts', { tags: ['slow'] }, async () => {
    const fake = new FakeNative(() => endless)
    const { client, log } = await serve(fake)
    const stream = await client.chat.completions.create({ model: 'fake', messages: ask('caption en'), stream: true })
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) stream.controller.abort()
    await eventually(() => fake.running === 0 && log.some((line) => line.includes('"status":499')))
    expect(fake.cancelled).toHaveLength(1)
  })

  it('tells of an error after the first token within the stream', async () => {
    const broken = Object.assign(new Error('weights gone'), { code: 'ERR_MODEL_CHANGED' })
    const { post } = await serve(new FakeNative(() => ['a', 5, broken]))
    const response = await post('/v1/chat/completions', { messages: ask('x'), stream: true })
    expect(response.status).toBe(200)
    expect(await response.text()).toContain('"code":"ERR_MODEL_CHANGED"')
  })
})

describe('a client that goes away', () => {
  it('frees its slot while its answer is computed', { tags: ['slow'] }, async () => {
    const fake = new FakeNative(() => endless)
    const { client } = await serve(fake)
    const controller = new AbortController()
    const asked = client.chat.completions.create({ model: 'fake', messages: ask('x') }, { signal: controller.signal })
    await eventually(() => fake.running === 1)
    controller.abort()
    await expect(asked).rejects.toThrow(OpenAI.APIUserAbortError)
    await eventually(() => fake.running === 0)
  })
})

describe('a wrong request', () => {
  const request = async (body: object): Promise<APIError> => {
    const { client } = await serve(says('x'))
    const base = { model: 'fake', messages: ask('caption en') }
    return await client.chat.completions.create({ ...base, ...body } as never).then(
      () => expect.fail('it was taken'),
      (error: APIError) => error
    )
  }

  it.each([
    [{ temperature: 3 }, 'temperature'],
    [{ messages: [] }, 'messages'],
    [{ messages: [{ role: 'user', content: 5 }] }, 'messages[0].content'],
    [{ messages: [{ role: 'bot', content: 'x' }] }, 'messages[0].role'],
    [
      { messages: [{ role: 'user', content: [{ type: 'input_audio', input_audio: {} }] }] },
      'messages[0].content[0].type'
    ],
    [{ messages: [{ role: 'assistant', content: 'x' }] }, 'messages'],
    [{ tools: [{ type: 'function', function: { name: 'f' } }] }, 'tools'],
    [{ frequency_penalty: 1 }, 'frequency_penalty'],
    [{ stop: [''] }, 'stop[0]'],
    [{ n: 0 }, 'n'],
    [{ response_format: { type: 'xml' } }, 'response_format.type']
  ])('%j is 400 and names %s', async (body, param) => {
    expect(await request(body)).toMatchObject({ status: 400, code: 'ERR_INVALID_OPTION', param })
  })

  it('with an unknown parameter is refused in the words of OpenAI', async () => {
    const error = await request({ temprature: 1 })
    expect(error).toBeInstanceOf(OpenAI.BadRequestError)
    expect(error.message).toBe('400 Unrecognized request argument supplied: temprature')
    expect(error).toMatchObject({ param: 'temprature', type: 'invalid_request_error' })
  })

  it('for an unknown model is 404 and names those there are', async () => {
    const error = await request({ model: 'gpt-9' })
    expect(error).toBeInstanceOf(OpenAI.NotFoundError)
    expect(error).toMatchObject({ code: 'ERR_MODEL_NOT_FOUND', param: 'model' })
    expect(error.message).toContain('fake')
  })

  it('with a schema that cannot be held is 400', async () => {
    const schema = { type: 'object', patternProperties: { x: {} } }
    const error = await request({ response_format: { type: 'json_schema', json_schema: { name: 'x', schema } } })
    expect(error).toMatchObject({ status: 400, code: 'ERR_INVALID_OPTION' })
  })
})
