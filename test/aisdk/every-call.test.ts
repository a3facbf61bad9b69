/** The table of every-call.addon.test.ts for `node-paligemma/ai-sdk`. */
import { beforeAll, describe, expect, it } from 'vitest'
import * as api from '../../lib/aisdk'
import type { PaliGemma } from '../../lib/api/model'
import { attackRows, exportedCalls, sync, type Row } from '../support/call-table'
import { open, refuseUnhandled } from '../support/fake-model'
import { FakeNative } from '../support/fake-native'
import { signal } from '../support/output-rows'
import { tinyPicture } from '../support/served'

refuseUnhandled()

let model: PaliGemma
beforeAll(async () => {
  model = await open(new FakeNative(() => ['a']))
})
/** The engine made up for these tests embeds nothing. */
const retrieving = {
  info: { name: 'retrieving' },
  generate: () => {},
  embedText: async () => await Promise.resolve({ data: new Float32Array(4).fill(0.5), tokens: 2, dims: 2 })
} as unknown as PaliGemma
const provider = (): api.PaliGemmaProvider => api.createPaliGemma({ model })
const call = (): object => ({
  prompt: [
    {
      role: 'user',
      content: [
        { type: 'text', text: 'caption en' },
        { type: 'file', mediaType: 'image/png', data: { type: 'data', data: tinyPicture } }
      ]
    }
  ],
  maxOutputTokens: 3,
  temperature: 0.5,
  stopSequences: ['z'],
  topP: 0.5,
  topK: 3,
  presencePenalty: 0,
  frequencyPenalty: 0,
  responseFormat: { type: 'json', schema: { type: 'object', properties: { a: { type: 'integer' } } } },
  seed: 1,
  tools: [],
  abortSignal: signal,
  providerOptions: { paligemma: { minP: 0.1 } }
})

const rows: Record<string, Row> = {
  createPaliGemma: {
    sync: true,
    call: (...args: never[]) => (api.createPaliGemma as (...args: never[]) => unknown)(...args),
    args: () => [{ model, specification: 'v4', modelId: 'a' }]
  },
  'provider.languageModel': sync((id) => provider().languageModel(id), 'a'),
  'provider.embeddingModel': sync((id) => provider().embeddingModel(id), 'a'),
  doGenerate: {
    call: async (...args: never[]) =>
      await (provider().languageModel().doGenerate as (...args: never[]) => unknown)(...args),
    args: () => [call()]
  },
  doStream: {
    call: async (...args: never[]) => {
      const { doStream } = provider().languageModel()
      const { stream } = await (doStream as (...args: never[]) => Promise<{ stream: ReadableStream }>)(...args)
      for await (const part of stream as AsyncIterable<{ type: string; error?: unknown }>)
        if (part.type === 'error') throw part.error
    },
    args: () => [call()]
  },
  doEmbed: {
    call: async (...args: never[]) =>
      await (api.createPaliGemma({ model: retrieving }).embeddingModel().doEmbed as (...args: never[]) => unknown)(
        ...args
      ),
    args: () => [{ values: ['a'], abortSignal: signal }]
  }
}

describe('every function of the provider', { tags: ['slow'] }, () => {
  it('has a row', () => {
    expect(exportedCalls(api)).toEqual(['createPaliGemma'])
    const made = provider()
    const offered = [made, made.languageModel(), made.embeddingModel()].flatMap((one) =>
      Object.entries(one).flatMap(([name, value]) => (typeof value === 'function' ? [name] : []))
    )
    expect(offered.map((name) => (name.startsWith('do') ? name : `provider.${name}`)).sort()).toEqual(
      Object.keys(rows)
        .filter((name) => name !== 'createPaliGemma')
        .sort()
    )
  })

  attackRows(rows)
})
