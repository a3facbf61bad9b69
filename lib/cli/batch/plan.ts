/** How many pictures are decoded together. */
import { freemem } from 'node:os'
import type { LoadOptions } from '../../api/options'

// A pass over the weights serves all of them; beyond eight little is gained on CPUs.
const choices = [8, 6, 4, 3, 2]
const share = 0.6 // of what the system has left

/** As many as memory allows, by the estimate of what the model will take. */
export async function planConcurrency(load: LoadOptions): Promise<number> {
  const { estimateMemory } = await import('../../index.js')
  const { contextSize, kvCacheType, vision, weights } = load
  const { availableMemory } = process as { availableMemory?: () => number } // of the container; Node 20.13 and later
  const most = share * (availableMemory?.() ?? freemem())
  for (const maxSequences of choices) {
    const estimate = await estimateMemory(String(load.model), {
      maxSequences,
      contextSize,
      kvCacheType,
      vision,
      weights
    }).catch(() => undefined) // loading says what is wrong
    if (!estimate || estimate.own <= most) return maxSequences
  }
  return 1
}
