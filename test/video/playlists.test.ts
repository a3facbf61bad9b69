/** A stranger's playlist, which ffmpeg follows by itself, leads to no file of this machine. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { decodeFrames } from '../../lib/video/decode'
import { openVideo, type VideoSource } from '../../lib/video/source'
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

async function framesOf(source: VideoSource): Promise<number> {
  let count = 0
  for await (const _ of decodeFrames(await openVideo(source, true), {})) count++
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
  it('is one that ffmpeg plays where it is a file', async () => {
    const path = join(folder, 'list.m3u8')
    writeFileSync(path, hls(`file:${secret}`))
    expect(await framesOf(path)).toBeGreaterThan(1)
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
