/** `describeVideo`: frames of a clip as the pictures of one request, as the video fine-tunes were trained. */
import type { Taken } from '../base/call'
import type { VideoFrame } from '../video/decode'
import { framesOf } from '../video/frames'
import { frameRules } from '../video/options'
import type { VideoSource } from '../video/source'
import { runGeneration } from './generation'
import type { ModelHost } from './host'
import type { GenerateResult } from './results'
import { samplingRules, type SamplingOptions } from './sampling'
import { rule, type Rules } from '../base/validate'

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
  /** Called with each part's text as it is ready. */
  onSegment?: ((segment: VideoSegment) => void) | undefined
  /** As in {@link LoadOptions}. */
  allowPrivateAddresses?: boolean | undefined
}

export const describeVideoRules: Rules<DescribeVideoOptions> = {
  ...samplingRules,
  prompt: rule.text,
  frames: rule.integer(1, 1024),
  start: frameRules.start,
  end: frameRules.end,
  segmentSeconds: rule.above(0, 1e7),
  onSegment: rule.callback,
  allowPrivateAddresses: rule.flag
}

/** What a part of a clip shows. */
export interface VideoSegment extends GenerateResult {
  /** Seconds; `end` is where the next part starts, or the last frame's time. */
  start: number
  end: number
  /** Seconds of the frames that the model saw. */
  times: number[]
}

export interface VideoDescription {
  /** Of all parts, a line each. */
  text: string
  segments: VideoSegment[]
}

const defaultFrames = 16

export async function describeVideo(
  host: ModelHost,
  source: VideoSource,
  options: Taken<DescribeVideoOptions>
): Promise<VideoDescription> {
  const { prompt = 'caption en', frames: _, start: __, end: ___, segmentSeconds: ____, onSegment, ...rest } = options
  const { allowPrivateAddresses: _____, ...sampling } = rest
  const segments: VideoSegment[] = []
  for await (const part of partsOf(source, options)) {
    const images = part.frames.map(({ image }) => image)
    const { result } = await runGeneration(host, { ...sampling, prompt, images })
    const segment = { ...result, start: part.start, end: part.end, times: part.frames.map(({ time }) => time) }
    segments.push(segment)
    onSegment?.(segment)
  }
  return { text: segments.map(({ text }) => text).join('\n'), segments }
}

interface Part {
  start: number
  end: number
  frames: VideoFrame[]
}

async function* partsOf(source: VideoSource, options: Taken<DescribeVideoOptions>): AsyncGenerator<Part> {
  const { frames: count = defaultFrames, start = 0, end, segmentSeconds, allowPrivateAddresses, signal } = options
  const common = { end, allowPrivateAddresses, signal }
  if (segmentSeconds === undefined) {
    const frames: VideoFrame[] = []
    for await (const frame of framesOf(source, { ...common, start, count })) frames.push(frame)
    yield { start, end: frames.at(-1)?.time ?? start, frames }
    return
  }
  const step = segmentSeconds / count
  let part: Part | undefined
  for await (const frame of framesOf(source, { ...common, start: start + step / 2, fps: 1 / step })) {
    const from = start + Math.floor((frame.time - start) / segmentSeconds) * segmentSeconds
    if (part && part.start !== from) yield filled(part, count)
    if (part?.start !== from) part = { start: from, end: from + segmentSeconds, frames: [] }
    part.frames.push(frame)
  }
  if (part) yield filled({ ...part, end: part.frames.at(-1)!.time }, count)
}

/** The last frame again where the clip has fewer. */
function filled(part: Part, count: number): Part {
  const missing = Math.max(count - part.frames.length, 0)
  return {
    ...part,
    frames: [...part.frames, ...new Array<VideoFrame>(missing).fill(part.frames.at(-1)!)].slice(0, count)
  }
}
