/** `pull` from a hub that lies, and who gets its token. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { pull } from '../../lib/hub/pull'
import { sha256 } from '../support/hub-server'
import {
  noise,
  files,
  first,
  firstContent,
  wholeModel,
  hub,
  cacheDir,
  useHub,
  hooks,
  run,
  downloadDir,
  failure,
  misbehave,
  breakOff
} from '../support/pull-fixture'

useHub()

describe('a hub that lies', () => {
  it('about a checksum: the file is removed', { tags: ['slow'] }, async () => {
    hub.lies[first] = { sha256: sha256(Buffer.from('other')) }
    const error = await failure()
    expect(error.code).toBe('ERR_DOWNLOAD_FAILED')
    expect(error.message).toContain(`SHA-256 ${sha256(firstContent)} instead of ${sha256(Buffer.from('other'))}`)
    expect(readdirSync(downloadDir()).filter((name) => name.startsWith(first))).toEqual([])
  })

  it("about a small file: git's checksum is verified too", async () => {
    hub.intercept = (_, response, { path }) => {
      if (!path.endsWith('/config.json')) return false
      response
        .writeHead(200, { 'content-length': files['config.json'].length })
        .end(files['config.json'].replace('p', 'q'))
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(/config\.json: .*git SHA-1/) as string
    })
    expect(existsSync(join(downloadDir(), 'config.json'))).toBe(false)
  })

  it.each([
    ['too many values', `[${'0,'.repeat(200_000)}0]`, /no JSON that a hub sends/],
    ['brackets', '['.repeat(300_000), /no JSON that a hub sends/],
    ['more than any list', `[${' '.repeat(5_000_000)}]`, /the answer is larger than 4194304 bytes/]
  ])('with an answer that is long to read: %s', async (_, text, message) => {
    hub.intercept = (_request, response, { path }) => {
      if (!path.includes('/tree/')) return false
      response.writeHead(200, { 'content-type': 'application/json' }).end(text)
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(message) as string
    })
  })

  it('about a size, in the list: nothing is taken', async () => {
    hub.lies[first] = { size: 700_000 }
    const error = await failure()
    expect(error).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('the server sends 600000 bytes, but the hub lists 700000') as string
    })
    expect(existsSync(join(downloadDir(), `${first}.part`))).toBe(false)
  })

  it('about a size, by sending more than it said: no more than that is written', async () => {
    misbehave(first, 99, (response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' })
      response.end(noise(2_000_000, 9))
    })
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('sends more than the 600000 bytes') as string
    })
    expect(existsSync(join(downloadDir(), `${first}.part`))).toBe(false)
  })

  it.each([
    ['with a length', { 'content-length': '26' }, /the server sends 26 bytes, but the hub lists 600000/],
    ['without', {}, /answers with something else than the file; gave up/]
  ])(
    'a page in place of the file, %s, does not cost the part that is there',
    { tags: ['slow'] },
    async (_, headers, message) => {
      misbehave(first, 99, (response, content, from) => {
        if (from > 0)
          response.writeHead(200, { 'content-type': 'text/html', ...headers }).end('<html>please log in</html>')
        else breakOff(response, content, 0, 200_000)
      })
      expect(await failure()).toMatchObject({
        code: 'ERR_DOWNLOAD_FAILED',
        message: expect.stringMatching(message) as string
      })
      expect(statSync(join(downloadDir(), `${first}.part`)).size).toBeGreaterThan(50_000)
      hub.intercept = () => false
      expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    }
  )

  it('a file that changed between the list and the download is noticed by its headers', async () => {
    hub.intercept = (_, response, { at, path }) => {
      if (at !== 'hub' || !path.endsWith(first)) return false
      response
        .writeHead(302, {
          location: `${hub.filesUrl}/${first}`,
          'x-linked-etag': `"${'9'.repeat(64)}"`,
          'x-linked-size': '600000'
        })
        .end()
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('9'.repeat(64)) as string
    })
    expect(hub.requestsFor(first, 'files').length).toBeLessThanOrEqual(1)
  })

  it.each(['../evil', '/etc/passwd', 'a/../../b', 'a\\b', 'c:d', ''])('a file name %j is refused', async (path) => {
    hub.extraEntries = [{ type: 'file', path, size: 1, oid: '0'.repeat(40) }]
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('not safe') as string
    })
  })

  it.each([
    [{ type: 'file', path: 'x', size: 1 }],
    [{ type: 'file', path: 'x', size: -1, oid: '0'.repeat(40) }],
    [{ type: 'file', path: 'x', size: 1, oid: '0'.repeat(40), lfs: { oid: 'short', size: 1 } }]
  ])('an entry without size or checksum is refused: %j', async (entry) => {
    hub.extraEntries = [entry]
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('lacks size or checksum of x') as string
    })
  })

  it('something that is no hub is called so', async () => {
    hub.intercept = (_, response) => {
      response.end('<html>welcome</html>')
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('is HF_ENDPOINT a Hugging Face hub?') as string
    })
    hub.intercept = (_, response) => {
      response.end('{"sha":"short"}')
      return true
    }
    expect(await failure()).toMatchObject({
      message: expect.stringContaining('is HF_ENDPOINT a Hugging Face hub?') as string
    })
  })
})

describe('who gets the token', () => {
  it('the hub does, the file server it redirects to does not', async () => {
    await run({ token: 'hf_secret' })
    expect(
      hub.seen.filter(({ at }) => at === 'hub').every(({ headers }) => headers.authorization === 'Bearer hf_secret')
    ).toBe(true)
    const others = hub.seen.filter(({ at }) => at === 'files')
    expect(others.length).toBeGreaterThan(0)
    expect(JSON.stringify(others)).not.toContain('hf_secret')
  })

  it('a list that goes on elsewhere is not followed', async () => {
    hub.intercept = (_, response, { at, path }) => {
      if (at === 'hub' && path.includes('/tree/')) response.setHeader('link', `<${hub.filesUrl}/more>; rel="next"`)
      return false
    }
    expect(await failure({ token: 'hf_secret' })).toMatchObject({
      message: expect.stringContaining('goes on at another server') as string
    })
    expect(hub.seen.filter(({ at }) => at === 'files')).toEqual([])
  })

  it.each([
    ['file:///etc/passwd', 'not safe'],
    ['ftp://x/y', 'not safe']
  ])('a redirect to %s is refused', async (location, message) => {
    hub.intercept = (_, response, { path }) => {
      if (!path.endsWith(first)) return false
      response.writeHead(302, { location }).end()
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining(message) as string
    })
  })

  it('https never becomes http', async () => {
    const asked: string[] = []
    const fetch = async (url: string) => {
      asked.push(url)
      return new Response(null, { status: 302, headers: { location: 'http://huggingface.co/x' } })
    }
    await expect(
      pull('a/b', { endpoint: 'https://huggingface.co', token: 'hf_secret', cacheDir, fetch }, hooks())
    ).rejects.toMatchObject({ message: expect.stringContaining('not safe') as string })
    expect(asked).toHaveLength(1)
  })

  it('redirects in a circle end', async () => {
    hub.intercept = (_, response, { path }) => {
      if (!path.endsWith(first)) return false
      response.writeHead(307, { location: path }).end()
      return true
    }
    expect(await failure()).toMatchObject({ message: expect.stringContaining('more than 10 redirects') as string })
  })
})
