/** `videoFrames`: the frames of a clip that were asked for. */
import { publicLoop } from '../base/call'
import { workingFolder } from '../base/paths'
import { readOptions } from '../base/validate'
import { untilAborted } from '../base/signals'
import { animationFrames, openAnimation } from './animation'
import { decodeFrames, type VideoFrame } from './decode'
import { probeDuration } from './ffmpeg'
import { checkFrameOptions, defaultCount, frameRules, noFrames, type VideoFrameOptions } from './options'
import { wholeAnimation } from './stream-head'
import { nameOf, openVideo, takeSource, type OpenedVideo, type VideoSource } from './source'

/** Half a millisecond: times are rounded where they are written down. */
const tolerance = 0.0005
/** Of the frames that are kept while nobody knows how many there will be. */
const keptBytes = 256 * 1024 * 1024
/** Seconds between wanted frames from which on going to each by the index beats decoding all between. */
const worthSeeking = 10
/** More times than this are too long for a command: all frames from the first one on come then. */
const mostSelected = 300

/**
 * Frames of a video, one by one: `for await (const { time, image } of videoFrames('clip.mp4', { count: 16 }))`. The
 * frame of a time is the first one at or after it; `time` says when it really is. ffmpeg reads the video (on PATH, or
 * named by PALIGEMMA_FFMPEG); animated GIF and WebP are read without it. ffmpeg waits while the loop does something
 * else, and ends with it. Rotation and the shape of pixels are applied.
 * @throws PaliGemmaError ERR_DEPENDENCY_MISSING, ERR_IMAGE_INVALID (with ffmpeg's own words), ERR_INVALID_OPTION; all
 * come out of the loop
 */
export function videoFrames(
  source: VideoSource,
  options: VideoFrameOptions = {}
): AsyncGenerator<VideoFrame, void, undefined> {
  return publicLoop(
    () => {
      const taken = readOptions<VideoFrameOptions>('videoFrames', options, frameRules)
      checkFrameOptions(taken)
      return { ...taken, video: takeSource(source, workingFolder()) }
    },
    ({ video, ...options }) => framesOf(video, options)
  )
}

/** The same, with all that it takes already checked. */
export async function* framesOf(
  source: VideoSource,
  options: VideoFrameOptions
): AsyncGenerator<VideoFrame, void, undefined> {
  const { signal } = options
  signal?.throwIfAborted()
  const whole = await wholeAnimation(source, signal)
  const animation = await untilAborted(openAnimation(whole), signal)
  if (animation) yield* animationFrames(animation, options)
  else yield* videoFramesOf(await untilAborted(openVideo(whole, options, nameOf(source)), signal), options)
}

async function* videoFramesOf(
  video: OpenedVideo,
  options: VideoFrameOptions
): AsyncGenerator<VideoFrame, void, undefined> {
  const { fps, times, start = 0, end = Infinity } = options
  if (times) yield* atTimes(video, times, options)
  else if (fps !== undefined) yield* onGrid(video, { start, step: 1 / fps, most: Infinity }, options)
  else {
    const count = options.count ?? defaultCount
    const duration = await probeDuration(video, options.signal)
    const last = Math.min(end, duration ?? Infinity)
    const known = Number.isFinite(last) && last > start
    let none = true
    const frames = repeated(
      known ? spread(video, count, start, last, options) : uniform(video, count, options),
      count,
      async (after) => (known ? await lastFrame(video, after ?? start, options) : undefined)
    )
    for await (const frame of frames) {
      none = false
      yield frame
    }
    if (none) throw noFrames(video.name, options)
  }
}

/** The middles of `count` equal parts. */
async function* spread(
  video: OpenedVideo,
  count: number,
  start: number,
  end: number,
  options: VideoFrameOptions
): AsyncGenerator<VideoFrame, void, undefined> {
  const step = (end - start) / count
  if (step > worthSeeking && !video.bytes) {
    yield* atTimes(
      video,
      Array.from({ length: count }, (_, k) => start + (k + 0.5) * step),
      options
    )
  } else yield* onGrid(video, { start: start + step / 2, step, most: count }, options)
}

