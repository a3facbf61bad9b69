/** sharp, loaded when the first picture needs it: raw pixels, parsing and retrieval do without. */
import { readFile } from 'node:fs/promises'
import type sharp from 'sharp'
import type { Sharp } from 'sharp'
import { PaliGemmaError } from '../base/errors'
import { withThreads } from './thread-room'

type SharpModule = typeof sharp

type Loader = () => SharpModule | { default: SharpModule }

let loading: Promise<SharpModule> | undefined

/**
 * The `sharp` function; what it makes waits for room for its threads before it works.
 * @throws PaliGemmaError ERR_DEPENDENCY_MISSING where it is not installed, not for this platform, or this CPU is too
 * old
 */
export async function loadSharp(): Promise<SharpModule> {
  // not import(): test runners' contexts have none, and tracers of bundlers find a literal require
  const module = (loading ??= importSharp(() => require('sharp') as ReturnType<Loader>))
  try {
    return await module
  } catch (error) {
    loading = undefined // it may be installed meanwhile
    throw error
  }
}

/** {@link loadSharp} by a given `require`, each time. */
export async function importSharp(load: Loader): Promise<SharpModule> {
  await refuseOldCpu()
  try {
    return careful(callable(load()))
  } catch (cause) {
    throw sharpMissing(cause)
  }
}

/** Bundlers that write ES modules make an import of the require, and hand over the namespace. */
function callable(module: ReturnType<Loader>): SharpModule {
  const sharp = 'default' in module && typeof module !== 'function' ? module.default : module
  if (typeof sharp !== 'function') throw new TypeError('what is called sharp here is no function')
  return sharp
}

/** libvips' own threads start with `toBuffer`. */
function careful(sharp: SharpModule): SharpModule {
  const make = (...args: Parameters<SharpModule>): Sharp => {
    const made = sharp(...args)
    const toBuffer = made.toBuffer.bind(made) as unknown as (options?: unknown) => Promise<never>
    return Object.assign(made, {
      toBuffer: async (options?: unknown) => await withThreads(sharp, async () => await toBuffer(options))
    })
  }
  return Object.assign(make as SharpModule, { concurrency: sharp.concurrency })
}

/** The one error for every way in which sharp is not there; its own page of advice stays in `cause`. */
export function sharpMissing(cause: unknown): PaliGemmaError {
  const reason = String((cause as Error)?.message ?? cause)
    .split('\n')
    .find((line) => line.trim() !== '')
  if (/EAGAIN|ENOMEM|cannot allocate|temporarily unavailable|failed to map segment|static TLS/i.test(String(cause))) {
    return new PaliGemmaError(
      'ERR_OUT_OF_MEMORY',
      `sharp, which decodes pictures, was refused memory or a thread: ${reason}; raise the limit of this process`,
      { cause }
    )
  }
  return new PaliGemmaError(
    'ERR_DEPENDENCY_MISSING',
    `sharp, which decodes and draws pictures, does not load on ${process.platform}-${process.arch}: ${reason}. ` +
      `Install it for this platform with "npm install --os=${process.platform} --cpu=${process.arch} sharp", ` +
      'or pass raw pixels ({ data, width, height })',
    { cause }
  )
}

/**
 * sharp's own check comes after its libraries were mapped, and their start code needs SSE4.2: the process would die.
 */
async function refuseOldCpu(): Promise<void> {
  if (process.platform !== 'linux' || process.arch !== 'x64') return
  const info = await readFile('/proc/cpuinfo', 'latin1').catch(() => '')
  if (!lacksSse42(info)) return
  throw new PaliGemmaError(
    'ERR_DEPENDENCY_MISSING',
    'sharp, which decodes and draws pictures, needs a CPU with SSE4.2 (x86-64-v2), which this one is not; ' +
      'pass raw pixels ({ data, width, height })'
  )
}

/** Of the text of /proc/cpuinfo; unknown texts say nothing. */
export function lacksSse42(cpuinfo: string): boolean {
  const flags = /^flags\s*:(.*)$/m.exec(cpuinfo)?.[1]
  return flags !== undefined && !/\bsse4_2\b/.test(flags)
}

const refused = new RegExp(
  'creat\\w* thread|thread.*(?:refused|unavailable)|cannot allocate|resource temporarily unavailable|' +
    'out of memory|EAGAIN|ENOMEM',
  'i'
)
// What libvips says of a lack at times, and after the decoder's own words of a picture that cannot be read.
const unwritten = /unable to write to target/i

/** Whether the system refused sharp what it needed, which says nothing about the picture. */
export function isStarved(error: unknown): boolean {
  const message = String((error as Error)?.message ?? error)
  const lines = message.split('\n').filter((line) => line.trim() !== '')
  return refused.test(message) || (lines.length > 0 && lines.every((line) => unwritten.test(line)))
}
