/** Options of generating that the engine takes as they are: each once, with what it may be. */
import { rule, type Rules } from '../base/validate'

export interface EngineOptions {
  /** At most so many tokens; default 256. */
  maxTokens?: number | undefined
  /** 0 (default): always the most probable token. */
  temperature?: number | undefined
  /** Sample among the k most probable tokens; 0 (default): off. */
  topK?: number | undefined
  /** Sample among the most probable tokens that together reach this probability; 1 (default): off. */
  topP?: number | undefined
  /** Sample among tokens at least this probable, relative to the best; 0 (default): off. */
  minP?: number | undefined
  /** Divides the score of tokens that occurred; 1 (default): off. */
  repeatPenalty?: number | undefined
  /**
   * Beam search (Hugging Face's rules): follows so many hypotheses and takes the one with the best log-probability per
   * token. 1 (default): off. At most `maxSequences`; greedy only, unconstrained, and all tokens come at the end.
   */
  beams?: number | undefined
  /** Of beams: a hypothesis scores log-probability / length^lengthPenalty, its end token counted; default 1. */
  lengthPenalty?: number | undefined
  /** 0 .. 2^53 - 1; drawn where not given, and in the result. The same seed and request give the same text. */
  seed?: number | undefined
  /** Generation ends before the first of these texts, which is not part of the result. */
  stop?: string[] | undefined
  /** Do not stop at the end token; for tests and benchmarks. */
  ignoreEos?: boolean | undefined
}

export const engineRules: Rules<EngineOptions> = {
  maxTokens: rule.integer(1),
  temperature: rule.number(0),
  topK: rule.integer(0, 2 ** 31 - 1),
  topP: rule.above(0, 1),
  minP: rule.number(0, 1),
  repeatPenalty: rule.above(0),
  beams: rule.integer(1, 64),
  lengthPenalty: rule.number(-10, 10),
  seed: rule.integer(0),
  stop: rule.listOf('non-empty strings', (v) => typeof v === 'string' && v !== ''),
  ignoreEos: rule.flag
}

export type EngineSampling = { [K in keyof EngineOptions]?: Exclude<EngineOptions[K], undefined> }

/** Of all options of a call those that the engine knows by the same name and meaning. */
export function engineSampling(options: EngineOptions): EngineSampling {
  const keys = Object.keys(engineRules) as (keyof EngineOptions)[]
  return Object.fromEntries(keys.flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])))
}
