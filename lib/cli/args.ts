/** Options that several verbs share, and the parsers of their values. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { LoadOptions } from '../api/options'
import type { SamplingOptions } from '../api/sampling'

export function integer(value: string): number {
  if (!/^[+-]?\d+$/.test(value)) throw new InvalidArgumentError('Expected an integer.')
  return Number(value)
}

export function number(value: string): number {
  const parsed = Number(value)
  if (value.trim() === '' || !Number.isFinite(parsed)) throw new InvalidArgumentError('Expected a number.')
  return parsed
}

/** For options that may be given several times. */
export function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value]
}

/** `PATH` or `PATH=SCALE`. */
export function adapter(text: string): { path: string; scale?: number } {
  const [, path, scale] = /^(.+)=([+-]?(?:\d+\.?\d*|\.\d+))$/.exec(text) ?? []
  return path === undefined ? { path: text } : { path, scale: Number(scale) }
}

const loadKeys = [
  'model',
  'vision',
  'maskDecoder',
  'device',
  'threads',
  'contextSize',
  'kvCacheType',
  'attentionWindow',
  'locScale',
  'resize',
  'fit',
  'maskConvention'
] as const

export function addLoadOptions(command: Command): Command {
  return command
    .requiredOption('-m, --model <file>', 'the model: a GGUF, or the name of a pulled one')
    .option('--vision <file>', 'the separate vision GGUF ("mmproj")')
    .option('--mask-decoder <file>', 'vae-oid.npz, where the model file has no mask decoder')
    .option(
      '--adapter <path>',
      'LoRA adapter: PEFT directory or GGUF, PATH=SCALE for another scale than 1; may be given several times',
      collect
    )
    .addOption(new Option('--device <name>', 'where to run').choices(['auto', 'cpu', 'cuda', 'metal']))
    .option('--threads <n>', 'compute threads (default: physical cores)', integer)
    .option('--context-size <tokens>', 'tokens per sequence', integer)
    .addOption(new Option('--kv-cache-type <type>', 'type of the attention cache').choices(['f16', 'q8_0', 'f32']))
    .addOption(
      new Option('--attention-window <rule>', "Gemma 2's sliding layers").choices(['none', 'suffix', 'causal'])
    )
    .option('--no-final-softcap', 'leave logits uncapped')
    .addOption(
      new Option('--loc-scale <n>', '1023 inverts the training code, 1024 is what demo code uses').argParser(integer)
    )
    .addOption(new Option('--resize <filter>', 'how pictures are resized').choices(['bicubic', 'bilinear']))
    .addOption(new Option('--fit <rule>', 'squash ignores the aspect ratio').choices(['squash', 'pad']))
    .addOption(new Option('--mask-convention <rule>', 'how masks are pasted').choices(['training', 'demo']))
}

/** The options of a verb that `loadModel` takes. */
export function loadOptions(options: Record<string, unknown>, signal: AbortSignal): LoadOptions {
  return {
    ...pick(options, loadKeys),
    ...(options['adapter'] !== undefined ? { adapters: (options['adapter'] as string[]).map(adapter) } : {}),
    ...(options['finalSoftcap'] === false ? { finalSoftcap: false } : {}),
    signal
  } as unknown as LoadOptions
}

const samplingKeys = [
  'maxTokens',
  'temperature',
  'topK',
  'topP',
  'minP',
  'repeatPenalty',
  'beams',
  'lengthPenalty',
  'bestOf',
  'seed',
  'stop',
  'logProbs',
  'ignoreEos'
] as const

export function addSamplingOptions(command: Command): Command {
  return command
    .option('-n, --max-tokens <n>', 'at most so many tokens', integer)
    .option('--temperature <t>', '0 (default) takes the most probable token', number)
    .option('--top-k <k>', 'sample among the k most probable tokens', integer)
    .option('--top-p <p>', 'sample among the tokens that together reach p', number)
    .option('--min-p <p>', 'sample among tokens at least p times as probable as the best', number)
    .option('--repeat-penalty <x>', 'divide the score of tokens that occurred', number)
    .option('--beams <n>', 'beam search over so many hypotheses', integer)
    .option('--length-penalty <x>', 'of beams: log-probability / length^x decides', number)
    .option('--best-of <n>', 'the most probable of so many samples', integer)
    .option('--seed <n>', 'seed of the sampling', integer)
    .option('--stop <text>', 'end before this text; may be given several times', collect)
    .option('--log-probs [n]', 'log-probabilities of the tokens, and of the n best alternatives', integer)
    .option('--ignore-eos', 'do not stop at the end token')
}

/** The options of a verb that generating calls take. */
export function samplingOptions(options: Record<string, unknown>, signal: AbortSignal): SamplingOptions {
  return { ...pick(options, samplingKeys), signal } as SamplingOptions
}

export function pick(options: Record<string, unknown>, keys: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(keys.filter((key) => options[key] !== undefined).map((key) => [key, options[key]]))
}
