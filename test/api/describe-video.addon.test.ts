/** Clips through the demo model: what is said of one is what is said of its frames as pictures. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, videoFrames, type PaliGemma, type RawPixels, type VideoSegment } from '../../lib/index'
import { h264, hasFfmpeg, makeClip } from '../support/clips'
import { command } from '../support/command'

describe.skipIf(!hasFfmpeg)('describeVideo', () => {
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-video-'))
  const clip = join(folder, 'clip.mp4')
  let model: PaliGemma
  beforeAll(async () => {
    makeClip(clip, 30, 10, h264) // 3 s
    model = await loadModel({ model: 'demo', threads: 2 })
  })
  afterAll(async () => {
    await model.dispose()
    rmSync(folder, { recursive: true, force: true })
  })

  async function pictures(count: number, start = 0, end = 3): Promise<{ times: number[]; images: RawPixels[] }> {
    const times: number[] = []
    const images: RawPixels[] = []
    for await (const { time, image } of videoFrames(clip, { count, start, end })) {
      times.push(time)
      images.push(image)
    }
    return { times, images }
  }

  it('says of a clip what it says of its frames', async () => {
    const { text, segments } = await model.describeVideo(clip, { frames: 4, maxTokens: 12, seed: 3, temperature: 1 })
    const { times, images } = await pictures(4)
    const expected = await model.generate({ images, prompt: 'caption en', maxTokens: 12, seed: 3, temperature: 1 })
    expect(segments).toHaveLength(1)
    expect(segments[0]).toMatchObject({ text: expected.text, times, start: 0, usage: expected.usage })
    expect(text).toBe(expected.text)
    expect(expected.usage.imageTokens).toBe(4 * model.info.imageTokens)
  })

  it('says something of each part, as it is ready', async () => {
    const seen: VideoSegment[] = []
    const { text, segments } = await model.describeVideo(clip, {
      prompt: 'answer en how many shapes are there?',
      frames: 3,
      segmentSeconds: 1.2,
      maxTokens: 6,
      onSegment: (segment) => void seen.push(segment)
    })
    expect(segments.map(({ start }) => Number(start.toFixed(3)))).toEqual([0, 1.2, 2.4])
    expect(segments.map(({ times }) => times.map((time) => Number(time.toFixed(2))))).toEqual([
      [0.2, 0.6, 1],
      [1.4, 1.8, 2.2],
      [2.6, 2.6, 2.6] // the clip ends: the last frame again
    ])
    expect(seen).toEqual(segments)
    expect(text).toBe(segments.map((segment) => segment.text).join('\n'))
    const { images } = await pictures(3, 0, 1.2)
    const request = { images, prompt: 'answer en how many shapes are there?', maxTokens: 6 }
    expect(segments[0]!.text).toBe((await model.generate(request)).text)
  })

  it('says something of a clip that is shorter than a step of its parts', async () => {
    const one = join(folder, 'one.mp4')
    makeClip(one, 1, 10, h264)
    for (const options of [{}, { segmentSeconds: 2 }]) {
      const { segments } = await model.describeVideo(one, { frames: 3, maxTokens: 2, ...options })
      expect(segments).toMatchObject([{ start: 0, end: 0, times: [0, 0, 0] }])
    }
    const late = await model.describeVideo(clip, { frames: 3, maxTokens: 2, start: 2.8, segmentSeconds: 3 })
    expect(late.segments.map(({ times }) => times.map((time) => Number(time.toFixed(3))))).toEqual([[2.9, 2.9, 2.9]])
    for (const options of [{}, { segmentSeconds: 2 }, { segmentSeconds: 2, strideSeconds: 1 }, { end: 5.01 }])
      await expect(model.describeVideo(one, { start: 5, ...options })).rejects.toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringContaining('has no frames from 5 s') as string
      })
  })

  it('rejects with the reason of its signal, and with what is wrong', async () => {
    const control = new AbortController()
    const reason = new Error('enough')
    const stopped = model.describeVideo(clip, {
      frames: 1,
      segmentSeconds: 0.2,
      maxTokens: 4,
      signal: control.signal,
      onSegment: () => control.abort(reason)
    })
    await expect(stopped).rejects.toBe(reason)
    await expect(model.describeVideo(join(folder, 'none.mp4'))).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
    await expect(model.describeVideo(clip, { frames: 0 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(model.describeVideo(7 as never)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(model.describeVideo(clip, { frames: 500, maxTokens: 4 })).rejects.toMatchObject({
      code: 'ERR_PROMPT_TOO_LONG'
    })
  })

  it('ends at its deadline, also while the source gives nothing', async () => {
    const silent = new ReadableStream<Uint8Array>({})
    await expect(model.describeVideo(silent, { frames: 1, deadlineMs: 50 })).rejects.toMatchObject({
      code: 'ERR_DEADLINE'
    })
  })

  it('is a verb of the command', async () => {
    const common = ['video', clip, '--model', 'demo']
    const described = await command(...common, '--frames', '2', '--segment-seconds', '1.5', '--max-tokens', '5')
    expect(described.code, described.err).toBe(0)
    const rows = <T>(text: string): T[] =>
      text
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as T)
    expect(rows<VideoSegment>(described.out).map(({ start }) => start)).toEqual([0, 1.5])
    const looking = [...common, '--detect', 'star', '--every', '1', '--min-score', '0']
    const found = await command(...looking)
    expect(found.code, found.err).toBe(0)
    const frames = rows<{ time: number; detections: unknown[] }>(found.out)
    expect(frames.map(({ time }) => time)).toEqual([0, 1, 2])
    expect(frames.every(({ detections }) => Array.isArray(detections))).toBe(true)
    const watched = await command('watch', clip, '--model', 'demo', '--detect', 'star', '--tracks', '--count', '2')
    expect(watched.code, watched.err).toBe(0)
    expect(rows<{ tracks: object; time: number }>(watched.out)).toHaveLength(2)
    const wrong = await command(...looking, '--question', 'what?')
    expect(wrong.code).toBe(2)
    expect(wrong.err).toMatch(/--question and --detect ask for different things/)
  })
})
