/** `paligemma video` */
import type { Command } from 'commander'
import type { PaliGemma } from '../index'
import { addLoadOptions, addSamplingOptions, loadOptions, number, integer, pick, samplingOptions } from './args'
import { type Context, printable, printJson, printLine, usageError } from './context'
import { describeDetection } from './detect'
import { addExamples, group } from './help'

export function addVideo(program: Command, context: Context): void {
  const command = program
    .command('video')
    .summary('what happens in a clip')
    .description('Describes a clip, answers a question about it, or finds things in its frames. Needs ffmpeg.')
    .argument('<file>', 'a video, or an animated GIF or WebP')
  addExamples(
    command,
    'video clip.mp4 --model google/paligemma-3b-ft-activitynet-cap-224',
    "video gate.mp4 --detect 'car; person' --every 0.5 --json > seen.jsonl"
  )
  command
    .optionsGroup(group.task)
    .option('--question <text>', 'answer it, instead of a caption')
    .option('--prompt <text>', "any other prompt (default: 'caption en')")
    .option('--detect <names>', 'find these things, several separated by ";", in single frames')
    .option('--every <seconds>', 'with --detect: between frames (default: 1)', number)
    .option('--min-score <p>', 'with --detect: leave out objects with a lower score', number)
    .option('--frames <n>', 'pictures that the model sees of a part (default: 16)', integer)
    .option('--segment-seconds <seconds>', 'a text for each so many seconds (default: one for all)', number)
    .option('--start <seconds>', 'begin there', number)
    .option('--end <seconds>', 'end there', number)
    .optionsGroup(group.output)
    .option('--json', 'one JSON object per part or frame and line, also on a terminal')
  addSamplingOptions(command)
  addLoadOptions(command).action(async (file: string, options: Record<string, unknown>) => {
    const { loadModel } = await import('../index.js')
    if (options['detect'] !== undefined) {
      for (const other of ['question', 'prompt', 'segmentSeconds', 'frames'])
        if (options[other] !== undefined) throw usageError(`--detect looks at single frames: it takes no --${other}`)
    }
    const model = await loadModel(await loadOptions(options, context.signal))
    try {
      if (options['detect'] === undefined) await describe(model, file, options, context)
      else await detect(model, file, options, context)
    } finally {
      await model.dispose()
    }
  })
}

const clock = (seconds: number): string => `${seconds.toFixed(2)} s`

const isJson = (options: Record<string, unknown>, context: Context): boolean =>
  options['json'] === true || !context.stdout.isTTY

async function describe(
  model: PaliGemma,
  file: string,
  options: Record<string, unknown>,
  context: Context
): Promise<void> {
  const question = options['question'] as string | undefined
  const json = isJson(options, context)
  await model.describeVideo(file, {
    ...(question !== undefined && { prompt: `answer en ${question}` }),
    ...pick(options, ['prompt', 'frames', 'segmentSeconds', 'start', 'end']),
    ...samplingOptions(options, context.signal),
    onSegment: ({ start, end, times, text, finishReason }) => {
      if (json) printJson(context, { start, end, times, text, finishReason })
      else printLine(context, `${clock(start)} to ${clock(end)}: ${printable(text)}`)
    }
  })
}

async function detect(
  model: PaliGemma,
  file: string,
  options: Record<string, unknown>,
  context: Context
): Promise<void> {
  const { recommendedMinScore, videoFrames } = await import('../index.js')
  const labels = (options['detect'] as string).split(';').map((name) => name.trim())
  const every = (options['every'] as number | undefined) ?? 1
  if (!(every > 0)) throw usageError('Expected more than 0 seconds for --every')
  const json = isJson(options, context)
  const { signal } = context
  const call = {
    minScore: (options['minScore'] as number | undefined) ?? recommendedMinScore(labels),
    ...samplingOptions(options, signal)
  }
  for await (const { time, image } of videoFrames(file, {
    fps: 1 / every,
    ...pick(options, ['start', 'end']),
    signal
  })) {
    const detections = await model.detect(image, labels, call)
    if (json) printJson(context, { time, detections })
    else for (const one of detections) printLine(context, `${clock(time)}  ${printable(describeDetection(one))}`)
  }
}
