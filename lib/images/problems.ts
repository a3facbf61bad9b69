/** What can be wrong with a picture, in the words of every part that reads one. */
import { PaliGemmaError } from '../base/errors'
import { explainSystem } from '../base/system-limits'
import { isStarved } from './sharp'

/** ERR_IMAGE_INVALID, or another code where a limit of the system or Node's permission model is the cause. */
export function invalid(name: string, why: string, cause?: unknown): PaliGemmaError {
  const options = cause === undefined ? undefined : { cause }
  return explainSystem(new PaliGemmaError('ERR_IMAGE_INVALID', `${name}: ${why}`, options)) as PaliGemmaError
}

export function undecodable(name: string, error: unknown): PaliGemmaError {
  if (error instanceof PaliGemmaError) return error
  if (isStarved(error)) return starved(name, 'the decoder a thread or memory', error)
  const reason = reasonOf(error)
  // libheif's words for a codec that sharp's own build leaves out for its patents
  const heic = /has not been built in|unsupported codec/i.test(reason)
    ? '; photographs of iPhones (HEIC) have a codec that sharp comes without: save them as JPEG or PNG first'
    : ''
  return invalid(name, `cannot be decoded: ${reason}${heic}`, error)
}

const reasonOf = (error: unknown): string =>
  (error as Error).message.split('\n').find((line) => line.trim() !== '') ?? 'unknown error'

/** The system's limits, not the picture, are at fault. */
export function starved(name: string, what: string, cause: unknown): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_OUT_OF_MEMORY',
    `${name}: the system refused ${what} (${reasonOf(cause)}); raise the limit of this process`,
    { cause }
  )
}

/** What sharp makes of our own pixels fails only where the system refuses it a thread or memory: with a code then. */
export async function made<T>(name: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    throw isStarved(error) && !(error instanceof PaliGemmaError)
      ? starved(name, 'sharp a thread or memory', error)
      : error
  }
}

export function checkPixels(width: number, height: number, name: string, limit: number): void {
  if (width * height > limit) {
    throw new PaliGemmaError(
      'ERR_IMAGE_TOO_LARGE',
      `${name}: ${width} x ${height} is ${width * height} pixels, the limit is ${limit}; make it smaller or raise ` +
        'maxImagePixels'
    )
  }
}
