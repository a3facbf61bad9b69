/** The OpenAPI document: valid, whole, and true to what the endpoints take. */
import Ajv2020 from 'ajv/dist/2020'
import { describe, expect, it } from 'vitest'
import { FakeNative } from '../support/fake-native'
import { ask, closeServers, serve, tinyUrl } from '../support/served'

closeServers()

interface Document {
  openapi: string
  paths: Record<string, Record<string, any>>
  components: { schemas: Record<string, object>; securitySchemes?: object }
}

const documentOf = async (options = {}): Promise<Document> => {
  const { url } = await serve(new FakeNative(), options)
  return (await (await fetch(`${url}/openapi.json`)).json()) as Document
}

describe('/openapi.json', () => {
  it('has every endpoint, with a way in and out', async () => {
    const { openapi, paths } = await documentOf()
    expect(openapi).toBe('3.1.0')
    expect(Object.keys(paths)).toEqual(
      expect.arrayContaining(
        ['chat/completions', 'responses', 'models', 'models/{id}', 'embeddings', 'detect', 'segment', 'caption']
          .concat(['answer', 'ocr', 'score'])
          .map((name) => `/v1/${name}`)
          .concat(['/health', '/ready', '/metrics', '/openapi.json'])
      )
    )
    const ids = Object.values(paths).flatMap((methods) => Object.values(methods).map(({ operationId }) => operationId))
    expect(new Set(ids).size).toBe(ids.length)
    for (const methods of Object.values(paths))
      for (const operation of Object.values(methods)) expect(operation.responses[200].content).toBeTruthy()
    expect(paths['/v1/detect']!['post'].requestBody.content['multipart/form-data'].schema.properties.image).toEqual({
      type: 'string',
      contentMediaType: 'application/octet-stream'
    })
  })

  it('has references that lead somewhere, and schemas that compile', { tags: ['slow'] }, async () => {
    const document = await documentOf()
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]*)"/g)].map((match) => match[1]!)
    expect(references.length).toBeGreaterThan(10)
    for (const reference of references)
      expect(document.components.schemas).toHaveProperty([reference.replace('#/components/schemas/', '')])
    const ajv = new Ajv2020({ strict: false })
    ajv.addSchema(document, 'doc')
    for (const name of Object.keys(document.components.schemas))
      expect(ajv.getSchema(`doc#/components/schemas/${name}`), name).toBeTruthy()
  })

  it('takes what the endpoints take, and refuses what they refuse', async () => {
    const document = await documentOf()
    const ajv = new Ajv2020({ strict: false })
    ajv.addSchema(document, 'doc')
    const accepts = (name: string, value: unknown): boolean =>
      ajv.getSchema(`doc#/components/schemas/${name}`)!(value) as boolean
    expect(accepts('ChatCompletionRequest', { messages: ask('x', tinyUrl), temperature: null, n: 2 })).toBe(true)
    expect(accepts('ChatCompletionRequest', { messages: ask('x'), temprature: 1 })).toBe(false)
    expect(accepts('DetectRequest', { image: tinyUrl, labels: ['cow'], min_score: 0.5 })).toBe(true)
    expect(accepts('DetectRequest', { labels: ['cow'] })).toBe(false)
  })

  it('describes the answers that come', { tags: ['slow'] }, async () => {
    const document = await documentOf()
    const ajv = new Ajv2020({ strict: false })
    ajv.addSchema(document, 'doc')
    const { post } = await serve(new FakeNative(() => ['<loc0000>', '<loc0000>', '<loc0512>', '<loc1023>', ' cow']))
    const cases = [
      ['/v1/chat/completions', { messages: ask('x', tinyUrl), logprobs: true }, 'ChatCompletion'],
      ['/v1/responses', { input: 'x' }, 'Response'],
      ['/v1/caption', { image: tinyUrl }, 'TextResult'],
      ['/v1/detect', { image: tinyUrl, labels: 'cow' }, 'DetectResult'],
      ['/v1/segment', { image: tinyUrl, labels: 'cow' }, 'SegmentResult'],
      ['/v1/score', { prompt: 'x', suffix: 'y' }, 'ScoreResult'],
      ['/v1/caption', {}, 'Error']
    ] as const
    for (const [path, body, name] of cases) {
      const validate = ajv.getSchema(`doc#/components/schemas/${name}`)!
      const value = await (await post(path, body)).json()
      expect(validate(value), `${path}: ${JSON.stringify(validate.errors)} ${JSON.stringify(value)}`).toBe(true)
    }
  })

  it('says where keys are needed', async () => {
    const { paths, components } = await documentOf({ apiKeys: ['k'] })
    expect(components.securitySchemes).toEqual({ key: { type: 'http', scheme: 'bearer' } })
    expect(paths['/v1/ocr']!['post'].security).toEqual([{ key: [] }])
    expect(paths['/health']!['get']).not.toHaveProperty('security')
  })
})

describe('/metrics', () => {
  it('counts requests, tokens, times and errors', async () => {
    const { post, url } = await serve(new FakeNative())
    await post('/v1/chat/completions', { messages: ask('x', tinyUrl) })
    await post('/v1/chat/completions', {})
    const response = await fetch(`${url}/metrics`)
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
    const text = await response.text()
    for (const line of [
      'paligemma_requests_total{path="/v1/chat/completions",status="200"} 1',
      'paligemma_requests_total{path="/v1/chat/completions",status="400"} 1',
      'paligemma_errors_total{code="ERR_INVALID_OPTION"} 1',
      'paligemma_tokens_total{model="fake",kind="completion"} 3',
      'paligemma_time_to_first_token_seconds_count{model="fake"} 1',
      'paligemma_queue_seconds_count{model="fake"} 1',
      'paligemma_requests_running 0',
      'paligemma_model_loaded{model="fake"} 1',
      'paligemma_kv_pages_used{model="fake"} 0',
      'paligemma_kv_pages{model="fake"} 8',
      'paligemma_kv_page_tokens{model="fake"} 64'
    ])
      expect(text).toContain(line)
  })

  it('of two servers are their own', async () => {
    await serve(new FakeNative())
    const { url } = await serve(new FakeNative())
    expect(await (await fetch(`${url}/metrics`)).text()).toContain('paligemma_requests_running 0')
  })
})
