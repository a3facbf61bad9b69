/** `paligemma dataset`: data sets of other tools to JSON lines, and back. */
import { type Command, Option } from '../vendored'
import { resolve } from 'node:path'
import type { DatasetOptions } from '../../datasets/convert-dataset'
import { collect, integer, number, pick } from '../args'
import { type Context, counted, printable, printJson, printLine } from '../context'
import { addExamples, group } from '../help'
import { progress } from '../progress'

const forms = ['jsonl', 'csv', 'coco', 'yolo', 'vqa']
const keys = ['from', 'to', 'task', 'per', 'truth', 'prefix', 'suffix', 'imageName', 'subset', 'split', 'seed']
const paths = ['images', 'maskEncoder', 'annotations', 'heldOut']

export function addDataset(program: Command, context: Context): void {
  const command = program
    .command('dataset')
    .summary('convert data sets: COCO, YOLO, CSV, VQA and JSON lines')
    .description(
      'Converts data sets between the JSON lines of "fit" and "evaluate", COCO, the YOLO family, CSV and VQA. Rows ' +
        'that are wrong are named with file and line.'
    )
    .argument('<source>', 'a .jsonl, .csv, COCO or VQA .json, data.yaml, or a folder of YOLO')
  addExamples(
    command,
    'dataset instances_train.json --images train/ --out train.jsonl --split 0.1',
    'dataset yolo/data.yaml --per label --out train.jsonl',
    'dataset questions.csv --prefix "answer en {question}" --out train.jsonl',
    'dataset train.jsonl --out train.json'
  )
  command
    .optionsGroup(group.task)
    .addOption(new Option('--from <form>', 'what the source is (default: as it looks)').choices(forms))
    .addOption(new Option('--task <task>', 'COCO, YOLO (default: detect)').choices(['detect', 'segment']))
    .addOption(
      new Option('--per <what>', 'COCO, YOLO: a row for each (default: picture)').choices(['picture', 'label'])
    )
    .option('-l, --label <name>', 'COCO, YOLO: only these; several times (default: all)', collect)
    .option('--mask-encoder <file>', 'segment: vae-oid.npz, or a model that was converted with it')
    .option('--truth', 'COCO: keep exact boxes, groups and masks too, for "evaluate"')
    .option('--images <folder>', 'where relative pictures lie (default: as the form has it)')
    .addOption(
      new Option('--subset <name>', 'YOLO: which part of data.yaml (default: train)').choices(['train', 'val', 'test'])
    )
    .option('--prefix <text>', 'CSV, VQA: the prompt, with {columns}')
    .option('--suffix <text>', 'CSV: the answer, with {columns}')
    .option('--image-name <text>', 'CSV, VQA: the picture, such as "COCO_val2014_{image_id:12}.jpg"')
    .option('--annotations <file>', 'VQA: the answers, where they are not beside the questions')
    .option('--skip-bad', 'leave out rows that are wrong (default: write nothing)')
    .optionsGroup(group.output)
    .requiredOption('-o, --out <path>', '.jsonl, .csv or .json (COCO); YOLO: a folder')
    .addOption(new Option('--to <form>', '(default: by the ending of --out)').choices(forms))
    .option('--split <share>', 'hold out this share of the pictures', number)
    .option('--held-out <path>', 'where they go (default: "val" for "train" in the name of --out)')
    .option('--seed <n>', 'of the split (default: 0)', integer)
    .option('--json', 'print one JSON object')
    .action(async (source: string, options: Record<string, unknown>) => {
      await runDataset(source, options, context)
    })
}

const mostShown = 20

async function runDataset(source: string, options: Record<string, unknown>, context: Context): Promise<void> {
  const { convertDataset } = await import('../../datasets/convert-dataset.js')
  const bar = progress(context, 'reading')
  let bad = 0
  const given = Object.entries(pick(options, paths)).map(([name, path]) => [name, resolve(path as string)])
  try {
    const result = await convertDataset({
      ...{ source: resolve(source), out: resolve(options['out'] as string), signal: context.signal },
      ...(pick(options, keys) as Partial<DatasetOptions>),
      ...Object.fromEntries(given),
      ...(options['label'] !== undefined && { labels: options['label'] as string[] }),
      badRows: options['skipBad'] ? 'skip' : 'fail',
      onBadRow: ({ where, problem }) => {
        if (++bad > mostShown) return
        bar.done()
        context.stderr.write(`${printable(where)}: ${printable(problem)}\n`)
      },
      onRows: (rows) => bar.update(undefined, `${rows} rows`)
    })
    bar.done()
    if (options['json']) return printJson(context, result)
    for (const part of [result, ...(result.heldOut ? [result.heldOut] : [])])
      printLine(
        context,
        `${printable(part.out)}: ${counted(part.rows, 'rows')} about ${counted(part.pictures, 'pictures')}`
      )
    if (result.bad > 0) printLine(context, `left out: ${counted(result.bad, 'rows')}`)
  } finally {
    bar.done()
    if (bad > mostShown) context.stderr.write(`... and ${bad - mostShown} more\n`)
  }
}
