/**
 * Decoding in a process of its own. Nothing stops libvips' decoders inside a process: a thread that draws nested SVG
 * filters draws to the end. A process can be ended, and with it all that it does.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'
import { checkPixels, invalid, starved, undecodable } from './problems'
import { cmykSteps, rgbSteps, sharpOptions, type Steps } from './steps'
import { PaliGemmaError } from '../base/errors'
import { foldersBeside } from '../base/package-files'
import { workingFolder } from '../base/paths'

/** What sharp made of a picture: samples row by row, and whether they are inks. */
export interface HelperResult {
  data: Buffer
  width: number
  height: number
  channels: number
  cmyk: boolean
}

export interface HelperOptions {
  name: string
  maxPixels: number
  /** Milliseconds; the picture is refused with ERR_IMAGE_INVALID after them. */
  timeoutMs: number
  signal?: AbortSignal | undefined
  /** Steps that make it smaller, done while it is read from front to back. */
  before?: Steps | undefined
}

// One line of JSON each way, bytes behind it. The input stays open: it closes when this process ends, however it does.
const script = `
const pieces = []
let got = 0, header
const say = (line, bytes) => {
  process.stdout.write(JSON.stringify(line) + '\\n')
  if (bytes) process.stdout.write(bytes)
}
process.stdin.on('close', () => process.kill(process.pid, 'SIGKILL')).on('data', (piece) => {
  pieces.push(piece)
  got += piece.length
  if (!header) {
    const all = Buffer.concat(pieces), end = all.indexOf(10)
    if (end < 0) return
    header = JSON.parse(all.toString('utf8', 0, end))
    pieces.splice(0, pieces.length, all.subarray(end + 1))
    got -= end + 1
  }
  if (got < header.bytes) return
  const task = header
  header = { bytes: Infinity }
  decode(task).catch((e) => say({ error: e.message }))
})
async function decode ({ sharpPath, path, options, before, rgbSteps, cmykSteps, maxPixels }) {
  const sharp = require(sharpPath)
  sharp.concurrency(1)
  say({ ready: true })
  const input = sharp(path ?? Buffer.concat(pieces), options)
  const { width, height, pageHeight = height, space } = await input.metadata()
  if (width * pageHeight > maxPixels) return say({ tooLarge: [width, pageHeight] })
  let pipeline = input
  const steps = [...before, ...(space === 'cmyk' ? cmykSteps : rgbSteps)]
  for (const [method, ...args] of steps) pipeline = pipeline[method](...args)
  const { data, info } = await pipeline.toBuffer({ resolveWithObject: true })
  const { width: w, height: h, channels } = info
  say({ width: w, height: h, channels, cmyk: space === 'cmyk', bytes: data.length }, data)
}`

/** Why no helper can be started here; undefined: it can. */
export function helperObstacle(): string | undefined {
  const { permission } = process as { permission?: { has: (scope: string) => boolean } }
  if (permission && !permission.has('child')) return 'this process may not start others (--allow-child-process)'
  // Electron, single executables and the like would start the application again
  if (process.versions.electron || !/^(?:node|bun)/i.test(basename(process.execPath)) || isSingleExecutable())
    return 'this application cannot start Node beside itself'
  return sharpPath() === undefined ? 'sharp is not to be found from here' : undefined
}

function isSingleExecutable(): boolean {
  try {
    return (createRequire(process.execPath)('node:sea') as { isSea: () => boolean }).isSea()
  } catch {
    return false // before Node 20.12
  }
}

function sharpPath(): string | undefined {
  for (const folder of [...foldersBeside(), workingFolder()]) {
    try {
      return createRequire(join(folder, 'noop.js')).resolve('sharp')
    } catch {
      // bundled: from the application's folder
    }
  }
  return undefined
}

/**
 * Decodes bytes, or the file at a path. Rejects with ERR_IMAGE_*, ERR_OUT_OF_MEMORY or the signal's reason, at once.
 */
