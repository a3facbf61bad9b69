import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { endWith, model, port, statusOf } from './model.mjs'

const app = new Hono()
app.onError((error, c) => c.json({ code: error.code }, statusOf(error)))
app.get('/ready', (c) => c.text('ready'))
app.post('/caption', async (c) => {
  const image = new Uint8Array(await c.req.arrayBuffer())
  const stream = model.stream({ image, prompt: 'caption en', signal: c.req.raw.signal })
  return c.body(stream.toReadableStream()) // its end is the generation's end
})
const server = serve({ fetch: app.fetch, port })
endWith((then) => server.close(then))
