/** What caption, answer, ocr, detect and segment share: many images, one result each. */
import type { Command } from '../vendored'
import type { Drawable, ImageInput, PaliGemma } from '../../index'
import type { BatchTask } from '../../api/many/batch-tasks'
import { Annotations } from './annotate'
import { addLoadOptions, addSamplingOptions, loadOptions } from '../args'
import {
  type Context,
  describeError,
  Interrupted,
  OutputFailure,
  printable,
  printError,
  printJson,
  printLine
} from '../context'
import { checkCall } from '../checks'
import { group } from '../help'
import { addImageOptions, type ImageFlags, imagesOf, Pictures } from '../images'
import { filesOfModel } from '../model'
import { type Progress, progress } from '../progress'

export interface Task {
  /** The model's call that it is. */
  name: BatchTask
  /** Options of that call for every image. */
  options: object
  /** Runs the task on one image. */
  run: (model: PaliGemma, image: ImageInput) => Promise<TaskResult>
}

export interface TaskResult {
  /** Fields of the image's JSON line. */
  json: Record<string, unknown>
  /** For people. */
  text: string
  /** 'length': a list that --max-tokens cut. */
  finishReason?: string
  /** What --annotate draws. */
  drawables?: readonly Drawable[]
}

export function textResult(text: string): TaskResult {
  return { json: { text }, text }
}

/** Arguments and options of a task verb. */
export function addTaskOptions(command: Command): Command {
  addImageOptions(command)
    .optionsGroup(group.output)
    .option('--jsonl, --json', 'one JSON object per image and line, also on a terminal')
  addSamplingOptions(command)
  return addLoadOptions(command)
}

/**
 * Runs a task over all images. Elsewhere than on a terminal, and with --json, one line of JSON per image. A failed
 * image is reported and the others go on; `onFailure` makes the exit code 1.
 */
export async function runTask(
  args: string[],
  options: Record<string, unknown>,
  context: Context,
  onFailure: () => void,
  task: Task
): Promise<void> {
  await checkCall(task.name, task.options)
  const images = await imagesOf(args, options as ImageFlags, context)
  const annotations =
    options['annotate'] === undefined
      ? undefined
      : new Annotations(options['annotate'] as string, images, { tiles: options['showTiles'] === true })
  const load = await loadOptions(options, context.signal)
  await annotations?.check(await filesOfModel(load))
  const { loadModel } = await import('../../index.js')
  const model = await loadModel(load)
  const run: Run = {
    task,
    model,
    annotations,
    many: images.length > 1,
    json: options['json'] === true || !context.stdout.isTTY,
    pictures: new Pictures(context)
  }
  const tally = new Tally(context, images.length)
  try {
    for (const [i, image] of images.entries()) {
      tally.next(i, image)
      try {
        await runOne(run, image, context, tally)
        tally.ok++
      } catch (error) {
        tally.pause()
        if (endsAll(error, context)) throw error
        tally.failed++
        onFailure()
        if (run.json && run.many) printJson(context, { image, error: describeError(error) })
        printError(context, error)
      }
    }
  } finally {
    tally.end()
    await model.dispose()
  }
}

interface Run {
  task: Task
  model: PaliGemma
  annotations: Annotations | undefined
  many: boolean
  json: boolean
  pictures: Pictures
}

async function runOne(
  { task, model, annotations, many, json, pictures }: Run,
  image: string,
  context: Context,
  tally: Tally
): Promise<void> {
  const picture = await pictures.open(image)
  const { json: fields, text, drawables, finishReason } = await task.run(model, picture)
  tally.pause()
  if (json) printJson(context, { image, ...fields, ...(finishReason !== undefined && { finishReason }) })
  else printLine(context, many ? underName(image, text) : printable(text))
  if (finishReason === 'length')
    context.stderr.write(`note: ${printable(image)}: the list was cut, there may be more; raise --max-tokens\n`)
  if (annotations && drawables) await annotations.draw(image, picture, drawables)
}

/** What is wrong for every image, or leaves nothing to write to. */
function endsAll(error: unknown, context: Context): boolean {
  if (context.signal.aborted || error instanceof Interrupted || error instanceof OutputFailure) return true
  return ['ERR_INVALID_OPTION', 'ERR_DISK_FULL', 'ERR_ACCESS_DENIED', 'ERR_WRITE_FAILED'].includes(
    describeError(error).code
  )
}

/** One line of text follows the name, several stand below it. */
function underName(name: string, text: string): string {
  const shown = printable(text)
  return shown.includes('\n') ? `${printable(name)}\n${shown.replace(/^/gm, '  ')}` : `${printable(name)}: ${shown}`
}

/** Progress over many images, and what became of them. */
export class Tally {
  ok = 0
  failed = 0
  readonly #bar: Progress | undefined
  readonly #start = performance.now()

  constructor(
    private readonly context: Context,
    private readonly all: number,
    private readonly things = 'pictures'
  ) {
    this.#bar = all > 1 ? progress(context, things) : undefined
  }

  next(index: number, name: string): void {
    this.#bar?.update(index / this.all, name)
  }

  pause(): void {
    this.#bar?.done()
  }

  /** "12 pictures: 11 ok, 1 failed, 3.4 pictures/s", where there were several. */
  end(): void {
    this.#bar?.done()
    const done = this.ok + this.failed
    if (this.all < 2 || done === 0) return
    const perSecond = done / Math.max(0.001, (performance.now() - this.#start) / 1000)
    const rest = done < this.all ? `, ${this.all - done} not done` : ''
    this.context.stderr.write(
      `${this.all} ${this.things}: ${this.ok} ok, ${this.failed} failed${rest}, ` +
        `${Number(perSecond.toPrecision(2))} ${this.things}/s\n`
    )
  }
}
