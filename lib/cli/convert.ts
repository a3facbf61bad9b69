/** `paligemma convert` */
import type { Command } from 'commander'
import { type Context, formatBytes, formatCount, printJson, printLine } from './context'
import { progress } from './progress'

export function addConvert (program: Command, context: Context): void {
  program.command('convert')
    .summary('a Hugging Face model directory to one GGUF')
    .description('Converts a PaliGemma checkpoint (safetensors, sharded or not) to one GGUF with text, vision, tokenizer and, if given, the mask decoder.')
    .argument('<source>', 'the directory with config.json, tokenizer.model and *.safetensors')
    .requiredOption('-o, --out <file>', 'the GGUF to write')
    .option('-t, --type <type>', 'F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, ... (default: Q8_0); see docs/convert.md')
    .option('--vision-type <type>', 'type of the vision tower (default: Q8_0 in quantized files, else --type)')
    .option('--mask-decoder <npz>', 'vae-oid.npz: put its decoder into the file, for segment')
    .option('--json', 'print one JSON object')
    .action(async (source: string, options: { out: string, type?: string, visionType?: string, maskDecoder?: string, json?: boolean }) => {
      const { convert } = await import('../convert/index.js')
      const bar = progress(context, 'converting')
      const result = await convert({
        source,
        out: options.out,
        type: options.type,
        visionType: options.visionType,
        maskDecoder: options.maskDecoder,
        signal: context.signal,
        onProgress: (fraction) => bar.update(fraction)
      }).finally(() => bar.done())
      if (options.json) return printJson(context, result)
      for (const note of result.notes) context.stderr.write(`note: ${note}\n`)
      printLine(context, `${result.path}: ${result.type}, ${result.tensors} tensors, ${formatCount(result.parameters)} parameters, ${formatBytes(result.bytes)}`)
    })
}
