/** `paligemma inspect` */
import type { Command } from '../vendored'
import { estimateOf, type MemoryEstimate } from '../../measure/estimate'
import type { MetadataValue, ModelInfo } from '../../api/inspect'
import { addExamples, group } from '../help'
import { type Context, formatBytes, formatCount, printable, printJson, printLine } from '../context'

export function addInspect(program: Command, context: Context): void {
  const command = program
    .command('inspect')
    .summary('metadata and tensors of a GGUF')
    .description(
      'Prints the metadata, tensors and sizes of a GGUF, and the memory that it will take. Weights are not read.'
    )
    .argument('<file>', 'any GGUF, the name of a pulled model, or "demo"')
  addExamples(command, 'inspect demo', 'inspect model.gguf --json --full')
  command
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object; long arrays are cut to 16 values, see --full')
    .option('--full', 'with --json: whole arrays')
    .action(async (file: string, options: { json?: boolean; full?: boolean }) => {
      const { inspectModel } = await import('../../index.js')
      const info = await inspectModel(file, options.full ? {} : { maxArray: 16 })
      const memory = memoryOf(info)
      if (options.json) return printJson(context, { ...info, ...(memory && { memory }) })
      printInfo(info, context)
      if (memory) printMemory(memory, context)
    })
}

/** Of models; other GGUFs (adapters, mask decoders, vision files) take none of their own. */
function memoryOf(info: ModelInfo): MemoryEstimate | undefined {
  try {
    return estimateOf(info)
  } catch {
    return undefined
  }
}

function printMemory({ total, weights, kv, most }: MemoryEstimate, context: Context): void {
  printLine(
    context,
    `memory: about ${formatBytes(total)} with 4 usual requests at a time (weights ${formatBytes(weights)}, ` +
      `attention cache ${formatBytes(kv.perSequence)} each); ${formatBytes(most)} with 4 that fill the context`
  )
}

function printInfo(info: ModelInfo, context: Context): void {
  const { path, version, bytes, architecture, parameters, quantization, metadata, tensors } = info
  printLine(
    context,
    `${printable(path)}: GGUF version ${version}, ${formatBytes(bytes)}, ${architecture || 'no architecture'}, ` +
      `${formatCount(parameters)} parameters, mostly ${quantization || 'nothing'}`
  )
  printLine(context, `\n${metadata.length} metadata keys`)
  for (const { key, type, value, count } of metadata) {
    printLine(
      context,
      `  ${printable(key)} (${type}${count === undefined ? '' : `, ${count} values`}) = ` +
        `${printable(describeValue(value, count))}`
    )
  }
  printLine(context, `\n${tensors.length} tensors`)
  for (const tensor of tensors) {
    printLine(
      context,
      `  ${printable(tensor.name).padEnd(36)} ${tensor.type.padEnd(7)} [${tensor.shape.join(', ')}]  ` +
        `${formatBytes(tensor.bytes)}`
    )
  }
  const byType = new Map<string, number>()
  for (const tensor of tensors) byType.set(tensor.type, (byType.get(tensor.type) ?? 0) + tensor.bytes)
  printLine(
    context,
    `\nbytes by type: ${[...byType]
      .sort((a, b) => b[1] - a[1])
      .map(([type, sum]) => `${type} ${formatBytes(sum)}`)
      .join(', ')}`
  )
}

function describeValue(value: MetadataValue, count?: number): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 100 ? `${value.slice(0, 97)}...` : value)
  if (!Array.isArray(value)) return String(value)
  const shown = value
    .slice(0, 6)
    .map((item) => describeValue(item))
    .join(', ')
  return `${shown}${(count ?? value.length) > 6 ? ', ...' : ''}`
}