export async function decodeApart(source: Buffer | string, options: HelperOptions): Promise<HelperResult> {
  const { name, timeoutMs, signal } = options
  // starting a process holds this one up: not for one of many that were aborted together, whose turn is still to come
  await new Promise((resolve) => setImmediate(resolve))
  signal?.throwIfAborted()
  const { NODE_OPTIONS: _, NODE_CHANNEL_FD: __, ...env } = process.env
  // V8's own threads are of no use here, and where threads are limited each counts
  const flags = process.versions['bun'] ? [] : ['--v8-pool-size=1']
  const child = spawn(process.execPath, [...flags, '-e', script], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { ...env, UV_THREADPOOL_SIZE: '1', VIPS_CONCURRENCY: '1' },
    windowsHide: true
  })
  const state = { ready: false }
  let onAbort: (() => void) | undefined
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise<HelperResult>((resolve, reject) => {
      onAbort = () => reject(signal!.reason as Error)
      signal?.addEventListener('abort', onAbort, { once: true })
      timer = setTimeout(() => reject(tooSlow(name, timeoutMs, state.ready)), timeoutMs)
      child.once('error', (error) => reject(notStarted(name, error)))
      child.once('close', (code, by) => reject(ended(name, by ?? code ?? '', state.ready)))
      receive(child, options, state, resolve, reject)
      send(child, source, options)
    })
  } finally {
    clearTimeout(timer)
    if (onAbort) signal?.removeEventListener('abort', onAbort)
    child.kill('SIGKILL')
    child.stdin?.destroy()
    child.stdout?.destroy()
  }
}

function send(child: ChildProcess, source: Buffer | string, { maxPixels, before }: HelperOptions): void {
  const isPath = typeof source === 'string'
  const header = {
    sharpPath: sharpPath(),
    ...(isPath && { path: source }),
    bytes: isPath ? 0 : source.length,
    options: before ? { ...sharpOptions, sequentialRead: true } : sharpOptions,
    before: before ?? [],
    rgbSteps,
    cmykSteps,
    maxPixels
  }
  child.stdin?.on('error', () => {}) // it ended; 'close' says why
  child.stdin?.write(`${JSON.stringify(header)}\n`)
  if (!isPath) child.stdin?.write(source)
}

/** Node and glib abort where the system refuses them a thread, and the kernel kills where it has no memory. */
function ended(name: string, by: NodeJS.Signals | number | string, ready: boolean): PaliGemmaError {
  const what = `the process that decodes it ended (${by})`
  if (!ready || ['SIGABRT', 'SIGTRAP', 'SIGKILL', 134].includes(by))
    return starved(name, 'the decoder a thread or memory', new Error(what))
  return invalid(name, `cannot be decoded: ${what}`)
}

// That Node comes up in, on machines that do nothing else at least.
const startMs = 5000

function tooSlow(name: string, timeoutMs: number, ready: boolean): PaliGemmaError {
  if (ready || timeoutMs < startMs)
    return invalid(name, `decoding it takes more than ${timeoutMs} ms; save it as PNG or raise decodeTimeoutMs`)
  const what = `no process that decodes it came up within decodeTimeoutMs = ${timeoutMs}`
  return starved(name, 'the decoder a thread or memory', new Error(what))
}

interface Answer extends Omit<HelperResult, 'data'> {
  bytes: number
  ready?: true
  error?: string
  tooLarge?: [number, number]
}

function receive(
  child: ChildProcess,
  { name, maxPixels }: HelperOptions,
  state: { ready: boolean },
  resolve: (result: HelperResult) => void,
  reject: (error: Error) => void
): void {
  let rest: Buffer = Buffer.alloc(0)
  let answer: { shape: Omit<HelperResult, 'data'>; data: Buffer; got: number } | undefined
  const read = (piece: Buffer): void => {
    for (rest = Buffer.concat([rest, piece]); !answer; ) {
      const end = rest.indexOf(10)
      if (end < 0) return
      const { ready, ...line } = JSON.parse(rest.toString('utf8', 0, end)) as Answer
      rest = rest.subarray(end + 1)
      if (ready) state.ready = true
      else answer = begun(line)
    }
    take(rest)
  }
  const begun = ({ error, tooLarge, bytes, ...shape }: Answer): NonNullable<typeof answer> => {
    if (tooLarge) checkPixels(...tooLarge, name, maxPixels)
    if (error !== undefined) throw undecodable(name, new Error(error))
    return { shape, data: Buffer.allocUnsafe(bytes), got: 0 }
  }
  // once it is there, not twice: it may be most of the memory
  const take = (piece: Buffer): void => {
    answer!.got += piece.copy(answer!.data, answer!.got)
    if (answer!.got === answer!.data.length) resolve({ ...answer!.shape, data: answer!.data })
  }
  child.stdout?.on('data', (piece: Buffer) => {
    try {
      if (answer) take(piece)
      else read(piece)
    } catch (refusal) {
      reject(refusal as Error)
    }
  })
}

function notStarted(name: string, cause: Error): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_OUT_OF_MEMORY',
    `${name}: no process could be started to decode it (${cause.message}); raise the limit of processes or of memory`,
    { cause }
  )
}
