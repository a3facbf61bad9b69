/**
 * Pictures behind URLs that strangers may have chosen.
 * @module-tag alone
 */
import dns from 'node:dns'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { describe as inWords } from '../../lib/images/image-input'
import { roomFor } from '../../lib/images/body'
import { download } from '../../lib/images/remote'

/** Addresses that are taken for public ones behind names. */
const trusted = vi.hoisted(() => new Set<string>())
vi.mock('../../lib/base/addresses', async (original) => {
  const real = await original<typeof import('../../lib/base/addresses')>()
  return { ...real, isPrivateAddress: (address: string) => !trusted.has(address) && real.isPrivateAddress(address) }
})

const picture = Buffer.from('a picture')
const answers: Record<string, [string, Buffer]> = {
  '/gzip': ['gzip', gzipSync(picture)],
  '/br': ['br', brotliCompressSync(picture)],
  '/deflate': ['deflate', deflateSync(picture)],
  '/broken': ['gzip', gzipSync(picture).subarray(0, 12)],
  '/odd': ['zip', picture],
  '/bomb': ['gzip', Buffer.concat(new Array<Buffer>(30).fill(gzipSync(Buffer.alloc(10 << 20))))]
}
let server: Server
let base = ''
let asked: string[] = []
let authorization: string | undefined

