/**
 * Pictures behind http: and https: URLs. Strangers may have chosen the URL, so it must not lead into this network:
 * names are checked where they are resolved for the connection itself, on every redirect. `fetch` gives no such place.
 */
import http, { type IncomingMessage, type RequestOptions } from 'node:http'
import https from 'node:https'
import type { LookupFunction } from 'node:net'
import { PassThrough, pipeline, type Readable, type Transform } from 'node:stream'
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib'
import { isPrivateAddress, lookUpPublic, privateAddress, privateAllowed } from '../base/addresses'
import { PaliGemmaError } from '../base/errors'
import { follow, ownController, untilAborted } from '../base/signals'
import { collect, type Room, roomFor, tooLarge } from './body'
import { describe, type DecodeOptions } from './image-input'
import { invalid } from './problems'

const maxRedirects = 10
const downloadTimeoutMs = 60_000

/** The encoded bytes. Rejects with ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE or the signal's reason. */
export async function download(
  url: string,
  { signal: given, allowPrivateAddresses = privateAllowed() }: DecodeOptions = {},
  timeoutMs = downloadTimeoutMs,
  room = roomFor()
): Promise<Buffer> {
  const name = describe(url)
  const { signal, abort } = controlled()
  const release = given ? follow(given, abort) : () => {}
  const timer = setTimeout(() => abort(invalid(name, `cannot be downloaded within ${timeoutMs / 1000} s`)), timeoutMs)
  try {
    const response = await answer(url, name, allowPrivateAddresses, signal, room)
    return await collect(decompressed(response, name), name, { signal, room })
  } catch (error) {
    if (signal.aborted) throw signal.reason
    if (error instanceof PaliGemmaError) throw error
    throw invalid(name, `cannot be downloaded: ${reasonOf(error as NodeJS.ErrnoException)}`, error)
  } finally {
    clearTimeout(timer)
    release()
  }
}

/**
 * The bytes as they come, of any length. Rejects as {@link download}; a stream in which nothing comes for a minute ends
 * with ERR_IMAGE_INVALID.
 */
export async function openUrl(
  url: string,
  { signal = ownController().signal, allowPrivateAddresses = privateAllowed() }: DecodeOptions = {}
): Promise<Readable> {
  const name = describe(url)
  try {
    const response = await answer(url, name, allowPrivateAddresses, signal, roomFor(Infinity))
    response.setTimeout(downloadTimeoutMs, () => {
      response.destroy(invalid(name, `nothing came for ${downloadTimeoutMs / 1000} s`))
    })
    return decompressed(response, name)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof PaliGemmaError) throw error
    throw invalid(name, `cannot be downloaded: ${reasonOf(error as NodeJS.ErrnoException)}`, error)
  }
}

function controlled(): { signal: AbortSignal; abort: (reason: unknown) => void } {
  const control = ownController()
  return { signal: control.signal, abort: (reason) => control.abort(reason) }
}

/** Where several addresses were tried, the message is empty. */
const reasonOf = ({ message, code }: NodeJS.ErrnoException): string => message || (code ?? 'no connection')

/** The answer with the picture, after redirects. */
async function answer(
  url: string,
  name: string,
  allowed: boolean,
  signal: AbortSignal,
  room: Room
): Promise<IncomingMessage> {
  let target = parse(url, name)
  for (let redirects = 0; ; redirects++) {
    if (!allowed) await refuseLiteral(target, name)
    const response = await ask(
      target,
      allowed ? undefined : lookUpPublic((address) => refused(name, address), isPrivateAddress),
      signal
    )
    const { statusCode = 0, statusMessage, headers } = response
    const moved = [301, 302, 303, 307, 308].includes(statusCode) && headers.location !== undefined
    const claimed = Number(headers['content-length'] ?? 0)
    if (statusCode === 200 && claimed <= room.left) return response
    response.destroy()
    if (statusCode === 200) throw tooLarge(name, claimed, room.limit)
    if (!moved) throw invalid(name, `the server answered ${statusCode} ${statusMessage}`.trimEnd())
    if (redirects === maxRedirects) throw invalid(name, `it is redirected more than ${maxRedirects} times`)
    const next = parse(headers.location!, name, target)
    if (target.protocol === 'https:' && next.protocol !== 'https:')
      throw invalid(name, `it is redirected from https to ${next.protocol}//${next.host}, which is not safe`)
    target = next
  }
}

function parse(text: string, name: string, base?: URL): URL {
  const what = base ? 'it is redirected to what is' : 'it is'
  if (!URL.canParse(text, base?.href)) throw invalid(name, `${what} no URL`)
  const url = new URL(text, base)
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw invalid(name, `${what} no http: or https: URL`)
  return url
}

/** Sockets are asked for names only. */
async function refuseLiteral(url: URL, name: string): Promise<void> {
  const found = await privateAddress(url, false)
  if (found !== undefined) throw refused(name, found)
}

function refused(name: string, address: string): PaliGemmaError {
  return invalid(
    name,
    `it leads to ${address}, an address inside this network; allow that with allowPrivateAddresses: true ` +
      '(or PALIGEMMA_ALLOW_PRIVATE_ADDRESSES=1) where no stranger chooses URLs'
  )
}

async function ask(url: URL, lookup: LookupFunction | undefined, signal: AbortSignal): Promise<IncomingMessage> {
  const options: RequestOptions = {
    headers: { accept: 'image/*, */*;q=0.5', 'accept-encoding': 'identity', 'user-agent': 'node-paligemma' },
    agent: false,
    signal,
    ...(lookup && { lookup })
  }
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    const { get } = url.protocol === 'https:' ? https : http
    get(url, options, resolve)
      .on('error', reject)
      // a server that takes the connection for another protocol (101): Node then says neither of the others
      .on('close', () => reject(new Error('the connection ended without an answer')))
  })
  return await untilAborted(answered, signal)
}

const decoders: Record<string, () => Transform> = {
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress
}

/** Some servers compress what was not to be; `collect` limits what comes out. */
function decompressed(response: IncomingMessage, name: string): Readable {
  const encoding = response.headers['content-encoding']?.trim().toLowerCase() || 'identity'
  const decoder = encoding === 'identity' ? () => new PassThrough() : decoders[encoding]
  if (decoder) return pipeline(response, decoder(), () => {}) // errors come out of the result too
  response.destroy()
  throw invalid(name, `the server answered in an encoding that is not known, ${JSON.stringify(encoding.slice(0, 40))}`)
}
