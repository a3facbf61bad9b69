/** `paligemma watch` */
import { spawn } from 'node:child_process'
import { untilAborted } from '../../base/signals'
import { type Command, Option } from '../vendored'
import {
  addLoadOptions,
  addSamplingOptions,
  integer,
  loadOptions,
  number,
  pick,
  refuseTogether,
  samplingOptions,
  seconds
} from '../args'
import { checkCall, checkFlags, flagOf } from '../checks'
import { type Context, describeError, printable, printJson, printLine, usageError } from '../context'
import type { BatchTask, Seen } from '../../index'
import type { LivePage, LiveView } from '../../server/live-page'
import { sourceName } from '../../video/live'
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
    'watch /dev/video0 --detect person --tracks --jsonl',
    "watch rtsp://camera.local/live --question 'is the gate open?' --every 10 --changed",
    'watch /dev/video0 --detect person --tracks --page'
  )
  command
    .optionsGroup(group.task)
    .option('--caption', 'a caption each time: what it does where no other task is named')
    .option('--question <text>', 'answer it each time')
    .option('--detect <names>', 'find these things, several separated by ";"')
    .option('--tracks', 'with --detect: ids that stay from picture to picture, who enters and who leaves')
    .option('--min-score <p>', 'with --detect: leave out objects with a lower score', number)
    .option('--every <seconds>', 'at most one look in so many seconds (default: as fast as it goes)', seconds)
    .option('--changed', 'look only when the picture changes')
    .option('--size <pixels>', 'no side of a picture is longer', integer)
    .option('--count <n>', 'end after so many results', integer)
    .option('--allow-playlists', 'a file may be a list of others (m3u8, ffconcat, mpd)')
    .optionsGroup(group.output)
    .option('--page', 'a page for this machine that shows the pictures, what was found in them, tracks and speed')
    .option('--port <n>', 'of the page; 0: any that is free (default: 8080)', integer)
    .option('--jsonl, --json', 'one JSON object per result and line, also on a terminal')
    .addOption(new Option('--exec <command>', 'run this for each result, which it gets as JSON on its standard input'))
  addSamplingOptions(command)
  addLoadOptions(command).action(async (source: string, options: Record<string, unknown>) => {
    await run(source, options, context)
  })
}

async function run(source: string, options: Record<string, unknown>, context: Context): Promise<void> {
  const detect = options['detect'] as string | undefined
  const question = options['question'] as string | undefined
  refuseTogether(options, ['caption', 'question', 'detect'])
  for (const other of ['tracks', 'minScore'])
    if (detect === undefined && options[other] !== undefined) throw usageError(`${flagOf(other)} needs --detect`)
  if (options['port'] !== undefined && options['page'] !== true) throw usageError('--port needs --page')
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
      'size',
      'allowPlaylists'
    ]),
    onReconnect: (error: Error, attempt: number) =>
      void context.stderr.write(`note: ${printable(error.message)}; opening it again (${attempt})\n`),
    ...task
  }
  await checkCall(task.task, call)
  checkFlags(call, (await import('../../api/many/watch.js')).watchLoopRules)
  const load = await loadOptions(options, context.signal)
  const page = options['page'] === true ? await openPage(options['port'] as number | undefined, context) : undefined
  try {
    const model = await loadModel(load)
    try {
      await follow(model.watch(source, call), source, options, context, page)
    } finally {
      await model.dispose()
    }
  } finally {
    await page?.close()
  }
}

async function openPage(port: number | undefined, context: Context): Promise<LivePage> {
  const { LivePage } = await import('../../server/live-page.js')
  const page = await LivePage.open({ port, signal: context.signal })
  context.stderr.write(`The page is ${page.url}/\n`)
  return page
}

async function follow(
  seenAll: AsyncIterable<Seen<BatchTask>>,
  source: string,
  options: Record<string, unknown>,
  context: Context,
  page: LivePage | undefined
): Promise<void> {
  const most = (options['count'] as number | undefined) ?? Infinity
  let results = 0
  for await (const { image, error, ...seen } of seenAll) {
    const row: Row = { ...seen, ...(error && { error: describeError(error) }) }
    page?.show({ source: sourceName(source), image: image as LiveView['image'], ...pageFields(row) })
    if (options['exec'] !== undefined) await tell(options['exec'] as string, row, context)
    if (options['json'] === true || !context.stdout.isTTY) printJson(context, row)
    else printLine(context, `${new Date(seen.time).toLocaleTimeString()}  ${inWords(row)}`)
    if (++results >= most) break
  }
}

type Object = Parameters<typeof describeDetection>[0] & { id?: number }

interface Row {
  time: number
  ageMs: number
  fps: number
  dropped: number
  unchanged: number
  result?: unknown
  tracks?: { tracked: object[]; entered: object[]; left: object[] }
  error?: { message: string }
}

const objectsOf = ({ result, tracks }: Row): Object[] =>
  (tracks?.tracked ?? (Array.isArray(result) ? result : [])) as Object[]

function pageFields(row: Row): Omit<LiveView, 'source' | 'image'> {
  const { time, ageMs, fps, dropped, unchanged, result, tracks, error } = row
  const speed = `${fps.toFixed(1)} looks a second, ${Math.round(ageMs)} ms old`
  return {
    time,
    objects: objectsOf(row),
    text: error ? `This picture could not be read: ${error.message}` : typeof result === 'string' ? result : '',
    figures: `${speed}, ${dropped} pictures passed over, ${unchanged} unchanged`,
    entered: tracks?.entered ?? [],
    left: tracks?.left ?? []
  }
}

function inWords(row: Row): string {
  const { result, error } = row
  if (error) return `could not be read: ${printable(error.message)}`
  if (typeof result === 'string') return printable(result)
  const lines = objectsOf(row).map((one) => `${one.id === undefined ? '' : `#${one.id} `}${describeDetection(one)}`)
  return printable(lines.join('; ') || 'nothing found')
}

/** The user's command, by the system's shell; the next picture waits for it. */
async function tell(command: string, row: object, context: Context): Promise<void> {
  const child = spawn(command, { shell: true, stdio: ['pipe', 'inherit', 'inherit'], signal: context.signal })
  child.stdin!.on('error', () => {}) // it need not read
  child.stdin!.end(`${JSON.stringify(row)}\n`)
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  const code = await untilAborted(ended, context.signal)
  if (code !== 0) context.stderr.write(`note: --exec ended with ${code}\n`)
}
