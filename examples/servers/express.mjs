import { pipeline } from 'node:stream/promises'
import express from 'express'
import { caption, endWith, port, statusOf } from './model.mjs'

const app = express()
app.get('/ready', (_req, res) => res.sendStatus(200))
app.post('/caption', express.raw({ type: '*/*', limit: '20mb' }), async (req, res) => {
  const gone = new AbortController()
  res.on('close', () => gone.abort())
  try {
    // .pipe(res) would go on generating after the client has left; pipeline ends both
    await pipeline(await caption(req.body, gone.signal), res)
  } catch (error) {
    if (!gone.signal.aborted && !res.headersSent) res.status(statusOf(error)).json({ code: error.code })
  }
})
const server = app.listen(port)
endWith((then) => server.close(then))
