import { Readable } from 'node:stream'
import Fastify from 'fastify'
import { endWith, model, port, statusOf } from './model.mjs'

const app = Fastify({ bodyLimit: 20 * 2 ** 20 })
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
app.setErrorHandler((error, _request, reply) => reply.status(statusOf(error)).send({ code: error.code }))
app.get('/ready', async () => 'ready')
app.post('/caption', (request, reply) => {
  const gone = new AbortController()
  reply.raw.on('close', () => gone.abort())
  const stream = model.stream({ image: request.body, prompt: 'caption en', signal: gone.signal })
  return reply.type('text/plain; charset=utf-8').send(Readable.fromWeb(stream.toReadableStream()))
})
await app.listen({ port })
endWith((then) => app.close().then(then))
