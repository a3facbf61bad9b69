/** The provider in the real AI SDK (6, which runs on Node 20), and against the types of 7. */
import type { EmbeddingModelV4, LanguageModelV4 } from '@ai-sdk/provider'
import { generateObject, generateText, Output, streamObject, streamText } from 'ai'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { createPaliGemma } from '../../lib/aisdk'
import { endless, open, refuseUnhandled } from '../support/fake-model'
import { FakeNative } from '../support/fake-native'
import { eventually, tinyPicture, tinyUrl } from '../support/served'

refuseUnhandled()
Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false })

const languageModel = async (fake: FakeNative) =>
  createPaliGemma({ model: await open(fake), specification: 'v3' }).languageModel()

const messages = (text: string, image: string | Uint8Array | URL = tinyPicture) => [
  {
    role: 'user' as const,
    content: [
      { type: 'text' as const, text },
      { type: 'image' as const, image, mediaType: 'image/x-portable-pixmap' }
    ]
  }
]

describe('generateText', () => {
  it('gives the text for a prompt and pictures, with usage', async () => {
    const fake = new FakeNative(() => ['a', ' cow'])
    const { text, usage, finishReason, providerMetadata } = await generateText({
      model: await languageModel(fake),
      messages: messages('caption en'),
      temperature: 0.5,
      topP: 0.9,
      topK: 5,
      seed: 3,
      maxOutputTokens: 7,
      stopSequences: ['END']
    })
    expect(text).toBe('a cow')
    expect(finishReason).toBe('stop')
    expect(usage).toMatchObject({ inputTokens: 7, outputTokens: 2 })
    expect(providerMetadata?.['paligemma']).toMatchObject({ seed: 3, imageTokens: 4 })
    const sampling = { temperature: 0.5, topP: 0.9, topK: 5, seed: 3, maxTokens: 7, stop: ['END'] }
    expect(fake.requests[0]).toMatchObject({ prompt: 'caption en', images: [{}], ...sampling })
  })

  it('takes pictures as bytes, base64 and data URLs', async () => {
    const fake = new FakeNative()
    const model = await languageModel(fake)
    for (const image of [new Uint8Array(tinyPicture), tinyPicture.toString('base64'), tinyUrl, new URL(tinyUrl)])
      await generateText({ model, messages: messages('ocr', image) })
    for (const request of fake.requests) expect(request.images).toHaveLength(1)
    expect(fake.requests).toHaveLength(4)
  })

  it('says what it cannot do', async () => {
    const { warnings } = await generateText({
      model: await languageModel(new FakeNative()),
      system: 'be brief',
      messages: messages('caption en'),
      frequencyPenalty: 1,
      tools: { f: { inputSchema: z.object({}) } }
    })
    expect(warnings).toMatchObject([
      { type: 'unsupported', feature: 'tools' },
      { type: 'unsupported', feature: 'frequencyPenalty' },
      { type: 'other' }
    ])
  })

  it('hands on what the SDK has no name for, checked', async () => {
    const fake = new FakeNative()
    const model = await languageModel(fake)
    const ask = async (paligemma: Record<string, string>) =>
      await generateText({ model, messages: messages('detect cow'), providerOptions: { paligemma }, maxRetries: 0 })
    await ask({ constrain: 'detect' })
    expect(fake.requests[0]!.constraint).toMatchObject({ kind: 'detect' })
    await expect(ask({ constrian: 'detect' })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('rejects without a question, and when aborted', async () => {
    const fake = new FakeNative(() => endless)
    const model = await languageModel(fake)
    await expect(generateText({ model, messages: messages(' '), maxRetries: 0 })).rejects.toThrow(
      /user message with text/
    )
    const control = new AbortController()
    const asked = generateText({ model, messages: messages('x'), abortSignal: control.signal })
    await eventually(() => fake.running === 1)
    control.abort()
    await expect(asked).rejects.toMatchObject({ name: 'AbortError' })
    await eventually(() => fake.running === 0)
  })
})

describe('streamText', () => {
  it('brings the text as it comes', async () => {
    const result = streamText({
      model: await languageModel(new FakeNative(() => ['a', '', ' cow'])),
      messages: messages('caption en')
    })
    const parts: string[] = []
    for await (const part of result.textStream) parts.push(part)
    expect(parts).toEqual(['a', ' cow'])
    expect(await result.usage).toMatchObject({ inputTokens: 7, outputTokens: 3 })
    expect(await result.finishReason).toBe('stop')
  })

  it('tells of errors, and ends the work when aborted', async () => {
    const broken = Object.assign(new Error('gone'), { code: 'ERR_MODEL_CHANGED' })
    const errors: unknown[] = []
    const failing = streamText({
      model: await languageModel(new FakeNative(() => ['a', 5, broken])),
      messages: messages('x'),
      onError: ({ error }) => void errors.push(error)
    })
    await failing.consumeStream()
    expect(errors).toMatchObject([{ code: 'ERR_MODEL_CHANGED' }])
    const fake = new FakeNative(() => endless)
    const control = new AbortController()
    const model = await languageModel(fake)
    const result = streamText({ model, messages: messages('x'), abortSignal: control.signal, onError: () => {} })
    for await (const _ of result.textStream) control.abort()
    await eventually(() => fake.running === 0)
  })
})

describe('objects', () => {
  const schema = z.object({ animal: z.enum(['cow', 'horse']) })

  it('are held to their schema by constraints', async () => {
    const fake = new FakeNative(() => ['{"animal"', ':"cow"}'])
    const model = await languageModel(fake)
    const { object } = await generateObject({ model, schema, messages: messages('answer en what is it?') })
    expect(object).toEqual({ animal: 'cow' })
    expect(fake.requests[0]!.constraint).toMatchObject({ kind: 'schema', pattern: expect.stringContaining('cow') })
    const streamed = streamObject({ model, schema, messages: messages('answer en what is it?') })
    for await (const _ of streamed.partialObjectStream);
    expect(await streamed.object).toEqual({ animal: 'cow' })
    const { output } = await generateText({ model, output: Output.object({ schema }), messages: messages('x') })
    expect(output).toEqual({ animal: 'cow' })
  })
})

describe('the specification of AI SDK 7', () => {
  it('is kept: types, and files as it writes them', async () => {
    const fake = new FakeNative()
    const provider = createPaliGemma({ model: await open(fake) })
    const model: LanguageModelV4 = provider.languageModel()
    const embedding: EmbeddingModelV4 = provider.embeddingModel('pages')
    expect([model.specificationVersion, embedding.specificationVersion]).toEqual(['v4', 'v4'])
    expect([model.modelId, embedding.modelId]).toEqual(['fake', 'pages'])
    const { content, finishReason } = await model.doGenerate({
      prompt: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'caption en' },
            { type: 'file', mediaType: 'image', data: { type: 'data', data: new Uint8Array(tinyPicture) } },
            { type: 'file', mediaType: 'image/x', data: { type: 'url', url: new URL(tinyUrl) } }
          ]
        }
      ]
    })
    expect(content).toEqual([{ type: 'text', text: 'abc' }])
    expect(finishReason).toEqual({ unified: 'stop', raw: 'stop' })
    expect(fake.requests[0]!.images).toHaveLength(2)
    const file = { type: 'file' as const, mediaType: 'audio/wav', data: { type: 'data' as const, data: 'AAAA' } }
    const heard = model.doGenerate({ prompt: [{ role: 'user', content: [{ type: 'text', text: 'x' }, file] }] })
    await expect(heard).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('wrong options are refused', () => {
    expect(() => createPaliGemma({ model: {} as never })).toThrow(/a loaded model/)
  })
})
