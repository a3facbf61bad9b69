/** What caption, answer, ocr, detect and segment share: many images, one result each. */
import type { Command } from 'commander'
import type { PaliGemma } from '../index'
import { addLoadOptions, addSamplingOptions, collect, loadOptions } from './args'
import { type Context, describeError, Interrupted, printable, printJson, printLine } from './context'
import { expandImages } from './images'
import { progress } from './progress'

export interface Task {
  /** Runs the task on one image. */
  run: (model: PaliGemma, image: string) => Promise<TaskResult>
}

export interface TaskResult {
  /** Fields of the image's JSON line. */
  json: Record<string, unknown>
  /** For people. */
  text: string
}

export function textResult(text: string): TaskResult {
  return { json: { text }, text }
}

/** Arguments and options of a task verb. */
export function addTaskOptions(command: Command): Command {
  addLoadOptions(command)
    .argument('[images...]', 'paths, globs or URLs')
    .option('-i, --image <image>', 'the same as an argument; may be given several times', collect)
  return addSamplingOptions(command).option('--json', 'one JSON object per image and line, also on a terminal')
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
  const images = await expandImages([...args, ...((options['image'] as string[] | undefined) ?? [])])
  const json = options['json'] === true || !context.stdout.isTTY
  const { loadModel } = await import('../index.js')
  const model = await loadModel(loadOptions(options, context.signal))
  const bar = images.length > 1 ? progress(context, 'images') : undefined
  try {
    for (const [i, image] of images.entries()) {
      bar?.update(i / images.length, image)
      try {
        const result = await task.run(model, image)
        bar?.done()
        if (json) printJson(context, { image, ...result.json })
        else
          printLine(
            context,
            images.length > 1 ? `${printable(image)}: ${printable(result.text)}` : printable(result.text)
          )
      } catch (error) {
        bar?.done()
        if (context.signal.aborted || error instanceof Interrupted) throw error
        const { code, message } = describeError(error)
        // A wrong option is wrong for every image.
        if (code === 'ERR_INVALID_OPTION') throw error
        onFailure()
        if (json && images.length > 1) printJson(context, { image, error: { code, message } })
        context.stderr.write(`${code}: ${printable(message)}\n`)
      }
    }
  } finally {
    bar?.done()
    await model.dispose()
  }
}
