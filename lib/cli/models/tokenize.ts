/** `paligemma tokenize` */
import type { Command } from '../vendored'
import { type Context, printJson, printLine } from '../context'
import { addExamples, group } from '../help'
import { readInput } from '../images'
import { addModelOption, chooseModel } from '../model'

export function addTokenize(program: Command, context: Context): void {
  const command = program
    .command('tokenize')
    .summary('the tokens of a text')
    .description('Prints the tokens of a text, one a line: id and characters. Nothing is added around the text.')
    .argument('[text]', 'the text (default: standard input)')
  addExamples(command, "tokenize --model demo 'detect cow'", 'tokenize --json < prompt.txt')
  addModelOption(command)
    .optionsGroup(group.output)
    .option('--json', 'print one JSON object: text, ids, tokens')
    .action(async (text: string | undefined, options: { model?: string; json?: boolean }) => {
      const { loadTokenizer } = await import('../../index.js')
      const tokenizer = await loadTokenizer(await chooseModel(options.model))
      const input = text ?? (await readInput(context, 'a text to tokenize')).toString('utf8')
      const ids = [...tokenizer.encode(input)]
      const tokens = ids.map((id) => tokenizer.decode([id]))
      if (options.json) return printJson(context, { text: input, ids, tokens })
      for (const [i, id] of ids.entries()) printLine(context, `${String(id).padStart(7)}  ${JSON.stringify(tokens[i])}`)
    })
}
