/** The machine's own limits, measured beside the model. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { nativePath } from '../engine/native'

export interface Limits {
  /** Memory read by all threads together, 10^9 bytes a second. */
  readGBps: number
  /** The 8-bit kernels of the instruction set in use, 10^9 multiplications and additions a second; 0: it has none. */
  int8Gops: number
}

const script =
  'require(process.argv[1]).machineLimits(Number(process.argv[2])).then((limits) => ' +
  'console.log(JSON.stringify(limits)))'

/** Takes about half a second. In a process of its own: its 256 MB must not count as the model's memory. */
export async function measureLimits(threads: number, signal?: AbortSignal): Promise<Limits> {
  const env = { ...process.env, ELECTRON_RUN_AS_NODE: '1' }
  const child = promisify(execFile)(process.execPath, ['-e', script, nativePath(), String(threads)], {
    env,
    ...(signal && { signal })
  })
  const { stdout } = await child.catch((error: unknown) => {
    signal?.throwIfAborted()
    throw error
  })
  return JSON.parse(stdout) as Limits
}
