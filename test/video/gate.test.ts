/** ffmpeg's own ways to the network lead to public addresses alone. The places of this test are all on loopback. */
import { createServer, type Server } from 'node:http'
import { connect, createServer as createSocketServer, type AddressInfo } from 'node:net'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { decodeFrames } from '../../lib/video/decode'
import { Gate, publicPass } from '../../lib/video/gate'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { hasFfmpeg, makeClip } from '../support/clips'

const [outside, inside] = ['127.0.0.1', '127.0.0.2']
const open: { close: () => unknown }[] = []
afterEach(() => {
  for (const one of open.splice(0)) one.close()
})

/** What is asked of a server at an address. */
async function serve(host: string, answer: (path: string) => { location?: string; body?: Buffer | string }) {
  const asked: string[] = []
  const server: Server = createServer((request, response) => {
    asked.push(request.url!)
    const { location, body = '' } = answer(request.url!)
    response.writeHead(location === undefined ? 200 : 302, location === undefined ? {} : { location })
    response.end(body)
  })
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  open.push(server)
  return { asked, url: `http://${host}:${(server.address() as AddressInfo).port}` }
}

async function gate(): Promise<Gate> {
  const made = await Gate.open((address) => address === inside)
  open.push(made)
  return made
}

let film: Buffer
beforeAll(() => {
  if (!hasFfmpeg) return
  const path = join(tempDir(), 'film.webm')
  makeClip(path, 4, 10, ['-c:v', 'libvpx-vp9', '-lossless', '1', '-pix_fmt', 'yuv444p', '-cpu-used', '8'])
  film = readFileSync(path)
})
afterAll(removeTempDirs)

async function framesOf(input: string): Promise<number> {
  const pass = (await gate()).pass()
  const video = { name: 'a film', input, protocols: 'http,https,httpproxy,tcp,tls,crypto', pass }
  let count = 0
  for await (const _ of decodeFrames(video, {})) count++
  return count
}

describe.skipIf(!hasFfmpeg)('ffmpeg behind the gate', { tags: ['slow'] }, () => {
  it('plays what is outside, by redirect too', async () => {
    const { url, asked } = await serve(outside, (path) => (path === '/moved' ? { location: '/film' } : { body: film }))
    const straight = await framesOf(`${url}/film`)
    expect(straight).toBeGreaterThan(1)
    expect(await framesOf(`${url}/moved`)).toBe(straight)
    expect(asked).toContain('/moved')
  })

  it('is not led inside by a redirect', async () => {
    const secret = await serve(inside, () => ({ body: film }))
    const { url } = await serve(outside, () => ({ location: `${secret.url}/film` }))
    await expect(framesOf(`${url}/film`)).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringMatching(/^a film: its address 127\.0\.0\.2 is in a private network/) as string
    })
    expect(secret.asked).toEqual([])
  })

  it('is not led inside by a playlist', async () => {
    const secret = await serve(inside, () => ({ body: film }))
    const list = `#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n${secret.url}/part.ts\n#EXT-X-ENDLIST\n`
    const { url, asked } = await serve(outside, () => ({ body: list }))
    await expect(framesOf(`${url}/list.m3u8`)).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('private network') as string
    })
    expect(asked.length).toBeGreaterThan(0)
    expect(secret.asked).toEqual([])
  })

  it('is not led inside over https', async () => {
    const connections: unknown[] = []
    const secret = createSocketServer((socket) => {
      connections.push(socket)
      socket.destroy()
    })
    await new Promise<void>((resolve) => secret.listen(0, inside, resolve))
    open.push(secret)
    const { url } = await serve(outside, () => ({
      location: `https://${inside}:${(secret.address() as AddressInfo).port}/film`
    }))
    await expect(framesOf(`${url}/film`)).rejects.toThrow(/private network/)
    expect(connections).toEqual([])
  })

  it("leads all through a proxy of the user's that ffmpeg takes, and none past it", async () => {
    const { url: proxy, asked } = await serve(outside, () => ({}))
    vi.stubEnv('no_proxy', '*')
    try {
      for (const other of ['', 'socks5://127.0.0.1:9', '127.0.0.1:9', 'https://127.0.0.1:9']) {
        vi.stubEnv('http_proxy', other)
        expect((await publicPass()).env['http_proxy'], other).toMatch(/^http:\/\/\d+:\w+@127\.0\.0\.1:/)
      }
      vi.stubEnv('http_proxy', proxy)
      const pass = await publicPass()
      const video = { name: 'a film', input: `http://${inside}:9/film`, protocols: 'http,httpproxy,tcp', pass }
      await expect(decodeFrames(video, {}).next()).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
    } finally {
      vi.unstubAllEnvs()
    }
    expect(asked).toContain(`http://${inside}:9/film`)
  })

  it('lets nobody else through', async () => {
    const made = await gate()
    const { http_proxy: proxy } = made.pass().env
    const { url, asked } = await serve(outside, () => ({ body: 'x' }))
    const { port } = new URL(proxy!)
    const status = await new Promise<string>((resolve, reject) => {
      const socket = connect(Number(port), '127.0.0.1', () =>
        socket.write(`GET ${url}/ HTTP/1.1\r\nhost: a\r\nproxy-authorization: Basic ${btoa('0:guess')}\r\n\r\n`)
      )
      socket.once('data', (data: Buffer) => resolve(data.toString('latin1').split('\r\n')[0]!)).once('error', reject)
      open.push({ close: () => socket.destroy() })
    })
    expect(status).toBe('HTTP/1.1 407 Proxy Authentication Required')
    expect(asked).toEqual([])
  })
})
