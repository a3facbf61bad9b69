/** A stranger's playlist, which ffmpeg follows by itself, leads to no file of this machine, unless that is allowed. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openModel } from '../../lib/api/load-model'
import { decodeFrames } from '../../lib/video/decode'
import { videoFrames } from '../../lib/video/frames'
import { Latest } from '../../lib/video/latest'
import { pump, type LiveFrame } from '../../lib/video/live'
import { openVideo, type Allowed, type VideoSource } from '../../lib/video/source'
import { FakeNative } from '../support/fake-native'
import { hasFfmpeg, makeClip } from '../support/clips'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

const folder = tempDir()
const secret = join(folder, 'secret.ts')
const picture = join(folder, 'secret.png')
beforeAll(() => {
  if (!hasFfmpeg) return
  makeClip(secret, 4, 10, ['-c:v', 'mpeg2video', '-r', '25'])
  makeClip(picture, 1, 10, ['-c:v', 'png'])
})
afterAll(removeTempDirs)

async function framesOf(source: VideoSource, options: Allowed = {}): Promise<number> {
  let count = 0
  for await (const _ of decodeFrames(await openVideo(source, { allowPrivateAddresses: true, ...options }), {})) count++
  return count
}

const hls = (path: string) => `#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n${path}\n#EXT-X-ENDLIST\n`
const dash = (path: string) => `<?xml version="1.0"?>
  <MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S" minBufferTime="PT1S"
    profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp2t">
    <Representation id="1" bandwidth="9000" width="96" height="64"><BaseURL>${path}</BaseURL>
    </Representation></AdaptationSet></Period></MPD>`
const svg = (path: string) =>
  `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="64" height="64">
    <image xlink:href="${path}" width="64" height="64"/></svg>`

const playlists: [string, string][] = [
  ['list.m3u8', hls(`file://${secret}`)],
  ['subfile.m3u8', hls(`subfile,,start,0,end,0,,:${secret}`)],
  ['crypto.m3u8', hls(`crypto+file://${secret}`)],
  ['map.m3u8', hls(secret).replace('#EXTINF', `#EXT-X-MAP:URI="file://${secret}"\n#EXTINF`)],
  ['list.ffconcat', `ffconcat version 1.0\nfile file://${secret}\n`],
  ['list.mpd', dash(`file://${secret}`)],
  ['picture.svg', svg(`file://${picture}`)]
]

describe.skipIf(!hasFfmpeg)('a playlist that names a file of this machine', { tags: ['slow'] }, () => {
  it('is one that ffmpeg plays where it is a file and that is allowed', async () => {
    const path = join(folder, 'list.m3u8')
    writeFileSync(path, hls(`file:${secret}`))
    expect(await framesOf(path, { allowPlaylists: true })).toBeGreaterThan(1)
  })

  const refusal = { code: 'ERR_IMAGE_INVALID', message: expect.stringMatching(/allowPlaylists/) as string }
  const session =
    'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n'
  const files = playlists.filter(([name]) => name !== 'picture.svg')
  const lists: [string, string][] = [...files, ['session.sdp', session]]

  it.each(lists)('is refused as a file, whatever its name: %s', async (name, text) => {
    for (const path of [join(folder, name), join(folder, 'upload.mp4')]) {
      writeFileSync(path, text)
      await expect(framesOf(path), path).rejects.toMatchObject(refusal)
    }
  })

  it('is refused where it is the name of a file', async () => {
    const path = join(folder, '%06d.png')
    for (const name of [path, join(folder, '000001.png'), join(folder, '000002.png')]) copyFileSync(picture, name)
    await expect(framesOf(path)).rejects.toMatchObject(refusal)
    expect(await framesOf(join(folder, '000001.png'))).toBe(1)
    expect(await framesOf(path, { allowPlaylists: true })).toBe(2)
  })

  it('does not lead to the network, allowed or not', async () => {
    const asked: string[] = []
    const server = createServer((request, response) => {
      asked.push(request.url!)
      response.end()
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const path = join(folder, 'far.m3u8')
    writeFileSync(path, hls(`http://127.0.0.1:${(server.address() as AddressInfo).port}/a.ts`))
    try {
      for (const allowPlaylists of [false, true])
        await expect(framesOf(path, { allowPlaylists })).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
    } finally {
      server.close()
    }
    expect(asked).toEqual([])
  })

  it('is refused by every call that takes a file', async () => {
    const path = join(folder, 'list.m3u8')
    writeFileSync(path, hls(`file:${secret}`))
    const latest = new Latest<LiveFrame>()
    const { signal } = new AbortController()
    void pump(path, latest, { stallSeconds: 60, minInterval: 0, folder, signal })
    await expect(latest.next(signal)).rejects.toMatchObject(refusal)
    const model = await openModel(new FakeNative(() => ['a']).binding, { model: 'm.gguf' })
    await expect(model.describeVideo(path)).rejects.toMatchObject(refusal)
    await expect(videoFrames(path).next()).rejects.toMatchObject(refusal)
    expect((await videoFrames(path, { count: 1, allowPlaylists: true }).next()).done).toBe(false)
  })

  it.each(playlists)('shows nothing of it over HTTP: %s', async (name, text) => {
    const asked: string[] = []
    const server = createServer((request, response) => {
      asked.push(request.url!)
      response.writeHead(request.url === `/${name}` ? 200 : 404).end(text)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      const { port } = server.address() as AddressInfo
      await expect(framesOf(`http://127.0.0.1:${port}/${name}`)).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
    } finally {
      server.close()
    }
    expect(asked).toContain(`/${name}`)
  })

  it.each(playlists)('shows nothing of it as bytes: %s', async (_name, text) => {
    await expect(framesOf(Buffer.from(text))).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
  })
})
