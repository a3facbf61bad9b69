/** The command's verbs, and how errors become exit codes. */
import { Command, CommanderError } from 'commander'
import { addBench } from './bench'
import { addBuild } from './build'
import { type Context, describeError, Interrupted, printable } from './context'
import { addConvert, addQuantize } from './convert'
import { addDemo } from './demo'
import { addEmbed, addSearch } from './embed'
import { addInspect } from './inspect'
import { addImatrix, addQuality } from './measure'
import { packageVersion } from './package'
import { addPull } from './pull'
import { addRun } from './run'
import { addScore } from './score'
import { addAnswer } from './answer'
import { addCaption } from './caption'
import { addDetect } from './detect'
import { addOcr } from './ocr'
import { addSegment } from './segment'
import { addTokenize } from './tokenize'

/** What shells expect after Ctrl-C: 128 + SIGINT. */
const interruptedCode = 130

/** Runs the command; the result is its exit code: 0 done, 1 failed, 2 called wrongly, 130 after Ctrl-C. */
export async function runCommand(args: string[]): Promise<number> {
  const controller = new AbortController()
  // The first Ctrl-C ends the work cleanly; the listener is gone then, so a second one kills the process.
  const interrupt = () => controller.abort(new Interrupted())
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  // The reader of a pipe may leave early ("| head"): that is no error.
  const ignorePipe = (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    controller.abort(new Interrupted())
  }
  process.stdout.on('error', ignorePipe)
  try {
    const context: Context = { stdout: process.stdout, stderr: process.stderr, signal: controller.signal }
    return await execute(args, context)
  } finally {
    process.off('SIGINT', interrupt)
    process.off('SIGTERM', interrupt)
  }
}

/** The same with any output and signal. */
export async function execute(args: string[], context: Context): Promise<number> {
  const state = { failed: false }
  try {
    await createProgram(context, () => {
      state.failed = true
    }).parseAsync(args, { from: 'user' })
    return state.failed ? 1 : 0
  } catch (error) {
    // commander has said what is wrong already, or printed help.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (error instanceof Interrupted) return interruptedCode
    const { code, message } = describeError(error)
    context.stderr.write(`${code}: ${printable(message)}\n`)
    return code === 'ERR_INVALID_OPTION' ? 2 : 1
  }
}

/** `onFailure`: for verbs that go on after the failure of one image. */
function createProgram(context: Context, onFailure: () => void): Command {
  const program = new Command('paligemma')
    .description('Runs PaliGemma 1 and 2: an image and a prompt become text, boxes and masks.')
    .version(packageVersion(), '-V, --version')
    .exitOverride()
    .showHelpAfterError('Add --help to see the options.')
    .configureOutput({
      writeOut: (text) => {
        context.stdout.write(text)
      },
      writeErr: (text) => {
        context.stderr.write(text)
      },
      outputError: (text, write) => write(text.replace(/^error: /, 'ERR_INVALID_OPTION: '))
    })
    .addHelpText('after', '\nEvery verb has --help. Exit codes: 0 done, 1 failed, 2 called wrongly, 130 interrupted.')
  addDemo(program, context)
  addRun(program, context)
  addCaption(program, context, onFailure)
  addAnswer(program, context, onFailure)
  addOcr(program, context, onFailure)
  addDetect(program, context, onFailure)
  addSegment(program, context, onFailure)
  addScore(program, context)
  addEmbed(program, context, onFailure)
  addSearch(program, context, onFailure)
  addTokenize(program, context)
  addPull(program, context)
  addConvert(program, context)
  addQuantize(program, context)
  addImatrix(program, context)
  addQuality(program, context)
  addInspect(program, context)
  addBench(program, context)
  addBuild(program, context)
  return program
}
