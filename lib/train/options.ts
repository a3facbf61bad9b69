/** The options of `fit`: types, defaults and the rules that check them. */
import { TrainedAdapter } from '../convert/adapters/trained'
import { rule, type Rule, type Rules } from '../base/validate'
import type { FitExamples } from './examples'
import type { Schedule } from './schedule'

/** What is known of a finished step. */
export interface FitStep {
  /** From 1. */
  step: number
  /** In all. */
  steps: number
  /** From 1. */
  epoch: number
  /** Mean over the suffix tokens of its examples, before the step. */
  loss: number
  /** Of this step, as `warmup` and `schedule` have it. */
  learningRate: number
  /** Of the gradient, before clipping. */
  gradNorm: number
  /** Indices of its examples. */
  examples: number[]
  /** Tokens of all its examples: pictures, prompts and responses. */
  tokens: number
  /** Milliseconds that it took. */
  ms: number
}

/** Loss of the held-out examples after a step. */
export interface FitEvaluation {
  /** The last finished step, from 1. */
  step: number
  /** Mean over the suffix tokens of all held-out examples. */
  loss: number
}

/** Options of `fit`. */
export interface FitOptions {
  /** Start from this adapter (a PEFT folder, or what `fit` returned): its modules, rank and scaling, fresh moments. */
  from?: string | URL | TrainedAdapter | undefined
  /** Of the adapter's matrices, 1 to 1024; default 8. */
  rank?: number | undefined
  /** Default 2 * rank. What the adapter adds is multiplied by alpha / rank. */
  alpha?: number | undefined
  /** alpha / sqrt(rank) instead; default false. */
  rslora?: boolean | undefined
  /**
   * What is trained; default `['text']`, all linear layers of the text model. Also 'q_proj', 'k_proj', 'v_proj',
   * 'o_proj', 'gate_proj', 'up_proj', 'down_proj', 'projector', 'vision', 'vision.q_proj' and so on, 'all'.
   */
  targets?: string[] | undefined
  /** Optimizer steps in all; else `epochs` times the batches of an epoch. */
  steps?: number | undefined
  /** Times that every example is taken; default 4. */
  epochs?: number | undefined
  /** Examples of a step; default 8. They pass one at a time: memory does not grow with it. */
  batchSize?: number | undefined
  /** Another order in every epoch (default), or as given. */
  shuffle?: boolean | undefined
  /** Of the order and of the adapter's first values; default 0. */
  seed?: number | undefined
  /** Largest learning rate; default 2e-4. */
  learningRate?: number | undefined
  /** Steps in which the learning rate rises from 0; default 0. */
  warmup?: number | undefined
  /** How it falls then; default "cosine". */
  schedule?: Schedule | undefined
  /** Share of the values that enter the adapter's matrices which count as zero, others in every example; default 0. */
  dropout?: number | undefined
  /** AdamW's: in each step the adapter's values lose this share times the learning rate. Default 0. */
  weightDecay?: number | undefined
  /** Largest norm of a step's gradient; default 1, 0: any. */
  clip?: number | undefined
  /** Held-out examples, of which only the loss is computed. */
  evaluate?: FitExamples | undefined
  /** Steps from one evaluation to the next; default: an epoch. The last step is always followed by one. */
  evaluateEvery?: number | undefined
  /** A folder for the state of the run, so that it can go on after an abort or a crash. */
  checkpoint?: string | URL | undefined
  /** Steps from one checkpoint to the next; default: an epoch, at most 50. One follows the last step and an abort. */
  checkpointEvery?: number | undefined
  /** Go on from the checkpoint, if there is one, to the last bit as if nothing had come between. */
  resume?: boolean | undefined
  /** Aborting rejects with the signal's reason, within a layer; with `checkpoint` the last finished step is kept. */
  signal?: AbortSignal | undefined
  /** Called after each step. What it throws ends the run and rejects it, unchanged. */
  onStep?: ((step: FitStep) => void) | undefined
  /** Called after each evaluation. What it throws ends the run and rejects it, unchanged. */
  onEvaluate?: ((evaluation: FitEvaluation) => void) | undefined
}

/** What `fit` gives. */
export interface FitResult {
  /** For `adapters` of any call of this model; `adapter.save(path)` writes it. */
  adapter: TrainedAdapter
  /** One a step: the loss of its examples before it. */
  losses: number[]
  /** Of the held-out examples, in the order of steps; empty where there are none. */
  evaluation: FitEvaluation[]
}

type Defaulted =
  | ('rank' | 'targets' | 'epochs' | 'batchSize' | 'shuffle' | 'seed' | 'learningRate' | 'warmup' | 'schedule')
  | ('dropout' | 'weightDecay' | 'clip')

type Complete<T, K extends keyof T> = T & { [Key in K]-?: Exclude<T[Key], undefined> }

const defaults: Complete<Pick<FitOptions, Defaulted>, Defaulted> = {
  rank: 8,
  targets: ['text'],
  epochs: 4,
  batchSize: 8,
  shuffle: true,
  seed: 0,
  learningRate: 2e-4,
  warmup: 0,
  schedule: 'cosine',
  dropout: 0,
  weightDecay: 0,
  clip: 1
}

/** Options as {@link readOptions} leaves them: those that were not given are not there. */
export function withDefaults<T extends FitOptions>(options: T): Complete<T, Defaulted> {
  return { ...defaults, ...options } as Complete<T, Defaulted>
}

const fromRule: Rule = {
  expected: 'path of a PEFT folder or an adapter that fit returned',
  take: (v, folder) => (v instanceof TrainedAdapter ? v : rule.file.take!(v, folder)),
  accepts: (v) => v instanceof TrainedAdapter || rule.path.accepts(v)
}

export const fitRules: Rules<FitOptions> = {
  from: fromRule,
  rank: rule.integer(1, 1024),
  alpha: rule.above(0, 1e6),
  rslora: rule.flag,
  targets: rule.listOf('non-empty strings', (v) => typeof v === 'string' && v !== '', { least: 1 }),
  steps: rule.integer(1, 1e9),
  epochs: rule.integer(1, 1e6),
  batchSize: rule.integer(1, 1e6),
  shuffle: rule.flag,
  seed: rule.integer(0),
  learningRate: rule.above(0, 1e3),
  warmup: rule.integer(0, 1e9),
  schedule: rule.oneOf('cosine', 'linear', 'constant'),
  dropout: rule.number(0, 0.99),
  weightDecay: rule.number(0, 1e3),
  clip: rule.number(0, 1e9),
  evaluate: rule.object,
  evaluateEvery: rule.integer(1, 1e9),
  checkpoint: rule.file,
  checkpointEvery: rule.integer(1, 1e9),
  resume: rule.flag,
  signal: rule.signal,
  onStep: rule.callback,
  onEvaluate: rule.callback
}
