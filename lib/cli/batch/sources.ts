/** The pictures of a batch, one after another: paths, folders, globs, URLs, lists, rows of JSON, shards. */
import { createReadStream, existsSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'
import type { Readable } from 'node:stream'
import { PaliGemmaError } from '../../base/errors'
import { type Context, usageError } from '../context'
import { expandImages, filesIn, isPictureName, isUrl, noteDeeper } from '../images'
import type { Entry } from './rows'
import { isShard, shardEntries } from './shards'

export interface Sources {
  entries: AsyncGenerator<Entry, void, undefined>
  /** What the command names: pictures, rows, shards and lists. */
  files: string[]
  /** How many there will be; undefined where only reading tells. */
  total: number | undefined
}

interface Reading {
  context: Context
  /** Names of options that a picture's own file in a shard may give. */
  keys: readonly string[]
}

const isRows = (name: string): boolean => /\.(?:jsonl|ndjson)$/i.test(name)

export async function openSources(args: string[], lists: string[], reading: Reading): Promise<Sources> {
  if (args.length === 0 && lists.length === 0)
    throw usageError('Expected pictures: paths, folders, globs, URLs, .tar shards, .jsonl rows or --files-from')
  if (args.includes('-'))
    throw usageError('Expected a list of pictures for "-", which one picture on standard input is not: --files-from -')
  if (lists.filter((list) => list === '-').length > 1) throw usageError('Expected one use of "-", standard input')
  if (lists.includes('-') && (!reading.context.stdin || reading.context.stdin.isTTY))
    throw usageError('Expected a list of pictures on standard input, which is a terminal')
  const named = args.length > 0 ? await expandImages(args) : []
  noteDeeper(args, reading.context)
  const unclear = (name: string): boolean => isRows(name) || isShard(name)
  for (const path of [...named.filter(unclear), ...lists])
    if (path !== '-' && !isUrl(path) && !existsSync(path)) throw usageError(`There is no file ${path}`)
  // A picture that is missing is a row; what is no picture by its name was meant as a folder.
  for (const path of args)
    if (!isUrl(path) && !isPictureName(path) && named.includes(path) && !existsSync(path))
      throw usageError(`There is no file or folder ${path}`)
  return {
    entries: readAll(named, lists, reading),
    files: [...named, ...lists],
    total: lists.length > 0 || named.some(unclear) ? undefined : named.length
  }
}

async function* readAll(named: string[], lists: string[], reading: Reading): AsyncGenerator<Entry, void, undefined> {
  for (const name of named) {
    if (isRows(name)) yield* readList(name, dirname(name), reading)
    else yield* entriesOf(name, reading)
  }
  for (const list of lists) yield* readList(list, '', reading)
}

async function* entriesOf(name: string, { context, keys }: Reading): AsyncGenerator<Entry, void, undefined> {
  if (!isShard(name)) return yield { image: name }
  try {
    yield* shardEntries(name, keys, context.signal)
  } catch (error) {
    context.signal.throwIfAborted()
    yield { image: name, error }
  }
}

/** Lines of names, or of JSON; the names in JSON begin in `folder`. */
async function* readList(list: string, folder: string, reading: Reading): AsyncGenerator<Entry, void, undefined> {
  const { stdin, signal } = reading.context
  const input = list === '-' ? (stdin as unknown as Readable) : createReadStream(list)
  // Else a reader that waits would keep the process alive.
  signal.addEventListener('abort', () => input.destroy(), { once: true })
  let number = 0
  for await (const text of linesOf(input)) {
    number++
    if (text.trim() === '') continue
    if (text.startsWith('{')) {
      yield* rowEntries(text, `${list === '-' ? 'standard input' : list}:${number}`, folder, reading)
      continue
    }
    for (const name of filesIn(text) ?? [text]) yield* entriesOf(name, reading)
  }
}

/** Separated by NUL where the beginning has one, else by line breaks. */
async function* linesOf(input: Readable): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder()
  let separator: RegExp | undefined
  let rest = ''
  for await (const piece of input) {
    rest += typeof piece === 'string' ? piece : decoder.decode(piece as Uint8Array, { stream: true })
    separator ??= rest.includes('\0') ? /\0/ : /\r?\n/
    const lines = rest.split(separator)
    rest = lines.pop()!
    yield* lines
  }
  yield rest + decoder.decode()
}

async function* rowEntries(
  text: string,
  place: string,
  folder: string,
  reading: Reading
): AsyncGenerator<Entry, void, undefined> {
  let row: Record<string, unknown>
  try {
    row = JSON.parse(text) as Record<string, unknown>
  } catch (error) {
    yield { image: place, error: invalidRow(`${place}: no JSON: ${(error as Error).message}`) }
    return
  }
  const { image, ...given } = row
  if (typeof image !== 'string' || image === '') {
    yield { image: place, error: invalidRow(`${place}: Expected the name of a picture for "image"`) }
    return
  }
  const path = folder === '' || isUrl(image) || isAbsolute(image) ? image : join(folder, image)
  const own = { ofRow: true as const, ...(Object.keys(given).length > 0 && { given }) }
  for await (const entry of entriesOf(path, reading))
    yield { ...own, ...entry, ...(entry.given && { given: { ...own.given, ...entry.given } }) }
}

function invalidRow(message: string): PaliGemmaError {
  return new PaliGemmaError('ERR_INVALID_OPTION', message)
}
