/** Animated GIF and WebP: read by sharp, without ffmpeg. */
import { readFile, stat } from 'node:fs/promises'
import { toPath } from '../base/paths'
import { describe, isBytes, viewOf } from '../images/image-input'
import { readPicture } from '../images/open'
import { undecodable } from '../images/problems'
import { loadSharp } from '../images/sharp'
import type { VideoFrame } from './decode'
import { defaultCount, noFrames, type VideoFrameOptions } from './options'
import type { VideoSource } from './source'
import { isAnimated } from './stream-head'

export interface Animation {
  name: string
  bytes: Buffer
  /** Seconds when each frame comes, and when the last one ends. */
  starts: number[]
  end: number
}

/** undefined: it is something else, or of one frame. */
export async function openAnimation(source: VideoSource): Promise<Animation | undefined> {
  const name = describe(source)
  const bytes = await animationBytes(source, name)
  if (!bytes) return undefined
  const opened = (await loadSharp())(bytes, { pages: -1, limitInputPixels: false })
  const { pages = 1, delay = [] } = await opened.metadata().catch((error: unknown) => {
    throw undecodable(name, error)
  })
  if (pages < 2) return undefined
  let end = 0
  const starts: number[] = []
  for (let page = 0; page < pages; page++) {
    starts.push(end / 1000)
    end += delay[page] || 100 // none or 0: as browsers show it
  }
  return { name, bytes, starts, end: end / 1000 }
}

async function animationBytes(source: VideoSource, name: string): Promise<Buffer | undefined> {
  if (isBytes(source)) return animated(Buffer.from(viewOf(source)))
  if (typeof source !== 'string' || /^https?:/i.test(source)) return undefined
  const path = toPath(source)
  if (!(await isFile(path))) return undefined // ffmpeg's part says what is wrong
  const { bytes, whole } = await readPicture(path, name)
  if (!animated(bytes)) return undefined
  return whole ? bytes : await readFile(path)
}

const isFile = async (path: string): Promise<boolean> =>
  await stat(path).then(
    (found) => found.isFile(),
    () => false
  )

const animated = (bytes: Buffer): Buffer | undefined => (isAnimated(bytes.subarray(0, 1024)) ? bytes : undefined)

export async function* animationFrames(
  animation: Animation,
  options: VideoFrameOptions
): AsyncGenerator<VideoFrame, void, undefined> {
  let last: { page: number; frame: VideoFrame } | undefined
  for (const page of wantedPages(animation, options)) {
    options.signal?.throwIfAborted()
    if (last?.page !== page) last = { page, frame: await decodePage(animation, page, options.size) }
    yield last.frame
  }
}

/** The first at or after each time; `count` repeats the last where there are no more. */
function wantedPages({ name, starts, end }: Animation, options: VideoFrameOptions): number[] {
  const { fps, times, start = 0, count = defaultCount } = options
  const stop = Math.min(options.end ?? Infinity, end)
  const wanted =
    times ??
    (fps === undefined
      ? Array.from({ length: count }, (_, k) => start + ((k + 0.5) * (stop - start)) / count)
      : Array.from({ length: Math.max(Math.ceil((stop - start) * fps), 0) }, (_, k) => start + k / fps))
  const pages: number[] = []
  for (const time of wanted) {
    const page = starts.findIndex((from) => from >= time - 0.0005 && from < stop - 0.0005)
    if (page >= 0 && (times || page !== pages.at(-1))) pages.push(page)
  }
  if (times || fps !== undefined || pages.length === count) return pages
  const last = starts.findLastIndex((from) => from < stop - 0.0005)
  if (last < 0 || starts[last]! < start - 0.0005) throw noFrames(name, options)
  return [...pages, ...new Array<number>(count - pages.length).fill(last)]
}

async function decodePage({ name, bytes, starts }: Animation, page: number, size?: number): Promise<VideoFrame> {
  try {
    let pipeline = (await loadSharp())(bytes, { page, pages: 1, limitInputPixels: false })
      .removeAlpha()
      .toColourspace('srgb')
    if (size !== undefined) pipeline = pipeline.resize(size, size, { fit: 'inside', withoutEnlargement: true })
    const { data, info } = await pipeline.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
    return { time: starts[page]!, image: { data, width: info.width, height: info.height, channels: 3 } }
  } catch (error) {
    throw undecodable(name, error)
  }
}
