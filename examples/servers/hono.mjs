import { Readable } from 'node:stream'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { caption, endWith, port, statusOf } from './model.mjs'

const app = new Hono()
app.onError((error, c) => c.json({ code: error.code }, statusOf(error)))
app.get('/ready', (c) => c.text('ready'))
app.post('/caption', async (c) => {
  const image = new Uint8Array(await c.req.arrayBuffer())
  return c.body(Readable.toWeb(await caption(image, c.req.raw.signal)))
})
const server = serve({ fetch: app.fetch, port })
endWith((then) => server.close(then))
