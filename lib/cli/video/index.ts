/** `paligemma video` */
import type { Command } from '../vendored'
import type { PaliGemma } from '../../index'
import {
  addLoadOptions,
  addSamplingOptions,
  loadOptions,
  number,
  integer,
  pick,
  refuseTogether,
  samplingOptions,
  seconds
} from '../args'
import { checkCall, checkFlags, flagOf } from '../checks'
import { type Context, printable, printJson, printLine, usageError } from '../context'
import { Journal } from '../batch/journal'
import type { Row } from '../batch/rows'
import { addExamples, group } from '../help'
import { checkFilm } from './film'
import { filesOfModel } from '../model'
import { detectInFrames, frameName } from './frames'

export function addVideo(program: Command, context: Context): void {
  const command = program
    .command('video')
    .summary('what happens in a clip')
    .description('Describes a clip, answers a question about it, or finds things in its frames. Needs ffmpeg.')
    .argument('<file>', 'a video, or an animated GIF, WebP or AVIF')
  addExamples(
    command,
    'video clip.mp4 --model google/paligemma-3b-ft-activitynet-cap-224',
    "video gate.mp4 --detect 'car; person' --every 0.5 --tracks --out seen.jsonl --annotate seen.mp4"
  )
  command
    .optionsGroup(group.task)
    .option('--caption', 'a caption: what it does where no other task is named')
    .option('--question <text>', 'answer it')
    .option('--prompt <text>', "any other prompt (default: 'caption en')")
    .option('--detect <names>', 'find these things, several separated by ";", in single frames')
    .option('--every <seconds>', 'with --detect: between frames (default: 1)', seconds)
    .option('--tracks', 'with --detect: ids that stay from frame to frame, who enters and who leaves')
    .option('--min-score <p>', 'with --detect: leave out objects with a lower score', number)
    .option('--frames <n>', 'pictures that the model sees of a part (default: 16)', integer)
    .option('--segment-seconds <seconds>', 'a text for each so many seconds (default: one for all)', seconds)
    .option(
      '--stride-seconds <seconds>',
      'from the start of one part to that of the next: less lets them overlap',
      seconds
    )
    .option('--start <seconds>', 'begin there', seconds)
    .option('--end <seconds>', 'end there', seconds)
    .option('--allow-playlists', 'the file may be a list of others (m3u8, ffconcat, mpd)')
    .optionsGroup(group.output)
    .option('--jsonl, --json', 'one JSON object per part or frame and line, also on a terminal')
    .option('--out <jsonl>', 'write the rows there; run again after any end it goes on where it was')
    .option('--overwrite', 'with --out: begin anew')
    .option(
      '--annotate <video>',
      'with --detect: a film of the frames with what was found (.mp4, .mov, .mkv, .webm, .gif)'
    )
  addSamplingOptions(command)
  addLoadOptions(command).action(async (file: string, options: Record<string, unknown>) => {
    const detect = detecting(options)
    await checkOptions(options, detect?.labels, context)
    const load = await loadOptions(options, context.signal)
    const sources = [file, ...(await filesOfModel(load))]
    if (options['annotate'] !== undefined) await checkFilm(options['annotate'] as string, sources)
    const journal = await openRows(file, options, sources, context)
    try {
      const { loadModel } = await import('../../index.js')
      const model = await loadModel(load)
      const json = options['json'] === true || !context.stdout.isTTY
      try {
        if (!detect) await describe(model, file, options, { journal, json, context })
        else await detectInFrames(model, { file, ...detect, options, journal, json }, context)
      } finally {
        await model.dispose()
      }
    } finally {
      await journal?.close()
    }
  })
}

/** What to look for, and when. Throws usage errors. */
function detecting(options: Record<string, unknown>): { labels: string[]; every: number } | undefined {
  refuseTogether(options, ['caption', 'question', 'prompt', 'detect'])
  const given = (names: string[]): string | undefined => names.find((name) => options[name] !== undefined)
  if (options['overwrite'] === true && options['out'] === undefined) throw usageError('--overwrite needs --out')
  if (options['detect'] === undefined) {
    const needing = given(['every', 'minScore', 'tracks', 'annotate'])
    if (needing !== undefined) throw usageError(`${flagOf(needing)} needs --detect`)
    return undefined
  }
  const other = given(['segmentSeconds', 'strideSeconds', 'frames'])
  if (other !== undefined) throw usageError(`--detect looks at single frames: it takes no ${flagOf(other)}`)
  const every = (options['every'] as number | undefined) ?? 1
  if (!(every > 0)) throw usageError('Expected more than 0 seconds for --every')
  return { labels: (options['detect'] as string).split(';').map((name) => name.trim()), every }
}

async function checkOptions(
  options: Record<string, unknown>,
  labels: string[] | undefined,
  context: Context
): Promise<void> {
  const { describeVideoRules } = await import('../../api/many/describe-video.js')
  const sampling = samplingOptions(options, context.signal)
  checkFlags({ ...options, ...sampling }, describeVideoRules)
  if (labels) await checkCall('detect', { ...sampling, ...pick(options, ['minScore']), labels })
  else await checkCall('generate', sampling)
}

/** What a row depends on; where or how it is shown is not part of it. */
const notOfRows = ['out', 'overwrite', 'annotate', 'json', 'caption', 'end']

async function openRows(
  file: string,
  options: Record<string, unknown>,
  sources: string[],
  context: Context
): Promise<Journal | undefined> {
  const out = options['out'] as string | undefined
  if (out === undefined) return undefined
  const settings = Object.entries(options).filter(([name]) => !notOfRows.includes(name))
  return await Journal.open({
    path: out,
    out,
    sources,
    settings: { video: file, ...Object.fromEntries(settings) },
    overwrite: options['overwrite'] === true,
    retryFailed: false,
    context
  })
}

interface Output {
  journal: Journal | undefined
  json: boolean
  context: Context
}

const clock = (seconds: number): string => `${seconds.toFixed(2)} s`

async function describe(
  model: PaliGemma,
  file: string,
  options: Record<string, unknown>,
  { journal, json, context }: Output
): Promise<void> {
  const question = options['question'] as string | undefined
  const start = await nextStart(journal, options)
  if (start === undefined) return
  let written: Promise<unknown> = Promise.resolve()
  await model.describeVideo(file, {
    ...(question !== undefined && { prompt: `answer en ${question}` }),
    ...pick(options, ['prompt', 'frames', 'segmentSeconds', 'strideSeconds', 'end', 'allowPlaylists']),
    ...samplingOptions(options, context.signal),
    start,
    onSegment: async ({ start, end, times, text, finishReason }) => {
      const row = { start, end, times, text, finishReason }
      written = written.then(async () => await journal?.append({ image: frameName(file, start), ...row } as Row))
      await written
      if (json && !journal) printJson(context, row)
      else if (!json) printLine(context, `${clock(start)} to ${clock(end)}: ${printable(text)}`)
    }
  })
}

interface Part extends Row {
  start: number
  end: number
}

/** Where to go on; undefined: all parts are there. */
async function nextStart(journal: Journal | undefined, options: Record<string, unknown>): Promise<number | undefined> {
  const start = (options['start'] as number | undefined) ?? 0
  let last: Part | undefined
  if (journal) for await (const { row } of journal.rows()) last = row as Part
  if (!last) return start
  const length = options['segmentSeconds'] as number | undefined
  if (length === undefined || last.end - last.start < length - 1e-6) return undefined // the clip ended there
  return last.start + ((options['strideSeconds'] as number | undefined) ?? length)
}
