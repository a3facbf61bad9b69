/** `paligemma convert` and `paligemma quantize` */
import { type Command, Option } from '../vendored'
import type { ConvertResult } from '../../convert'
import { adapter, collect } from '../args'
import { addExamples, group } from '../help'
import { type Context, formatBytes, formatCount, printable, printJson, printLine } from '../context'
import { progress } from '../progress'

interface ConvertFlags {
  out: string
  type?: string
  visionType?: string
  maskDecoder?: string
  tokenizer?: string
  imatrix?: string
  adapter?: string[]
  projector: 'auto' | 'keep' | 'unfold'
  json?: boolean
}

const typeHelp = 'F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, ...; see docs/convert.md'
const visionHelp = 'type of the vision tower (default: Q8_0 in quantized files, else --type)'
const imatrixHelp = 'what "paligemma imatrix" wrote: smaller errors of 2-4 bit types'

export function addConvert(program: Command, context: Context): void {
  const command = program
    .command('convert')
    .summary('a checkpoint to one GGUF')
    .description(
      'Converts a PaliGemma checkpoint to one GGUF with text, vision, tokenizer and, if given, the mask decoder.'
    )
    .argument(
      '<source...>',
      'a Hugging Face directory (safetensors), an original .npz file, or a text GGUF and its vision GGUF'
    )
  addExamples(
    command,
    'convert ./paligemma2-3b-mix-224 --type Q4_K_M --mask-decoder vae-oid.npz --out model.gguf',
    'convert ./paligemma2-3b-pt-224 --adapter ./my-lora --type Q8_0 -o mine.gguf'
  )
  command
    .optionsGroup(group.output)
    .requiredOption('-o, --out <file>', 'the GGUF to write')
    .option('-t, --type <type>', `${typeHelp} (default: Q8_0; GGUFs stay as they are)`)
    .option('--vision-type <type>', visionHelp)
    .optionsGroup(group.task)
    .option('--mask-decoder <npz>', 'vae-oid.npz: put its decoder into the file, for segment')
    .option(
      '--tokenizer <path>',
      'for .npz: tokenizer.model, or a directory or GGUF that holds one (default: the one beside it)'
    )
    .option('--imatrix <file>', imatrixHelp)
    .addOption(
      new Option('--projector <rule>', 'for GGUFs with 1/sqrt(hidden) folded into the projector')
        .choices(['auto', 'keep', 'unfold'])
        .default('auto')
    )
    .option(
      '--adapter <dir>',
      'PEFT LoRA directory or pulled adapter to merge, DIR=SCALE for another scale than 1; may be given several times',
      collect
    )
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object')
    .action(async (source: string[], flags: ConvertFlags) => {
      const { convertModel } = await import('../../hub/convert-model.js')
      const { projector, json, adapter: adapters, ...options } = flags
      await report(
        context,
        'converting',
        json,
        async (onProgress) =>
          await convertModel({
            ...options,
            source,
            adapters: adapters?.map(adapter),
            signal: context.signal,
            onProgress,
            unfoldProjector: projector === 'auto' ? undefined : projector === 'unfold'
          })
      )
    })
}

export function addQuantize(program: Command, context: Context): void {
  const command = program
    .command('quantize')
    .summary('a GGUF in another type')
    .description('Stores the matrices of a GGUF in another type; everything else stays as it is.')
    .argument('<in>', 'any GGUF, the name of a pulled model, or "demo"')
    .argument('<out>', 'the GGUF to write')
  addExamples(
    command,
    'quantize original.gguf small.gguf --type Q4_K_M',
    'quantize original.gguf tiny.gguf -t Q2_K --imatrix imatrix.gguf'
  )
  command
    .optionsGroup(group.output)
    .requiredOption('-t, --type <type>', typeHelp)
    .option('--vision-type <type>', visionHelp)
    .option('--imatrix <file>', imatrixHelp)
    .option('--json', 'print one JSON object')
    .action(
      async (
        source: string,
        out: string,
        { json, ...options }: { type: string; visionType?: string; imatrix?: string; json?: boolean }
      ) => {
        const { quantize } = await import('../../convert/quantize.js')
        const { resolveModel } = await import('../../hub/resolve.js')
        const { path } = await resolveModel(source)
        await report(
          context,
          'quantizing',
          json,
          async (onProgress) => await quantize({ ...options, source: path, out, signal: context.signal, onProgress })
        )
      }
    )
}

async function report(
  context: Context,
  label: string,
  json: boolean | undefined,
  run: (onProgress: (fraction: number) => void) => Promise<ConvertResult>
): Promise<void> {
  const bar = progress(context, label)
  const result = await run((fraction) => {
    bar.update(fraction)
  }).finally(() => {
    bar.done()
  })
  if (json) return printJson(context, result)
  for (const note of result.notes) context.stderr.write(`note: ${printable(note)}\n`)
  printLine(
    context,
    `${printable(result.path)}: ${result.type}, ${result.tensors} tensors, ${formatCount(result.parameters)} ` +
      `parameters, ${formatBytes(result.bytes)}`
  )
}
