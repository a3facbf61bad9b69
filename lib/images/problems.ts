/** What can be wrong with a picture, in the words of every part that reads one. */
import { PaliGemmaError } from '../base/errors'
import { isStarved } from './sharp'

export function invalid(name: string, why: string, cause?: unknown): PaliGemmaError {
  return new PaliGemmaError('ERR_IMAGE_INVALID', `${name}: ${why}`, cause === undefined ? undefined : { cause })
}

export function undecodable(name: string, error: unknown): PaliGemmaError {
  if (error instanceof PaliGemmaError) return error
  const reason = (error as Error).message.split('\n').find((line) => line.trim() !== '') ?? 'unknown error'
  if (isStarved(error)) {
    return new PaliGemmaError(
      'ERR_OUT_OF_MEMORY',
      `${name}: the system refused the decoder a thread or memory (${reason}); raise the limit of this process`,
      { cause: error }
    )
  }
  return invalid(name, `cannot be decoded: ${reason}`, error)
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
