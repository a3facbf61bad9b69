/** `pull` over connections that break and stall, from servers that refuse. */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { pull } from '../../lib/hub/pull'
import type { PullPlan } from '../../lib/hub/pull-options'
import { refuse, sha256, TestHub } from '../support/hub-server'
import {
  noise,
  first,
  firstContent,
  wholeModel,
  hub,
  cacheDir,
  messages,
  useHub,
  hooks,
  run,
  downloadDir,
  failure,
  misbehave,
  sendPart,
  breakOff,
  offset
} from '../support/pull-fixture'

useHub()

describe('a connection that breaks', () => {
  const ranges = () => hub.requestsFor(first, 'files').map(({ headers }) => headers.range)

  it('is taken up where it ended, under the same ETag', { tags: ['slow'] }, async () => {
    misbehave(first, 2, (response, content, from) => breakOff(response, content, from, 150_000))
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    const seen = ranges()
    expect(seen).toHaveLength(3)
    expect(seen[0]).toBeUndefined()
    expect(offset(seen[1])).toBeGreaterThan(50_000)
    expect(offset(seen[2])).toBeGreaterThan(offset(seen[1]))
    expect(hub.requestsFor(first, 'files')[2]!.headers['if-range']).toBe(`"v1-${first}"`)
  })

  it('is taken up by the next process', { tags: ['slow'] }, async () => {
    misbehave(first, 99, (response, content, from) => {
      if (from > 0) response.destroy()
      else breakOff(response, content, from, 200_000)
    })
    const error = await failure()
    expect(error.code).toBe('ERR_DOWNLOAD_FAILED')
    expect(error.message).toMatch(/gave up after 4 attempts.*goes on from there/)
    const { size } = statSync(join(downloadDir(), `${first}.part`))
    expect(size).toBeGreaterThan(50_000)
    hub.intercept = () => false
    hub.seen.length = 0
    const plans: PullPlan[] = []
    expect(readFileSync((await run({ onPlan: (plan) => plans.push(plan) })).path).equals(wholeModel)).toBe(true)
    expect(ranges()).toEqual([`bytes=${size}-`])
    expect(plans[0]!.files.find(({ path }) => path === first)!.present).toBe(size)
  })

  it('starts over when the server has another version or knows no ranges', async () => {
    let etag = 'a'
    hub.intercept = (request, response, { at, path }) => {
      if (at !== 'files' || !path.endsWith(first)) return false
      if (etag === 'a') {
        etag = 'b'
        response.writeHead(200, { etag: '"a"', 'content-length': firstContent.length }).write(noise(100_000, 77))
        setTimeout(() => response.destroy(), 50)
      } else hub.sendFile(first, request, response, { etag: '"b"' })
      return true
    }
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(ranges()).toEqual([undefined, expect.stringMatching(/^bytes=\d+-$/)])
  })

  it('a wrong range is not appended', async () => {
    misbehave(first, 2, (response, content, from) => {
      if (from === 0) breakOff(response, content, 0, 100_000)
      else response.writeHead(206, { 'content-range': `bytes 0-${content.length - 1}/${content.length}` }).end(content)
    })
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(messages.join()).toContain('another range')
  })

  it('a stall ends after its time and the download goes on', { tags: ['slow'] }, async () => {
    misbehave(first, 1, (response, content, from) => sendPart(response, content, from, 250_000))
    const start = performance.now()
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(performance.now() - start).toBeGreaterThan(250)
    expect(offset(ranges()[1])).toBeGreaterThan(50_000)
    expect(messages.join()).toContain('sent nothing for 0.3 s')
  })

  it('a server that never answers is given up', { tags: ['slow'] }, async () => {
    hub.intercept = () => true
    const error = await failure()
    expect(error).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('sent nothing for 0.3 s; gave up after 4 attempts') as string
    })
  })

  it('a server that drips is given up as soon as one that is silent', { tags: ['slow'] }, async () => {
    let drips = 0
    hub.intercept = (_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' })
      const timer = setInterval(() => {
        drips++
        response.write(' ')
      }, 20)
      response.on('close', () => clearInterval(timer))
      return true
    }
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(
        /127\.0\.0\.1:\d+ sent only \d+ bytes in [\d.]+ s; gave up after 4 attempts\. .*HF_ENDPOINT/
      ) as string
    })
    // of four stall times; four of each attempt would bring 240
    expect(drips).toBeLessThan(120)
  })

  it('many small pieces are no drip, and an abort ends one at once', async () => {
    misbehave(first, 1, (response, content, from) => {
      response.writeHead(200, { 'content-length': content.length, etag: `"v1-${first}"` })
      let at = from
      const timer = setInterval(() => {
        response.write(content.subarray(at, (at += 20_000)))
        if (at >= content.length) response.end()
      }, 20)
      response.on('close', () => clearInterval(timer))
    })
    const patient = { timing: { stallMs: 10_000 } }
    expect(readFileSync((await run({}, patient)).path).equals(wholeModel)).toBe(true)
    expect(messages).toEqual([])
    const control = new AbortController()
    hub.intercept = (_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).write(' ')
      setTimeout(() => control.abort(new Error('enough')), 20)
      return true
    }
    await expect(run({ force: true, signal: control.signal }, patient)).rejects.toThrow('enough')
  })

  it('a server that is not there is given up', async () => {
    const gone = await TestHub.start({})
    await gone.stop()
    const error = await failure({ endpoint: gone.url })
    expect(error).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(/127\.0\.0\.1:\d+: .*gave up/) as string
    })
  })

  it('a part that another process left damaged is noticed and downloaded again', async () => {
    mkdirSync(downloadDir(), { recursive: true })
    writeFileSync(join(downloadDir(), `${first}.part`), noise(100_000, 5))
    writeFileSync(join(downloadDir(), `${first}.part.etag`), `${sha256(firstContent)}\n"v1-${first}"`)
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(ranges()).toEqual(['bytes=100000-', undefined])
    expect(messages.join()).toContain('is damaged; starting over')
  })

  it('a part of another file is not gone on with', async () => {
    mkdirSync(downloadDir(), { recursive: true })
    writeFileSync(join(downloadDir(), `${first}.part`), noise(100_000, 5))
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(ranges()).toEqual([undefined])
  })

  it('an abort rejects with its reason; the part stays', async () => {
    misbehave(first, 99, (response, content, from) => sendPart(response, content, from, 200_000))
    const control = new AbortController()
    const reason = new Error('enough')
    const pulling = run(
      {
        signal: control.signal,
        onProgress: ({ bytes }) => {
          if (bytes > 400_000) control.abort(reason)
        }
      },
      { timing: { stallMs: 10_000 } }
    )
    await expect(pulling).rejects.toBe(reason)
    expect(statSync(join(downloadDir(), `${first}.part`)).size).toBeGreaterThan(50_000)
    expect(readdirSync(join(cacheDir, 'locks'))).toEqual([])
  })
})

