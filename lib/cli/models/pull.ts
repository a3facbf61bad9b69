/** `paligemma pull` */
import type { Command } from '../vendored'
import type { RemovedList } from '../../hub/manage'
import type { PullPlan, PullResult } from '../../hub/pull-options'
import { flagOf } from '../checks'
import { addExamples, group } from '../help'
import { type Context, formatBytes, printable, printJson, printLine, usageError } from '../context'
import { progress, type Progress } from '../progress'

interface PullFlags {
  type?: string
  visionType?: string
  revision?: string
  subfolder?: string
  maskDecoder?: string
  keep?: boolean
  force?: boolean
  list?: boolean
  remove?: boolean
  json?: boolean
}

export function addPull(program: Command, context: Context): void {
  const command = program
    .command('pull')
    .summary('download a model from the Hugging Face hub and convert it')
    .description(
      'Downloads a PaliGemma from the Hugging Face hub, verifies and converts it, and keeps it in the cache. ' +
        'Everywhere a model is asked for, its name then is enough.'
    )
    .argument('[id]', 'google/paligemma2-3b-mix-224, optionally with @revision and :type, or the address of its page')
  addExamples(command, 'pull google/paligemma2-3b-mix-224 --type Q4_K_M', 'pull --list')
  command
    .optionsGroup(group.task)
    .option('-t, --type <type>', 'F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, ... (default: Q8_0); see docs/convert.md')
    .option('--vision-type <type>', 'type of the vision tower (default: Q8_0 in quantized files, else --type)')
    .option('--revision <name>', 'branch, tag or commit (default: main)')
    .option('--subfolder <path>', 'folder of the repository (default: its top, or the only one with a model)')
    .option('--mask-decoder <npz>', 'vae-oid.npz: put its decoder into the model, for segment')
    .option('--keep', 'keep the downloaded weights, for another type later')
    .option('--force', 'convert again though the model is in the cache')
    .option('--list', 'list the models in the cache instead, with their sizes')
    .option('--remove', 'remove <id> from the cache instead: all of it, or what @revision and :type tell')
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nEnvironment: HF_TOKEN (gated models), HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, PALIGEMMA_CACHE. See docs/pull.md.'
    )
    .action(async (id: string | undefined, flags: PullFlags) => await runPull(id, flags, context))
}

async function runPull(id: string | undefined, flags: PullFlags, context: Context): Promise<void> {
  const { json, list, remove, ...options } = flags
  refuseOthers(flags)
  if (list) {
    if (id !== undefined) throw usageError(`Expected no model with --list but received ${id}`)
    return await listModels(context, json)
  }
  if (id === undefined)
    throw usageError(
      'Expected a model such as google/paligemma2-3b-mix-224' +
        (remove ? ' to remove; "paligemma pull --list" shows what is there' : ', or --list')
    )
  if (remove) return await removeModels(id, context, json)
  const { pull } = await import('../../index.js')
  const bars = new Bars(context)
  const result = await pull(id, {
    ...options,
    signal: context.signal,
    onPlan: (plan) => sayPlan(plan, bars),
    onMessage: (message) => bars.say(message),
    onProgress: ({ stage, fraction, bytes, totalBytes }) => {
      if (stage === 'download')
        bars.update('downloading', fraction, `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`)
      else bars.update('converting', fraction)
    }
  }).finally(() => bars.done())
  if (json) return printJson(context, result)
  printPulled(result, bars, context)
}

/** Listing and removing take no options of pulling. */
function refuseOthers({ json: _, list, remove, ...options }: PullFlags): void {
  if (list || remove) {
    const others = Object.keys(options)
    if (list && remove) throw usageError('Expected one of --list and --remove but received both')
    if (others.length > 0)
      throw usageError(
        `Expected no option but --json with ${list ? '--list' : '--remove'} but received ` +
          others.map(flagOf).join(', ')
      )
  }
}

function sayPlan({ id, commit, type, converts, files }: PullPlan, bars: Bars): void {
  const all = files.reduce((sum, file) => sum + file.bytes, 0)
  const present = files.reduce((sum, file) => sum + file.present, 0)
  bars.say(
    `${id} at ${commit.slice(0, 10)}, ${files.length} ${files.length === 1 ? 'file' : 'files'}, ${formatBytes(all)}` +
      `${present > 0 ? ` (${formatBytes(present)} are here)` : ''}, ` +
      `${converts ? `to be converted to ${type}` : `ready as ${type}`}`
  )
  for (const file of files)
    bars.say(`  ${formatBytes(file.bytes).padStart(8)}  ${file.path}${file.present === file.bytes ? '  (here)' : ''}`)
}

function printPulled(result: PullResult, bars: Bars, context: Context): void {
  for (const note of result.notes) bars.say(`note: ${note}`)
  printLine(
    context,
    `${result.id}: ${result.type}, ${formatBytes(result.bytes)}${result.cached ? ', was in the cache' : ''}`
  )
  printLine(context, result.path)
  if (result.base) {
    printLine(context, `its base ${result.base.id}: ${result.base.type}, ${formatBytes(result.base.bytes)}`)
    printLine(context, result.base.path)
  }
}

async function listModels(context: Context, json: boolean | undefined): Promise<void> {
  const { listPulled } = await import('../../index.js')
  const found = await listPulled()
  if (json) return printJson(context, found)
  printItems(found, context)
  printLine(context, `${formatBytes(found.bytes).padStart(8)}  in ${found.dir}`)
}

async function removeModels(id: string, context: Context, json: boolean | undefined): Promise<void> {
  const { removePulled } = await import('../../index.js')
  const removed = await removePulled(id, {
    signal: context.signal,
    onMessage: (message) => context.stderr.write(`${printable(message)}\n`)
  })
  if (json) return printJson(context, removed)
  printItems(removed, context)
  printLine(context, `${formatBytes(removed.bytes).padStart(8)}  removed`)
}

function printItems({ models, downloads }: RemovedList, context: Context): void {
  for (const { name, bytes, pulledAt } of models)
    printLine(context, `${formatBytes(bytes).padStart(8)}  ${name}  (${pulledAt.slice(0, 10)})`)
  for (const { id, commit, bytes } of downloads)
    printLine(context, `${formatBytes(bytes).padStart(8)}  ${id}@${commit}  (downloaded weights)`)
}

/** One bar after the other, and lines between them. */
class Bars {
  private label = ''
  private bar: Progress | undefined

  constructor(private readonly context: Context) {}

  update(label: string, fraction: number, note?: string): void {
    if (label !== this.label) {
      this.done()
      this.label = label
      this.bar = progress(this.context, label)
    }
    this.bar?.update(fraction, note)
  }

  say(line: string): void {
    this.bar?.done()
    this.context.stderr.write(`${printable(line)}\n`)
  }

  done(): void {
    this.bar?.done()
  }
}
