/** Frames out of ffmpeg: raw pixels on its standard output, their times among what it says. */
import { Channel } from '../base/channel'
import { PaliGemmaError } from '../base/errors'
import type { PlainBuffer } from '../base/plain-memory'
import { untilAborted } from '../base/signals'
import { Ffmpeg } from './ffmpeg'
import { passFrames } from './program'
import type { OpenedVideo } from './source'

/** A frame: RGB8, upright, its pixels square. */
export interface VideoFrame {
  /** Seconds from the clip's beginning. */
  time: number
  /** [height, width, 3], 0..255; any call takes it for a picture. */
  image: { data: PlainBuffer; width: number; height: number; channels: 3 }
}

export interface DecodeChoice {
  /** ffmpeg's expression for the frames to take; undefined: all. */
  select?: string | undefined
  /** Seconds to go to first, by the container's index. */
  seek?: number | undefined
  /** At most so many frames. */
  most?: number | undefined
  size?: number | undefined
  signal?: AbortSignal | undefined
}

interface FrameFacts {
  time: number
  width: number
  height: number
}

// "[Parsed_showinfo_3 @ 0x55d] n:   2 pts:   1024 pts_time:0.08 ... s:320x240 i:P ..."
const shown = /\bn:\s*\d+ pts:\s*\S+\s+pts_time:\s*(\S+)\s.*?\bs:(\d+)x(\d+)/
const showinfo = /^\[(?:Parsed_)?showinfo/

/** The chosen frames, one by one: ffmpeg waits while nobody takes them. */
export async function* decodeFrames(
  video: OpenedVideo,
  choice: DecodeChoice
): AsyncGenerator<VideoFrame, void, undefined> {
  const { seek = 0, most = Infinity, signal } = choice
  const facts = new Channel<FrameFacts>()
  const args = [
    ...(seek > 0 ? ['-ss', String(seek)] : []),
    ...(video.before ?? []),
    // V: no cover of an album
    ...['-i', video.input, '-map', '0:V:0', '-an', '-sn', '-dn', '-vf', filters(choice), ...(await passFrames())],
    ...(Number.isFinite(most) ? ['-frames:v', String(most)] : []),
    // raw pixels need no encoder's threads, which a limit may refuse
    ...['-threads', '1', '-f', 'rawvideo', '-pix_fmt', 'rgb24', 'pipe:1']
  ]
  signal?.throwIfAborted()
  const ffmpeg = new Ffmpeg(
    video,
    args,
    (line) => {
      const [, time, width, height] = shown.exec(line) ?? []
      if (time !== undefined) facts.put({ time: Number(time), width: Number(width), height: Number(height) })
      return showinfo.test(line)
    },
    signal
  )
  ffmpeg.ended.then(
    () => facts.close(),
    () => facts.close()
  )
  const bytes = new ByteReader(ffmpeg.child.stdout!)
  let frames = 0
  try {
    for (let next = await take(facts, signal); next; next = await take(facts, signal)) {
      const data = await bytes.read(next.width * next.height * 3)
      signal?.throwIfAborted()
      if (!data) break
      frames++
      const { width, height } = next
      const time = Math.max(seek + (Number.isFinite(next.time) ? next.time : 0), 0)
      yield { time, image: { data, width, height, channels: 3 } }
    }
    const code = await untilAborted(ffmpeg.ended, signal)
    if (code !== 0 || ffmpeg.sourceError || video.pass?.refused() !== undefined) throw ffmpeg.failure('cannot be read')
    if (frames === 0 && seek === 0 && choice.select === undefined) throw ffmpeg.failure('has no frames')
  } finally {
    ffmpeg.end()
  }
}

const take = async <T>(queue: Channel<T>, signal: AbortSignal | undefined): Promise<T | undefined> =>
  await untilAborted(queue.next(), signal)

function filters({ select, size }: DecodeChoice): string {
  const fit =
    size === undefined
      ? []
      : [`scale='min(iw,${size})':'min(ih,${size})':force_original_aspect_ratio=decrease:flags=bicubic`]
  return [
    ...(select === undefined ? [] : [`select='${select}'`]),
    // square pixels, and none less than there are
    "scale='round(iw*if(gt(sar,1),sar,1))':'round(ih/if(between(sar,1e-6,1),sar,1))':flags=bicubic",
    ...fit,
    'setsar=1',
    'format=rgb24',
    'showinfo'
  ].join(',')
}

/** Exactly so many bytes at a time of a stream. */
class ByteReader {
  private readonly chunks: AsyncIterator<Buffer>
  private rest: Buffer = Buffer.alloc(0)

  constructor(stream: NodeJS.ReadableStream) {
    this.chunks = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]()
  }

  /** undefined: the stream ended before. */
  async read(length: number): Promise<PlainBuffer | undefined> {
    const whole: PlainBuffer = Buffer.allocUnsafeSlow(length)
    for (let filled = 0; ; ) {
      const part = this.rest.subarray(0, length - filled)
      whole.set(part, filled)
      this.rest = this.rest.subarray(part.length)
      filled += part.length
      if (filled === length) return whole
      const { value, done } = await this.nextChunk()
      if (done) return undefined
      this.rest = value
    }
  }

  private async nextChunk(): Promise<IteratorResult<Buffer, undefined>> {
    try {
      return await this.chunks.next()
    } catch (error) {
      if (error instanceof PaliGemmaError) throw error
      return { done: true, value: undefined } // it was ended
    }
  }
}
