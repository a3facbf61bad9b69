/** `paligemma bench`: how fast a model runs here, and how near that is to what the machine can do. */
import { rm } from 'node:fs/promises'
import { type Command, Option } from '../vendored'
import { expandPath } from '../../base/expand-path'
import type { BenchOptions, BenchResult } from '../../measure/bench'
import { deviceName, integer, pick } from '../args'
import { addExamples, group } from '../help'
import { type Context, formatBytes, printable, printJson, printLine, usageError } from '../context'
import { progress } from '../progress'

const defaultType = 'Q4_K_M'
const busyBelow = 0.85
const shortMs = 500

export function addBench(program: Command, context: Context): void {
  const command = program
    .command('bench')
    .summary('speed and memory, as shares of what the machine can do')
    .description(
      "Measures vision, prefill, decoding, loading and memory of a model, and in the same run the machine's read " +
        'bandwidth and 8-bit peak. Figures are medians. docs/benchmarks.md says what they mean.'
    )
  addExamples(command, 'bench --model demo', 'bench --synthetic 3b-224 --type Q4_K_M --discard')
  command
    .optionsGroup(group.model)
    .option('-m, --model <file>', 'the model: a GGUF, the name of a pulled one, or "demo" (default: PALIGEMMA_MODEL)')
    .option('--vision <file>', 'the separate vision GGUF ("mmproj")')
    .option(
      '--synthetic <size>',
      'instead: random weights of this size, such as 3b-224, 10b-448, pg1-3b-224; kept in the temporary folder (TMPDIR)'
    )
    .option('-t, --type <type>', `type of the random weights, as in convert (default: ${defaultType})`)
    .option('--discard', 'remove the random weights afterwards')
    .optionsGroup(group.task)
    .option('--runs <n>', 'measured runs (default: 5)', integer)
    .option('--tokens <n>', 'tokens to generate per run (default: 32)', integer)
    .option('--depth <n>', 'tokens before the first generated one, image included (default: the image and 4)', integer)
    .option('--concurrency <n>', 'also n streams at once: all their tokens per second', integer)
    .option('--oversubscribe', 'also with twice as many threads, in turns: how much longer everything takes')
    .option('--paper', "the PaliGemma 2 paper's protocol: 224 px, 260 tokens of prefill, 11 generated")
    .optionsGroup(group.model)
    .option('--threads <n>', 'compute threads (default: physical cores)', integer)
    .option('--device <name>', 'where to run: auto (default), cpu, cuda, cuda:1, metal', deviceName)
    .addOption(
      new Option('--kv-cache-type <type>', 'type of the attention cache (default: f16)').choices(['f16', 'q8_0', 'f32'])
    )
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object')
    .action(async (options: Record<string, unknown>) => {
      await run(options, context)
    })
}

const keys = [
  'vision',
  'runs',
  'tokens',
  'depth',
  'concurrency',
  'oversubscribe',
  'paper',
  'threads',
  'device',
  'kvCacheType'
]

async function run(options: Record<string, unknown>, context: Context): Promise<void> {
  const {
    model: given,
    synthetic,
    type,
    discard
  } = options as {
    model?: string
    synthetic?: string
    type?: string
    discard?: boolean
  }
  const model =
    given ??
    (synthetic === undefined
      ? expandPath(process.env['PALIGEMMA_MODEL']?.trim() ?? '', 'PALIGEMMA_MODEL') || undefined
      : undefined)
  if (model === undefined && synthetic === undefined) throw usageError('Expected --model or --synthetic')
  if (model !== undefined && synthetic !== undefined) throw usageError('Expected --model or --synthetic, not both')
  if (model !== undefined && (type !== undefined || discard))
    throw usageError('--type and --discard are for --synthetic')
  const { bench, checkBenchOptions } = await import('../../measure/bench.js')
  const request = { ...pick(options, keys), signal: context.signal } as Omit<BenchOptions, 'model'>
  // before gigabytes are written
  checkBenchOptions({ ...request, model: model ?? 'synthetic' })
  const path = model ?? (await write(synthetic!, type ?? defaultType, context))
  const bar = progress(context, 'measuring')
  try {
    const result = await bench({
      ...request,
      model: path,
      onProgress: (fraction, what) => bar.update(fraction, what)
    }).finally(() => bar.done())
    if (options['json']) printJson(context, result)
    else printResult(result, context)
  } finally {
    if (discard) await rm(path, { force: true })
  }
}

