/** `paligemma fit`: a LoRA adapter from examples. */
import type { WithPaths } from '../../base/validate'
import { type Command, Option } from '../vendored'
import { checkOutput, makeFolder, writeOutput } from '../../base/output-file'
import { toPath } from '../../base/paths'
import { dirname, join, resolve } from 'node:path'
import type { FitOptions, FitResult, FitStep } from '../../train/options'
import type { LoadOptions } from '../../api/options/options'
import { addModelOption, chooseModel, filesOfModel } from '../model'
import { addDeviceOptions, collect, integer, number, pick } from '../args'
import { checkFlags, checkLoad } from '../checks'
import { type Context, counted, formatCount, printable, printJson, printLine, usageError } from '../context'
import { checkData, type Finding } from './fit-data'
import { addExamples, group } from '../help'
import { progress } from '../progress'
import type { FileExample } from '../../train/data-file'

const fitKeys = [
  ...['from', 'rank', 'alpha', 'rslora', 'targets', 'steps', 'epochs', 'batchSize', 'seed', 'learningRate'],
  ...['warmup', 'schedule', 'dropout', 'weightDecay', 'clip', 'evaluateEvery', 'checkpointEvery']
]
const loadKeys = ['vision', 'device', 'threads', 'contextSize', 'attentionWindow', 'fit', 'resize']

export function addFit(program: Command, context: Context): void {
  const command = program
    .command('fit')
    .summary('teach a model by examples (LoRA)')
    .description(
      'Trains a LoRA adapter over a model of any type. The data: JSON lines with image (or images), prefix and suffix.'
    )
  addExamples(
    command,
    'fit --model demo --data train.jsonl --out adapter/',
    'fit -m model.gguf --data train.jsonl --eval val.jsonl --epochs 8 --out adapter/ --resume',
    'fit -m model.gguf --data train.jsonl --out adapter/ --dry-run'
  )
  command
    .optionsGroup(group.task)
    .requiredOption('--data <file>', 'JSON lines of examples')
    .option('--eval <file>', 'held-out examples, in the same form')
    .option('--images <folder>', 'where relative pictures lie (default: beside the data)')
    .option('--from <adapter>', 'start from this PEFT folder')
    .option('--rank <n>', 'size of the adapter (default: 8)', integer)
    .option('--alpha <x>', 'it counts alpha / rank times (default: 2 * rank)', number)
    .option('--rslora', 'alpha / sqrt(rank) instead')
    .option('--target <name>', 'text, q_proj, ..., projector, vision, all; several times (default: text)', collect)
    .option('--epochs <n>', 'times that every example is taken (default: 4)', integer)
    .option('--steps <n>', 'optimizer steps instead of epochs', integer)
    .option('--batch-size <n>', 'examples of a step (default: 8)', integer)
    .option('--learning-rate <x>', 'the largest (default: 2e-4)', number)
    .option('--warmup <n>', 'steps in which it rises (default: 0)', integer)
    .addOption(
      new Option('--schedule <rule>', 'how it falls (default: cosine)').choices(['cosine', 'linear', 'constant'])
    )
    .option('--dropout <x>', "share of the adapter's inputs that counts as zero (default: 0)", number)
    .option('--weight-decay <x>', 'of AdamW (default: 0)', number)
    .option('--clip <x>', 'largest norm of a gradient, 0: any (default: 1)', number)
    .option('--seed <n>', 'of the order and the first values (default: 0)', integer)
    .option('--no-shuffle', 'the examples in the order of the file')
    .option('--evaluate-every <steps>', 'with --eval (default: an epoch)', integer)
    .optionsGroup(group.output)
    .requiredOption(
      '-o, --out <path>',
      'a folder as PEFT writes it, or a file that ends in .gguf; replaces the adapter that is there, at the end'
    )
    .option('--checkpoint <folder>', 'the state of the run (default: checkpoint in the folder of --out)')
    .option('--checkpoint-every <steps>', '(default: an epoch, at most 50)', integer)
    .option('--resume', 'go on from the checkpoint')
    .option('--dry-run', 'check all data, measure a step, train nothing')
    .option('--json', 'print one JSON object')
  addModelOption(command).option('--vision <file>', 'the separate vision GGUF ("mmproj")')
  addDeviceOptions(command)
    .addOption(new Option('--fit <rule>', 'how pictures become square (default: squash)').choices(['squash', 'pad']))
    .action(async (options: Record<string, unknown>) => {
      await runFit(options, context)
    })
}

