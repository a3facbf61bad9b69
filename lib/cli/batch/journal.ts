/**
 * The rows of a batch on the disk. A picture is done when its whole line is there: the file of results is the journal.
 * What a killed process leaves is at most a torn end, which goes away when the batch goes on.
 */
import { type FileHandle, open, readdir, readFile, realpath, rm, stat } from 'node:fs/promises'
import { type Line, longestLine, wholeLines } from '../../base/lines'
import { OutputFile, resolveOutput, writeFailure, writeOutput } from '../../base/output-file'
import { syncFile } from '../../base/permission'
import { acquireLock, type Lock } from '../../hub/lock'
import { flagOf } from '../checks'
import { type Context, roundedJson, usageError } from '../context'
import { keyOf, type Row } from './rows'

export type Settings = Record<string, unknown>

export interface JournalOptions {
  /** Where rows are written; behind a link, what it leads to. */
  path: string
  /** What the user named, for messages. */
  out: string
  /** Files that are read: none of them becomes the rows. */
  sources: readonly string[]
  /** What makes rows comparable: other ones are refused. */
  settings: Settings
  overwrite: boolean
  /** Rows of failed pictures are removed first, so that they are tried again. */
  retryFailed: boolean
  context: Context
}

const option = '--out'
const syncEveryMs = 1000
// A lock whose process was killed is known to be dead after two and a half beats.
const lockTiming = { beatMs: 400, deadMs: 30_000 }

export class Journal {
  /** Keys of all rows, those of failures too. */
  readonly done: Set<string> = new Set()
  failed = 0
  #handle!: FileHandle
  #bytes = 0
  #synced = performance.now()
  #queue: Promise<unknown> = Promise.resolve()

  private constructor(
    private readonly options: JournalOptions,
    private readonly lock: Lock
  ) {}

  static async open(given: JournalOptions): Promise<Journal> {
    const { out, sources, context } = given
    // One lock and one state, by whatever link the file is named.
    const path = await resolveOutput(given.path, { option, sources })
    const options = { ...given, path }
    const lock = await acquireLock(`${path}.lock`, {
      signal: context.signal,
      timing: lockTiming,
      option,
      onWait: (owner) => context.stderr.write(`waiting for ${owner}, which writes ${out}\n`)
    })
    const journal = new Journal(options, lock)
    try {
      await journal.#begin()
      return journal
    } catch (error) {
      await lock.release()
      throw error
    }
  }

  async #begin(): Promise<void> {
    const { path, out, settings, overwrite, retryFailed } = this.options
    const state = `${path}.state.json`
    // a folder, whose files may be anybody's, is written to anew only where an earlier run has left its state
    const ours = overwrite && (await isOccupied(state))
    if (overwrite) for (const file of [path, state, out]) await removeFile(file)
    const before = await readState(state)
    if (before) refuseOther(out, before, settings)
    else {
      for (const file of new Set([path, out])) if (!ours && (await isOccupied(file))) await refuseOccupied(out)
      await writeOutput(state, `${JSON.stringify({ version: 1, settings })}\n`, { option })
    }
    await this.#scan()
    if (retryFailed && this.failed > 0) await this.#removeFailed()
    this.#handle = await open(path, 'a').catch((error: unknown) => {
      throw writeFailure(error, out, option)
    })
    await this.#handle.truncate(this.#bytes)
  }

  /** Reads all rows. */
  async #scan(): Promise<void> {
    const { path, out } = this.options
    let torn: { line: number; at: number } | undefined
    for await (const { row, line, from, to } of linesOf(path)) {
      if (!row) {
        torn ??= { line, at: from }
        continue
      }
      if (torn)
        throw usageError(`${out}: line ${torn.line} is no row of a batch, and others follow; repair or move the file`)
      this.#take(row)
      this.#bytes = to
    }
  }

  #take(row: Row): void {
    this.done.add(keyOf(row))
    if (row.error) this.failed++
  }

  async #removeFailed(): Promise<void> {
    const { path } = this.options
    const file = await OutputFile.create(path, { option })
    try {
      let at = 0
      for await (const { row, text, to } of linesOf(path)) {
        if (to > this.#bytes) break
        if (row?.error) this.done.delete(keyOf(row))
        if (!row || row.error) continue
        const bytes = Buffer.from(`${text}\n`)
        await file.write(bytes, at)
        at += bytes.length
      }
      await file.commit()
      this.#bytes = at
      this.failed = 0
    } catch (error) {
      await file.discard()
      throw error
    }
  }

  /** Resolves when the row is in the file; at most a second later it is on the disk. */
  async append(row: Row): Promise<void> {
    const written = this.#queue.then(async () => await this.#write(row))
    this.#queue = written.catch(() => {})
    await written
  }

  async #write(given: Row): Promise<void> {
    this.lock.lost.throwIfAborted()
    const { row, bytes } = readable(given)
    try {
      for (let done = 0; done < bytes.length; )
        done += (await this.#handle.write(bytes, done, bytes.length - done)).bytesWritten
      this.#bytes += bytes.length
      this.#take(row)
      if (performance.now() - this.#synced > syncEveryMs) await this.#sync()
    } catch (error) {
      // a full disk may have taken a part of the line
      await this.#handle.truncate(this.#bytes).catch(() => {})
      throw writeFailure(error, this.options.out, option)
    }
  }

  async #sync(): Promise<void> {
    await syncFile(this.#handle)
    this.#synced = performance.now()
  }

  /** All rows, as they are in the file now. */
  async *rows(): AsyncGenerator<{ row: Row; text: string }, void, undefined> {
    for await (const { row, text } of linesOf(this.options.path)) if (row) yield { row, text }
  }

  async flush(): Promise<void> {
    await this.#queue
    await this.#sync()
  }

  async close(): Promise<void> {
    await this.flush().catch(() => {})
    await this.#handle.close().catch(() => {})
    await this.lock.release()
  }
}

