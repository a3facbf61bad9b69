/** `paligemma caption` */
import { type Command, Option } from '../vendored'
import { pick, samplingOptions } from '../args'
import type { Context } from '../context'
import { addExamples, group } from '../help'
import { addTaskOptions, runTask, textResult } from './task'

export function addCaption(program: Command, context: Context, onFailure: () => void): void {
  const command = program.command('caption').summary('a sentence about each image').description('Describes images.')
  addExamples(command, 'caption --model demo cow.jpg', "caption --style long --lang de 'photos/*.jpg' --json")
  addTaskOptions(command)
    .optionsGroup(group.task)
    .addOption(
      new Option(
        '--style <style>',
        'short: like an alt text, coco: one sentence, long: several (default: coco)'
      ).choices(['short', 'coco', 'long'])
    )
    .option('--lang <code>', 'language (default: en)')
    .action(async (images: string[], options: Record<string, unknown>) => {
      const call = { ...pick(options, ['style', 'lang']), ...samplingOptions(options, context.signal) }
      await runTask(images, options, context, onFailure, {
        name: 'caption',
        options: call,
        run: async (model, image) => textResult(await model.caption(image, call))
      })
    })
}
