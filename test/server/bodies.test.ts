/** What comes in is bounded the same way at every endpoint that takes a body. */
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import { expect, it } from 'vitest'
import { refuseUnhandled, scripted } from '../support/fake-model'
import { closeServers, serve, type Served } from '../support/served'

refuseUnhandled()
closeServers()

const most = 100_000

interface Endpoint {
  path: string
  types: string[]
}

/** As the server itself describes them. */
async function endpoints({ url }: Served): Promise<Endpoint[]> {
  const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as {
    paths: Record<string, { post?: { requestBody?: { content: object } } }>
  }
  return Object.entries(paths).flatMap(([path, { post }]) =>
    post?.requestBody ? [{ path: path.replace(/\{\w+\}/g, 'x'), types: Object.keys(post.requestBody.content) }] : []
  )
}

/** The status of an answer to what is written to the socket. */
async function raw(url: string, head: string[], ...body: (string | Buffer)[]): Promise<number> {
  const { port } = new URL(url)
  return await new Promise((resolve, reject) => {
    const socket = connect(Number(port), '127.0.0.1', () => {
      socket.write(`${head.join('\r\n')}\r\nhost: localhost\r\nconnection: close\r\n\r\n`)
      for (const piece of body) socket.write(piece)
    })
    let answer = ''
    socket.on('data', (piece: Buffer) => {
      answer += piece.toString('latin1')
      const status = /^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]
      if (status !== undefined) {
        resolve(Number(status))
        socket.destroy()
      }
    })
    socket.on('error', (error: NodeJS.ErrnoException) => (error.code === 'EPIPE' ? undefined : reject(error)))
    socket.on('close', () => reject(new Error(`closed after ${JSON.stringify(answer)}`)))
  })
}

it('bodies of every endpoint have a limit, whatever their type and whether they say their length', async () => {
  const served = await serve(scripted('x'), { maxBodyBytes: most })
  const all = await endpoints(served)
  expect(all.length).toBeGreaterThanOrEqual(10)
  const picture = ['image/png', 'application/octet-stream', 'multipart/form-data; boundary=b']
  for (const { path, types } of all)
    for (const type of ['application/json', ...(types.includes('multipart/form-data') ? picture : [])]) {
      const head = [`POST ${path} HTTP/1.1`, `content-type: ${type}`]
      const what = `${type} to ${path}`
      expect(await raw(served.url, [...head, `content-length: ${most + 1}`]), what).toBe(413)
      const piece = `8000\r\n${' '.repeat(0x8000)}\r\n`
      const chunked = [...head, 'transfer-encoding: chunked']
      expect(await raw(served.url, chunked, piece, piece, piece, piece), `${what}, in pieces`).toBe(413)
    }
})

it('compressed bodies are not unpacked at any endpoint', async () => {
  const served = await serve(scripted('x'), { maxBodyBytes: most })
  const bomb = gzipSync(Buffer.alloc(5_000_000, ' '))
  expect(bomb.length).toBeLessThan(most)
  for (const { path } of await endpoints(served)) {
    const head = [`POST ${path} HTTP/1.1`, 'content-type: application/json', 'content-encoding: gzip']
    expect(await raw(served.url, [...head, `content-length: ${bomb.length}`], bomb), path).toBe(400)
  }
})

it('bodies that never end are given up at every endpoint', async () => {
  const served = await serve(scripted('x'))
  const { url } = await served.server.listen({ port: 0, requestTimeoutMs: 200 })
  const all = await endpoints(served)
  const ends = await Promise.all(
    all.map(async ({ path }) => {
      const head = [`POST ${path} HTTP/1.1`, 'content-type: application/json', 'transfer-encoding: chunked']
      return await raw(url, head, '1\r\n{\r\n')
    })
  )
  expect(ends).toEqual(all.map(() => 408))
})
