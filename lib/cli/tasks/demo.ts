/** `paligemma demo`: the small model that ships with the package, on the pictures that ship with it. */
import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Command } from '../vendored'
import { loadSharp } from '../../images/sharp'
import { PaliGemmaError } from '../../base/errors'
import { packageRoot } from '../../base/package-files'
import type { Detection, PaliGemma } from '../../index'
import { draw } from './annotate'
import { collect } from '../args'
import { addExamples, group } from '../help'
import { Pictures } from '../images'
import { type Context, formatBytes, formatCount, printable, printJson, printLine } from '../context'
import { describeDetection } from './detect'
import { coverage } from './segment'

const demoFolder = join(packageRoot, 'demo')

/** Names that the demo model knows, for pictures whose caption names nothing. */
const shapes = ['circle', 'square', 'triangle', 'star', 'heart', 'ring', 'cross']
const mostLabels = 4
const maxTokens = 96

export function addDemo(program: Command, context: Context): void {
  const command = program
    .command('demo')
    .summary('the small model in the package on its own pictures')
    .description(
      'Runs the small PaliGemma 2 that ships with the package: caption, answers, boxes, mask and text of its ' +
        'pictures, and writes the first one with its boxes and mask. It knows drawn shapes only.'
    )
  addExamples(command, 'demo', 'demo --image drawing.png --out drawing-found.png --json')
  command
    .optionsGroup(group.picture)
    .option('-i, --image <image>', 'another picture of shapes; may be given several times', collect)
    .optionsGroup(group.output)
    .option('-o, --out <png>', 'the annotated picture', 'paligemma-demo.png')
    .option('--jsonl, --json', 'print one JSON object per picture')
    .action(async (options: { image?: string[]; out: string; json?: boolean }) => {
      await demo(options, context)
    })
}

async function demo(options: { image?: string[]; out: string; json?: boolean }, context: Context): Promise<void> {
  const images = options.image ?? demoPictures()
  const pictures = new Pictures(context)
  const started = performance.now()
  const { loadModel } = await import('../../index.js')
  const model = await loadModel({ model: 'demo', signal: context.signal })
  try {
    if (!options.json) {
      const { info } = model
      printLine(
        context,
        `A PaliGemma 2 of ${formatCount(info.parameters)} parameters (${formatBytes(info.bytes)}, ` +
          `${info.quantization}) on ${info.device} (${info.isa}, ${info.threads} threads), loaded in ` +
          `${Math.round(performance.now() - started)} ms`
      )
    }
    for (const [i, image] of images.entries()) {
      const picture = await pictures.open(image)
      const seen = await look(model, picture, context.signal)
      const drawn = i === 0 ? await attempt(() => annotateDemo(picture, seen, options.out, images)) : undefined
      const annotated = drawn?.done ? options.out : undefined
      if (options.json) {
        const segmentations = seen.segmentations.map(({ mask: _, ...rest }) => rest)
        printJson(context, { image, ...seen, segmentations, ...(annotated === undefined ? {} : { annotated }) })
      } else {
        print(context, image, seen)
        if (annotated !== undefined) printLine(context, `  ${'wrote'.padEnd(promptWidth)}  ${printable(annotated)}`)
      }
      // The answers come first, whatever became of the picture.
      if (drawn?.done === false) throw drawn.error
    }
  } finally {
    await model.dispose()
  }
}

type Attempt = { done: true } | { done: false; error: unknown }

async function attempt(work: () => Promise<void>): Promise<Attempt> {
  try {
    await work()
    return { done: true }
  } catch (error) {
    return { done: false, error }
  }
}

/** Boxes, and masks for what was segmented; small pictures are enlarged so that labels can be read. */
async function annotateDemo(
  image: string | Buffer,
  { detections, segmentations }: Seen,
  path: string,
  sources: string[]
): Promise<void> {
  const masked = new Set(segmentations.map(({ label }) => label))
  const { width = readableWidth } = await (await loadSharp())(image).metadata()
  await draw(image, [...segmentations, ...detections.filter(({ label }) => !masked.has(label))], path, {
    scale: Math.max(1, Math.min(32, Math.round(readableWidth / width))),
    option: '--out',
    sources
  })
}

const readableWidth = 672

interface Seen {
  /** Prompts and what the model wrote, in order. */
  outputs: { prompt: string; text: string; ms: number }[]
  detections: Detection[]
  segmentations: Awaited<ReturnType<PaliGemma['segment']>>
}

/** Every task once. What the caption names is what is asked about. */
async function look(model: PaliGemma, image: string | Buffer, signal: AbortSignal): Promise<Seen> {
  const outputs: Seen['outputs'] = []
  const timed = async <T>(prompt: string, call: () => Promise<T>, describe: (result: T) => string): Promise<T> => {
    const start = performance.now()
    const result = await call()
    outputs.push({ prompt, text: describe(result), ms: performance.now() - start })
    return result
  }
  const same = (text: string) => text
  const caption = await timed('caption en', () => model.caption(image, { maxTokens, signal }), same)
  const labels = namedIn(caption)
  const questions = ['how many shapes are there?', `where is the ${labels[0]}?`]
  for (const question of questions)
    await timed(`answer en ${question}`, () => model.answer(image, question, { maxTokens, signal }), same)
  await timed('ocr', () => model.ocr(image, { maxTokens, signal }), same)
  const detections: Detection[] = []
  // One name a prompt: several would share the probability of the first box.
  for (const label of labels.slice(0, mostLabels)) {
    const found = await timed(
      `detect ${label}`,
      () => model.detect(image, label, { signal }),
      (boxes) => boxes.map(describeDetection).join('\n') || 'nothing found'
    )
    detections.push(...found)
  }
  const segmentations = await timed(
    `segment ${labels[0]}`,
    () => model.segment(image, labels[0]!, { signal }),
    (found) => found.map((item) => `${describeDetection(item)}  ${coverage(item.mask)}`).join('\n') || 'nothing found'
  )
  return { outputs, detections, segmentations }
}

/** "a red circle, two blue stars and a heart on ..." -> ["red circle", "blue star", "heart"] */
export function namedIn(caption: string): string[] {
  const pattern = new RegExp(`(?:(\\w+) )?\\b(${shapes.join('|')})(?:e?s)?\\b`, 'g')
  const numbers = /^(?:an?|one|two|three|four|five|six|seven|eight|nine|\d+|and|the|of|on|with)$/
  const labels = Array.from(caption.toLowerCase().matchAll(pattern), ([, color, shape]) =>
    color && !numbers.test(color) ? `${color} ${shape}` : shape!
  )
  return labels.length > 0 ? [...new Set(labels)] : shapes
}

function demoPictures(): string[] {
  let names: string[]
  try {
    names = readdirSync(demoFolder)
      .filter((name) => /\.(?:png|jpe?g|webp)$/i.test(name))
      .sort()
  } catch {
    names = []
  }
  if (names.length === 0) {
    throw new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      `${demoFolder} holds no pictures; the package is not complete, install it again`
    )
  }
  return names.map((name) => join(demoFolder, name))
}

const promptWidth = 34

function print(context: Context, image: string, seen: Seen): void {
  printLine(context, `\n${basename(image)}`)
  for (const { prompt, text, ms } of seen.outputs) {
    const [first = '', ...more] = printable(text).split('\n')
    printLine(context, `  ${prompt.padEnd(promptWidth)}  ${first || '(nothing)'}   [${Math.round(ms)} ms]`)
    for (const line of more) printLine(context, `  ${' '.repeat(promptWidth)}  ${line}`)
  }
}
