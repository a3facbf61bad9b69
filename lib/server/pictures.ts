/**
 * Pictures as clients send them. Never a path: what is a text here is data, or an address where the server allows them.
 */
import { ApiError } from './errors'
import { type Room, roomFor } from '../images/body'
import { download } from '../images/remote'
import { fromBase64, fromDataUrl } from '../images/texts'
import type { Picture } from './schemas/common'

export interface PictureRules {
  maxImages: number
  remoteImages: boolean
  /** Those behind URLs may have as many bytes together as those in a body. */
  maxBodyBytes: number
}

/** Encoded pictures in order. @throws PaliGemmaError ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE */
export async function openPictures(
  pictures: readonly Picture[],
  rules: PictureRules,
  signal: AbortSignal
): Promise<Uint8Array[]> {
  if (pictures.length > rules.maxImages)
    throw new ApiError(
      413,
      'ERR_IMAGE_TOO_LARGE',
      `The request has ${pictures.length} pictures, this server takes ${rules.maxImages} at once`
    )
  const room = roomFor(rules.maxBodyBytes)
  return await Promise.all(
    pictures.map(async (picture, i) => await openPicture(picture, `image ${i + 1}`, rules, room, signal))
  )
}

async function openPicture(
  picture: Picture,
  name: string,
  rules: PictureRules,
  room: Room,
  signal: AbortSignal
): Promise<Uint8Array> {
  if (typeof picture !== 'string') return picture
  if (/^data:/i.test(picture)) return await fromDataUrl(picture, name, signal)
  if (/^https?:/i.test(picture)) return await downloaded(picture, rules, room, signal)
  const bytes = /^[a-z]+:/i.test(picture.slice(0, 20)) ? undefined : await fromBase64(picture, signal)
  if (bytes) return bytes
  throw new ApiError(
    400,
    'ERR_IMAGE_INVALID',
    `${name}: Expected a data: URL or base64 of a picture; paths are not read`
  )
}

async function downloaded(
  url: string,
  { remoteImages }: PictureRules,
  room: Room,
  signal: AbortSignal
): Promise<Uint8Array> {
  if (!remoteImages)
    throw new ApiError(
      400,
      'ERR_IMAGE_INVALID',
      'This server does not fetch pictures; send data: URLs (its option remoteImages, --remote-images, allows it)'
    )
  try {
    return await download(url, { signal, allowPrivateAddresses: false }, undefined, room)
  } catch (error) {
    signal.throwIfAborted()
    throw (error as Error).message.includes('allowPrivateAddresses') ? inside() : error
  }
}

/** Without the address, which would tell strangers about this network. */
const inside = (): ApiError =>
  new ApiError(
    400,
    'ERR_IMAGE_INVALID',
    'The picture’s address leads into a private network; such pictures are not fetched'
  )
