/** The process around the command: standard output that may be full or closed, and the signals that end it. */
import { fstatSync, writeSync } from 'node:fs'
import { removeUnfinished } from '../base/output-file'
import { type Context, Interrupted, type Output, OutputFailure } from './context'

/** 128 + n, as shells expect. */
const signals = { SIGHUP: 129, SIGINT: 130, SIGQUIT: 131, SIGTERM: 143 } as const

/** Runs `work` with this process's streams; the first signal ends the work cleanly, a second one the process. */
export async function withProcess(work: (context: Context) => Promise<number>): Promise<number> {
  const controller = new AbortController()
  const removers = Object.entries(signals).map(([name, exitCode]) => {
    const listener = (): void => {
      if (!controller.signal.aborted) return controller.abort(new Interrupted(exitCode))
      removeUnfinished()
      for (const remove of removers) remove()
      process.kill(process.pid, name)
    }
    process.on(name, listener)
    return () => process.off(name, listener)
  })
  // A reader that leaves early ("| head") wants no more: that is no error. Nobody to complain to is none either.
  let needsOutput = true
  const outlivesOutput = (): void => void (needsOutput = false)
  const readerLeft = (error: NodeJS.ErrnoException): void => {
    if (needsOutput) controller.abort(reasonOf(error))
  }
  const ignore = (): void => {}
  process.stdout.on('error', readerLeft)
  process.stderr.on('error', ignore)
  try {
    const { stdin, stderr } = process
    return await work({ stdout: standardOutput(), stderr, stdin, signal: controller.signal, outlivesOutput })
  } finally {
    // The error listeners stay: what was written may still fail while the process ends.
    for (const remove of removers) remove()
  }
}

function reasonOf(error: NodeJS.ErrnoException): Error {
  return error.code === 'EPIPE' ? new Interrupted(0) : outputFailure(error)
}

function outputFailure(error: NodeJS.ErrnoException): OutputFailure {
  const full = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(error.code ?? '')
  return new OutputFailure(
    full ? 'ERR_DISK_FULL' : 'ERR_WRITE_FAILED',
    `standard output cannot be written: ${error.message}`,
    { cause: error }
  )
}

/** Node loses what a nearly full disk does not take of a write to a file; this writes all or throws. */
function standardOutput(): Output {
  const { stdout } = process
  if (stdout.isTTY || !isFileLike()) return stdout
  return {
    write(text) {
      const bytes = Buffer.from(text)
      try {
        for (let done = 0; done < bytes.length; ) done += writeSync(1, bytes, done)
      } catch (error) {
        throw outputFailure(error as NodeJS.ErrnoException)
      }
    }
  }
}

/** Pipes and sockets may be unable to take more for a moment; Node's own stream waits for them. */
function isFileLike(): boolean {
  try {
    const info = fstatSync(1)
    return info.isFile() || info.isCharacterDevice() || info.isBlockDevice()
  } catch {
    return false
  }
}
