/**
 * Frames of clips that ffmpeg makes here, whose every frame is known.
 * @module-tag slow
 */
import { createReadStream, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { videoFrames, type VideoFrame, type VideoFrameOptions, type VideoSource } from '../../lib/index'
import { clipHeight, clipWidth, frameIndex, h264, hasFfmpeg, makeClip } from '../support/clips'

if (process.env['PALIGEMMA_ALL_TESTS'] && !hasFfmpeg) throw new Error('ffmpeg is missing, which these tests need')

async function collect(source: VideoSource, options: VideoFrameOptions = {}): Promise<VideoFrame[]> {
  const frames: VideoFrame[] = []
  for await (const frame of videoFrames(source, options)) frames.push(frame)
  return frames
}

/** A program that knows its version, and then says this and fails. */
function said(...lines: string[]): string {
  const quoted = lines.map((line) => `'${line}'`).join(' ')
  return `[ "$1" = -version ] && echo "ffmpeg version 5.1" && exit 0; printf '%s\\n' ${quoted} >&2; exit 1`
}

const indexes = (frames: VideoFrame[]): number[] => frames.map(({ image }) => frameIndex(image))
const seconds = (frames: VideoFrame[]): number[] => frames.map(({ time }) => Number(time.toFixed(3)))

describe.skipIf(!hasFfmpeg)('videoFrames', { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-video-'))
  const file = (name: string): string => join(folder, name)
  beforeAll(() => {
    makeClip(file('plain.mp4'), 50, 25, [...h264, '-g', '10']) // 2 s
    makeClip(file('vp9.webm'), 20, 10, [
      '-c:v',
      'libvpx-vp9',
      '-lossless',
      '1',
      '-cpu-used',
      '8',
      '-pix_fmt',
      'yuv444p'
    ])
    // every third frame is left out: 0, 1, 3, 4, 6, ...
    makeClip(file('variable.mkv'), 30, 10, [...h264, '-fps_mode', 'passthrough'], ["select='not(eq(mod(n,3),2))'"])
    makeClip(file('wide.mp4'), 5, 5, h264, ['setsar=2/1'])
    makeClip(file('long.mp4'), 60, 1, [...h264, '-g', '12']) // a minute
    writeFileSync(file('empty.mp4'), '')
    writeFileSync(file('text.mp4'), 'no video at all, only words')
  }, 120_000)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('takes the middles of equal parts', async () => {
    const frames = await collect(file('plain.mp4'), { count: 5 })
    expect(seconds(frames)).toEqual([0.2, 0.6, 1, 1.4, 1.8])
    expect(indexes(frames)).toEqual([5, 15, 25, 35, 45])
    expect(frames[0]!.image).toMatchObject({ width: clipWidth, height: clipHeight, channels: 3 })
    expect(frames[0]!.image.data).toHaveLength(clipWidth * clipHeight * 3)
    expect(await collect(file('plain.mp4'))).toHaveLength(16)
  })

  it('takes frames at a rate, from start to before end', async () => {
    const frames = await collect(file('plain.mp4'), { fps: 5, start: 0.4, end: 1.4 })
    expect(seconds(frames)).toEqual([0.4, 0.6, 0.8, 1, 1.2])
    expect(indexes(frames)).toEqual([10, 15, 20, 25, 30])
    // more than there are: each once
    expect(indexes(await collect(file('plain.mp4'), { fps: 100, end: 0.2 }))).toEqual([0, 1, 2, 3, 4])
  })

  it('takes the first frame at or after a time, as often as it is asked for', async () => {
    const frames = await collect(file('plain.mp4'), { times: [0, 0.05, 0.06, 1, 1.96, 5] })
    expect(indexes(frames)).toEqual([0, 2, 2, 25, 49])
    expect(seconds(frames)).toEqual([0, 0.08, 0.08, 1, 1.96])
  })

  it('goes by the index where frames lie far apart, and finds the same', async () => {
    const times = [0, 13, 30.5, 59]
    const far = await collect(file('long.mp4'), { times })
    expect(indexes(far)).toEqual([0, 13, 31, 59])
    expect(seconds(far)).toEqual([0, 13, 31, 59])
    const near = await collect(file('long.mp4'), { times: [0, 1, 13, 30.5, 59] })
    expect(indexes(near)).toEqual([0, 1, 13, 31, 59])
    expect(indexes(await collect(file('long.mp4'), { count: 3 }))).toEqual([10, 30, 50])
    expect(indexes(await collect(file('long.mp4'), { fps: 0.5, start: 40, end: 47 }))).toEqual([40, 42, 44, 46])
  })

  it('keeps to the times of variable rates', async () => {
    const frames = await collect(file('variable.mkv'), { fps: 10 })
    expect(indexes(frames)).toEqual(Array.from({ length: 30 }, (_, i) => i).filter((i) => i % 3 !== 2))
    expect(seconds(frames)).toEqual(indexes(frames).map((i) => i / 10))
  })

  it('reads VP9, and repeats the last frame of what is too short', async () => {
    const frames = await collect(file('vp9.webm'), { count: 30 })
    expect(frames).toHaveLength(30)
    expect([...new Set(indexes(frames))]).toEqual(Array.from({ length: 20 }, (_, i) => i).slice(indexes(frames)[0]))
    expect(frames.at(-1)).toBe(frames.at(-2))
  })

  it('gives as many as were asked for of what is short, or where sound goes on', async () => {
    const { execFileSync } = await import('node:child_process')
    makeClip(file('one.mp4'), 1, 10, h264)
    expect(indexes(await collect(file('one.mp4'), { count: 3 }))).toEqual([0, 0, 0])
    expect(indexes(await collect(file('plain.mp4'), { count: 3, start: 1, end: 1.03 }))).toEqual([25, 25, 25])
    const sound = ['-f', 'lavfi', '-i', 'sine=duration=8', '-c:v', 'copy']
    execFileSync('ffmpeg', ['-loglevel', 'error', '-y', '-i', file('plain.mp4'), ...sound, file('sound.mkv')])
    expect(indexes(await collect(file('sound.mkv'), { count: 8 }))).toEqual([13, 38, 49, 49, 49, 49, 49, 49])
    for (const source of [file('plain.mp4'), readFileSync(file('vp9.webm'))]) {
      await expect(collect(source, { start: 50 })).rejects.toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringContaining('has no frames from 50 s on') as string
      })
    }
    expect(await collect(file('plain.mp4'), { start: 50, fps: 1 })).toEqual([])
  })

  it('takes thousands of times', async () => {
    const times = Array.from({ length: 4096 }, (_, i) => i * 0.000478123456)
    const frames = await collect(file('plain.mp4'), { times })
    expect(indexes(frames)).toEqual(
      times.map((time) => Math.ceil(Math.max(time - 0.0005, 0) * 25)).filter((index) => index < 50)
    )
  })

  it('makes pixels square, and frames no larger than asked for', async () => {
    const [wide] = await collect(file('wide.mp4'), { count: 1 })
    expect(wide!.image).toMatchObject({ width: 2 * clipWidth, height: clipHeight })
    const [small] = await collect(file('wide.mp4'), { count: 1, size: 48 })
    expect(small!.image).toMatchObject({ width: 48, height: 16 })
    const [same] = await collect(file('plain.mp4'), { count: 1, size: 5000 })
    expect(same!.image).toMatchObject({ width: clipWidth, height: clipHeight })
  })

  it('turns what was filmed upright', async () => {
    const { execFileSync } = await import('node:child_process')
    const args = ['-loglevel', 'error', '-y', '-i', file('plain.mp4'), '-c', 'copy', '-metadata:s:v:0', 'rotate=90']
    execFileSync('ffmpeg', [...args, file('turned.mp4')])
    const [turned] = await collect(file('turned.mp4'), { times: [0] })
    expect(turned!.image).toMatchObject({ width: clipHeight, height: clipWidth })
    // the white corner went from the top left to the top right, or to the bottom left
    const { data, width, height } = turned!.image
    const at = (x: number, y: number): number => data[(y * width + x) * 3]!
    expect([at(2, 2), at(width - 3, height - 3)].every((value) => value < 128)).toBe(true)
    expect(Math.max(at(width - 3, 2), at(2, height - 3))).toBeGreaterThan(200)
  })

  it('reads bytes, streams and URLs', async () => {
    const bytes = readFileSync(file('vp9.webm'))
    expect(indexes(await collect(bytes, { times: [0, 1] }))).toEqual([0, 10])
    expect(indexes(await collect(new Blob([bytes]), { times: [0, 1] }))).toEqual([0, 10])
    expect(indexes(await collect(createReadStream(file('vp9.webm')), { fps: 2 }))).toEqual([0, 5, 10, 15])
    // a length that nobody knows
    expect(indexes(await collect(createReadStream(file('vp9.webm')), { count: 4 }))).toEqual([2, 7, 12, 17])
    const server = createServer((_, response) => void response.end(bytes)).listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/clip.webm`
      await expect(collect(url, { times: [0] })).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
      expect(indexes(await collect(url, { times: [0, 1], allowPrivateAddresses: true }))).toEqual([0, 10])
    } finally {
      server.close()
    }
  })

  it('reads animations without ffmpeg', async () => {
    const pages = [0, 1, 2, 3].map((i) => Buffer.alloc(clipWidth * clipHeight * 3, 40 * (i + 1)))
    const raw = { width: clipWidth, height: clipHeight * 4, channels: 3 as const, pageHeight: clipHeight }
    const gif = await sharp(Buffer.concat(pages), { raw })
      .gif({ delay: [100, 200, 300, 400] })
      .toBuffer()
    process.env['PALIGEMMA_FFMPEG'] = '/nowhere/ffmpeg'
    try {
      const frames = await collect(gif, { times: [0, 0.2, 0.3, 0.6] })
      expect(seconds(frames)).toEqual([0, 0.3, 0.3, 0.6])
      expect(frames.map(({ image }) => Math.round(image.data[0]! / 40))).toEqual([1, 3, 3, 4])
      // as of a film: each once, and the last again
      expect(seconds(await collect(gif, { count: 8 }))).toEqual([0.1, 0.3, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6])
      expect(seconds(await collect(gif, { count: 3, start: 0.6 }))).toEqual([0.6, 0.6, 0.6])
      await expect(collect(gif, { start: 5 })).rejects.toThrow('has no frames from 5 s on')
      expect(seconds(await collect(gif, { fps: 10 }))).toEqual([0, 0.1, 0.3, 0.6])
      const pieces = Array.from({ length: Math.ceil(gif.length / 5) }, (_, i) => gif.subarray(5 * i, 5 * i + 5))
      const streams = [new Blob([Uint8Array.from(gif)]), new Response(Uint8Array.from(gif)), Readable.from(pieces)]
      for (const stream of streams) expect(seconds(await collect(stream, { fps: 10 }))).toEqual([0, 0.1, 0.3, 0.6])
      await expect(collect(file('plain.mp4'))).rejects.toMatchObject({
        code: 'ERR_DEPENDENCY_MISSING',
        message: expect.stringMatching(/ffmpeg.*install.*PALIGEMMA_FFMPEG/s) as string
      })
    } finally {
      delete process.env['PALIGEMMA_FFMPEG']
    }
  })

  it('reads animated AVIF by ffmpeg, and says so where there is none', async () => {
    const av1 = ['-c:v', 'libaom-av1', '-cpu-used', '8', '-usage', 'realtime', '-crf', '1', '-pix_fmt', 'yuv444p']
    makeClip(file('moving.avif'), 4, 5, av1)
    for (const source of [file('moving.avif'), readFileSync(file('moving.avif'))]) {
      const frames = await collect(source, { fps: 5 })
      expect(seconds(frames)).toEqual([0, 0.2, 0.4, 0.6])
      expect(indexes(frames)).toEqual([0, 1, 2, 3])
    }
    process.env['PALIGEMMA_FFMPEG'] = '/nowhere/ffmpeg'
    try {
      await expect(collect(file('moving.avif'))).rejects.toMatchObject({ code: 'ERR_DEPENDENCY_MISSING' })
    } finally {
      delete process.env['PALIGEMMA_FFMPEG']
    }
  })

  // Words that ffmpeg 5.1 and OpenBLAS said under a limit of threads.
  it.skipIf(process.platform === 'win32').each([
    ['does not start', 'echo "OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2" >&2; exit 134'],
    ['has no decoder', said('Error while opening decoder for input stream #0:0 : Resource temporarily unavailable')],
    ['has no filter', said('Failed to inject frame into filter network: Resource temporarily unavailable', 'later')]
  ])('where ffmpeg is refused threads and %s, that is no fault of the video', async (_, script) => {
    writeFileSync(file('refused'), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    process.env['CLIPS'] = folder
    process.env['PALIGEMMA_FFMPEG'] = '$CLIPS/refused' // as .env files and units write it
    try {
      await expect(collect(file('plain.mp4'), { fps: 5 })).rejects.toMatchObject({
        code: 'ERR_OUT_OF_MEMORY',
        message: expect.stringMatching(/refused.*thread.*raise the limit/s) as string
      })
    } finally {
      delete process.env['PALIGEMMA_FFMPEG']
    }
  })

  it('says what was wrong with a stream, and gives no part of it for the whole', async () => {
    const bytes = readFileSync(file('vp9.webm'))
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, bytes.length - 200)
      throw new Error('the line broke')
    }
    const texts = async function* (): AsyncGenerator<never> {
      yield 'words' as never
    }
    for (const [source, words] of [
      [failing(), /^video stream: cannot be read: the line broke$/],
      [texts(), /^video stream: the stream gave a string/],
      [new Response('', { status: 404 }), /the server answered 404/],
      [Buffer.from('nothing'), /^video of 7 bytes: cannot be read: .*[Ii]nvalid data/]
    ] as const)
      await expect(collect(source, { fps: 5 })).rejects.toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringMatching(words) as string
      })
  })

  it.skipIf(process.platform === 'win32')('is not to blame where ffmpeg is killed', async () => {
    const script = '#!/bin/sh\ncase "$1" in -version | -demuxers) exec ffmpeg "$1" ;; esac\nkill -9 $$\n'
    writeFileSync(file('killed'), script, { mode: 0o755 })
    process.env['PALIGEMMA_FFMPEG'] = file('killed')
    try {
      await expect(collect(file('plain.mp4'), { fps: 5 })).rejects.toMatchObject({
        code: 'ERR_OUT_OF_MEMORY',
        message: expect.stringContaining('SIGKILL') as string
      })
    } finally {
      delete process.env['PALIGEMMA_FFMPEG']
    }
  })

  it('says what is wrong with what it cannot read', async () => {
    const { execFileSync } = await import('node:child_process')
    const tone = ['-loglevel', 'error', '-y', '-f', 'lavfi', '-i', 'sine=duration=1', file('sound.wav')]
    execFileSync('ffmpeg', tone)
    const cover = ['-i', join(__dirname, '../../demo/shapes.png'), '-map', '0', '-map', '1']
    const album = ['-c:v', 'copy', '-disposition:v', 'attached_pic', file('album.mp3')]
    execFileSync('ffmpeg', ['-loglevel', 'error', '-y', '-i', file('sound.wav'), ...cover, ...album])
    writeFileSync(file('cut.mp4'), readFileSync(file('plain.mp4')))
    truncateSync(file('cut.mp4'), 900)
    for (const [name, words] of [
      ['text.mp4', /text\.mp4: cannot be read: .*[Ii]nvalid data/],
      ['empty.mp4', /empty\.mp4: cannot be read/],
      ['sound.wav', /sound\.wav: it has no pictures \(.*no streams/],
      ['album.mp3', /album\.mp3: it has no pictures/], // its cover is no film
      ['cut.mp4', /cut\.mp4: cannot be read/],
      ['missing.mp4', /missing\.mp4: cannot be read: ENOENT/],
      ['', /cannot be read: it is not a file/]
    ] as const) {
      await expect(collect(join(folder, name), { count: 2 }), name).rejects.toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringMatching(words) as string
      })
    }
  })

  it.each<[VideoFrameOptions, RegExp]>([
    [{ count: 2, fps: 1 }, /nothing beside fps for count/],
    [{ times: [] }, /times/],
    [{ times: [2, 1] }, /rising seconds for times/],
    [{ times: [3], end: 2 }, /between start and end for times/],
    [{ start: 3, end: 2 }, /number > start, which is 3, for end/],
    [{ fps: 0 }, /fps/],
    [{ size: 1.5 }, /size/],
    [{ frames: 3 } as VideoFrameOptions, /Unknown option "frames"/]
  ])('refuses %j', async (options, words) => {
    await expect(collect('clip.mp4', options)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(words) as string
    })
  })

  it('ends ffmpeg with the loop and with the signal', async () => {
    let cancelled: unknown
    const endless = new ReadableStream<Uint8Array>({
      pull: () => new Promise(() => {}),
      cancel: (why) => void (cancelled = why)
    })
    const control = new AbortController()
    const reason = new Error('enough')
    const waiting = collect(endless, { count: 1, signal: control.signal })
    setTimeout(() => control.abort(reason), 300)
    await expect(waiting).rejects.toBe(reason)
    await expect.poll(() => cancelled, { timeout: 5000 }).toBeInstanceOf(Error)
    for await (const { image } of videoFrames(file('long.mp4'), { fps: 1 })) {
      expect(frameIndex(image)).toBe(0)
      break
    }
    await expect(collect(file('plain.mp4'), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })
})
