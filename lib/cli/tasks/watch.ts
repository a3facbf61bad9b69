/** `paligemma watch` */
import { spawn } from 'node:child_process'
import { type Command, Option } from 'commander'
import { addLoadOptions, addSamplingOptions, integer, loadOptions, number, pick, samplingOptions } from '../args'
import { type Context, describeError, printable, printJson, printLine, usageError } from '../context'
import { describeDetection } from './detect'
import { addExamples, group } from '../help'

export function addWatch(program: Command, context: Context): void {
  const command = program
    .command('watch')
    .summary('what a camera sees, as it happens')
    .description('Looks at the latest picture of a camera or stream, again and again. Needs ffmpeg.')
    .argument(
      '<source>',
      'a camera (/dev/video0), an rtsp: or http: URL, a file played at its own pace, or "-": standard input'
    )
  addExamples(
    command,
    'watch /dev/video0 --detect person --tracks --json',
    "watch rtsp://camera.local/live --question 'is the gate open?' --every 10 --changed"
  )
  command
    .optionsGroup(group.task)
    .option('--question <text>', 'answer it each time, instead of a caption')
    .option('--detect <names>', 'find these things, several separated by ";"')
    .option('--tracks', 'with --detect: ids that stay from picture to picture, who enters and who leaves')
    .option('--min-score <p>', 'with --detect: leave out objects with a lower score', number)
    .option('--every <seconds>', 'at most one look in so many seconds (default: as fast as it goes)', number)
    .option('--changed', 'look only when the picture changes')
    .option('--size <pixels>', 'no side of a picture is longer', integer)
    .option('--count <n>', 'end after so many results', integer)
    .optionsGroup(group.output)
    .option('--json', 'one JSON object per result and line, also on a terminal')
    .addOption(new Option('--exec <command>', 'run this for each result, which it gets as JSON on its standard input'))
  addSamplingOptions(command)
  addLoadOptions(command).action(async (source: string, options: Record<string, unknown>) => {
    await run(source, options, context)
  })
}

async function run(source: string, options: Record<string, unknown>, context: Context): Promise<void> {
  const detect = options['detect'] as string | undefined
  const question = options['question'] as string | undefined
  if (detect !== undefined && question !== undefined)
    throw usageError('--detect and --question are two tasks; take one')
  for (const other of ['tracks', 'minScore'])
    if (detect === undefined && options[other] !== undefined) throw usageError(`--${other} needs --detect`)
  const { loadModel, recommendedMinScore } = await import('../../index.js')
  const labels = detect?.split(';').map((name) => name.trim())
  const task = labels
    ? {
        task: 'detect' as const,
        labels,
        minScore: recommendedMinScore(labels),
        ...pick(options, ['minScore', 'tracks'])
      }
    : question !== undefined
      ? { task: 'answer' as const, question }
      : { task: 'caption' as const }
  const call = {
    ...samplingOptions(options, context.signal),
    ...pick({ ...options, minInterval: options['every'], onlyWhenChanged: options['changed'] }, [
      'minInterval',
      'onlyWhenChanged',
      'size'
    ]),
    onReconnect: (error: Error, attempt: number) =>
      void context.stderr.write(`note: ${printable(error.message)}; opening it again (${attempt})\n`),
    ...task
  }
  const model = await loadModel(await loadOptions(options, context.signal))
  const most = (options['count'] as number | undefined) ?? Infinity
  let results = 0
  try {
    for await (const { image: _, error, ...seen } of model.watch(source, call)) {
      const row = { ...seen, ...(error && { error: describeError(error) }) }
      if (options['exec'] !== undefined) await tell(options['exec'] as string, row, context)
      if (options['json'] === true || !context.stdout.isTTY) printJson(context, row)
      else printLine(context, `${new Date(seen.time).toLocaleTimeString()}  ${inWords(row)}`)
      if (++results >= most) break
    }
  } finally {
    await model.dispose()
  }
}

interface Row {
  result?: unknown
  tracks?: { tracked: { id: number }[] }
  error?: { message: string }
}

function inWords({ result, tracks, error }: Row): string {
  if (error) return `could not be read: ${printable(error.message)}`
  if (typeof result === 'string') return printable(result)
  const found = (tracks?.tracked ?? result) as (Parameters<typeof describeDetection>[0] & { id?: number })[]
  const lines = found.map((one) => `${one.id === undefined ? '' : `#${one.id} `}${describeDetection(one)}`)
  return printable(lines.join('; ') || 'nothing found')
}

/** The user's command, by the system's shell; the next picture waits for it. */
async function tell(command: string, row: object, context: Context): Promise<void> {
  const child = spawn(command, { shell: true, stdio: ['pipe', 'inherit', 'inherit'], signal: context.signal })
  child.stdin!.on('error', () => {}) // it need not read
  child.stdin!.end(`${JSON.stringify(row)}\n`)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0) context.stderr.write(`note: --exec ended with ${code}\n`)
}