describe('refusals', () => {
  const always = (status: number, code?: string, headers: Record<string, string> = {}, only = /./) => {
    hub.intercept = (_, response, { at, path }) => {
      if (at !== 'hub' || !only.test(path)) return false
      refuse(response, status, code, headers)
      return true
    }
  }

  it('of a gated model: says to accept the licence at its page and to set HF_TOKEN', async () => {
    always(401, 'GatedRepo', {}, /\/resolve\//)
    const error = await failure()
    expect(error.code).toBe('ERR_ACCESS_DENIED')
    expect(error.message).toContain(
      `accept the licence at ${hub.url}/org/tiny-model, then set HF_TOKEN to an access token`
    )
    expect(error.message).toContain('GatedRepo said the hub')
    always(403, 'GatedRepo', {}, /\/resolve\//)
    expect((await failure({ token: 'hf_secret' })).message).toMatch(
      /accept the licence at .* with the account of the option token/
    )
    always(401)
    const invalid = await failure({ token: 'hf_secret' })
    expect(invalid.message).toContain('the token of the option token is not valid')
    expect(invalid.message).not.toContain('hf_secret')
    expect(hub.seen.length).toBeLessThan(30)
  })

  it('of what is not there: repository, revision, file', async () => {
    await expect(pull('org/other', { endpoint: hub.url, cacheDir }, hooks())).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('has no model org/other that can be seen without a token') as string
    })
    expect(await failure({ revision: 'v9' })).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('has no revision v9') as string
    })
    always(401, 'RepoNotFound')
    expect(await failure()).toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    always(404, 'EntryNotFound', {}, /\/resolve\//)
    expect(await failure()).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringMatching(/has no file \S+ at revision/) as string
    })
  })

  it('429 waits as long as it is told, then goes on', { tags: ['slow'] }, async () => {
    let left = 2
    const times: number[] = []
    hub.intercept = (_, response, { path }) => {
      if (!path.includes('/revision/')) return false
      times.push(performance.now())
      if (left-- <= 0) return false
      refuse(response, 429, undefined, { 'retry-after': '0.2' })
      return true
    }
    expect(await run()).toMatchObject({ cached: false })
    expect(times).toHaveLength(3)
    expect(times[1]! - times[0]!).toBeGreaterThan(190)
    expect(messages.join()).toContain('429 (too many requests); trying again in 0.2 s')
  })

  it('429 with more patience than a person has is reported', async () => {
    always(429, undefined, { 'retry-after': '3600' })
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('asks to wait 3600 s; try again then, or set HF_TOKEN') as string
    })
    expect(hub.seen).toHaveLength(1)
  })

  it('5xx is tried again, not for ever', async () => {
    always(503)
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringContaining('answers 503; gave up after 4 attempts') as string
    })
    expect(hub.seen).toHaveLength(4)
  })

  it('an expired address of the file server is asked for anew', async () => {
    let left = 2
    hub.intercept = (_, response, { at, path }) => {
      if (at !== 'files' || !path.endsWith(first) || left-- <= 0) return false
      refuse(response, 403)
      return true
    }
    expect(readFileSync((await run()).path).equals(wholeModel)).toBe(true)
    expect(hub.requestsFor(first, 'hub')).toHaveLength(3)
  })

  it('whose text never ends let the connection go', async () => {
    let closed = 0
    hub.intercept = (_, response) => {
      response.writeHead(404).write('no')
      response.once('close', () => closed++)
      return true
    }
    expect(await failure()).toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    await vi.waitFor(() => expect(closed).toBe(hub.seen.length), 20_000)
  })

  it('other answers are reported as they are', async () => {
    always(418)
    expect(await failure()).toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(/answers 418/) as string
    })
    expect(hub.seen).toHaveLength(1)
  })
})
