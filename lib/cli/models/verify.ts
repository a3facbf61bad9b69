/** `paligemma verify`: whether this installation and a model do what they should. */
import type { Command } from '../vendored'
import type { VerifyOptions, VerifyResult } from '../../measure/verify'
import { integer } from '../args'
import { type Context, printable, printJson, printLine } from '../context'
import { addExamples, group } from '../help'
import { progress } from '../progress'

export function addVerify(program: Command, context: Context, onFailure: () => void): void {
  const command = program
    .command('verify')
    .summary('self-test: engine, processor, and a model')
    .description(
      'Checks every instruction set of this machine against the plain kernels, the demo model on each, and of the ' +
        'model its checksum, weights, memory and answers. The exit code is 1 where a check fails.'
    )
    .argument('[model]', 'a GGUF, the name of a pulled one, or "demo"', 'demo')
  addExamples(command, 'verify', 'verify model.gguf --json')
  command
    .optionsGroup(group.model)
    .option('--vision <file>', 'the separate vision GGUF ("mmproj")')
    .option('--threads <n>', 'compute threads (default: physical cores)', integer)
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object')
    .action(async (model: string, { json, ...given }: { json?: boolean; vision?: string; threads?: number }) => {
      const { verifyModel } = await import('../../measure/verify.js')
      const bar = progress(context, 'verifying')
      const options: VerifyOptions = { model, ...given, signal: context.signal }
      const result = await verifyModel({
        ...options,
        onProgress: (fraction, what) => bar.update(fraction, what)
      }).finally(() => bar.done())
      if (json) printJson(context, result)
      else printResult(result, context)
      if (!result.ok) onFailure()
    })
}

function printResult(result: VerifyResult, context: Context): void {
  printLine(
    context,
    `node-paligemma ${result.package}, Node ${result.node}, ${result.platform}, ${result.isa} of ` +
      `${result.supported.join(', ')}, ${result.threads} threads`
  )
  printLine(context, `engine: ${printable(result.engine)}`)
  printLine(context, `model: ${printable(result.model)}\n`)
  const width = Math.max(...result.checks.map(({ name }) => name.length))
  for (const { name, outcome, detail, ms } of result.checks) {
    const time = `${Math.round(ms)} ms`.padStart(8)
    printLine(context, `${outcome.padEnd(7)} ${name.padEnd(width)} ${time}  ${printable(detail)}`)
  }
  printLine(context, `\n${conclusion(result)}`)
}

/** What was not checked may be what is wrong. */
function conclusion({ ok, checks }: VerifyResult): string {
  if (!ok) return 'Something is wrong: see what failed above.'
  const skipped = checks.flatMap(({ name, outcome }) => (outcome === 'skipped' ? [name] : []))
  return skipped.length === 0 ? 'All is well.' : `No check failed; skipped: ${skipped.join(', ')}.`
}