async function runFit(options: Record<string, unknown>, context: Context): Promise<void> {
  const out = resolve(toPath(options['out'] as string))
  const isFile = /\.gguf$/i.test(out)
  const { signal } = context
  const settings: FitOptions = {
    ...pick({ ...options, targets: options['target'] }, fitKeys),
    ...(options['shuffle'] === false ? { shuffle: false } : {}),
    signal
  }
  checkFlags(settings, (await import('../../train/options.js')).fitRules)
  await checkLoad(pick(options, loadKeys))
  const folder = isFile ? dirname(out) : out
  const { readDataFile } = await import('../../train/data-file.js')
  const images = options['images'] as string | undefined
  const data = await readDataFile(resolve(toPath(options['data'] as string)), images && resolve(toPath(images)))
  const heldOut =
    options['eval'] === undefined
      ? undefined
      : await readDataFile(resolve(toPath(options['eval'] as string)), images && resolve(toPath(images)))
  const { loadModel } = await import('../../index.js')
  const load: WithPaths<LoadOptions> = {
    ...{ model: await chooseModel(options['model']), signal, maxSequences: 1 },
    ...pick(options, loadKeys)
  }
  if (isFile) await checkFile(out, options, load)
  const model = await loadModel(load)
  try {
    if (options['dryRun']) return await dryRun(model, [data, heldOut ?? []], settings, options, context)
    if (!isFile) await makeFolder(out, '--out')
    const checkpoint = (options['checkpoint'] as string | undefined) ?? join(folder, 'checkpoint')
    const result = await train(
      model,
      data,
      {
        ...settings,
        ...{ checkpoint: resolve(toPath(checkpoint)), resume: options['resume'] === true },
        ...(heldOut ? { evaluate: heldOut.map(withoutLine) } : {})
      },
      options,
      context
    )
    await result.adapter.save(out)
    await writeCurve(isFile ? out.replace(/\.gguf$/i, '') : join(out, 'training'), result, context)
    report(result, out, options, context)
  } finally {
    await model.dispose()
  }
}

async function checkFile(
  out: string,
  { data, eval: heldOut }: Record<string, unknown>,
  load: WithPaths<LoadOptions>
): Promise<void> {
  const read = [data, heldOut].filter((path) => typeof path === 'string')
  await checkOutput(out, { option: '--out', sources: [...read, ...(await filesOfModel(load))] })
}

type Model = Awaited<ReturnType<typeof import('../../index')['loadModel']>>

const withoutLine = ({ images, prompt, response }: FileExample) => ({ images, prompt, response })

async function train(
  model: Model,
  data: FileExample[],
  settings: FitOptions,
  options: Record<string, unknown>,
  context: Context
): Promise<FitResult> {
  const bar = progress(context, 'training')
  let last = ''
  try {
    return await model.fit(data.map(withoutLine), {
      ...settings,
      onStep: ({ step, steps, loss, tokens, ms }: FitStep) => {
        last = `loss ${loss.toFixed(4)}, ${Math.round((tokens / ms) * 1000)} tokens/s, step ${step} of ${steps}`
        bar.update(step / steps, last)
      },
      onEvaluate: ({ step, loss }) => {
        bar.done()
        if (!options['json']) printLine(context, `step ${step}: loss ${loss.toFixed(4)} on the held-out examples`)
      }
    })
  } catch (error) {
    if (context.signal.aborted && last !== '') {
      bar.done()
      context.stderr.write(`${last}: kept in ${printable(String(settings.checkpoint))}; --resume goes on from there\n`)
    }
    throw error
  } finally {
    bar.done()
  }
}

