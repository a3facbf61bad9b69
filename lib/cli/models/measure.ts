/** `paligemma imatrix` and `paligemma quality`: measuring a model on the user's own pictures. */
import { type Command, Option } from '../vendored'
import { checkOutput } from '../../base/output-file'
import { addDeviceOptions, collect, integer, pick } from '../args'
import { type Context, formatBytes, printable, printJson, printLine } from '../context'
import { addExamples, group } from '../help'
import { expandImages } from '../images'
import { chooseModel, filesOfModel } from '../model'
import { progress } from '../progress'

const shared = ['vision', 'device', 'threads', 'contextSize', 'attentionWindow', 'maxTokens'] as const

/** Options of both verbs. */
function addSampleOptions(command: Command): Command {
  command
    .optionsGroup(group.picture)
    .requiredOption('-i, --images <glob>', 'paths, folders, globs or URLs; may be given several times', collect)
    .optionsGroup(group.task)
    .option(
      '-p, --prompts <file>',
      'prompts, one a line, with an answer after a tab if you know it (default: caption en)'
    )
    .option('-n, --max-tokens <n>', 'tokens to generate for prompts without an answer (default: 32)', integer)
    .optionsGroup(group.model)
    .option('--vision <file>', 'the separate vision GGUF ("mmproj")')
  return addDeviceOptions(command)
    .optionsGroup(group.expert)
    .addOption(
      new Option('--attention-window <rule>', "Gemma 2's sliding layers (default: none)").choices([
        'none',
        'suffix',
        'causal'
      ])
    )
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object')
}

async function sampleOptions(options: Record<string, unknown>, context: Context) {
  const { readPrompts } = await import('../../measure/samples.js')
  const prompts = options['prompts'] === undefined ? {} : { prompts: await readPrompts(options['prompts'] as string) }
  return {
    ...pick(options, shared),
    ...prompts,
    images: await expandImages(options['images'] as string[]),
    signal: context.signal
  }
}

export function addImatrix(program: Command, context: Context): void {
  const command = program
    .command('imatrix')
    .summary('measure what matters, for better 2-4 bit types')
    .description(
      'Runs a model over pictures and prompts and writes an importance matrix for "convert --imatrix" and "quantize ' +
        '--imatrix".'
    )
    .optionsGroup(group.model)
    .option(
      '-m, --model <file>',
      'the model, best in BF16 or Q8_0 (default: PALIGEMMA_MODEL, else the only pulled one)'
    )
    .optionsGroup(group.output)
    .requiredOption('-o, --out <file>', 'the importance matrix to write (GGUF)')
  addExamples(
    command,
    "imatrix --model original.gguf --images 'photos/*.jpg' --out imatrix.gguf",
    'imatrix -m original.gguf -i photos/ --prompts prompts.txt -o imatrix.gguf'
  )
  addSampleOptions(command).action(async (options: Record<string, unknown>) => {
    const model = await chooseModel(options['model'])
    const sources = [...(await filesOfModel({ model, ...pick(options, ['vision']) })), options['prompts']]
    const read = sources.filter((path) => typeof path === 'string')
    await checkOutput(options['out'] as string, { option: '--out', sources: read })
    const { collectImportance } = await import('../../measure/importance.js')
    const bar = progress(context, 'observing')
    const result = await collectImportance({
      model,
      out: options['out'] as string,
      ...(await sampleOptions(options, context)),
      onProgress: (fraction) => {
        bar.update(fraction)
      }
    }).finally(() => {
      bar.done()
    })
    if (options['json']) return printJson(context, result)
    printLine(
      context,
      `${printable(result.path)}: ${result.matrices} matrices over ${result.tokens} tokens of ${result.samples} ` +
        `samples, ${formatBytes(result.bytes)}`
    )
  })
}

export function addQuality(program: Command, context: Context): void {
  const command = program
    .command('quality')
    .summary('how much a quantized model has lost')
    .description(
      'Compares a model with its original on pictures and prompts: perplexity, agreement of the best token, KL ' +
        'divergence.'
    )
    .optionsGroup(group.model)
    .option(
      '-m, --model <file>',
      'the model to judge; may be given several times (default: PALIGEMMA_MODEL, else the only pulled one)',
      collect
    )
    .requiredOption('--against <file>', 'the original, or its conversion to BF16 or Q8_0')
    .option('--against-vision <file>', 'its separate vision GGUF')
  addExamples(
    command,
    "quality --model q4.gguf --against original.gguf --images 'photos/*.jpg'",
    'quality -m q4.gguf -m q2.gguf --against original.gguf -i photos/ --json'
  )
  addSampleOptions(command).action(async (options: Record<string, unknown>) => {
    const { compareQuality } = await import('../../measure/quality.js')
    const models = (options['model'] as string[] | undefined) ?? [await chooseModel(undefined)]
    const samples = await sampleOptions(options, context)
    const results = []
    for (const [i, model] of models.entries()) {
      const bar = progress(context, 'comparing')
      const result = await compareQuality({
        model,
        against: options['against'] as string,
        ...pick(options, ['againstVision']),
        ...samples,
        onProgress: (fraction) => {
          bar.update((i + fraction) / models.length, model)
        }
      }).finally(() => {
        bar.done()
      })
      results.push({ model, ...result })
    }
    if (options['json']) return printJson(context, { against: options['against'], results })
    printLine(
      context,
      `against ${printable(options['against'] as string)}, ${results[0]!.tokens} tokens of ${results[0]!.samples} ` +
        `samples, its perplexity ${results[0]!.perplexity.against.toFixed(4)}`
    )
    printLine(
      context,
      ['perplexity', 'same best token', 'KL mean', 'median', '99 %', 'max', 'model']
        .map((title, i) => (i < 6 ? title.padStart(i === 1 ? 16 : 10) : ` ${title}`))
        .join('')
    )
    for (const { model, perplexity, topAgreement, kl } of results) {
      const cells = [
        perplexity.model.toFixed(4),
        `${(topAgreement * 100).toFixed(2)} %`,
        ...[kl.mean, kl.median, kl.p99, kl.max].map((value) => value.toPrecision(3))
      ]
      printLine(context, `${cells.map((cell, i) => cell.padStart(i === 1 ? 16 : 10)).join('')} ${printable(model)}`)
    }
  })
}