beforeAll(async () => {
  server = createServer((request, response) => {
    const path = request.url ?? ''
    asked.push(path)
    authorization = request.headers.authorization
    const [encoding, body] = answers[path.split('?')[0]!] ?? []
    if (body) response.writeHead(200, { 'content-encoding': encoding }).end(body)
    else if (path.startsWith('/a.png')) response.end(picture)
    else if (path === '/upgrade') request.socket.write('HTTP/1.1 101 a\r\nconnection: upgrade\r\nupgrade: b\r\n\r\n')
    else if (path === '/drip') response.writeHead(200).write('x')
    else if (path === '/loop') response.writeHead(302, { location: '/loop' }).end()
    else if (path.startsWith('/to?')) response.writeHead(307, { location: decodeURIComponent(path.slice(4)) }).end()
    else response.writeHead(404).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
})
afterEach(() => {
  asked = []
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
})

const allowed = { allowPrivateAddresses: true }
const refusal = async (url: string, options = {}): Promise<{ code: string; message: string }> =>
  await download(url, options).then(
    () => expect.unreachable(`${url} was read`),
    (error) => error as { code: string; message: string }
  )

/** A resolver that knows any name, and gives these addresses one look-up after the other. */
function names(...addresses: string[]): void {
  vi.spyOn(dns, 'lookup').mockImplementation(((
    _: string,
    options: dns.LookupOptions,
    done: (...found: unknown[]) => void
  ) => {
    const address = addresses.length > 1 ? addresses.shift() : addresses[0]
    if (options.all) done(null, [{ address, family: 4 }])
    else done(null, address, 4)
  }) as never)
}

describe('addresses inside this network', () => {
  it('are refused before anything is asked, however they are written', async () => {
    const { port } = new URL(base)
    for (const host of [
      '127.0.0.1',
      'localhost',
      '[::1]',
      '[::ffff:127.0.0.1]',
      '0.0.0.0',
      '2130706433',
      '0x7f.1',
      '169.254.169.254',
      '10.1.2.3',
      '192.168.0.1',
      '[fe80::1]',
      'a.localhost'
    ]) {
      const error = await refusal(`http://${host}:${port}/a.png`)
      expect([host, error.code]).toEqual([host, 'ERR_IMAGE_INVALID'])
      expect(error.message).toMatch(/inside this network.*allowPrivateAddresses/)
    }
    expect(asked).toEqual([])
  })

  it('are refused behind names, also where the name means another address the next time', async () => {
    const { port } = new URL(base)
    names('127.0.0.1')
    expect((await refusal(`http://pictures.example:${port}/a.png`)).message).toMatch(/leads to 127\.0\.0\.1/)
    names('203.0.113.1', '127.0.0.1') // the second look-up would reach us
    const control = new AbortController()
    setTimeout(() => control.abort(), 300)
    await refusal(`http://pictures.example:${port}/a.png`, { signal: control.signal })
    expect(asked).toEqual([])
  })

  it('are read where the option or the variable allows it; the option wins', async () => {
    expect(await download(`${base}/a.png`, allowed)).toEqual(picture)
    vi.stubEnv('PALIGEMMA_ALLOW_PRIVATE_ADDRESSES', '1')
    expect(await download(`${base}/a.png`)).toEqual(picture)
    expect((await refusal(`${base}/a.png`, { allowPrivateAddresses: false })).code).toBe('ERR_IMAGE_INVALID')
  })
})

describe('redirects', () => {
  it('are followed, but not for ever and not to other schemes', async () => {
    expect(await download(`${base}/to?${encodeURIComponent('/a.png')}`, allowed)).toEqual(picture)
    expect((await refusal(`${base}/loop`, allowed)).message).toMatch(/more than 10 times/)
    expect(asked).toHaveLength(13)
    for (const to of ['file:///etc/passwd', 'ftp://a/b', 'data:text/plain,a', 'http://'])
      expect((await refusal(`${base}/to?${encodeURIComponent(to)}`, allowed)).code).toBe('ERR_IMAGE_INVALID')
  })

  it('into this network are refused', async () => {
    const { port } = new URL(base)
    trusted.add('127.0.0.1')
    for (const [to, address] of [
      ['http://169.254.169.254/latest/meta-data', '169.254.169.254'],
      ['http://inner.example/', '10.0.0.1'],
      ['//localhost/', 'localhost']
    ] as const) {
      names('127.0.0.1', '10.0.0.1')
      const error = await refusal(`http://outer.example:${port}/to?${encodeURIComponent(to)}`)
      expect(error.message).toContain(`leads to ${address}, an address inside this network`)
    }
    trusted.clear()
    expect(asked).toHaveLength(3)
  })
})

describe('answers', () => {
  it('are unpacked, within the limit', { tags: ['slow'] }, async () => {
    for (const path of ['/gzip', '/br', '/deflate']) expect(await download(base + path, allowed)).toEqual(picture)
    for (const path of ['/broken', '/odd']) expect((await refusal(base + path, allowed)).code).toBe('ERR_IMAGE_INVALID')
    expect((await refusal(`${base}/bomb`, allowed)).code).toBe('ERR_IMAGE_TOO_LARGE')
  })

  it('of several pictures together have their limit, claimed or not', async () => {
    const room = roomFor(picture.length * 2)
    const get = async (path: string): Promise<Buffer> => await download(base + path, allowed, undefined, room)
    await get('/a.png')
    await get('/a.png')
    for (const path of ['/a.png', '/gzip'])
      await expect(get(path)).rejects.toMatchObject({ code: 'ERR_IMAGE_TOO_LARGE', message: /the limit is 18;/ })
  })

  it('that change the protocol are none', async () => {
    expect(await refusal(`${base}/upgrade`, allowed)).toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('without an answer')
    })
  })

  it('that stall end at the time limit, or with the signal', async () => {
    await expect(download(`${base}/drip`, allowed, 200)).rejects.toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringContaining('within 0.2 s')
    })
    const reason = new Error('enough')
    const control = new AbortController()
    setTimeout(() => control.abort(reason), 50)
    await expect(download(`${base}/drip`, { ...allowed, signal: control.signal })).rejects.toBe(reason)
  })
})

it('secrets in URLs are used, and told nobody', async () => {
  const { port } = new URL(base)
  const url = `http://wanda:s3cret@127.0.0.1:${port}/a.png?signature=t0ken`
  expect(await download(url, allowed)).toEqual(picture)
  expect(authorization).toBe(`Basic ${Buffer.from('wanda:s3cret').toString('base64')}`)
  for (const bad of [url, url.replace('a.png', 'none'), url.replace(`:${port}`, ':1'), 'http://wanda:s3cret@/?t0ken'])
    for (const options of [{}, allowed])
      await download(bad, options).catch((error: Error) => expect(String(error)).not.toMatch(/wanda|s3cret|t0ken/))
  expect(inWords('https://a:b@host/x.png?q=1#f')).toBe('https://host/x.png?...')
  expect(inWords('a?b@c.png')).toBe('a?b@c.png')
})
