/** How many pictures are decoded together where nobody says. */
import { freemem } from 'node:os'
import type { LoadOptions } from '../api/options/options'
import { estimateMemory } from './estimate'

// A pass over the weights serves all of them; beyond eight little is gained on CPUs.
const choices = [8, 6, 4, 3, 2]
const share = 0.6 // of what the system has left

/** As many as memory allows, by the estimate of what the model will take. */
export async function plannedSequences(load: LoadOptions): Promise<number> {
  const { contextSize, kvCacheType, vision, weights } = load
  const { availableMemory } = process as { availableMemory?: () => number } // of the container; Node 20.13 and later
  const most = share * (availableMemory?.() ?? freemem())
  const options = { contextSize, kvCacheType, vision, ...(weights === 'copy' && { weights }) }
  for (const maxSequences of choices) {
    // loading says what is wrong
    const estimate = await estimateMemory(String(load.model), { maxSequences, ...options }).catch(() => undefined)
    if (!estimate || estimate.own <= most) return maxSequences
  }
  return 1
}
