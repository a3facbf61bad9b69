/** What keeps a server up: keys, limits, deadlines, slow clients, other sites' pages, shutting down. */
import { connect, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { FakeNative } from '../support/fake-native'
import { endless, refuseUnhandled, scripted } from '../support/fake-model'
import { leastStandstill, longest } from '../support/hostile'
import { ask, closeServers, eventually, form, serve, tinyUrl } from '../support/served'

refuseUnhandled()
closeServers()

const body = { messages: ask('caption en') }
const path = '/v1/chat/completions'
const codeOf = async (response: Response): Promise<string> =>
  ((await response.json()) as { error: { code: string } }).error.code

describe('API keys', () => {
  it('are needed where there are some, also for models and metrics, not for health', async () => {
    const { post, url, client } = await serve(scripted('x'), { apiKeys: ['secret-1', 'secret-2'] })
    for (const headers of [{}, { authorization: 'Bearer secret' }, { authorization: 'Basic secret-1' }]) {
      const response = await post(path, body, headers)
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toBe('Bearer')
      expect(await response.json()).toMatchObject({
        error: { type: 'authentication_error', code: 'ERR_ACCESS_DENIED' }
      })
    }
    expect((await post(path, body, { authorization: 'Bearer secret-2' })).status).toBe(200)
    await client.models.list()
    expect((await fetch(`${url}/v1/models`)).status).toBe(401)
    expect((await fetch(`${url}/metrics`)).status).toBe(401)
    expect((await fetch(`${url}/health`)).status).toBe(200)
  })
})

describe('bodies', () => {
  it('over the limit are 413, whether they say so or not', async () => {
    const { post, url } = await serve(scripted('x'), { maxBodyBytes: 2000 })
    const large = { ...body, user: 'x'.repeat(3000) }
    expect(await codeOf(await post(path, large))).toBe('ERR_IMAGE_TOO_LARGE')
    const stream = new Blob([JSON.stringify(large)]).stream()
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${url}${path}`, { method: 'POST', headers, body: stream, duplex: 'half' } as never)
    expect(response.status).toBe(413)
  })

  it.each([
    ['{"messages": [', 'application/json', 400],
    ['', 'application/json', 400],
    ['\xff\xfe', 'application/json', 400],
    ['[]', 'application/json', 400],
    ['null', 'application/json', 400],
    ['{}', 'text/plain', 415],
    ['a=b', 'application/x-www-form-urlencoded', 415],
    ['x', 'multipart/form-data', 415]
  ])('%j as %s are %i', async (text, type, status) => {
    const { post } = await serve(scripted('x'))
    const response = await post(path, text, { 'content-type': type })
    expect(response.status).toBe(status)
    expect(await codeOf(response)).toBe('ERR_INVALID_OPTION')
  })

  it('that are long are read like short ones', async () => {
    const fake = scripted('x')
    const { post } = await serve(fake)
    const prompt = 'è "\\" \u2028 😀 '.repeat(5)
    const long = JSON.stringify({
      messages: ask(prompt, tinyUrl),
      metadata: { a: '"\\'.repeat(1e6), b: 'x'.repeat(3e6) }
    })
    expect((await post(path, `\ufeff${long}`, { 'content-type': 'application/json' })).status).toBe(200)
    expect((await post(path, { messages: ask(prompt, tinyUrl) })).status).toBe(200)
    expect(fake.requests[0]!.prompt).toBe(fake.requests[1]!.prompt)
    expect((await post(path, long.slice(0, -1), { 'content-type': 'application/json' })).status).toBe(400)
  })

  it.each(['schema', 'metadata'])('with endless names in %s are refused without holding up others', async (where) => {
    const { post } = await serve(scripted('x'))
    const many = `{${Array.from({ length: 600_000 }, (_, i) => `"p${i}":1`).join()}}`
    const format = `{"type":"json_schema","json_schema":{"name":"x","schema":${many}}}`
    const field = where === 'schema' ? `"response_format":${format}` : `"${where}":${many}`
    const asked = `{"messages":${JSON.stringify(ask('x'))},${field}}`
    const refused = async (): Promise<void> => {
      const response = await post(path, asked, { 'content-type': 'application/json' })
      expect(response.status).toBe(400)
      expect(await response.text()).toContain('more than 50000 members')
    }
    expect(await leastStandstill(refused)).toBeLessThan(longest)
  })

  it('with thousands of fields are refused before each is looked for among all', async () => {
    const { post } = await serve(scripted('x'))
    const part = (i: number): string => `--x\r\ncontent-disposition: form-data; name="f${i}"\r\n\r\n1\r\n`
    const body = `${Array.from({ length: 20_000 }, (_, i) => part(i)).join('')}--x--\r\n`
    const form = await post('/v1/ocr', body, { 'content-type': 'multipart/form-data; boundary=x' })
    const query = Array.from({ length: 1001 }, (_, i) => `f${i}`).join('&')
    const picture = await post(`/v1/ocr?${query}`, 'x', { 'content-type': 'image/png' })
    for (const response of [form, picture]) {
      expect(response.status).toBe(400)
      expect(await response.text()).toContain('at most 1000 fields')
    }
  })

  it('that are no form are 400', async () => {
    const { post } = await serve(scripted('x'))
    for (const type of ['multipart/form-data', 'multipart/form-data; boundary=x'])
      expect((await post('/v1/ocr', 'nonsense', { 'content-type': type })).status).toBe(400)
  })
})

describe('the queue', () => {
  it('has an end: 429 with Retry-After', { tags: ['slow'] }, async () => {
    const fake = new FakeNative(() => endless)
    const { post, client } = await serve(fake, { maxQueue: 1 })
    const stream = await client.chat.completions.create({ model: 'fake', stream: true, ...body })
    const refused = await post(path, body)
    expect(refused.status).toBe(429)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await refused.json()).toMatchObject({ error: { code: 'ERR_BUSY', type: 'rate_limit_error' } })
    stream.controller.abort()
    await eventually(() => fake.running === 0)
  })

  it('of a model itself is told the same way', async () => {
    const fake = new FakeNative(() => endless)
    const { client, post } = await serve(fake, { models: { fake: { model: 'x.gguf', maxQueue: 1 } } })
    const stream = await client.chat.completions.create({ model: 'fake', stream: true, ...body })
    const refused = await post(path, body)
    expect(refused.status).toBe(429)
    expect(refused.headers.has('retry-after')).toBe(true)
    stream.controller.abort()
  })
})

describe('the deadline', () => {
  it('ends a request with 504 and frees its slot', async () => {
    const fake = new FakeNative(() => endless)
    const { post } = await serve(fake, { deadlineMs: 50 })
    const response = await post(path, body)
    expect(response.status).toBe(504)
    expect(await codeOf(response)).toBe('ERR_DEADLINE')
    await eventually(() => fake.running === 0)
  })

  it('ends a stream with an event', async () => {
    const { post } = await serve(new FakeNative(() => endless), { deadlineMs: 50 })
    const response = await post(path, { ...body, stream: true })
    expect(await response.text()).toMatch(/"code":"ERR_DEADLINE"/)
  })
})

describe('other sites', () => {
  it('may not ask unless cors names them', async () => {
    const { post, url } = await serve(scripted('x'))
    const cross = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' }
    expect((await post('/v1/ocr', form({}), cross)).status).toBe(403)
    expect((await post(path, body, { origin: 'https://evil.example' })).status).toBe(403)
    expect((await post(path, body, { origin: url, 'sec-fetch-site': 'same-origin' })).status).toBe(200)
    const preflight = await fetch(`${url}${path}`, { method: 'OPTIONS', headers: { origin: 'https://evil.example' } })
    expect(preflight.headers.has('access-control-allow-origin')).toBe(false)
  })

  it('that are named may', async () => {
    const origin = 'https://good.example'
    const { post, url } = await serve(scripted('x'), { cors: [origin] })
    const response = await post(path, body, { origin, 'sec-fetch-site': 'cross-site' })
    expect(response.status).toBe(200)
    expect(response.headers.get('access-control-allow-origin')).toBe(origin)
    const headers = { origin, 'access-control-request-method': 'POST' }
    const preflight = await fetch(`${url}${path}`, { method: 'OPTIONS', headers })
    expect(preflight.headers.get('access-control-allow-origin')).toBe(origin)
    expect((await post(path, body, { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' })).status).toBe(
      403
    )
  })

  it('cannot make this machine answer under their name', async () => {
    const { url } = await serve(scripted('x'))
    const answer = await raw(url, 'GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n')
    expect(answer).toMatch(/^HTTP\/1.1 403 /)
    expect(await raw(url, 'GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n')).toMatch(/ 200 /)
  })
})

/** What a server answers to bytes, until it closes the connection. */
async function raw(url: string, request: string, onOpen: (socket: Socket) => void = () => {}): Promise<string> {
  const { hostname, port } = new URL(url)
  return await new Promise((resolve) => {
    let text = ''
    const socket = connect(Number(port), hostname, () => {
      socket.write(request)
      onOpen(socket)
    })
    socket.on('data', (data) => {
      text += data.toString()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(text))
  })
}

const postHead = (length: number): string =>
  `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`

describe('slow clients', () => {
  it('that never finish their request are cut off', async () => {
    const { server } = await serve(scripted('x'))
    const { url } = await server.listen({ port: 0, requestTimeoutMs: 100 })
    const head = `${postHead(100)}{`
    expect(await raw(url, head)).toMatch(/^HTTP\/1.1 408 /)
  })

  it('that take nothing of their answer are cut off, and do not hold the model', { tags: ['slow'] }, async () => {
    const long = Array.from({ length: 3000 }, () => 'word '.repeat(2000))
    const fake = new FakeNative(() => [...long, 600_000])
    const { server } = await serve(fake)
    const { url } = await server.listen({ port: 0, stalledTimeoutMs: 200 })
    const text = JSON.stringify({ ...body, stream: true })
    let begun: (socket: Socket) => void = () => {}
    const connected = new Promise<Socket>((resolve) => (begun = resolve))
    const cut = raw(url, postHead(text.length) + text, (socket) => begun(socket.pause()))
    await eventually(() => fake.running === 1)
    await eventually(() => fake.running === 0)
    ;(await connected).resume()
    expect((await cut).length).toBeLessThan(3000 * 10_000)
  })
})

describe('answers', () => {
  it('have a request id, the caller’s where it is one', async () => {
    const { post } = await serve(scripted('x'))
    expect((await post(path, body)).headers.get('x-request-id')).toMatch(/^req_\w{32}$/)
    expect((await post(path, body, { 'x-request-id': 'abc-1' })).headers.get('x-request-id')).toBe('abc-1')
    expect((await post(path, {}, { 'x-request-id': 'a b' })).headers.get('x-request-id')).toMatch(/^req_/)
  })

  it('for unknown paths and methods are in the same shape', async () => {
    const { url } = await serve(scripted('x'))
    const missing = await fetch(`${url}/v2/x`)
    expect(missing.status).toBe(404)
    expect(await codeOf(missing)).toBe('ERR_INVALID_OPTION')
    const wrong = await fetch(`${url}${path}`)
    expect(wrong.status).toBe(405)
    expect(wrong.headers.get('allow')).toBe('POST')
  })

  it('about our own failures say no more than the code', async () => {
    const secret = Object.assign(new Error('reading /home/secret failed'), { code: 'ERR_INTERNAL' })
    const { post, log } = await serve(scripted(secret))
    const response = await post(path, body)
    expect(response.status).toBe(500)
    expect(await response.text()).not.toContain('secret')
    expect(log.join('')).toContain('/home/secret')
  })
})

describe('the log', () => {
  const lines = (log: string[]): Record<string, unknown>[] => log.map((line) => JSON.parse(line))

  it('has a line per request, without prompts, answers and pictures', async () => {
    const { post, log } = await serve(scripted('the answer'))
    await post(path, { messages: ask('the prompt', tinyUrl) })
    await post('/v1/answer', { image: 'data:image/png;base64,c2VjcmV0', question: 'the prompt' })
    expect(lines(log).slice(1)).toMatchObject([
      { level: 30, id: expect.any(String), path, method: 'POST', model: 'fake', status: 200, ms: expect.any(Number) },
      { status: 400, code: 'ERR_IMAGE_INVALID' }
    ])
    expect(log.join('')).not.toMatch(/the prompt|the answer|base64|c2VjcmV0/)
  })

  it('has prompts and answers where asked for, never pictures', async () => {
    const { post, log } = await serve(scripted('the answer'), { logContent: true })
    await post(path, { messages: ask('the prompt', tinyUrl) })
    expect(lines(log).at(-1)).toMatchObject({ prompt: 'the prompt', text: 'the answer' })
    expect(log.join('')).not.toContain('base64')
  })

  it('goes to an object such as pino', async () => {
    const seen: object[] = []
    const logger = { info: (fields: object) => void seen.push(fields), error: () => {} }
    const { post } = await serve(scripted('x'), { logger })
    await post(path, body)
    expect(seen.at(-1)).toMatchObject({ status: 200 })
  })
})

describe('closing', () => {
  it('lets running requests end, refuses new ones, frees the models', async () => {
    const fake = new FakeNative(() => ['a', 200, 'b'])
    const { server, post, url } = await serve(fake)
    const running = post(path, body)
    await eventually(() => fake.running === 1)
    const closing = server.close()
    expect((await server.fetch(new Request(`${url}/ready`))).status).toBe(503)
    const refused = await server.fetch(
      new Request(`${url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body)
      })
    )
    expect(refused.status).toBe(503)
    expect(refused.headers.has('retry-after')).toBe(true)
    expect(await (await running).json()).toMatchObject({ choices: [{ message: { content: 'ab' } }] })
    await closing
    expect(fake.disposals).toBe(1)
    await expect(fetch(`${url}/health`)).rejects.toThrow()
    await expect(server.listen({ port: 0 })).rejects.toThrow(PaliGemmaError)
  })

  it('cuts what takes longer than its limit', async () => {
    const fake = new FakeNative(() => endless)
    const { server, post } = await serve(fake)
    const running = post(path, body)
    await eventually(() => fake.running === 1)
    await server.close({ timeoutMs: 50 })
    const response = await running
    expect(response.status).toBe(503)
    expect(await codeOf(response)).toBe('ERR_DISPOSED')
    expect(fake.running).toBe(0)
  })
})

