/** Many requests decoded together. */
import { isError } from '../../base/realms'
import { publicCall, type Taken } from '../../base/call'
import { anySignal, ownController, untilAborted } from '../../base/signals'
import { show } from '../../base/validate'
import type { ModelHost } from '../request/host'
import { runGeneration } from '../request/generation'
import { generateRules, type BatchOptions, type GenerateOptions } from '../options/options'
import type { GenerateResult } from '../options/results'

/** `requests` are read one by one, just ahead of their work; `folder`: where their relative paths begin. */
export async function generateBatch(
  host: ModelHost,
  requests: readonly unknown[],
  options: Taken<BatchOptions<GenerateResult | Error>>,
  folder: string
): Promise<(GenerateResult | Error)[]> {
  const stopAll = ownController()
  const { signal, release } = anySignal([options.signal, stopAll.signal])
  const results = new Array<GenerateResult | Error>(requests.length)
  let next = 0
  const work = async (): Promise<void> => {
    while (next < requests.length) {
      const index = next++
      const result = await batchItem(host, requests[index], signal!, folder)
      if (signal!.aborted) return
      results[index] = result
      options.onResult?.(result, index)
    }
  }
  const lookAhead = Math.min(host.maxSequences + 2, host.options.maxQueue ?? Infinity, requests.length)
  try {
    await untilAborted(Promise.all(Array.from({ length: lookAhead }, work)), options.signal)
  } catch (error) {
    stopAll.abort(error)
    throw error
  } finally {
    release()
  }
  return results
}

async function batchItem(
  host: ModelHost,
  request: unknown,
  outer: AbortSignal,
  folder: string
): Promise<GenerateResult | Error> {
  const generate = async (own: Taken<GenerateOptions>): Promise<GenerateResult> => {
    const { signal, release } = anySignal([own.signal, outer])
    try {
      return (await runGeneration(host, { ...own, signal: signal!, throughput: own.onToken === undefined })).result
    } finally {
      release()
    }
  }
  try {
    return await publicCall<GenerateOptions, GenerateResult>(
      'generateBatch',
      request,
      generateRules,
      ['prompt'],
      generate,
      folder
    )
  } catch (error) {
    return asError(error)
  }
}

/** What an item failed with, whatever was thrown. */
export function asError(error: unknown): Error {
  return isError(error) ? error : new Error(typeof error === 'string' ? error : show(error), { cause: error })
}