function report(
  { adapter, losses, evaluation }: FitResult,
  out: string,
  options: Record<string, unknown>,
  context: Context
): void {
  const { rank, alpha, rslora, parameters, modules } = adapter
  if (options['json'])
    return printJson(context, { out, rank, alpha, rslora, parameters, modules: modules.length, losses, evaluation })
  const lastEvaluation = evaluation.at(-1)
  const held = lastEvaluation ? `, ${lastEvaluation.loss.toFixed(4)} on the held-out examples` : ''
  printLine(
    context,
    `${printable(out)}: rank ${rank}, ${formatCount(parameters)} values in ${modules.length} matrices after ` +
      `${counted(losses.length, 'steps')}, loss ${losses.at(-1)!.toFixed(4)}${held}`
  )
}

/** The losses as a table and, where sharp is installed, as a picture. */
async function writeCurve(stem: string, { losses, evaluation }: FitResult, context: Context): Promise<void> {
  const held = new Map(evaluation.map(({ step, loss }) => [step, loss]))
  const rows = losses.map((loss, i) => `${i + 1},${loss},${held.get(i + 1) ?? ''}`)
  await writeOutput(`${stem}-loss.csv`, `step,loss,evaluation\n${rows.join('\n')}\n`, { option: '--out' })
  const { lossCurve } = await import('./loss-curve.js')
  try {
    await writeOutput(`${stem}-loss.png`, await lossCurve(losses, evaluation), { option: '--out' })
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_DEPENDENCY_MISSING') throw error
    context.stderr.write('no loss curve as a picture: sharp is not installed\n')
  }
}

async function dryRun(
  model: Model,
  [data, heldOut]: [FileExample[], FileExample[]],
  settings: FitOptions,
  options: Record<string, unknown>,
  context: Context
): Promise<void> {
  const bar = progress(context, 'checking')
  const findings: Finding[] = []
  let longest = { example: data[0]!, tokens: 0 }
  const files = [
    [options['data'] as string, data],
    [options['eval'] as string, heldOut]
  ] as const
  for (const [file, list] of files) {
    const checked = await checkData(model, file, list, context.signal, (done) => bar.update(done))
    findings.push(...checked.findings)
    if (file === options['data']) longest = checked.longest
  }
  bar.done()
  for (const { file, line, problem } of findings)
    printLine(context, `${printable(file)}:${line}: ${printable(problem)}`)
  if (findings.length > 0)
    throw usageError(`${findings.length} of ${data.length + heldOut.length} examples cannot be trained on as they are`)
  // what a step costs is measured, with the longest example
  let ms = 0
  const { adapter } = await model.fit([withoutLine(longest.example)], {
    ...settings,
    ...{ steps: 1, batchSize: 1, onStep: (step: FitStep) => (ms = step.ms) }
  })
  const { batchSize = 8, epochs = 4 } = settings
  const steps = settings.steps ?? epochs * Math.ceil(data.length / batchSize)
  const seconds = (ms / 1000) * Math.min(steps * batchSize, epochs * data.length)
  const plan = {
    examples: data.length,
    heldOut: heldOut.length,
    steps,
    batchSize,
    parameters: adapter.parameters,
    seconds
  }
  if (options['json']) return printJson(context, { ...plan, longestTokens: longest.tokens })
  printLine(
    context,
    `${data.length} examples (${heldOut.length} held out) of at most ${longest.tokens} tokens: ${steps} steps of ` +
      `${batchSize}, ${formatCount(adapter.parameters)} values trained, about ${Math.ceil(seconds / 60)} minutes`
  )
}
