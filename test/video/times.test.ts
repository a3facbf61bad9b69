/**
 * Frames' times against what is drawn in the frames themselves, in clips that are turned, of odd pixels, at variable
 * rates and of several codecs.
 * @module-tag slow
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { videoFrames, type VideoFrame, type VideoFrameOptions } from '../../lib/index'
import { clipHeight, clipWidth, frameIndex, hasFfmpeg, makeClip } from '../support/clips'

const h264 = ['-c:v', 'libx264', '-crf', '0', '-bf', '2', '-g', '12', '-pix_fmt', 'yuv444p'] // out of order: B-frames
const vp9 = ['-c:v', 'libvpx-vp9', '-lossless', '1', '-cpu-used', '8', '-pix_fmt', 'yuv444p']
const codecs = { h264, vp9 }
const all = 60
const timeout = 120_000 // a dozen runs of ffmpeg
const irregular = [0, 1, 4] // of seven

const kept = (variable: boolean): number[] =>
  Array.from({ length: all }, (_, i) => i).filter((i) => !variable || irregular.includes(i % 7))

async function collect(source: string, options: VideoFrameOptions): Promise<VideoFrame[]> {
  const frames: VideoFrame[] = []
  for await (const frame of videoFrames(source, options)) frames.push(frame)
  return frames
}

/** As telephones do: the pixels as the sensor lies, and a matrix in the track's header. */
function turn(path: string, degrees: 90 | 180 | 270): void {
  const file = readFileSync(path)
  const matrix = file.indexOf('tkhd') + 4 + 40
  const [a, b, c, d] = { 90: [0, 1, -1, 0], 180: [-1, 0, 0, -1], 270: [0, -1, 1, 0] }[degrees] as [number, ...number[]]
  for (const [at, value] of [a, b, 0, c, d, 0].entries()) file.writeInt32BE(value! * 0x10000, matrix + 4 * at)
  writeFileSync(path, file)
}

interface Clip {
  codec: keyof typeof codecs
  rate: number
  variable: boolean
  turned: 0 | 90 | 180 | 270
  pixel: string
}

describe.skipIf(!hasFfmpeg)('the time of a frame', () => {
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-times-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it.each<Clip>([
    { codec: 'h264', rate: 30, variable: false, turned: 90, pixel: '1' },
    { codec: 'h264', rate: 30, variable: true, turned: 270, pixel: '4/3' },
    { codec: 'h264', rate: 1, variable: true, turned: 180, pixel: '10/11' },
    { codec: 'vp9', rate: 25, variable: false, turned: 270, pixel: '2' },
    { codec: 'vp9', rate: 25, variable: true, turned: 90, pixel: '1/2' },
    { codec: 'vp9', rate: 1, variable: true, turned: 0, pixel: '16/15' }
  ])(
    'is exact in $codec at $rate, variable: $variable, turned by $turned, pixels of $pixel',
    { timeout },
    async (clip) => {
      const { codec, rate, variable, turned, pixel } = clip
      const path = join(folder, `${codec}-${rate}-${turned}.mp4`)
      const select = variable ? [`select='${irregular.map((n) => `eq(mod(n,7),${n})`).join('+')}'`] : []
      makeClip(path, all, rate, [...codecs[codec], '-fps_mode', 'passthrough'], [...select, `setsar=${pixel}`])
      if (turned) turn(path, turned)
      const frames = kept(variable)
      const seen = await collect(path, { fps: 1000 })
      expect(seen.map(({ image }) => frameIndex(image))).toEqual(frames)
      const firstFrom = (time: number): number | undefined => frames.find((i) => i / rate >= time - 0.0005)
      const last = frames.at(-1)! / rate
      const near = Array.from({ length: 12 }, (_, i) => (last * (i + 0.3)) / 12)
      const far = near.filter((_, i) => i % 3 === 0) // at a frame a second: gone to by the index
      for (const times of [near, far]) {
        const asked = await collect(path, { times })
        expect(asked.map(({ image }) => frameIndex(image))).toEqual(times.map(firstFrom))
        seen.push(...asked)
      }
      seen.push(...(await collect(path, { fps: rate / 3, start: last / 2 })))
      for (const { time, image } of seen) expect(time).toBeCloseTo(frameIndex(image) / rate, 3)

      const [across, down] = pixel.split('/').map(Number) as [number, number?]
      const shape = across / (down ?? 1)
      const lying = [Math.round(clipWidth * Math.max(shape, 1)), Math.round(clipHeight / Math.min(shape, 1))]
      const { image } = seen[0]!
      expect([image.width, image.height]).toEqual(turned % 180 === 0 ? lying : lying.reverse())
      expect(whiteCorner(image)).toBe(
        { 0: 'top left', 90: 'top right', 180: 'bottom right', 270: 'bottom left' }[turned]
      )
    }
  )

  it('begins with the first frame, whatever the container calls that time', { timeout }, async () => {
    const path = join(folder, 'begin.mkv')
    makeClip(path, all, 10, h264)
    for (const name of ['late.mkv', 'late.mp4', 'late.ts', 'late.flv']) {
      const late = join(folder, name)
      const codec = name.endsWith('flv') ? ['-c:v', 'libx264', '-crf', '4'] : ['-c', 'copy']
      execFileSync('ffmpeg', ['-loglevel', 'error', '-y', '-i', path, ...codec, '-output_ts_offset', '20', late])
      const frames = await collect(late, { count: 4 })
      for (const [k, { time, image }] of frames.entries()) {
        expect(frameIndex(image)).toBe(Math.round(10 * time))
        expect(Math.abs(time - (k + 0.5) * 1.5)).toBeLessThan(0.3) // containers know their length to a frame or two
      }
      expect(frames).toHaveLength(4)
    }
  })
})

function whiteCorner({ data, width, height }: VideoFrame['image']): string | undefined {
  const white = (x: number, y: number): boolean => data[(y * width + x) * 3]! > 250
  if (white(2, 2)) return 'top left'
  if (white(width - 3, 2)) return 'top right'
  if (white(width - 3, height - 3)) return 'bottom right'
  return white(2, height - 3) ? 'bottom left' : undefined
}
