/** `paligemma score`: how probable a text is. */
import type { Command } from '../vendored'
import { addLoadOptions, collect, loadOptions } from '../args'
import { addExamples, group } from '../help'
import { checkCall } from '../checks'
import { Pictures } from '../images'
import { type Context, printable, printJson, printLine } from '../context'

export function addScore(program: Command, context: Context): void {
  const command = program
    .command('score')
    .summary('the log-probability of a given output')
    .description('Computes the log-probability (natural log) of a suffix, token by token, with the end token last.')
  addExamples(
    command,
    'score --model demo node_modules/node-paligemma/demo/shapes.png --prompt ocr --suffix 359',
    "score cow.jpg -p 'answer en is there a cow?' -s yes --json"
  )
  addLoadOptions(command)
    .optionsGroup(group.picture)
    .argument('[images...]', 'paths, URLs or "-" for standard input; several are shown in order')
    .option('-i, --image <image>', 'the same as an argument; may be given several times', collect)
    .optionsGroup(group.task)
    .requiredOption('-p, --prompt <text>', 'the prompt')
    .requiredOption('-s, --suffix <text>', 'the output to score')
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object')
    .action(async (images: string[], options: Record<string, unknown>) => {
      await score(images, options, context)
    })
}

async function score(args: string[], options: Record<string, unknown>, context: Context): Promise<void> {
  const call = { prompt: options['prompt'] as string, suffix: options['suffix'] as string, signal: context.signal }
  await checkCall('score', call)
  const { loadModel } = await import('../../index.js')
  const load = await loadOptions(options, context.signal)
  const pictures = new Pictures(context)
  const images: (string | Buffer)[] = []
  for (const name of [...args, ...((options['image'] as string[] | undefined) ?? [])])
    images.push(await pictures.open(name))
  const model = await loadModel(load)
  try {
    const result = await model.score({ ...call, ...(images.length > 0 ? { images } : {}) })
    if (options['json']) return printJson(context, result)
    for (const [i, token] of result.tokens.entries()) {
      printLine(
        context,
        `${(result.logProbs[i] ?? NaN).toFixed(4).padStart(10)}  ${printable(JSON.stringify(token.text))}`
      )
    }
    printLine(context, `${result.total.toFixed(4).padStart(10)}  total, ${result.mean.toFixed(4)} per token`)
  } finally {
    await model.dispose()
  }
}
