/** `/v1/responses` as the openai client uses it. */
import type OpenAI from 'openai'
import { describe, expect, it } from 'vitest'
import { FakeNative } from '../support/fake-native'
import { endless, refuseUnhandled } from '../support/fake-model'
import { closeServers, eventually, serve, tinyUrl } from '../support/served'

refuseUnhandled()
closeServers()

const input: OpenAI.Responses.ResponseInput = [
  { role: 'developer', content: 'be brief' },
  {
    role: 'user',
    content: [
      { type: 'input_text', text: 'caption en' },
      { type: 'input_image', image_url: tinyUrl, detail: 'auto' }
    ]
  }
]

describe('a response', () => {
  it('is the text for the input and its pictures', async () => {
    const fake = new FakeNative(() => ['a', ' cow'])
    const { client } = await serve(fake)
    const response = await client.responses.create({
      model: 'fake',
      instructions: 'be brief',
      input,
      max_output_tokens: 5,
      temperature: 0.5,
      store: true
    })
    expect(response.output_text).toBe('a cow')
    expect(response).toMatchObject({
      status: 'completed',
      store: false,
      usage: { input_tokens: 7, output_tokens: 2, total_tokens: 9 }
    })
    expect(fake.requests[0]).toMatchObject({ prompt: 'caption en', images: [{}], maxTokens: 5, temperature: 0.5 })
  })

  it('to a plain text, held to a schema, with log-probabilities', async () => {
    const fake = new FakeNative(() => ['{}'])
    const { client } = await serve(fake)
    const response = await client.responses.create({
      model: 'fake',
      input: 'caption en',
      include: ['message.output_text.logprobs'],
      text: { format: { type: 'json_schema', name: 'x', schema: { type: 'object', properties: {} } } }
    })
    expect(fake.requests[0]!.constraint).toMatchObject({ kind: 'schema' })
    const [message] = response.output as OpenAI.Responses.ResponseOutputMessage[]
    expect(message!.content[0]).toMatchObject({ logprobs: [{ token: '{}', logprob: -0.5 }] })
  })

  it('as a stream goes through all events, numbered', async () => {
    const { client } = await serve(new FakeNative(() => ['a', ' cow']))
    const events: OpenAI.Responses.ResponseStreamEvent[] = []
    for await (const event of await client.responses.create({ model: 'fake', input, stream: true })) events.push(event)
    expect(events.map(({ type }) => type)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed'
    ])
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, i) => i))
    const done = await (await serve(new FakeNative(() => ['a', ' cow']))).client.responses
      .stream({ model: 'fake', input })
      .finalResponse()
    expect(done.output_text).toBe('a cow')
  })

  it('that fails on the way says so in its last event', async () => {
    const broken = Object.assign(new Error('gone'), { code: 'ERR_MODEL_CHANGED' })
    const { client, log } = await serve(new FakeNative(() => ['a', 5, broken]))
    const types: string[] = []
    for await (const event of await client.responses.create({ model: 'fake', input, stream: true })) {
      types.push(event.type)
      if (event.type === 'response.failed') expect(event.response.error?.code).toBe('ERR_MODEL_CHANGED')
    }
    expect(types.at(-1)).toBe('response.failed')
    await eventually(() => log.some((line) => line.includes('"status":503')))
  })

  it('ends when the client leaves', { tags: ['slow'] }, async () => {
    const fake = new FakeNative(() => endless)
    const { client } = await serve(fake)
    const stream = await client.responses.create({ model: 'fake', input, stream: true })
    for await (const event of stream) if (event.type === 'response.output_text.delta') break
    await eventually(() => fake.running === 0)
  })

  it.each([
    [{ previous_response_id: 'resp_1' }, 'previous_response_id'],
    [{ background: true }, 'background'],
    [{ tools: [{ type: 'web_search' }] }, 'tools'],
    [{ input: [] }, 'input'],
    [{ input: [{ role: 'user', content: [{ type: 'input_file', file_id: 'x' }] }] }, 'input[0].content[0].type'],
    [{ max_output_tokens: 0 }, 'max_output_tokens']
  ])('with %j is 400', async (body, param) => {
    const { client } = await serve(new FakeNative())
    const asked = client.responses.create({ model: 'fake', input: 'x', ...body } as never)
    await expect(asked).rejects.toMatchObject({ status: 400, code: 'ERR_INVALID_OPTION', param })
  })

  it('is not kept', async () => {
    const { client } = await serve(new FakeNative())
    await expect(client.responses.retrieve('resp_1')).rejects.toMatchObject({ status: 404 })
  })
})
