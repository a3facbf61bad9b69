/** `paligemma run`: any prompt, streamed. */
import { readFile } from 'node:fs/promises'
import { checkOutput } from '../../base/output-file'
import type { Command } from '../vendored'
import type { JsonSchema } from '../../output/schema/json-schema'
import type { GenerateOptions } from '../../api/options/options'
import { addLoadOptions, addSamplingOptions, collect, loadOptions, samplingOptions } from '../args'
import { filesOfModel } from '../model'
import { annotateText, checkPng } from './annotate'
import { addExamples, group } from '../help'
import { checkCall } from '../checks'
import { Pictures } from '../images'
import { type Context, printable, printJson, printLine, usageError } from '../context'

export function addRun(program: Command, context: Context): void {
  const command = program
    .command('run')
    .summary('any prompt on one or several images, streamed')
    .description(
      'Generates from a prompt and images, and prints the text as it comes. --json prints one GenerateResult instead.'
    )
  addExamples(
    command,
    "run --model demo node_modules/node-paligemma/demo/shapes.png --prompt 'caption en'",
    "run page1.png page2.png -p 'answer en what is the total?' --json"
  )
  addLoadOptions(command)
    .optionsGroup(group.picture)
    .argument('[images...]', 'paths, URLs or "-" for standard input; several are shown in order')
    .option('-i, --image <image>', 'the same as an argument; may be given several times', collect)
    .optionsGroup(group.task)
    .requiredOption('-p, --prompt <text>', 'such as "caption en", "answer en what is this?", "detect cow ; boat"')
  addSamplingOptions(command)
    .optionsGroup(group.task)
    .option('--constrain <grammar>', 'only output of this form: detect or segment')
    .option('--regex <expression>', 'only output that matches as a whole')
    .option('--json-schema <file>', 'only JSON of this schema; a file that holds it')
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object at the end')
    .option('--annotate <png>', 'write the first image with the boxes and masks of the output')
    .action(async (images: string[], options: Record<string, unknown>) => {
      await run(images, options, context)
    })
}

async function run(args: string[], options: Record<string, unknown>, context: Context): Promise<void> {
  const names = [...args, ...((options['image'] as string[] | undefined) ?? [])]
  const annotate = options['annotate'] as string | undefined
  if (annotate !== undefined && names.length === 0) throw usageError('--annotate needs an image')
  if (annotate !== undefined) checkPng(annotate)
  const call = {
    prompt: options['prompt'] as string,
    ...(await readConstraint(options)),
    ...samplingOptions(options, context.signal)
  }
  await checkCall('generate', call)
  const { loadModel } = await import('../../index.js')
  const load = await loadOptions(options, context.signal)
  const sources = annotate === undefined ? [] : [...names, ...(await filesOfModel(load))]
  if (annotate !== undefined) await checkOutput(annotate, { option: '--annotate', sources })
  const pictures = new Pictures(context)
  const images: (string | Buffer)[] = []
  for (const name of names) images.push(await pictures.open(name))
  const model = await loadModel(load)
  try {
    const request = { ...call, ...(images.length > 0 ? { images } : {}) }
    let text: string
    if (options['json']) {
      const result = await model.generate(request)
      printJson(context, result)
      text = result.text
    } else {
      const stream = model.stream(request)
      for await (const chunk of stream) context.stdout.write(context.stdout.isTTY ? printable(chunk.text) : chunk.text)
      printLine(context, '')
      const result = await stream.result
      text = result.text
      if (context.stderr.isTTY) context.stderr.write(`${summary(result)}\n`)
    }
    if (annotate !== undefined) await annotateText(model, images[0]!, text, annotate)
  } finally {
    await model.dispose()
  }
}

async function readConstraint(options: Record<string, unknown>): Promise<Pick<GenerateOptions, 'constrain'>> {
  const { constrain, regex, jsonSchema } = options as {
    constrain?: 'detect' | 'segment'
    regex?: string
    jsonSchema?: string
  }
  if ([constrain, regex, jsonSchema].filter((form) => form !== undefined).length > 1)
    throw usageError('Expected one of --constrain, --regex and --json-schema')
  if (regex !== undefined) return { constrain: { regex } }
  if (constrain !== undefined) return { constrain }
  if (jsonSchema === undefined) return {}
  const text = await readFile(jsonSchema, 'utf8').catch((error: Error) => {
    throw usageError(`--json-schema: ${error.message}`, error)
  })
  try {
    return { constrain: { jsonSchema: JSON.parse(text) as JsonSchema } }
  } catch (error) {
    throw usageError(`--json-schema: ${jsonSchema} is not JSON: ${(error as Error).message}`)
  }
}

interface Timed {
  usage: { imageTokens: number; promptTokens: number; completionTokens: number }
  timings: { visionMs: number; prefillMs: number; firstTokenMs: number; decodeTokensPerSecond: number }
}

/** One line of timings. */
export function summary({ usage, timings }: Timed): string {
  const ms = (value: number) =>
    value < 9.95
      ? `${value.toFixed(1)} ms`
      : value < 9950
        ? `${Math.round(value)} ms`
        : `${(value / 1000).toFixed(1)} s`
  return (
    `${usage.imageTokens} image + ${usage.promptTokens} prompt tokens: vision ${ms(timings.visionMs)}, prefill ` +
    `${ms(timings.prefillMs)}, first token after ${ms(timings.firstTokenMs)}; ${usage.completionTokens} tokens at ` +
    `${timings.decodeTokensPerSecond.toFixed(1)}/s`
  )
}
