/** Trying again: how often, and after which pause. */
import { PaliGemmaError } from '../base/errors'
import { type HubClient, Transient } from './client'

/**
 * Runs `attempt` until it succeeds, fails for good, or failed `timing.attempts` times in a row. `progress` counts
 * what earlier attempts brought: an attempt that moved it starts the count anew.
 */
export async function withRetries<T>(
  client: HubClient,
  what: string,
  attempt: () => Promise<T>,
  progress: () => number = () => 0
): Promise<T> {
  const { timing, signal } = client
  // Something worth having per attempt, else a server that sends a byte each time would hold us for ever.
  const worth = 1 << 16
  let before = progress()
  for (let failures = 1; ; failures++) {
    try {
      return await attempt()
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof Transient)) throw error
      if (progress() - before >= worth) failures = 1
      before = progress()
      if (failures >= timing.attempts) {
        throw new PaliGemmaError(
          'ERR_DOWNLOAD_FAILED',
          `${what}: ${error.message}` +
            (timing.attempts === 1
              ? ''
              : `; gave up after ${failures} attempts. Check the network, or name another hub by HF_ENDPOINT. ` +
                'What was downloaded is kept: the same command goes on from there'),
          { cause: error }
        )
      }
      const pause = Math.min(timing.maxPauseMs, timing.pauseMs * 2 ** (failures - 1))
      // Spread out, so that many clients do not come back at the same moment.
      const wait = Math.max(error.retryAfterMs ?? 0, pause * (0.75 + Math.random() / 2))
      client.onRetry?.(
        `${what}: ${error.message}; trying again in ` +
          `${wait < 10_000 ? (wait / 1000).toFixed(1) : Math.round(wait / 1000)} s`
      )
      await sleep(wait, signal)
    }
  }
}

export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
