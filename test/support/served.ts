/** A server over a made-up engine, asked through a real connection. */
import OpenAI from 'openai'
import { afterEach } from 'vitest'
import { openModel } from '../../lib/api/load-model'
import { readOptions } from '../../lib/base/validate'
import { serverRules, type ServerOptions } from '../../lib/server/options'
import { Server } from '../../lib/server/server'
import type { FakeNative } from './fake-native'

/** A picture of 2 x 1 pixels. */
export const tinyPicture = Buffer.from('P6 2 1 255\nabcdef')
export const tinyUrl = `data:image/x-portable-pixmap;base64,${tinyPicture.toString('base64')}`

/** A form with that picture as a file. */
export function form(fields: Record<string, string | string[]>, picture: Buffer = tinyPicture): FormData {
  const data = new FormData()
  data.append('image', new Blob([new Uint8Array(picture)]), 'picture.ppm')
  for (const [name, values] of Object.entries(fields)) for (const value of [values].flat()) data.append(name, value)
  return data
}

export interface Served {
  server: Server
  url: string
  client: OpenAI
  log: string[]
  post: (path: string, body: unknown, headers?: Record<string, string>) => Promise<Response>
}

const running: Server[] = []

/** Closes what {@link serve} opened in a test. */
export function closeServers(): void {
  afterEach(async () => {
    await Promise.all(running.splice(0).map(async (server) => await server.close({ timeoutMs: 0 })))
  })
}

/** `fake`: the engine of every model. */
export async function serve(fake: FakeNative, options: Partial<ServerOptions> = {}): Promise<Served> {
  const log: string[] = []
  const given = { models: { fake: 'fake.gguf' }, logger: (line: string) => void log.push(line), ...options }
  const checked = readOptions<ServerOptions>('createServer', given, serverRules, ['models'])
  const server = new Server(checked, async (load) => await openModel(fake.binding, load))
  running.push(server)
  const { url } = await server.listen({ port: 0 })
  return {
    server,
    url,
    log,
    client: new OpenAI({ baseURL: `${url}/v1`, apiKey: options.apiKeys?.[0] ?? 'none', maxRetries: 0 }),
    post: async (path, body, headers = {}) =>
      await fetch(`${url}${path}`, {
        method: 'POST',
        headers: body instanceof FormData ? headers : { 'content-type': 'application/json', ...headers },
        body: body instanceof FormData || typeof body === 'string' ? body : JSON.stringify(body)
      })
  }
}

export const ask = (text: string, ...urls: string[]): OpenAI.Chat.ChatCompletionMessageParam[] => [
  {
    role: 'user',
    content: [{ type: 'text', text }, ...urls.map((url) => ({ type: 'image_url' as const, image_url: { url } }))]
  }
]

/** Waits for something that comes soon. */
export async function eventually(test: () => boolean): Promise<void> {
  for (let i = 0; i < 2000 && !test(); i++) await new Promise((resolve) => setTimeout(resolve, 10))
  if (!test()) throw new Error(`not within twenty seconds: ${test}`)
}
