/** Options that several verbs share, and the parsers of their values. */
import type { WithPaths } from '../base/validate'
import { type Command, InvalidArgumentError, Option } from './vendored'
import type { LoadOptions } from '../api/options/options'
import type { SamplingOptions } from '../api/options/sampling'
import { type EngineOptions, engineRules } from '../engine/sampling'
import type { TileOption } from '../images/tile-plan'
import { type DeviceName, isDeviceName } from '../base/device-name'
import { checkLoad, flagOf } from './checks'
import { group } from './help'
import { usageError } from './context'
import { addModelOption, chooseModel } from './model'

/** Throws where several of these options were given, each of which says what to do. */
export function refuseTogether(options: Record<string, unknown>, names: readonly string[]): void {
  const given = names.filter((name) => options[name] !== undefined).map(flagOf)
  if (given.length > 1) throw usageError(`${given.join(' and ')} ask for different things; take one`)
}

export function integer(value: string): number {
  const parsed = Number(value)
  if (!/^[+-]?\d+$/.test(value) || !Number.isSafeInteger(parsed)) throw new InvalidArgumentError('Expected an integer.')
  return parsed
}

export function deviceName(value: string): DeviceName {
  if (!isDeviceName(value)) throw new InvalidArgumentError('Expected auto, cpu, cuda, cuda:1 or metal.')
  return value
}

export function number(value: string): number {
  const parsed = Number(value)
  if (value.trim() === '' || !Number.isFinite(parsed)) throw new InvalidArgumentError('Expected a number.')
  return parsed
}

const secondsOf = new Map([
  ['', 1],
  ['ms', 0.001],
  ['s', 1],
  ['sec', 1],
  ['m', 60],
  ['min', 60],
  ['h', 3600]
])

/** A time: 1.5, 1.5s, 500ms, 2min, 1h, or as a clock shows it, 1:30 and 1:02:03.5. */
export function seconds(value: string): number {
  const [, amount, unit = ''] = /^\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*$/i.exec(value) ?? []
  const factor = secondsOf.get(unit.toLowerCase())
  if (amount !== undefined && factor !== undefined) return Number(amount) * factor
  const [, hours = '0', minutes, rest] = /^(?:(\d+):)?(\d+):(\d\d(?:\.\d*)?)$/.exec(value) ?? []
  if (minutes !== undefined) return Number(hours) * 3600 + Number(minutes) * 60 + Number(rest)
  throw new InvalidArgumentError('Expected seconds, or a time such as 500ms, 2min or 1:30.')
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

/** `auto`, `4x3` or `800`: columns and rows, or pixels; `:0.3` after it for another overlap. */
export function tiles(text: string): TileOption {
  if (text === 'auto') return text
  const [, columns, rows, size, share] = /^(?:(\d+)x(\d+)|(\d+))(?::(0?\.\d+|0))?$/.exec(text) ?? []
  const overlap = share === undefined ? {} : { overlap: Number(share) }
  if (size !== undefined) return { size: Number(size), ...overlap }
  if (columns === undefined) throw new InvalidArgumentError('Expected auto, COLUMNSxROWS or PIXELS, such as 4x3.')
  return { columns: Number(columns), rows: Number(rows), ...overlap }
}

const loadKeys = [
  'vision',
  'maskDecoder',
  'weights',
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
  addModelOption(command).option(
    '--adapter <path>',
    'LoRA adapter: PEFT directory or GGUF, PATH=SCALE for another scale than 1; may be given several times',
    collect
  )
  return addRunOptions(command)
}

/** How a model is loaded, whichever it is. */
export function addRunOptions(command: Command): Command {
  command
    .optionsGroup(group.model)
    .option('--vision <file>', 'the separate vision GGUF ("mmproj"), where the model file has no vision tower')
    .option('--mask-decoder <file>', 'vae-oid.npz, where the model file has no mask decoder')
  addDeviceOptions(command)
    .addOption(
      new Option('--fit <rule>', 'squash ignores the aspect ratio (default: squash)').choices(['squash', 'pad'])
    )
    .optionsGroup(group.expert)
    .addOption(
      new Option('--weights <way>', 'copy: into memory, safe from changes of the file (default: mapped)').choices([
        'mapped',
        'copy'
      ])
    )
    .addOption(
      new Option('--kv-cache-type <type>', 'type of the attention cache (default: f16)').choices(['f16', 'q8_0', 'f32'])
    )
    .addOption(
      new Option('--attention-window <rule>', "Gemma 2's sliding layers (default: none)").choices([
        'none',
        'suffix',
        'causal'
      ])
    )
    .option('--no-final-softcap', 'leave logits uncapped (default: as the model file says)')
    .option('--loc-scale <n>', '1023 inverts the training code, 1024 is what demo code uses (default: 1023)', integer)
    .addOption(
      new Option(
        '--resize <filter>',
        'how pictures are resized (default: as the model file says, else bicubic)'
      ).choices(['bicubic', 'bilinear'])
    )
    .addOption(
      new Option('--mask-convention <rule>', 'how masks are pasted (default: training)').choices(['training', 'demo'])
    )
  return command
}

/** Where and how large: what every verb with a model has. */
export function addDeviceOptions(command: Command): Command {
  return command
    .option('--device <name>', 'where to run: auto (default), cpu, cuda, cuda:1, metal', deviceName)
    .option('--threads <n>', 'compute threads (default: physical cores)', integer)
    .option('--context-size <tokens>', 'tokens per sequence (default: what the model was trained for)', integer)
}

/** The options of a verb that `loadModel` takes. */
export async function loadOptions(
  options: Record<string, unknown>,
  signal: AbortSignal
): Promise<WithPaths<LoadOptions>> {
  const own = {
    ...(options['adapter'] !== undefined ? { adapters: (options['adapter'] as string[]).map(adapter) } : {}),
    ...runOptions(options)
  }
  await checkLoad(own)
  const { defaults } = await import('../api/options/options.js')
  const beams = (options['beams'] as number | undefined) ?? 1
  // each beam is a sequence of its own
  const room = beams > defaults.maxSequences ? { maxSequences: beams } : {}
  return { model: await chooseModel(options['model']), ...own, ...room, signal }
}

/** Those of {@link addRunOptions}. */
export function runOptions(options: Record<string, unknown>): Omit<WithPaths<LoadOptions>, 'model'> {
  return { ...pick(options, loadKeys), ...(options['finalSoftcap'] === false ? { finalSoftcap: false } : {}) }
}

const samplingKeys = [...(Object.keys(engineRules) as (keyof EngineOptions)[]), 'bestOf', 'logProbs'] as const

export function addSamplingOptions(command: Command): Command {
  return command
    .optionsGroup(group.sampling)
    .option('-n, --max-tokens <n>', 'at most so many tokens (default: 256; 512 to detect and segment)', integer)
    .option('--temperature <t>', '0 takes the most probable token (default: 0)', number)
    .option('--top-k <k>', 'sample among the k most probable tokens (default: 0, off)', integer)
    .option('--top-p <p>', 'sample among the tokens that together reach p (default: 1, off)', number)
    .option('--min-p <p>', 'sample among tokens at least p times as probable as the best (default: 0, off)', number)
    .option('--repeat-penalty <x>', 'divide the score of tokens that occurred (default: 1, off)', number)
    .option('--beams <n>', 'beam search over so many hypotheses (default: 1, off)', integer)
    .option('--length-penalty <x>', 'of beams: log-probability / length^x decides (default: 1)', number)
    .option('--best-of <n>', 'the most probable of so many samples (default: 1, off)', integer)
    .option('--seed <n>', 'seed of the sampling (default: drawn)', integer)
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
