/** `paligemma batch`: any number of pictures, through every interruption. */
import { type Command, Option } from '../vendored'
import { addLoadOptions, addSamplingOptions, collect, integer, number, tiles } from '../args'
import type { Context } from '../context'
import { addExamples, group } from '../help'
import { type BatchFlags, formatOf, formats, tasks } from './flags'
import { runBatchVerb } from './run'

export function addBatch(program: Command, context: Context, onFailure: (code: number) => void): void {
  const command = program
    .command('batch')
    .summary('any number of pictures, through every interruption')
    .description(
      'Runs one task over many pictures. Run again after any end, it goes on where it was: no picture is lost or ' +
        'done twice. A picture that fails is a row with its error, and exit code 3.'
    )
  addExamples(
    command,
    'batch photos/ --task detect --label cow --out cows.jsonl',
    "batch 'shards/*.tar' rows.jsonl --task answer -q 'what is this?' --out answers.csv --format csv",
    'batch photos/ --task detect --label cow --out cows.jsonl --retry-failed'
  )
  command
    .optionsGroup(group.picture)
    .argument(
      '[src...]',
      'paths, folders (without those inside), globs, URLs, .tar shards, .jsonl rows ({ "image": ..., options })'
    )
    .option('--files-from <file>', 'a list of the same, one a line or separated by NUL; "-" is standard input', collect)
  addTaskFlags(command)
  command
    .optionsGroup(group.output)
    .requiredOption('--out <file>', 'where results go; with yolo a folder')
    .addOption(
      new Option(
        '--format <format>',
        'csv, coco and yolo are written at the end (default: csv where --out ends in it, else jsonl)'
      ).choices(formats)
    )
    .option('--retry-failed', 'try the pictures again that failed before')
    .option('--overwrite', 'begin anew, whatever is there')
    .option('--ordered', 'rows in the order of the pictures (default: as they are done)')
    .optionsGroup(group.model)
    .option('--concurrency <n>', 'pictures decoded together (default: up to 8, as memory allows)', integer)
  addSamplingOptions(command)
  addLoadOptions(command)
  command.action(async (args: string[], options: BatchFlags) => {
    const { failed } = await runBatchVerb(args, { ...options, format: formatOf(options) }, context)
    if (failed > 0) onFailure(3)
  })
}

function addTaskFlags(command: Command): void {
  command
    .optionsGroup(group.task)
    .addOption(
      new Option('--task <task>', 'what is done with each picture').choices(Object.keys(tasks)).makeOptionMandatory()
    )
    .option('-l, --label <name>', 'detect, segment: what to look for; several times, or separated by ";"', collect)
    .option('--min-score <p>', 'detect, segment: leave out lower scores (default: 0.5 / number of names)', number)
    .option('--max-objects <n>', 'detect, segment: stop after so many objects', integer)
    .option('--nms <iou>', 'detect, segment: of boxes that overlap more, keep the best', number)
    .option('--tiles <grid>', 'detect, segment, ocr: look at tiles of large pictures too, as there', tiles)
    .option('-q, --question <text>', 'answer: the question')
    .option('-c, --choice <text>', 'answer: it is one of these; may be given several times', collect)
    .option('-p, --prompt <text>', 'generate: the prompt')
    .addOption(new Option('--style <style>', 'caption: how long').choices(['short', 'coco', 'long']))
    .option('--lang <code>', 'caption, answer: language (default: en)')
}