async function write(size: string, type: string, context: Context): Promise<string> {
  const { syntheticModel } = await import('../../measure/synthetic.js')
  const bar = progress(context, `writing ${size} ${type}`)
  const { path, bytes, reused } = await syntheticModel({
    size,
    type,
    signal: context.signal,
    onProgress: (fraction) => bar.update(fraction)
  }).finally(() => bar.done())
  if (!reused)
    context.stderr.write(
      `note: ${printable(path)} (${formatBytes(bytes)}) holds the random weights and is kept for the next run; see ` +
        `--discard\n`
    )
  return path
}

type Row = [label: string, ...cells: string[]]

function speedRows(result: BenchResult): Row[] {
  const { shares } = result
  const rows: Row[] = []
  const percent = (share: number | null, limit: string) =>
    share === null ? '' : `${Math.round(share * 100)} % of ${limit}`
  const peak = 'the 8-bit peak'
  if (result.visionMs !== null) {
    rows.push([
      'vision',
      ms(result.visionMs),
      `${result.imageTokens} tokens`,
      `${number(result.visionGops!)} GOPS`,
      percent(shares.vision, peak)
    ])
  }
  rows.push([
    'prefill',
    ms(result.prefillMs),
    `${number(result.prefillTokensPerSecond)} tokens/s`,
    `${number(result.prefillGops)} GOPS`,
    percent(shares.prefill, peak)
  ])
  rows.push([
    'decode',
    ms(1000 / result.decodeTokensPerSecond),
    `${number(result.decodeTokensPerSecond)} tokens/s`,
    `${number(result.decodeGBps)} GB/s`,
    percent(shares.decode, 'the read bandwidth')
  ])
  if (result.concurrent) {
    const { streams, decodeTokensPerSecond, decodeGBps, allFirstTokensMs } = result.concurrent
    rows.push([
      `${streams} streams`,
      ms((1000 * streams) / decodeTokensPerSecond),
      `${number(decodeTokensPerSecond)} tokens/s`,
      `${number(decodeGBps)} GB/s`,
      `all started after ${ms(allFirstTokensMs)}`
    ])
  }
  return rows
}

/** What a user waits for, and what it takes. */
function otherRows(result: BenchResult): Row[] {
  const rows: Row[] = []
  rows.push([
    'first token',
    ms(result.firstTokenMs),
    `${result.prefillTokens} tokens`,
    '',
    result.secondQuestionMs === null ? '' : `second question ${ms(result.secondQuestionMs)}`
  ])
  rows.push(['answer', ms(result.totalMs), `${result.decodeTokens} tokens`, '', ''])
  if (result.oversubscribed) {
    const {
      threads,
      ratios: { vision, prefill, decode, total }
    } = result.oversubscribed
    rows.push([
      `${threads} threads`,
      `${total} times`,
      vision === null ? '' : `vision ${vision}`,
      `prefill ${prefill}`,
      `decode ${decode} times as long as with ${result.threads}`
    ])
  }
  rows.push(['load', ms(result.loadMs), '', '', ''])
  rows.push(['memory', formatBytes(result.peakRssBytes), '', '', `${result.memoryFactor} times the file`])
  return rows
}

function printResult(result: BenchResult, context: Context): void {
  const { limits } = result
  printLine(
    context,
    `${printable(result.variant)}, ${formatBytes(result.modelBytes)}, on ${result.device} (${result.isa}, ` +
      `${result.threads} threads), median of ${result.runs}`
  )
  printLine(
    context,
    `this machine: reads ${number(limits.readGBps)} GB/s, 8-bit peak ` +
      `${limits.int8Gops > 0 ? `${number(limits.int8Gops)} GOPS` : 'unknown for this instruction set'}`
  )
  for (const [label, time, rate, second, note] of [...speedRows(result), ...otherRows(result)]) {
    printLine(
      context,
      `  ${label.padEnd(11)} ${time!.padStart(9)}  ${rate!.padStart(15)}  ${second!.padStart(11)}  ${note}`.trimEnd()
    )
  }
  // A small model's runs are over before its threads have anything to share.
  if (result.cpuShare < busyBelow && result.totalMs > shortMs) {
    printLine(
      context,
      `The threads ran only ${Math.round(result.cpuShare * 100)} % of the time: other programs were busy too, so ` +
        'these figures are too low.'
    )
  }
}

function ms(value: number): string {
  return value < 9995 ? `${number(value)} ms` : `${number(value / 1000)} s`
}

/** Three digits, or all before the point. */
function number(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)))
}
