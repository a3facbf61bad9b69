/** `paligemma ocr` */
import type { Command } from '../vendored'
import { pick, samplingOptions, tiles } from '../args'
import type { Context } from '../context'
import { addExamples, group } from '../help'
import { addTaskOptions, runTask, textResult } from './task'

export function addOcr(program: Command, context: Context, onFailure: () => void): void {
  const command = program.command('ocr').summary('the text in each image').description('Reads the text in images.')
  addExamples(
    command,
    'ocr --model demo receipt.jpg',
    "find scans -name '*.png' -print0 | paligemma ocr --files-from - --json"
  )
  addTaskOptions(command)
    .optionsGroup(group.task)
    .option(
      '--tiles <grid>',
      'read tiles of a large picture: auto, 4x3 (columns x rows) or 800 (pixels); :0.3 for another overlap',
      tiles
    )
  command.action(async (images: string[], options: Record<string, unknown>) => {
    const call = { ...pick(options, ['tiles']), ...samplingOptions(options, context.signal) }
    await runTask(images, options, context, onFailure, {
      name: 'ocr',
      options: call,
      run: async (model, image) => textResult(await model.ocr(image, call))
    })
  })
}
