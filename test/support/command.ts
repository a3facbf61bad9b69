/** The command in this process, as if its output went into a pipe. */
import type { Context } from '../../lib/cli/context'
import { execute } from '../../lib/cli/program'

/** Exit code and what was written. */
export async function command(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = []
  const err: string[] = []
  const context: Context = {
    stdout: { write: (text) => out.push(text) },
    stderr: { write: (text) => err.push(text) },
    signal: new AbortController().signal
  }
  return { code: await execute(args, context), out: out.join(''), err: err.join('') }
}

/** The line of a page of help that is about an option, whichever of its names that is. */
export const lineAbout = (option: string): RegExp => new RegExp(`^ +(?:--?[\\w-]+, )?${option}\\b`, 'm')
