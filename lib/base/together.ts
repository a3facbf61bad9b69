/** Several pieces of one call's work at a time. */
import { anySignal, ownController } from './signals'

/**
 * `work(0)` to `work(count - 1)`, at most `atOnce` of them at a time; their results in order. The first failure ends
 * the others through their signal and rejects.
 */
export async function together<T>(
  count: number,
  atOnce: number,
  outer: AbortSignal,
  work: (index: number, signal: AbortSignal) => Promise<T>
): Promise<T[]> {
  const failed = ownController()
  const { signal, release } = anySignal([outer, failed.signal])
  const results = new Array<T>(count)
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) {
      signal!.throwIfAborted()
      const index = next++
      results[index] = await work(index, signal!)
    }
  }
  try {
    await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker))
    return results
  } catch (error) {
    failed.abort(error)
    throw error
  } finally {
    release()
  }
}
