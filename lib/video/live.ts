/** Pictures as they come: of a camera, a stream, a clip at its own pace, or anything that gives pictures. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { PaliGemmaError } from '../base/errors'
import { anySignal, ownController, untilAborted } from '../base/signals'
import { take, type Rule } from '../base/validate'
import { isBytes, isIterable, isSharp, type ImageInput } from '../images/image-input'
import { pictureAtCall } from '../images/image-rule'
import { decodeFrames } from './decode'
import type { Latest } from './latest'
import { openVideo, refusePrivate, type Allowed, type OpenedVideo } from './source'

/**
 * A camera (`/dev/video0`; on macOS and Windows its name or number as `camera:0`), `rtsp://` and `http(s)://` (MJPEG
 * and whatever else ffmpeg plays), a file (played at its own pace), "-" (what another program writes to standard
 * input), or any iterable of pictures.
 */
export type LiveSource = string | AsyncIterable<ImageInput> | Iterable<ImageInput>

export interface LiveFrame {
  image: ImageInput
  /** Milliseconds since 1970, when it came. */
  time: number
}

export interface LiveOptions {
  /** No side of a frame is longer. */
  size?: number | undefined
  stallSeconds: number
  /** Seconds between pictures that anybody wants. */
  minInterval: number
  allowPrivateAddresses?: boolean | undefined
  allowPlaylists?: boolean | undefined
  /** Called before each new try. */
  onReconnect?: ((error: Error, attempt: number) => void) | undefined
  /** Where relative paths of pictures begin. */
  folder: string
  signal: AbortSignal
}

const liveRule: Rule = {
  expected: 'camera, rtsp: or http: URL, file, or iterable of pictures',
  accepts: (source) =>
    typeof source === 'string'
      ? source !== '' && !source.includes('\0')
      : typeof source === 'object' &&
        source !== null &&
        !isBytes(source) &&
        !isSharp(source) &&
        (isIterable(source) || Symbol.iterator in source)
}

export function takeLiveSource(source: unknown): LiveSource {
  const taken = take('source', source, liveRule) as LiveSource
  // a camera's name is no file
  return typeof taken === 'string' && taken !== '-' && existsSync(taken) ? resolve(taken) : taken
}

/** Puts what comes into `latest` until it ends; errors too. Never rejects. */
export async function pump(source: LiveSource, latest: Latest<LiveFrame>, options: LiveOptions): Promise<void> {
  try {
    if (typeof source === 'string') await pumpStream(source, latest, options)
    else await pumpPictures(source, latest, options)
    latest.close()
  } catch (error) {
    latest.close({ error })
  }
}

async function pumpPictures(
  source: Exclude<LiveSource, string>,
  latest: Latest<LiveFrame>,
  { signal, folder }: LiveOptions
): Promise<void> {
  for await (const image of source) {
    if (signal.aborted) return
    latest.put({ image: pictureAtCall(image, folder) as ImageInput, time: Date.now() })
    await turn() // a source that is always ready must not hold everything up
  }
}

const [firstWaitMs, longestWaitMs] = [500, 30_000]

/**
 * A live source is tried again when it ends or fails, once it has worked at all. A file and standard input end: opened
 * once more, they would begin elsewhere or not at all.
 */
async function pumpStream(source: string, latest: Latest<LiveFrame>, options: LiveOptions): Promise<void> {
  const { signal, onReconnect } = options
  let worked = false
  for (let attempt = 1; ; attempt++) {
    let failure: unknown
    let live = true
    try {
      const video = await openLive(source, options)
      live = video.live
      for await (const image of frames(video, options)) {
        worked = true
        attempt = 0
        latest.put({ image, time: Date.now() })
      }
      if (!live) return
      failure = new PaliGemmaError('ERR_IMAGE_INVALID', `${video.name}: the stream ended`)
    } catch (error) {
      if (signal.aborted || !worked || !live) throw error
      failure = error
    }
    signal.throwIfAborted()
    onReconnect?.(failure as Error, attempt + 1)
    await untilAborted(sleep(Math.min(firstWaitMs * 2 ** attempt, longestWaitMs)), signal)
  }
}

/** Without the password that a camera's URL may hold. */
export const sourceName = (source: string): string => source.replace(/\/\/[^/@]*@/, '//')

async function openLive(
  source: string,
  { allowPrivateAddresses: allowPrivate, allowPlaylists }: Allowed
): Promise<OpenedVideo & { live: boolean }> {
  if (source === '-') {
    return { name: 'standard input', input: 'pipe:0', bytes: process.stdin, protocols: 'pipe', live: false }
  }
  const name = sourceName(source)
  const device = /^camera:(.+)$/.exec(source)?.[1] ?? (source.startsWith('/dev/video') ? source : undefined)
  if (device !== undefined) {
    const [format, input] = {
      darwin: ['avfoundation', device],
      win32: ['dshow', `video=${device}`]
    }[process.platform as string] ?? ['v4l2', /^\d+$/.test(device) ? `/dev/video${device}` : device]
    return { name, input: input!, before: ['-f', format!], protocols: 'file', live: true }
  }
  if (/^rtsps?:/i.test(source)) {
    if (allowPrivate === false) await refusePrivate(source, name)
    const protocols = 'rtsp,rtp,udp,tcp,tls,crypto'
    return { name, input: source, before: ['-rtsp_transport', 'tcp'], protocols, live: true }
  }
  // a camera's own address is private as a rule, and who names a camera means it
  if (/^https?:/i.test(source))
    return { ...(await openVideo(source, { allowPrivateAddresses: allowPrivate ?? true })), live: true }
  return { ...(await openVideo(source, { allowPlaylists })), before: ['-re'], live: false }
}

/** JPEGs one after another do not say how fast they come, and to find out ffmpeg waits for more than a hundred. */
async function probing(bytes: Readable): Promise<string[]> {
  if (bytes.readableLength === 0 && !bytes.readableEnded) await once(bytes, 'readable')
  const first = bytes.read() as Buffer | null
  if (first) bytes.unshift(first)
  return first?.[0] === 0xff && first[1] === 0xd8 ? ['-f', 'mjpeg', '-probesize', '32'] : []
}

/** Pictures until none comes for `stallSeconds`. */
async function* frames(
  video: OpenedVideo & { live: boolean },
  { size, stallSeconds, minInterval, signal: outer }: LiveOptions
): AsyncGenerator<ImageInput> {
  const stalled = ownController()
  const { signal, release } = anySignal([outer, stalled.signal])
  const stall = (): void =>
    stalled.abort(new PaliGemmaError('ERR_IMAGE_INVALID', `${video.name}: no picture for ${stallSeconds} s`))
  let timer = setTimeout(stall, stallSeconds * 1000)
  try {
    // what nobody will look at is not even converted
    const least = 0.5 * minInterval
    const select = least > 0 ? `isnan(prev_selected_t)+gte(t-prev_selected_t,${least})` : undefined
    const before = [...(video.before ?? []), ...(video.bytes ? await untilAborted(probing(video.bytes), signal) : [])]
    for await (const { image } of decodeFrames({ ...video, before }, { size, select, signal })) {
      clearTimeout(timer)
      yield image
      timer = setTimeout(stall, stallSeconds * 1000)
    }
  } finally {
    clearTimeout(timer)
    release()
  }
}
