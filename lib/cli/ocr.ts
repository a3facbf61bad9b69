/** `paligemma ocr` */
import type { Command } from 'commander'
import { samplingOptions } from './args'
import type { Context } from './context'
import { addExamples } from './help'
import { addTaskOptions, runTask, textResult } from './task'

export function addOcr(program: Command, context: Context, onFailure: () => void): void {
  const command = program.command('ocr').summary('the text in each image').description('Reads the text in images.')
  addExamples(
    command,
    'ocr --model demo receipt.jpg',
    "find scans -name '*.png' -print0 | paligemma ocr --files-from - --json"
  )
  addTaskOptions(command).action(async (images: string[], options: Record<string, unknown>) => {
    const call = samplingOptions(options, context.signal)
    await runTask(images, options, context, onFailure, {
      run: async (model, image) => textResult(await model.ocr(image, call))
    })
  })
}
