/** `describeVideo`: frames of a clip as the pictures of one request, as the video fine-tunes were trained. */
import type { Taken } from '../../base/call'
import type { VideoFrame } from '../../video/decode'
import { framesOf } from '../../video/frames'
import { frameRules } from '../../video/options'
import type { VideoSource } from '../../video/source'
import { runGeneration } from '../request/generation'
import type { ModelHost } from '../request/host'
import type { GenerateResult } from '../options/results'
import { samplingRules, type SamplingOptions } from '../options/sampling'
import { rule, wrongOption, type Rules } from '../../base/validate'
import type { ImageInput } from '../../images/image-input'
import { encodeImage } from '../tasks/embed'
import type { EncodeImageOptions } from '../options/options'

/** Options of `describeVideo`. */
export interface DescribeVideoOptions extends SamplingOptions {
  /** Default "caption en"; a question: "answer en ...". */
  prompt?: string | undefined
  /** Pictures of a request, at the middles of as many equal parts of the clip; default 16, as in training. */
  frames?: number | undefined
  /** Seconds; default 0. */
  start?: number | undefined
  /** Seconds; default: to the end. */
  end?: number | undefined
  /** A text for each so many seconds, each with `frames` pictures. Default: one for all. */
  segmentSeconds?: number | undefined
  /**
   * From the start of one part to that of the next; default `segmentSeconds`. Less lets parts overlap; whole steps of
   * `segmentSeconds / frames` make them share frames, each of which the vision tower then sees once.
   */
  strideSeconds?: number | undefined
  /** Called with each part's text as it is ready. */
  onSegment?: ((segment: VideoSegment) => void) | undefined
  /** As in {@link LoadOptions}. */
  allowPrivateAddresses?: boolean | undefined
  /** As in {@link VideoFrameOptions}. */
  allowPlaylists?: boolean | undefined
}

export const describeVideoRules: Rules<DescribeVideoOptions> = {
  ...samplingRules,
  prompt: rule.text,
  frames: rule.integer(1, 1024),
  start: frameRules.start,
  end: frameRules.end,
  segmentSeconds: rule.above(0, 1e7),
  strideSeconds: rule.above(0, 1e7),
  onSegment: rule.callback,
  allowPrivateAddresses: rule.flag,
  allowPlaylists: rule.flag
}

/** What a part of a clip shows. */
export interface VideoSegment extends GenerateResult {
  /** Where the part begins, in seconds of the clip. */
  start: number
  /** Where it ends, in seconds: `segmentSeconds` after `start`; where the clip ends before, its last frame's time. */
  end: number
  /** Seconds of the frames that the model saw. */
  times: number[]
}

/** What `describeVideo` gives. */
export interface VideoDescription {
  /** Of all parts, a line each. */
  text: string
  /** One for each part, in their order; one alone without `segmentSeconds`. */
  segments: VideoSegment[]
}

const defaultFrames = 16

export async function describeVideo(
  host: ModelHost,
  source: VideoSource,
  options: Taken<DescribeVideoOptions>
): Promise<VideoDescription> {
  const { prompt = 'caption en', frames: _, start: __, end: ___, segmentSeconds, strideSeconds, ...others } = options
  const { allowPrivateAddresses: ____, allowPlaylists: _____, onSegment, ...sampling } = others
  if (strideSeconds !== undefined && !(strideSeconds <= (segmentSeconds ?? 0)))
    throw wrongOption('strideSeconds', 'number <= segmentSeconds', strideSeconds)
  const shared = strideSeconds !== undefined && strideSeconds < segmentSeconds!
  const features = new Map<VideoFrame, Promise<ImageInput>>()
  const seen = async (frame: VideoFrame): Promise<ImageInput> => {
    if (!shared) return frame.image
    if (!features.has(frame)) features.set(frame, encodeImage(host, frame.image, pickShared(sampling)))
    return await features.get(frame)!
  }
  const segments: VideoSegment[] = []
  for await (const part of partsOf(source, options)) {
    for (const frame of features.keys()) if (!part.frames.includes(frame)) features.delete(frame)
    const images: ImageInput[] = []
    for (const frame of part.frames) images.push(await seen(frame))
    const { result } = await runGeneration(host, { ...sampling, prompt, images })
    const segment = { ...result, start: part.start, end: part.end, times: part.frames.map(({ time }) => time) }
    segments.push(segment)
    onSegment?.(segment)
  }
  return { text: segments.map(({ text }) => text).join('\n'), segments }
}

const pickShared = <T extends { adapters?: unknown; signal: AbortSignal }>({ adapters, signal }: T) => ({
  ...(adapters !== undefined && { adapters: adapters as NonNullable<EncodeImageOptions['adapters']> }),
  signal
})

interface Part {
  start: number
  end: number
  frames: VideoFrame[]
}

/** What every loop over frames is given. */
const passedOn = ({ allowPrivateAddresses, allowPlaylists, signal }: Taken<DescribeVideoOptions>) => ({
  allowPrivateAddresses,
  allowPlaylists,
  signal
})

async function* partsOf(source: VideoSource, options: Taken<DescribeVideoOptions>): AsyncGenerator<Part> {
  const { frames: count = defaultFrames, start = 0, end, segmentSeconds } = options
  const common = { end, ...passedOn(options) }
  if (segmentSeconds === undefined) return void (yield await wholeClip(source, options))
  const step = segmentSeconds / count
  const stride = options.strideSeconds ?? segmentSeconds
  const tolerance = step / 1000
  let kept: VideoFrame[] = []
  let from = start
  for await (const frame of framesOf(source, { ...common, start: start + step / 2, fps: 1 / step })) {
    while (frame.time >= from + segmentSeconds - tolerance) {
      const frames = kept.filter(({ time }) => time >= from)
      if (frames.length > 0) yield filled({ start: from, end: from + segmentSeconds, frames }, count)
      from += stride
      kept = kept.filter(({ time }) => time >= from)
    }
    kept.push(frame)
  }
  const frames = kept.filter(({ time }) => time >= from)
  if (frames.length > 0) yield filled({ start: from, end: frames.at(-1)!.time, frames }, count)
  // shorter than it takes to the first frame, or nothing at all
  else yield await wholeClip(source, options)
}

async function wholeClip(source: VideoSource, options: Taken<DescribeVideoOptions>): Promise<Part> {
  const { frames: count = defaultFrames, start = 0, end } = options
  const frames: VideoFrame[] = []
  for await (const frame of framesOf(source, { start, end, count, ...passedOn(options) })) frames.push(frame)
  return { start, end: frames.at(-1)!.time, frames }
}

/** The last frame again where the clip has fewer. */
function filled(part: Part, count: number): Part {
  const missing = Math.max(count - part.frames.length, 0)
  return {
    ...part,
    frames: [...part.frames, ...new Array<VideoFrame>(missing).fill(part.frames.at(-1)!)].slice(0, count)
  }
}
