/** What the openai client does beyond plain requests: helpers that parse, streams with events, vision parts. */
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { refuseUnhandled, scripted } from '../support/fake-model'
import { ask, closeServers, serve, tinyUrl } from '../support/served'

refuseUnhandled()
closeServers()

const animal = z.object({ name: z.string(), legs: z.int() })
const cow = { name: 'cow', legs: 4 }
const pieces = ['{"name": ', '"cow", ', '"legs": 4}']

describe('parse helpers', () => {
  it('of chat completions, whole and as a stream', async () => {
    const fake = scripted(...pieces)
    const { client } = await serve(fake)
    const body = {
      model: 'fake',
      messages: ask('what is it?', tinyUrl),
      response_format: zodResponseFormat(animal, 'a')
    }
    const { choices } = await client.chat.completions.parse(body)
    expect(choices[0]!.message.parsed).toEqual(cow)
    expect(fake.requests[0]!.constraint).toMatchObject({ kind: 'schema', pattern: expect.stringContaining('"legs"') })
    const seen: string[] = []
    const stream = client.chat.completions.stream(body).on('content', (delta) => seen.push(delta))
    expect((await stream.finalChatCompletion()).choices[0]!.message.parsed).toEqual(cow)
    expect(seen).toEqual(pieces)
    expect(
      await client.chat.completions.stream({ ...body, stream_options: { include_usage: true } }).totalUsage()
    ).toEqual(expect.objectContaining({ completion_tokens: 3 }))
  })

  it('of responses, whole and as a stream', async () => {
    const fake = scripted(...pieces)
    const { client } = await serve(fake)
    const body = { model: 'fake', input: 'what is it?', text: { format: zodTextFormat(animal, 'a') } }
    expect((await client.responses.parse(body)).output_parsed).toEqual(cow)
    expect(fake.requests[0]!.constraint).toMatchObject({ kind: 'schema' })
    const deltas: string[] = []
    const stream = client.responses.stream(body).on('response.output_text.delta', ({ delta }) => deltas.push(delta))
    const final = await stream.finalResponse()
    expect(final.output_parsed).toEqual(cow)
    expect(final.status).toBe('completed')
    expect(deltas).toEqual(pieces)
  })
})

describe('an answer of responses', () => {
  it('can stand in the next input, with the picture of the first question', async () => {
    const fake = scripted('a cow')
    const { client } = await serve(fake)
    const question = {
      role: 'user' as const,
      content: [
        { type: 'input_image' as const, image_url: tinyUrl, detail: 'high' as const },
        { type: 'input_text' as const, text: 'caption en' }
      ]
    }
    const { output } = await client.responses.create({ model: 'fake', input: [question] })
    await client.responses.create({
      model: 'fake',
      input: [question, ...(output as never[]), { role: 'user', content: 'answer en where?' }]
    })
    expect(fake.requests).toMatchObject([
      { prompt: 'caption en', images: [{}] },
      { prompt: 'answer en where?', images: [{}] }
    ])
  })
})

describe('what cannot be done is said by name', () => {
  const image = (part: object): object => ({ input: [{ role: 'user', content: [{ type: 'input_image', ...part }] }] })
  it.each<['responses' | 'chat', object, string, RegExp]>([
    ['responses', image({ file_id: 'file-1' }), 'input[0].content[0].file_id', /files are not kept; send image_url/],
    ['responses', image({ detail: 'auto' }), 'input[0].content[0].image_url', /Expected a picture/],
    ['responses', { tool_choice: 'required' }, 'tool_choice', /cannot call tools/],
    ['responses', { conversation: 'conv_1' }, 'conversation', /conversations are not kept/],
    ['responses', { prompt: { id: 'pmpt_1' } }, 'prompt', /prompts are not kept/],
    ['chat', { tools: [{ type: 'function', function: { name: 'f' } }] }, 'tools', /cannot call tools/],
    ['chat', { frequency_penalty: 0.5 }, 'frequency_penalty', /repeat_penalty/],
    ['chat', { temprature: 1 }, 'temprature', /temprature/]
  ])('%s %j', async (kind, body, param, message) => {
    const { client } = await serve(scripted('x'))
    const asked =
      kind === 'chat'
        ? client.chat.completions.create({ model: 'fake', messages: ask('ocr'), ...body } as never)
        : client.responses.create({ model: 'fake', input: 'ocr', ...body } as never)
    await expect(asked).rejects.toMatchObject({ status: 400, code: 'ERR_INVALID_OPTION', param })
    await expect(asked).rejects.toThrow(message)
  })

  it('and what changes nothing here is taken', async () => {
    const { client } = await serve(scripted('x'))
    const none = { user: 'u', store: true, service_tier: 'auto', safety_identifier: 's', prompt_cache_key: 'k' }
    const ignored = {
      ...none,
      parallel_tool_calls: true,
      tool_choice: 'auto',
      tools: [],
      prompt_cache_retention: '24h'
    }
    await client.chat.completions.create({ model: 'fake', messages: ask('ocr'), ...ignored, verbosity: 'low' } as never)
    const own = { reasoning: { effort: 'low' }, truncation: 'auto', include: [], background: false }
    await client.responses.create({ model: 'fake', input: 'ocr', ...ignored, ...own } as never)
  })
})
