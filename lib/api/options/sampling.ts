/** How to generate: what the engine takes as it is, and what is done around it. */
import { randomInt } from 'node:crypto'
import { PaliGemmaError } from '../../base/errors'
import { rule, wrongOption, type Rules } from '../../base/validate'
import { engineRules, type EngineOptions } from '../../engine/sampling'
import { adaptersRule, type AdapterOption } from '../../convert/adapters/option'
import type { TrainedAdapter } from '../../convert/adapters/trained'
import type { Chunk } from './results'

/** How to generate; shared by all generating calls. */
export interface SamplingOptions extends EngineOptions {
  /**
   * Samples so many outputs (seeds `seed`, `seed` + 1, ...) over one shared prefix and returns the one with the best
   * mean log-probability. 1 (default): off. Needs `temperature` > 0; its tokens come at the end.
   */
  bestOf?: number | undefined
  /** Log-probabilities (natural log) of the chosen tokens; a number: also of the n best alternatives. Default false. */
  logProbs?: boolean | number | undefined
  /**
   * Which of the loaded adapters to use, by path or name, with scales; `[]`: the bare model. Default: all, with the
   * scales they were loaded with.
   */
  adapters?: (string | URL | TrainedAdapter | AdapterOption)[] | undefined
  /**
   * Milliseconds from the call, of an item among many from when its turn comes; after them it ends with ERR_DEADLINE.
   * Default: none.
   */
  deadlineMs?: number | undefined
  /** Aborting rejects at once with the signal's reason. */
  signal?: AbortSignal | undefined
  /**
   * Called for every token, in order, in the AsyncLocalStorage context of the call. What it throws, or what a promise
   * that it returns rejects with, ends the generation and rejects it, unchanged.
   */
  onToken?: ((chunk: Chunk) => void) | undefined
}

export const samplingRules: Rules<SamplingOptions> = {
  ...engineRules,
  bestOf: rule.integer(1, 64),
  logProbs: {
    expected: 'boolean or integer from 0 to 1000',
    accepts: (v) => typeof v === 'boolean' || rule.integer(0, 1000).accepts(v)
  },
  adapters: adaptersRule,
  deadlineMs: rule.integer(1, 2 ** 31 - 1),
  signal: rule.signal,
  onToken: rule.callback
}

/**
 * Throws where options that are right by themselves do not go together. `constrained`: the output has a grammar;
 * `called`: the names of options as the caller writes them.
 */
export function checkSampling(
  { temperature = 0, seed, beams = 1, bestOf = 1 }: SamplingOptions,
  constrained: boolean,
  called: (option: string) => string = (option) => option
): void {
  const refuse = (text: string): never => {
    throw new PaliGemmaError('ERR_INVALID_OPTION', text)
  }
  const [beamsOption, bestOfOption, heat] = ['beams', 'bestOf', 'temperature'].map(called)
  if (beams > 1 && bestOf > 1)
    refuse(`Expected ${beamsOption} 1 with ${bestOfOption} ${bestOf}, which samples, but received ${beams}`)
  if (beams > 1 && constrained)
    refuse(
      `Expected ${beamsOption} 1 with a constraint but received ${beams}; detect and segment have one unless ` +
        'constrain is false (--no-constrain)'
    )
  if (beams > 1 && temperature > 0)
    refuse(`Expected ${heat} 0 with ${beamsOption} ${beams} but received ${temperature}`)
  if (bestOf > 1 && !(temperature > 0))
    refuse(`Expected ${heat} > 0 with ${bestOfOption} ${bestOf} but received ${temperature}`)
  if (seed !== undefined && seed > Number.MAX_SAFE_INTEGER - (bestOf - 1))
    throw wrongOption(called('seed'), `integer up to 2^53 - ${bestOf} with ${bestOfOption} ${bestOf}`, seed)
}

/** Sampling with a seed that can be told afterwards; greedy decoding uses none. */
export function withSeed<T extends SamplingOptions>(options: T): T {
  const { temperature = 0, seed } = options
  return seed !== undefined || !(temperature > 0) ? options : { ...options, seed: randomInt(2 ** 48 - 1) }
}