/** Numbers of results with the digits that mean something; what was given exactly so, for it is a part of the key. */
function lineOf({ image, given, ...result }: Row): string {
  const head = JSON.stringify({ image, ...(given && { given }) })
  return `${head.slice(0, -1)},${roundedJson(result).slice(1)}`
}

/** A row whose line can be read again: a result that is longer than any line is a failure. */
function readable(row: Row): { row: Row; bytes: Buffer } {
  const bytes = Buffer.from(`${lineOf(row)}\n`)
  if (bytes.length <= longestLine) return { row, bytes }
  const { image, given, error } = row
  if (error) throw usageError(`${image}: its row in the source is longer than ${longestLine} bytes; shorten it`)
  const message = `${image}: a result of ${bytes.length} bytes is no row, which has ${longestLine} at most`
  return readable({ image, ...(given && { given }), error: { code: 'ERR_WRITE_FAILED', message } })
}

/** What a link leads to, not the link. A folder stays: what is in it may be anybody's. */
async function removeFile(path: string): Promise<void> {
  const info = await stat(path).catch(() => undefined)
  if (info?.isFile()) await rm(await realpath(path))
}

/** Whether there is a file, or a folder with anything in it. */
async function isOccupied(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => undefined)
  return info !== undefined && (!info.isDirectory() || (await readdir(path)).length > 0)
}

async function refuseOccupied(out: string): Promise<never> {
  const isFolder = (await stat(out).catch(() => undefined))?.isDirectory()
  throw usageError(
    isFolder
      ? `${out} holds files that were not written by this command; choose another folder for --out, or an empty one`
      : `${out} exists and was not begun by this command; choose another --out, or replace it with --overwrite`
  )
}

async function readState(path: string): Promise<Settings | undefined> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw usageError(`${path} cannot be read: ${error.message}`, error)
  })
  if (text === undefined) return undefined
  try {
    const { version, settings } = JSON.parse(text) as { version?: unknown; settings?: unknown }
    if (version === 1 && typeof settings === 'object' && settings !== null) return settings as Settings
  } catch {} // said below
  throw usageError(`${path} is damaged or of another version; choose another --out, or begin anew with --overwrite`)
}

function refuseOther(out: string, before: Settings, now: Settings): void {
  const shown = (value: unknown): string => (value === undefined ? 'not given' : JSON.stringify(value))
  const changes = [...new Set([...Object.keys(before), ...Object.keys(now)])]
    .filter((key) => JSON.stringify(before[key]) !== JSON.stringify(now[key]))
    .map((key) => `${key === 'video' ? 'the video' : flagOf(key)} was ${shown(before[key])} and is ${shown(now[key])}`)
  if (changes.length > 0)
    throw usageError(
      `${out} was begun with other options: ${changes.join(', ')}. Choose another --out, or begin anew with --overwrite`
    )
}

/** The whole lines of a file, as rows where they are such. */
async function* linesOf(path: string): AsyncGenerator<Line & { row: Row | undefined }, void, undefined> {
  for await (const line of wholeLines(path)) yield { ...line, row: parseRow(line.text) }
}

function parseRow(text: string): Row | undefined {
  try {
    const row = JSON.parse(text) as Row | null
    return typeof row === 'object' && row !== null && typeof row.image === 'string' ? row : undefined
  } catch {
    return undefined
  }
}
