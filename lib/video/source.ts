/** Where a video comes from, as ffmpeg takes it. */
import { stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { privateAddress, privateAllowed } from '../base/addresses'
import type { PaliGemmaError } from '../base/errors'
import { absolute, isAddress, toPath } from '../base/paths'
import { checkReadable } from '../base/permission'
import { isUrl } from '../base/realms'
import { rule, take, type Rule } from '../base/validate'
import { checkBody, readableOf } from '../images/body'
import {
  describe,
  hasBytes,
  isBytes,
  isIterable,
  isWebStream,
  sizeOf,
  viewOf,
  type ImageStream,
  type WithBytes
} from '../images/image-input'
import { invalid } from '../images/problems'
import { publicPass, type Pass } from './gate'
import { plainFormats } from './program'

/**
 * A video: a path, a `file:`, `http:` or `https:` URL, its bytes, a `Blob`, `Response` or stream of them. Bytes and
 * streams must be playable from front to back, as most formats but an MP4 with its index at the end are.
 */
export type VideoSource = string | URL | Uint8Array | ArrayBuffer | WithBytes | ImageStream

export interface OpenedVideo {
  /** For messages. */
  name: string
  /** ffmpeg's input. */
  input: string
  /** What it reads on its standard input; undefined: it opens `input` itself, and can seek in it. */
  bytes?: Readable
  /** Arguments of ffmpeg in front of the input. */
  before?: string[]
  /** What the input may make ffmpeg open; a playlist or the like must not lead anywhere else. */
  protocols: string
  /** What ffmpeg may take the input for; undefined: anything that it knows. */
  formats?: string
  /** How it reaches the network, where it may not reach everything. */
  pass?: Pass | undefined
}

const sourceRule: Rule = {
  expected: 'path, URL, encoded bytes, Blob, Response or stream of a video',
  take: (source, folder) => {
    if (isUrl(source)) return source.href
    const isPath = typeof source === 'string' && source !== '' && !isAddress(source) && !/^file:/i.test(source)
    return isPath ? absolute(folder, source) : source
  },
  accepts: (source) => {
    if (typeof source === 'string') return rule.path.accepts(source)
    if (isBytes(source)) return sizeOf(source) > 0
    return hasBytes(source) || isWebStream(source) || isIterable(source)
  }
}

/** The source as it was when the call was made. Throws ERR_INVALID_OPTION. */
export function takeSource(source: unknown, folder: string): VideoSource {
  return take('source', source, sourceRule, folder) as VideoSource
}

/** What a source is allowed beyond itself. */
export interface Allowed {
  allowPrivateAddresses?: boolean | undefined
  /** A file may lead to other files of this machine. */
  allowPlaylists?: boolean | undefined
}

/** For messages: "clip.mp4", "video of 5000 bytes", "video stream". */
export const nameOf = (source: VideoSource): string => describe(source).replace(/^image\b/, 'video')

export async function openVideo(
  source: VideoSource,
  { allowPrivateAddresses: allowPrivate = privateAllowed(), allowPlaylists = false }: Allowed = {},
  name = nameOf(source)
): Promise<OpenedVideo> {
  if (typeof source === 'string') {
    const input = await locate(source, name, allowPrivate)
    if (!/^https?:/i.test(source))
      return { name, input, protocols: 'file', ...(!allowPlaylists && { formats: await plainFormats(input) }) }
    const pass = allowPrivate ? {} : { pass: await publicPass() }
    return { name, input, protocols: 'http,https,httpproxy,tcp,tls,crypto', ...pass }
  }
  const bytes = toReadable(source as Exclude<VideoSource, string | URL>, name)
  return { name, input: 'pipe:0', protocols: 'pipe', bytes }
}

export const inside = (name: string, address: string): PaliGemmaError =>
  invalid(name, `its address ${address} is in a private network; allowPrivateAddresses lets it`)

/** Throws where the host of a URL is inside this network. */
export async function refusePrivate(url: string, name: string): Promise<void> {
  if (!URL.canParse(url)) throw invalid(name, 'it is no URL')
  const address = await privateAddress(new URL(url))
  if (address !== undefined) throw inside(name, address)
}

async function locate(source: string, name: string, allowPrivate: boolean): Promise<string> {
  if (/^https?:/i.test(source)) {
    if (!allowPrivate) await refusePrivate(source, name)
    return source
  }
  const path = toPath(source)
  await checkReadable(path)
  const found = await stat(path).catch((error: Error) => {
    throw invalid(name, `cannot be read: ${error.message.split(', ')[0]}`, error)
  })
  if (!found.isFile()) throw invalid(name, 'cannot be read: it is not a file')
  return `file:${path}` // a name with a colon is no protocol
}

/** The bytes of what is neither a path nor an address. */
export function toReadable(source: Exclude<VideoSource, string | URL>, name: string): Readable {
  if (isBytes(source)) return Readable.from([Buffer.from(viewOf(source))])
  if (isIterable(source) || isWebStream(source)) return readableOf(source as ImageStream, name)
  checkBody(source as Partial<Response>, name)
  const { body, stream } = source as { body?: unknown; stream?: () => unknown }
  const streamed = body ?? stream?.call(source)
  if (isWebStream(streamed) || isIterable(streamed)) return readableOf(streamed as ImageStream, name)
  return Readable.from(
    (async function* () {
      yield Buffer.from(await (source as WithBytes).arrayBuffer())
    })()
  )
}
