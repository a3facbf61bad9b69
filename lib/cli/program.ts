/** The command's verbs, and how errors become exit codes. */
import { Command, CommanderError } from './vendored'
import { addBatch } from './batch'
import { addBench } from './models/bench'
import { addBuild } from './models/build'
import { packageVersion } from '../base/package-files'
import { explainFolder } from '../base/paths'
import { explainOpenFiles } from '../base/system-limits'
import { type Context, describeError, Interrupted, printError } from './context'
import { asTyped } from './checks'
import { addConvert, addQuantize } from './models/convert'
import { addDataset } from './learning/dataset'
import { addDemo } from './tasks/demo'
import { addEmbed, addSearch } from './tasks/embed'
import { addEvaluate } from './learning/evaluate'
import { addFit } from './learning/fit'
import { addInspect } from './models/inspect'
import { addImatrix, addQuality } from './models/measure'
import { addExamples, configureHelp, placeHelpOptions, verbs } from './help'
import { addPull } from './models/pull'
import { addRun } from './tasks/run'
import { addServe } from './services/serve'
import { addWorker } from './services/worker'
import { addScore } from './tasks/score'
import { addAnswer } from './tasks/answer'
import { addCaption } from './tasks/caption'
import { addDetect } from './tasks/detect'
import { addOcr } from './tasks/ocr'
import { addSegment } from './tasks/segment'
import { addTokenize } from './models/tokenize'
import { addVerify } from './models/verify'
import { addVideo } from './video/index'
import { addWatch } from './tasks/watch'

/**
 * Runs the command; the result is its exit code: 0 done, 1 failed, 2 called wrongly, 3 some of a batch failed,
 * 128 + n after a signal.
 */
export async function execute(args: string[], context: Context): Promise<number> {
  const code = await run(args, context)
  if ((code === 1 || code === 2) && args.some((arg) => /(?:^|=)~(?:[/\\]|$)/.test(arg)))
    context.stderr.write('note: a shell replaces ~ at the beginning of a word alone; write --option PATH, or $HOME\n')
  return code
}

async function run(args: string[], context: Context): Promise<number> {
  const state = { code: 0, flags: [] as string[] }
  try {
    const program = createProgram(context, (code = 1) => {
      state.code = code
    })
    program.hook('preAction', (_, verb) => {
      state.flags = verb.options.flatMap(({ long }) => long ?? [])
    })
    const unknown = unknownVerb(program, args)
    await program.parseAsync(unknown === undefined ? args : [unknown], { from: 'user' })
    return state.code
  } catch (error) {
    // commander has said what is wrong already, or printed help.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (error instanceof Interrupted) return error.exitCode
    const explained = explainOpenFiles(explainFolder(error))
    printError(context, explained, (message) => asTyped(message, state.flags))
    return describeError(explained).code === 'ERR_INVALID_OPTION' ? 2 : 1
  }
}

/**
 * A verb that is not there. Alone it is an error that names a near one; beside --help or after "help", commander would
 * print the program's own page as if that had been asked for.
 */
function unknownVerb(program: Command, args: readonly string[]): string | undefined {
  if (args[0] === '-V' || args[0] === '--version') return undefined
  const [first, second] = args.filter((arg) => !arg.startsWith('-'))
  const name = first === 'help' ? second : first
  return name === 'help' || program.commands.some((verb) => verb.name() === name) ? undefined : name
}

/** `onFailure`: for verbs that go on after the failure of one image, with the exit code. */
function createProgram(context: Context, onFailure: (code?: number) => void): Command {
  const program = new Command('paligemma')
    .description('Runs PaliGemma 1 and 2: an image and a prompt become text, boxes and masks.')
    .version(packageVersion(), '-V, --version')
    .exitOverride()
  configureHelp(program, context)
  addExamples(program, 'demo', "caption --model demo 'photos/*.jpg'")
  program.addHelpText(
    'after',
    '\nEvery verb has --help. Environment: PALIGEMMA_MODEL (the model when --model is not given), PALIGEMMA_CACHE, ' +
      'HF_TOKEN.' +
      '\nFiles that are written replace those of their name once they are whole; batch and video go on with --out.' +
      '\nExit codes: 0 done, 1 failed, 2 called wrongly, 3 done but for some pictures (batch), 128 + n ended by ' +
      'signal n (130: Ctrl-C).'
  )
  program.commandsGroup(verbs.look)
  addDemo(program, context)
  addRun(program, context)
  addCaption(program, context, onFailure)
  addAnswer(program, context, onFailure)
  addOcr(program, context, onFailure)
  addDetect(program, context, onFailure)
  addSegment(program, context, onFailure)
  addBatch(program, context, onFailure)
  addVideo(program, context)
  addWatch(program, context)
  addScore(program, context)
  program.commandsGroup(verbs.serve)
  addServe(program, context)
  addWorker(program, context)
  program.commandsGroup(verbs.search)
  addEmbed(program, context, onFailure)
  addSearch(program, context, onFailure)
  program.commandsGroup(verbs.get)
  addPull(program, context)
  addConvert(program, context)
  addQuantize(program, context)
  program.commandsGroup(verbs.teach)
  addFit(program, context)
  addDataset(program, context)
  addEvaluate(program, context)
  program.commandsGroup(verbs.measure)
  addInspect(program, context)
  addTokenize(program, context)
  addImatrix(program, context)
  addQuality(program, context)
  addBench(program, context)
  program.commandsGroup(verbs.engine)
  addVerify(program, context, onFailure)
  addBuild(program, context)
  placeHelpOptions(program)
  return program
}