/** 4 billion of them, in no time. */
function holes(): unknown[] {
  const list: unknown[] = []
  list.length = 2 ** 32 - 1
  return list
}

function unreadable(): object {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

describe('wrong options', () => {
  it.each([
    [{ models: {} }, 'models'],
    [{ models: { x: 5 } }, 'models.x'],
    [{ models: { x: { base: 'y', adapters: [] } } }, 'models.x'],
    [{ maxQueue: 0 }, 'maxQueue'],
    [{ basePath: 'api' }, 'basePath'],
    [{ cors: ['example.org'] }, 'cors'],
    [{ cors: holes() }, 'cors'],
    [{ models: { x: unreadable() } }, 'models'],
    [{ apiKeys: [''] }, 'apiKeys'],
    [{ port: 1 }, 'port']
  ])('number %# are refused by name', async (options, name) => {
    await expect(serve(new FakeNative(), options as never)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining(name)
    })
  })

  it('of listening too: a host that the system knows nothing of', async () => {
    const { server } = await serve(new FakeNative())
    for (const host of ['no-such-host.invalid', 'y'.repeat(10_000), '203.0.113.1'])
      await expect(server.listen({ port: 0, host })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('of listening too: a port that is taken', async () => {
    const { server, url } = await serve(new FakeNative())
    await expect(server.listen({ port: Number(new URL(url).port) })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
  })
})
