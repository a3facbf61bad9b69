/** `paligemma pull` */
import type { Command } from 'commander'
import { type Context, formatBytes, printable, printJson, printLine } from './context'
import { progress, type Progress } from './progress'

interface PullFlags { type?: string, visionType?: string, revision?: string, maskDecoder?: string, keep?: boolean, force?: boolean, json?: boolean }

export function addPull (program: Command, context: Context): void {
  program.command('pull')
    .summary('download a model from the Hugging Face hub and convert it')
    .description('Downloads a PaliGemma from the Hugging Face hub, verifies and converts it, and keeps it in the cache. Everywhere a model is asked for, its name then is enough.')
    .argument('<id>', 'google/paligemma2-3b-mix-224, optionally with @revision and :type')
    .option('-t, --type <type>', 'F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, ... (default: Q8_0); see docs/convert.md')
    .option('--vision-type <type>', 'type of the vision tower (default: Q8_0 in quantized files, else --type)')
    .option('--revision <name>', 'branch, tag or commit (default: main)')
    .option('--mask-decoder <npz>', 'vae-oid.npz: put its decoder into the model, for segment')
    .option('--keep', 'keep the downloaded weights, for another type later')
    .option('--force', 'convert again though the model is in the cache')
    .option('--json', 'print one JSON object')
    .addHelpText('after', '\nEnvironment: HF_TOKEN (gated models), HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, PALIGEMMA_CACHE. See docs/pull.md.')
    .action(async (id: string, { json, ...options }: PullFlags) => {
      const { pull } = await import('../index.js')
      const bars = new Bars(context)
      const result = await pull(id, {
        ...options,
        signal: context.signal,
        onPlan: ({ id, commit, type, converts, files }) => {
          const all = files.reduce((sum, file) => sum + file.bytes, 0)
          const present = files.reduce((sum, file) => sum + file.present, 0)
          bars.say(`${id} at ${commit.slice(0, 10)}, ${files.length} files, ${formatBytes(all)}` +
            `${present > 0 ? ` (${formatBytes(present)} are here)` : ''}, ${converts ? `to be converted to ${type}` : `ready as ${type}`}`)
          for (const file of files) bars.say(`  ${formatBytes(file.bytes).padStart(8)}  ${file.path}${file.present === file.bytes ? '  (here)' : ''}`)
        },
        onMessage: (message) => bars.say(message),
        onProgress: ({ stage, fraction, bytes, totalBytes }) => {
          if (stage === 'download') bars.update('downloading', fraction, `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`)
          else bars.update('converting', fraction)
        }
      }).finally(() => bars.done())
      if (json) return printJson(context, result)
      for (const note of result.notes) bars.say(`note: ${note}`)
      printLine(context, `${result.id}: ${result.type}, ${formatBytes(result.bytes)}${result.cached ? ', was in the cache' : ''}`)
      printLine(context, result.path)
    })
}

/** One bar after the other, and lines between them. */
class Bars {
  private label = ''
  private bar: Progress | undefined

  constructor (private readonly context: Context) {}

  update (label: string, fraction: number, note?: string): void {
    if (label !== this.label) {
      this.done()
      this.label = label
      this.bar = progress(this.context, label)
    }
    this.bar?.update(fraction, note)
  }

  say (line: string): void {
    this.bar?.done()
    this.context.stderr.write(`${printable(line)}\n`)
  }

  done (): void {
    this.bar?.done()
  }
}
