/** How to generate: every option once, with what it may be and whether the engine takes it as it is. */
import { randomInt } from 'node:crypto'
import { rule, wrongOption, type Rules } from '../base/validate'
import { adaptersRule, type AdapterOption } from '../convert/adapters/option'
import type { Chunk } from './results'

/** How to generate; shared by all generating calls. */
export interface SamplingOptions {
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
  /**
   * Samples so many outputs (seeds `seed`, `seed` + 1, ...) over one shared prefix and returns the one with the best
   * mean log-probability. 1 (default): off. Needs `temperature` > 0; its tokens come at the end.
   */
  bestOf?: number | undefined
  /** 0 .. 2^53 - 1; drawn where not given, and in the result. The same seed and request give the same text. */
  seed?: number | undefined
  /** Generation ends before the first of these texts, which is not part of the result. */
  stop?: string[] | undefined
  /** Log-probabilities (natural log) of the chosen tokens; a number: also of the n best alternatives. Default false. */
  logProbs?: boolean | number | undefined
  /**
   * Which of the loaded adapters to use, by path or name, with scales; `[]`: the bare model. Default: all, with the
   * scales they were loaded with.
   */
  adapters?: (string | AdapterOption)[] | undefined
  /** Do not stop at the end token; for tests and benchmarks. */
  ignoreEos?: boolean | undefined
  /** Milliseconds from the call; after them the request ends with ERR_DEADLINE. Default: none. */
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
  maxTokens: rule.integer(1),
  temperature: rule.number(0),
  topK: rule.integer(0, 2 ** 31 - 1),
  topP: rule.above(0, 1),
  minP: rule.number(0, 1),
  repeatPenalty: rule.above(0),
  beams: rule.integer(1, 64),
  lengthPenalty: rule.number(-10, 10),
  bestOf: rule.integer(1, 64),
  seed: rule.integer(0),
  stop: rule.listOf('non-empty strings', (v) => typeof v === 'string' && v !== ''),
  logProbs: {
    expected: 'boolean or integer from 0 to 1000',
    accepts: (v) => typeof v === 'boolean' || rule.integer(0, 1000).accepts(v)
  },
  adapters: adaptersRule,
  ignoreEos: rule.flag,
  deadlineMs: rule.integer(1, 2 ** 31 - 1),
  signal: rule.signal,
  onToken: rule.callback
}

/** Those that the engine knows by the same name and meaning. */
const engineKeys = [
  'maxTokens',
  'temperature',
  'topK',
  'topP',
  'minP',
  'repeatPenalty',
  'beams',
  'lengthPenalty',
  'seed',
  'stop',
  'ignoreEos'
] as const satisfies (keyof SamplingOptions)[]

export type EngineSampling = { [K in (typeof engineKeys)[number]]?: Exclude<SamplingOptions[K], undefined> }

export function engineSampling(options: SamplingOptions): EngineSampling {
  return Object.fromEntries(engineKeys.flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])))
}

/** Sampling with a seed that can be told afterwards; greedy decoding uses none. */
export function withSeed<T extends SamplingOptions>(options: T): T {
  const { temperature = 0, seed, bestOf = 1 } = options
  if (seed !== undefined && !Number.isSafeInteger(seed + bestOf - 1))
    throw wrongOption('seed', `integer up to 2^53 - ${bestOf} with bestOf ${bestOf}`, seed)
  return seed !== undefined || !(temperature > 0) ? options : { ...options, seed: randomInt(2 ** 48 - 1) }
}