interface Grid {
  /** Seconds. */
  start: number
  step: number
  most: number
}

/** The first frame at or after each point of a regular grid, in one pass. */
async function* onGrid(
  video: OpenedVideo,
  { start, step, most }: Grid,
  { end = Infinity, size, signal }: VideoFrameOptions
): AsyncGenerator<VideoFrame, void, undefined> {
  const seek = video.bytes || start < worthSeeking ? 0 : start
  // ld(0) counts the points that are done; a frame behind several of them stands for all
  const first = `(${start - seek - tolerance})`
  const select = `if(gte(t,${first}+ld(0)*${step}),st(0,floor((t-${first})/${step})+1),0)`
  const choice = { select, seek, most: Number.isFinite(most) ? most : undefined, size, signal }
  for await (const frame of decodeFrames(video, choice)) {
    if (frame.time >= end - tolerance) return
    yield frame
  }
}

/** The first frame at or after each of rising times; a frame behind several of them comes as often. */
async function* atTimes(
  video: OpenedVideo,
  times: number[],
  { size, signal }: VideoFrameOptions
): AsyncGenerator<VideoFrame, void, undefined> {
  if (!video.bytes && times.every((time, i) => time - (times[i - 1] ?? 0) > worthSeeking)) {
    for (const time of times) yield* decodeFrames(video, { seek: Math.max(time - tolerance, 0), most: 1, size, signal })
    return
  }
  const first = times[0]!
  const seek = video.bytes || first < worthSeeking ? 0 : first - tolerance
  const many = times.length > mostSelected
  const wanted = times.map((time) => `gte(t,${time - seek - tolerance})`)
  // the number of times that are reached, when it rises
  const reached = wanted.join('+')
  const select = many ? wanted[0] : `if(gt(${reached},ld(0)),st(0,${reached}),0)`
  let next = 0
  for await (const frame of decodeFrames(video, { select, seek, size, signal })) {
    while (next < times.length && times[next]! - tolerance <= frame.time) {
      next++
      yield frame
    }
    if (next === times.length) return
  }
}

/** Of a clip whose length nobody knows: of all its frames, or of as many, evenly taken, as memory is for. */
async function* uniform(
  video: OpenedVideo,
  count: number,
  { start = 0, end = Infinity, size, signal }: VideoFrameOptions
): AsyncGenerator<VideoFrame, void, undefined> {
  let kept: VideoFrame[] = []
  let stride = 1
  let index = 0
  for await (const frame of decodeFrames(video, { size, signal })) {
    if (frame.time >= end - tolerance) break
    if (frame.time < start - tolerance || index++ % stride !== 0) continue
    kept.push(frame)
    if (kept.length <= Math.max(2 * count, keptBytes / frame.image.data.length)) continue
    kept = kept.filter((_, i) => i % 2 === 0)
    stride *= 2
  }
  const many = Math.min(count, kept.length)
  for (let k = 0; k < many; k++) yield kept[Math.floor(((k + 0.5) * kept.length) / many)]!
}

/** As many as were asked for: the clip's last one again where there are no more, as in training. */
async function* repeated(
  frames: AsyncGenerator<VideoFrame, void, undefined>,
  count: number,
  lastAfter: (time: number | undefined) => Promise<VideoFrame | undefined>
): AsyncGenerator<VideoFrame, void, undefined> {
  let last: VideoFrame | undefined
  let given = 0
  for await (const frame of frames) {
    last = frame
    given++
    yield frame
  }
  if (given === count) return
  last = (await lastAfter(last?.time)) ?? last
  if (last) for (; given < count; given++) yield last
}

/** The last one from a time on: sound may go on behind it, and of a few frames none may be in the middle of a part. */
async function lastFrame(
  video: OpenedVideo,
  from: number,
  { end = Infinity, size, signal }: VideoFrameOptions
): Promise<VideoFrame | undefined> {
  let last: VideoFrame | undefined
  for await (const frame of decodeFrames(video, { seek: Math.max(from - tolerance, 0), size, signal })) {
    if (frame.time >= end - tolerance) break
    last = frame
  }
  return last
}
