/** The page of `watch --page`, without its browser: who may look, what comes, and how it ends. */
import { request as httpRequest } from 'node:http'
import sharp from 'sharp'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LivePage, type LiveView } from '../../lib/server/live-page'

const seen = (grey: number, more: Partial<LiveView> = {}): LiveView => ({
  source: 'rtsp://camera/live',
  image: { data: new Uint8Array(1500 * 20 * 3).fill(grey), width: 1500, height: 20, channels: 3 },
  time: 1000 + grey,
  objects: [{ label: 'cow', id: 3, score: 0.9, box: { x: 1, y: 2, width: 30, height: 10 } }],
  text: '',
  figures: '2.0 looks a second',
  entered: [],
  left: [],
  ...more
})

/** Events of a stream, one by one. */
async function* events(url: string): AsyncGenerator<{ name: string; data: any }> {
  const { body } = await fetch(`${url}/live`)
  let text = ''
  for await (const chunk of body!.pipeThrough(new TextDecoderStream() as never) as any as AsyncIterable<string>) {
    text += chunk
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const [, name = 'message', data] = /^(?:event: (.*)\n)?data: (.*)$/.exec(text.slice(0, end))!
      text = text.slice(end + 2)
      yield { name, data: JSON.parse(data!) }
    }
  }
}

describe('the page of watch', () => {
  let page: LivePage
  beforeEach(async () => {
    page = await LivePage.open({ port: 0 })
  })
  afterEach(async () => await page.close())

  it('is served with what it needs, to this machine alone', async () => {
    expect(page.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    const start = await fetch(`${page.url}/`)
    const html = await start.text()
    expect(start.headers.get('content-security-policy')).toContain("default-src 'none'")
    const links = [...html.matchAll(/(?:href|src)="(page\/[^"]+)"/g)].map(([, link]) => link)
    expect(links).toContain('page/live.mjs')
    for (const link of links) expect((await fetch(`${page.url}/${link}`)).status, link).toBe(200)
    // a name that was made to lead here
    const status = await new Promise((resolve) => {
      const headers = { host: 'evil.example' }
      httpRequest(`${page.url}/live`, { headers }, (response) => resolve(response.statusCode)).end()
    })
    expect(status).toBe(403)
  })

  it('sends each browser the newest, with its picture, and the last one to who comes later', async () => {
    page.show(seen(10))
    const first = events(page.url)
    const { data } = (await first.next()).value!
    expect(data).toMatchObject({ source: 'rtsp://camera/live', width: 1500, height: 20, time: 1010 })
    expect(data.objects).toEqual(seen(10).objects)
    const jpeg = Buffer.from(data.picture.slice('data:image/jpeg;base64,'.length), 'base64')
    expect(await sharp(jpeg).metadata()).toMatchObject({ format: 'jpeg', width: 1280 })
    const next = first.next() // it waits
    page.show(seen(20))
    page.show(seen(30))
    expect((await next).value!.data.time).toBe(1030)
    const late = events(page.url)
    expect((await late.next()).value!.data.time).toBe(1030)
    const ends = [first.next(), late.next()]
    await page.close()
    for (const { value } of await Promise.all(ends)) expect(value!.name).toBe('end')
    expect(await first.next()).toMatchObject({ done: true })
  })

  it('takes what a browser that left did not take, and says when its port is taken', async () => {
    const leaving = events(page.url)
    page.show(seen(1))
    await leaving.next()
    await leaving.return(undefined)
    page.show(seen(2))
    const another = events(page.url)
    expect((await another.next()).value!.data.time).toBe(1002)
    await another.return(undefined)
    await expect(LivePage.open({ port: Number(new URL(page.url).port) })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/port/) as string
    })
  })
})
