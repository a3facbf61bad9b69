import Fastify from 'fastify'
import { caption, endWith, port, statusOf } from './model.mjs'

const app = Fastify({ bodyLimit: 20 * 2 ** 20 })
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
app.setErrorHandler((error, _request, reply) => reply.status(statusOf(error)).send({ code: error.code }))
app.get('/ready', async () => 'ready')
app.post('/caption', async (request, reply) => {
  const gone = new AbortController()
  reply.raw.on('close', () => gone.abort())
  const text = await caption(request.body, gone.signal)
  return reply.type('text/plain; charset=utf-8').send(text)
})
await app.listen({ port })
endWith((then) => app.close().then(then))
