/** `/v1/embeddings` of a retrieval model: the vectors that the library gives, in both encodings. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createPaliGemma } from '../../lib/aisdk'
import { convert } from '../../lib/convert'
import { loadModel, type PaliGemma } from '../../lib'
import { createServer, type PaliGemmaServer } from '../../lib/server'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'

describe.skipIf(!hasGolden)('/v1/embeddings', () => {
  const folder = golden('hf', 'colpali-tiny')
  let model: PaliGemma
  let server: PaliGemmaServer
  let url: string

  beforeAll(async () => {
    const file = join(tempDir(), 'colpali.gguf')
    await convert({ source: folder, out: file, type: 'f32' })
    model = await loadModel({ model: file, threads: 2 })
    server = createServer({ models: { pages: model }, logger: false })
    url = (await server.listen({ port: 0 })).url
  })

  afterAll(async () => {
    await server?.close()
    await model?.dispose()
    removeTempDirs()
  })

  it('gives a vector per token of texts and pages', async () => {
    const image = readdirSync(join(folder, 'images')).find((name) => name.endsWith('.png'))!
    const bytes = readFileSync(join(folder, 'images', image))
    const response = await fetch(`${url}/v1/embeddings`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ input: ['invoice', { image: bytes.toString('base64') }] })
    })
    const { data, usage } = (await response.json()) as {
      data: { index: number; shape: [number, number]; embedding: number[][] }[]
      usage: { total_tokens: number }
    }
    const query = await model.embedText('invoice')
    const page = await model.embedImage(bytes)
    expect(data.map(({ index, shape }) => [index, shape])).toEqual([
      [0, [query.tokens, query.dims]],
      [1, [page.tokens, page.dims]]
    ])
    expect(data[0]!.embedding.flat()).toEqual([...query.data])
    expect(data[1]!.embedding.flat()).toEqual([...page.data])
    expect(usage.total_tokens).toBe(query.tokens + page.tokens)
  })

  it('gives the openai client the same numbers in a row', async () => {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
    const { data } = await client.embeddings.create({ model: 'pages', input: 'invoice' })
    const query = await model.embedText('invoice')
    expect(data[0]).toMatchObject({ shape: [query.tokens, query.dims] })
    expect([...data[0]!.embedding]).toEqual([...query.data])
  })

  it('are one vector of length 1 in the AI SDK', async () => {
    const { embeddings } = await createPaliGemma({ model })
      .embeddingModel()
      .doEmbed({ values: ['invoice', 'cow'] })
    expect(embeddings.map(({ length }) => length)).toEqual([(await model.embedText('x')).dims, embeddings[1]!.length])
    for (const vector of embeddings) expect(Math.hypot(...vector)).toBeCloseTo(1, 5)
  })
})
