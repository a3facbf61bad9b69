/** How the help pages look: options in groups of a fixed order, examples, and mistakes in one line. */
import { type Command, Help, Option } from './vendored'
import { type Context, oneLine } from './context'

/** Headings of options, in the order in which they appear. */
export const group = {
  task: 'Task:',
  picture: 'Picture:',
  output: 'Output:',
  sampling: 'Sampling:',
  model: 'Model:',
  server: 'Server:',
  limits: 'Keys and limits:',
  expert: 'Expert:',
  help: 'Help:'
} as const

/** Headings of verbs. */
export const verbs = {
  look: 'Looking at pictures:',
  serve: 'Serving:',
  search: 'Finding pages (ColPali):',
  get: 'Getting models:',
  teach: 'Teaching:',
  measure: 'Inspecting and measuring:',
  engine: 'The engine:'
} as const

const order: readonly string[] = Object.values(group)
const longest = 400 // characters of a message; a pasted megabyte is not repeated

/** To be called before the verbs are added: they take these settings over. */
export function configureHelp(program: Command, context: Context): Command {
  const plain = new Help()
  return program
    .configureHelp({
      groupItems(all, visible, groupOf) {
        const place = (heading: string): number => order.indexOf(heading) + 1 || order.length + 1
        const groups = [...plain.groupItems(all, visible, groupOf)]
        return new Map(groups.sort(([a], [b]) => place(a) - place(b)))
      }
    })
    .configureOutput({
      writeOut: (text) => {
        context.stdout.write(text)
      },
      writeErr: (text) => {
        context.stderr.write(text)
      },
      getOutHasColors: () => false,
      getErrHasColors: () => false,
      outputError: (text, write) => {
        const message = oneLine(text.replace(/^error: /, ''))
        const cut = message.length > longest ? `${message.slice(0, longest)}...` : message
        write(`ERR_INVALID_OPTION: ${cut} (--help shows the options)\n`)
      }
    })
}

/**
 * Two or more lines that work as they stand, once the files are there; "paligemma" is put before those that start with
 * a verb.
 */
export function addExamples(command: Command, ...lines: string[]): Command {
  return command.addHelpText(
    'after',
    `\nExamples:\n${lines.map((line) => `  $ ${line.includes('| paligemma') ? '' : 'paligemma '}${line}`).join('\n')}`
  )
}

/** -h is an option like others: under a heading of its own. */
export function placeHelpOptions(program: Command): void {
  for (const command of [program, ...program.commands])
    command.addHelpOption(new Option('-h, --help', 'show this page').helpGroup(group.help))
}
