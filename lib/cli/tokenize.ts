/** `paligemma tokenize` */
import type { Command } from 'commander'
import { type Context, printJson, printLine, usageError } from './context'

export function addTokenize(program: Command, context: Context): void {
  program
    .command('tokenize')
    .summary('the tokens of a text')
    .description('Prints the tokens of a text, one a line: id and characters. Nothing is added around the text.')
    .requiredOption('-m, --model <file>', 'any GGUF with a tokenizer')
    .argument('[text]', 'the text; default: standard input')
    .option('--json', 'print one JSON object: text, ids, tokens')
    .action(async (text: string | undefined, options: { model: string; json?: boolean }) => {
      const { loadTokenizer } = await import('../index.js')
      const tokenizer = await loadTokenizer(options.model)
      const input = text ?? (await readInput())
      const ids = [...tokenizer.encode(input)]
      const tokens = ids.map((id) => tokenizer.decode([id]))
      if (options.json) return printJson(context, { text: input, ids, tokens })
      for (const [i, id] of ids.entries()) printLine(context, `${String(id).padStart(7)}  ${JSON.stringify(tokens[i])}`)
    })
}

async function readInput(): Promise<string> {
  if (process.stdin.isTTY) throw usageError('Expected a text to tokenize, as an argument or on standard input')
  const parts: Buffer[] = []
  for await (const part of process.stdin) parts.push(part as Buffer)
  return Buffer.concat(parts).toString('utf8')
}
