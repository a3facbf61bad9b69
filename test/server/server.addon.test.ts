/** The server over the engine and the demo model: real clients, many connections, the command. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openAsBlob, readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { join } from 'node:path'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { demoImage, loadModel } from '../../lib'
import { createServer, type PaliGemmaServer } from '../../lib/server'

const picture = `data:image/png;base64,${readFileSync(demoImage).toString('base64')}`
const messages = (text: string): OpenAI.Chat.ChatCompletionMessageParam[] => [
  {
    role: 'user',
    content: [
      { type: 'text', text },
      { type: 'image_url', image_url: { url: picture } }
    ]
  }
]

let server: PaliGemmaServer
let url: string
let client: OpenAI
let expected: string

beforeAll(async () => {
  server = createServer({ models: { demo: 'demo' }, maxQueue: 1000, logger: false })
  url = (await server.listen({ port: 0 })).url
  await server.ready()
  client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 60_000 })
  const model = await loadModel('demo')
  expected = await model.caption(demoImage)
  await model.dispose()
})

afterAll(async () => {
  await server.close()
})

describe('the openai client', () => {
  it('gets the caption that the library gives, whole and as a stream', async () => {
    const { choices } = await client.chat.completions.create({ model: 'demo', messages: messages('caption en') })
    expect(choices[0]!.message.content).toBe(expected)
    let text = ''
    const stream = await client.chat.completions.create({
      model: 'demo',
      messages: messages('caption en'),
      stream: true
    })
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
    expect(text).toBe(expected)
    const response = await client.responses.create({
      model: 'demo',
      input: [
        {
          role: 'user',
          content: [
            { type: 'input_text', text: 'caption en' },
            { type: 'input_image', image_url: picture, detail: 'auto' }
          ]
        }
      ]
    })
    expect(response.output_text).toBe(expected)
  })

  it('parses an object held to its schema', async () => {
    const schema = {
      type: 'object',
      properties: { colour: { enum: ['purple', 'black', 'red'] } },
      required: ['colour'],
      additionalProperties: false
    }
    const completion = await client.chat.completions.parse({
      model: 'demo',
      messages: messages('answer en which colour has the ring?'),
      response_format: { type: 'json_schema', json_schema: { name: 'ring', strict: true, schema } }
    })
    expect(completion.choices[0]!.message.parsed).toEqual({ colour: expect.stringMatching(/^(purple|black|red)$/) })
  })

  it('samples n different outputs, the same for the same seed', async () => {
    const sample = async (): Promise<(string | null)[]> => {
      const { choices } = await client.chat.completions.create({
        model: 'demo',
        messages: messages('caption en'),
        n: 4,
        temperature: 1.5,
        seed: 7,
        max_tokens: 12
      })
      return choices.map(({ message }) => message.content)
    }
    const first = await sample()
    expect(new Set(first).size).toBeGreaterThan(1)
    expect(await sample()).toEqual(first)
  })
})

describe('uploads', () => {
  const upload = async (path: string, fields: Record<string, string>): Promise<any> => {
    const form = new FormData()
    form.append('image', await openAsBlob(demoImage), 'shapes.png')
    for (const [name, value] of Object.entries(fields)) form.append(name, value)
    const response = await fetch(`${url}${path}`, { method: 'POST', body: form })
    expect(response.status).toBe(200)
    return await response.json()
  }

  it('are captioned, searched, cut out and scored as the library does', async () => {
    const model = await loadModel('demo')
    const labels = ['purple ring', 'black heart']
    const boxes = await model.detect(demoImage, labels)
    const { objects } = await upload('/v1/detect', { labels: labels.join('; ') })
    expect(objects.map(({ box }: { box: object }) => box)).toEqual(boxes.map(({ box }) => box))
    const [cut] = (await upload('/v1/segment', { labels: 'purple ring' })).objects
    expect(cut.mask.size).toEqual([448, 448])
    expect((await upload('/v1/caption', {})).text).toBe(expected)
    const scored = await model.score({ image: demoImage, prompt: 'caption en', suffix: expected })
    const { total } = await upload('/v1/score', { prompt: 'caption en', suffix: expected })
    expect(total).toBeCloseTo(scored.total, 4)
    await model.dispose()
  })

  it('by curl are what docs/server.md says', async () => {
    const args = ['-sS', '-F', `image=@${demoImage}`, '-F', 'question=what is left of the ring?', `${url}/v1/answer`]
    const child = spawn('curl', args)
    child.on('error', () => {}) // not everywhere installed
    let out = ''
    child.stdout?.on('data', (data) => {
      out += data
    })
    const [code] = await once(child, 'close').catch(() => [-1])
    if (code !== -1 && code !== -2) expect(JSON.parse(out).text).toBe('red circle')
  })
})

describe('load', () => {
  it('of 200 connections with mixed aborts loses nothing and leaves nothing behind', async () => {
    const one = async (i: number): Promise<'done' | 'aborted'> => {
      const abort = new AbortController()
      const wanted = i % 3 === 0
      if (wanted) setTimeout(() => abort.abort(), (i * 7) % 150)
      const body = { model: 'demo', messages: messages('caption en'), max_tokens: 40 }
      try {
        if (i % 2) {
          const stream = await client.chat.completions.create({ ...body, stream: true }, { signal: abort.signal })
          let text = ''
          let end: string | null = null
          for await (const { choices } of stream) {
            text += choices[0]?.delta.content ?? ''
            end = choices[0]?.finish_reason ?? end
          }
          if (abort.signal.aborted && end === null) return 'aborted'
          expect([text, end]).toEqual([expected, 'stop'])
        } else {
          const { choices } = await client.chat.completions.create(body, { signal: abort.signal })
          expect(choices[0]!.message.content).toBe(expected)
        }
        return 'done'
      } catch (error) {
        if (wanted && error instanceof OpenAI.APIUserAbortError) return 'aborted'
        throw error
      }
    }
    const round = async (): Promise<number> => {
      const results = await Promise.all(Array.from({ length: 200 }, async (_, i) => await one(i)))
      expect(results).toHaveLength(200)
      return results.filter((result) => result === 'done').length
    }
    const done = await round()
    expect(done).toBeGreaterThanOrEqual(133) // all that nobody aborted
    const memory = async (): Promise<number> => {
      global.gc?.()
      await new Promise((resolve) => setTimeout(resolve, 100))
      return process.memoryUsage().rss
    }
    const before = await memory()
    for (let i = 0; i < 2; i++) await round()
    expect((await memory()) - before).toBeLessThan(150e6)
    const running = /paligemma_requests_running (\d+)/.exec(await (await fetch(`${url}/metrics`)).text())![1]
    expect(running).toBe('0')
    expect((await client.chat.completions.create({ model: 'demo', messages: messages('ocr') })).choices).toHaveLength(1)
  })
})

describe('paligemma serve', () => {
  const command = join(__dirname, '..', '..', 'dist', 'cli', 'main.js')

  async function start(...args: string[]) {
    const child = spawn(process.execPath, [command, 'serve', '--model', 'demo', '--port', '0', ...args])
    let err = ''
    child.stderr.on('data', (data) => {
      err += data
    })
    let out = ''
    for await (const data of child.stdout) {
      out += data
      if (out.includes('\n')) break
    }
    return { child, url: /http:\S+/.exec(out)?.[0] ?? '', err: () => err, ended: once(child, 'exit') }
  }

  it('answers, logs, and ends on SIGTERM when the running request is answered', async () => {
    const { child, url, err, ended } = await start()
    while ((await fetch(`${url}/ready`)).status !== 200) await new Promise((resolve) => setTimeout(resolve, 20))
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'x', maxRetries: 0 })
    const asked = client.chat.completions.create({
      model: 'demo',
      messages: messages('caption en'),
      n: 8,
      temperature: 1
    })
    const running = async (): Promise<boolean> =>
      / [1-9]/.test(/paligemma_requests_running \d+/.exec(await (await fetch(`${url}/metrics`)).text())![0])
    while (!(await running())) await new Promise((resolve) => setTimeout(resolve, 1))
    child.kill('SIGTERM')
    expect((await asked).choices).toHaveLength(8)
    expect(await ended).toEqual([0, null])
    expect(err()).toContain('"path":"/v1/chat/completions"')
  })

  it('needs a key where a file has some', async () => {
    process.env['PALIGEMMA_API_KEYS'] = 'one,two'
    const { child, url, ended } = await start('--no-log').finally(() => delete process.env['PALIGEMMA_API_KEYS'])
    expect((await fetch(`${url}/v1/models`)).status).toBe(401)
    expect((await fetch(`${url}/v1/models`, { headers: { authorization: 'Bearer two' } })).status).toBe(200)
    child.kill('SIGINT')
    expect(await ended).toEqual([0, null])
  })

  it('fails with a reason where the port is taken or the model is none', async () => {
    const other = createHttpServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    const taken = await start('--port', String(port))
    expect(await taken.ended).toEqual([2, null])
    expect(taken.err()).toMatch(/ERR_INVALID_OPTION: Expected a port of 127\.0\.0\.1 that is free for --port but/)
    other.close()
    const missing = spawn(process.execPath, [command, 'serve', '--model', 'missing.gguf', '--port', '0', '--no-log'])
    missing.stdout.resume()
    let err = ''
    missing.stderr.on('data', (data) => {
      err += data
    })
    expect(await once(missing, 'exit')).toEqual([1, null])
    expect(err).toContain('ERR_MODEL_NOT_FOUND')
  })
})
