/** `paligemma answer` */
import type { Command } from '../vendored'
import { collect, pick, samplingOptions } from '../args'
import type { Context } from '../context'
import { addExamples, group } from '../help'
import { addTaskOptions, runTask, textResult } from './task'

export function addAnswer(program: Command, context: Context, onFailure: () => void): void {
  const command = program
    .command('answer')
    .summary('the answer to a question about each image')
    .description('Answers a question about images.')
  addExamples(
    command,
    "answer --model demo --question 'what is left of the ring?' node_modules/node-paligemma/demo/shapes.png",
    "answer -q 'is there a cow?' --choice yes --choice no photos/"
  )
  addTaskOptions(command)
    .optionsGroup(group.task)
    .requiredOption('-q, --question <text>', 'such as "where is the cow?"')
    .option('-c, --choice <text>', 'the answer is one of these; may be given several times', collect)
    .option('--lang <code>', 'language of the answer (default: en)')
    .action(async (images: string[], options: Record<string, unknown>) => {
      const choices = options['choice'] as string[] | undefined
      const call = {
        ...pick(options, ['lang']),
        ...(choices && { choices }),
        ...samplingOptions(options, context.signal)
      }
      await runTask(images, options, context, onFailure, {
        name: 'answer',
        options: { ...call, question: options['question'] },
        run: async (model, image) => textResult(await model.answer(image, options['question'] as string, call))
      })
    })
}
