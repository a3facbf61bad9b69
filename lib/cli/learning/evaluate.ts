/** `paligemma evaluate`: how well a model answers examples whose answers are known. */
import { type Command, Option } from '../vendored'
import { resolve } from 'node:path'
import { TextOutput } from '../../base/text-output'
import type { EvaluatedRow, EvaluateOptions, EvaluateResult } from '../../measure/evaluate'
import { adapter, addDeviceOptions, collect, integer, number, pick } from '../args'
import { type Context, printable, printJson, printLine, roundedJson } from '../context'
import { addExamples, group } from '../help'
import { addModelOption, chooseModel } from '../model'
import { progress } from '../progress'

const metrics = ['exact', 'vqa', 'cider', 'anls', 'detection', 'mask']
const keys = ['vision', 'maskDecoder', 'device', 'threads', 'contextSize', 'fit', 'limit', 'maxTokens', 'minScore']

export function addEvaluate(program: Command, context: Context): void {
  const command = program
    .command('evaluate')
    .summary('how well a model answers examples')
    .description('Lets a model answer the rows of a file of JSON lines, as "fit" takes them, and compares.')
  addExamples(
    command,
    'evaluate --model model.gguf --adapter adapter/ --data val.jsonl --metric vqa',
    'evaluate -m model.gguf --data val.jsonl --metric detection --predictions found.jsonl'
  )
  command
    .optionsGroup(group.task)
    .requiredOption('--data <file>', 'JSON lines of examples')
    .addOption(
      new Option('--metric <name>', 'detection and mask: the numbers of COCO').choices(metrics).makeOptionMandatory()
    )
    .option('--images <folder>', 'where relative pictures lie (default: beside the data)')
    .option('--limit <n>', 'only the first rows', integer)
    .option('-n, --max-tokens <n>', 'tokens of an answer (default: 256; 512 of objects)', integer)
    .option('--min-score <p>', 'detection, mask: leave out lower scores (default: 0)', number)
    .optionsGroup(group.output)
    .option('--predictions <file>', 'write what the model said, as JSON lines')
    .option('--json', 'print one JSON object')
  addModelOption(command)
    .option('--adapter <path>', 'LoRA adapter, PATH=SCALE for another scale than 1; several times', collect)
    .option('--vision <file>', 'the separate vision GGUF ("mmproj")')
    .option('--mask-decoder <file>', 'vae-oid.npz, where the model file has no mask decoder')
  addDeviceOptions(command)
    .addOption(new Option('--fit <rule>', 'how pictures become square (default: squash)').choices(['squash', 'pad']))
    .action(async (options: Record<string, unknown>) => {
      await runEvaluate(options, context)
    })
}

async function runEvaluate(options: Record<string, unknown>, context: Context): Promise<void> {
  const { evaluateModel } = await import('../../index.js')
  const model = await chooseModel(options['model'])
  const file = options['predictions'] as string | undefined
  const said = file === undefined ? undefined : await TextOutput.create(resolve(file), { option: '--predictions' })
  const bar = progress(context, 'evaluating')
  const lines: string[] = []
  try {
    const result = await evaluateModel({
      ...{ model, data: resolve(options['data'] as string), metric: options['metric'] as EvaluateOptions['metric'] },
      ...pick(options, keys),
      ...(options['images'] !== undefined && { images: resolve(options['images'] as string) }),
      ...(options['adapter'] !== undefined && { adapters: (options['adapter'] as string[]).map(adapter) }),
      onRow: (row: EvaluatedRow) => {
        if (said) lines.push(`${roundedJson(row)}\n`)
      },
      onProgress: (fraction) => bar.update(fraction),
      signal: context.signal
    })
    bar.done()
    await said?.write(lines.join(''))
    await said?.flush()
    await said?.file.commit()
    report(result, options, context)
  } catch (error) {
    await said?.file.discard()
    throw error
  } finally {
    bar.done()
  }
}

const names = {
  exact: 'exactly right',
  vqa: 'VQA accuracy',
  cider: 'CIDEr-D (0..10)',
  anls: 'ANLS',
  detection: 'box AP',
  mask: 'mask AP'
}

function report({ metric, rows, score, coco, labels = {} }: EvaluateResult, options: object, context: Context): void {
  if ((options as { json?: boolean }).json) return printJson(context, { metric, rows, score, coco, labels })
  const shown = (value: number | null): string => (value === null ? '-' : value.toFixed(4))
  printLine(context, `${names[metric]} ${shown(score)} (${rows} rows)`)
  if (!coco) return
  for (const [name, value] of Object.entries(coco)) printLine(context, `  ${name.padEnd(9)} ${shown(value)}`)
  for (const [label, value] of Object.entries(labels))
    printLine(context, `  AP of ${printable(label)}: ${shown(value)}`)
}
