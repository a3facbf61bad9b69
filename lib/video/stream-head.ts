/** What a stream is, by its beginning: sharp reads animations, and needs all of one. */
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { untilAborted } from '../base/signals'
import { collect } from '../images/body'
import { formatOf } from '../images/formats'
import { isBytes } from '../images/image-input'
import { nameOf, toReadable, type VideoSource } from './source'

/** As many as tell an animation from a film. */
const headBytes = 12

export const isAnimated = (head: Uint8Array): boolean => ['gif', 'webp'].includes(formatOf(head) ?? '')

/** A stream of an animation as its bytes; of anything else the same bytes as a stream again. Others as they are. */
export async function wholeAnimation(source: VideoSource, signal: AbortSignal | undefined): Promise<VideoSource> {
  if (typeof source === 'string' || isBytes(source)) return source
  const name = nameOf(source)
  const stream = toReadable(source as Exclude<VideoSource, string | URL>, name)
  try {
    const { head, rest } = await untilAborted(headOf(stream), signal)
    return isAnimated(head) ? await collect(rest, name, { signal }) : rest
  } catch (error) {
    stream.destroy()
    throw error
  }
}

async function headOf(stream: Readable): Promise<{ head: Buffer; rest: Readable }> {
  const pieces: Buffer[] = []
  let bytes = 0
  while (bytes < headBytes && !stream.readableEnded) {
    const piece = stream.read() as Buffer | null
    if (piece === null) await Promise.race([once(stream, 'readable'), once(stream, 'end')])
    else {
      pieces.push(piece)
      bytes += piece.length
    }
  }
  const head = Buffer.concat(pieces)
  if (stream.readableEnded) return { head, rest: Readable.from([head]) }
  stream.unshift(head)
  return { head, rest: stream }
}
