/** Pictures behind http: and https: URLs. */
import { collect, maxEncodedBytes, tooLarge } from './body'
import { describe } from './image-input'
import { invalid } from './problems'
import { PaliGemmaError } from '../base/errors'
import { isError } from '../base/realms'

const downloadTimeoutMs = 60_000

/** The encoded bytes. Rejects with ERR_IMAGE_INVALID, ERR_IMAGE_TOO_LARGE or the signal's reason. */
export async function download(url: string, signal?: AbortSignal): Promise<Buffer> {
  const name = describe(url)
  const control = new AbortController()
  const onAbort = (): void => control.abort(signal?.reason)
  const timer = setTimeout(
    () => control.abort(new Error(`no answer within ${downloadTimeoutMs / 1000} s`)),
    downloadTimeoutMs
  )
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const response = await fetch(url, { signal: control.signal })
    if (!response.ok) {
      await response.body?.cancel()
      throw invalid(name, `the server answered ${response.status} ${response.statusText}`.trimEnd())
    }
    const claimed = Number(response.headers.get('content-length') ?? 0)
    if (claimed > maxEncodedBytes) {
      await response.body?.cancel()
      throw tooLarge(name, claimed)
    }
    return response.body ? await collect(response.body, name, { signal: control.signal }) : Buffer.alloc(0)
  } catch (error) {
    if (signal?.aborted) throw signal.reason
    if (error instanceof PaliGemmaError) throw error
    const cause = (error as Error).cause
    const why = isError(cause) ? ` (${cause.message})` : ''
    throw invalid(name, `cannot be downloaded: ${(error as Error).message}${why}`, error)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}
