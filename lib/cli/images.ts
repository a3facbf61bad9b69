/** The pictures a verb works on: paths, folders, globs, URLs, lists of them, and standard input. */
import { existsSync, readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import type { Readable } from 'node:stream'
import { glob, isDynamicPattern } from '../base/vendored'
import type { Command } from './vendored'
import { isFolder } from '../base/paths'
import { Pieces } from '../base/pieces'
import { untilAborted } from '../base/signals'
import { collect } from './args'
import { type Context, printable, usageError } from './context'
import { group } from './help'

/** Standard input's name. */
const dash = '-'
export const isPictureName = (name: string): boolean =>
  /\.(?:jpe?g|jfif|png|webp|gif|avif|tiff?|bmp|ppm|pgm)$/i.test(name)
export const isUrl = (text: string): boolean => /^(?:https?|data|file):/i.test(text)

export interface ImageFlags {
  image?: string[]
  filesFrom?: string[]
}

/** The pictures of verbs that take many. */
export function addImageOptions(command: Command): Command {
  return command
    .optionsGroup(group.picture)
    .argument('[images...]', 'paths, folders (without those inside), globs or URLs; "-" is a picture on standard input')
    .option('-i, --image <image>', 'the same as an argument; may be given several times', collect)
    .option(
      '--files-from <file>',
      'a list of paths or URLs, one a line or separated by NUL; "-" reads it from standard input',
      collect
    )
}

/** All pictures that arguments and options name. */
export async function imagesOf(args: string[], flags: ImageFlags, context: Context): Promise<string[]> {
  const { image = [], filesFrom = [] } = flags
  const given = [...args, ...image]
  if (filesFrom.filter((name) => name === dash).length + given.filter((name) => name === dash).length > 1)
    throw usageError('Expected one use of "-", standard input, but received several')
  if (given.length === 0 && filesFrom.length === 0)
    throw usageError('Expected at least one image: a path, a folder, a glob, a URL, "-" or --files-from')
  const found = new Set(given.length > 0 ? await expandImages(given) : [])
  noteDeeper(given, context)
  for (const list of filesFrom)
    for (const name of await readList(list, context)) for (const path of filesIn(name) ?? [name]) found.add(path)
  if (found.size === 0) throw usageError(`Expected at least one image but ${filesFrom.join(' and ')} named none`)
  return [...found]
}

/** Expands globs and folders, in order and without repetitions. A path that exists is taken as it is. */
export async function expandImages(patterns: string[]): Promise<string[]> {
  if (patterns.length === 0) throw usageError('Expected at least one image: a path, a folder, a glob or a URL')
  const found = new Set<string>()
  for (const pattern of patterns) {
    const files = filesIn(pattern)
    if (files) for (const file of files) found.add(file)
    else if (pattern === dash || isUrl(pattern) || existsSync(pattern) || !isDynamicPattern(pattern)) found.add(pattern)
    else {
      const matches = await glob(pattern.replaceAll('\\', '/'), { dot: false, absolute: isAbsolute(pattern) })
      if (matches.length === 0) throw usageError(`No file matches ${pattern}`)
      for (const match of matches.sort()) found.add(match)
    }
  }
  return [...found]
}

/** The pictures of a folder by their names; undefined where it is none. */
export function filesIn(path: string): string[] | undefined {
  if (isUrl(path) || !isFolder(path)) return undefined
  const names = readdirSync(path, { withFileTypes: true })
    .filter((entry) => !entry.isDirectory() && isPictureName(entry.name) && !entry.name.startsWith('.'))
    .map(({ name }) => name)
  if (names.length === 0)
    throw usageError(
      `The folder ${path} holds no pictures; those in folders below it are found by a glob: ` +
        `'${join(path, '**', '*.jpg')}'`
    )
  return names.sort().map((name) => join(path, name))
}

/** Pictures in folders below are not among those of a folder: who means them learns it. */
export function noteDeeper(given: readonly string[], { stderr }: Context): void {
  for (const folder of given) {
    if (isUrl(folder) || !isFolder(folder)) continue
    const deeper = readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
      .map(({ name }) => name)
    if (deeper.some((name) => holdsPictures(join(folder, name))))
      stderr.write(
        `note: pictures in folders inside ${printable(folder)} are not among these; ` +
          `'${printable(join(folder, '**', '*.{jpg,png}'))}' takes them too\n`
      )
  }
}

/** A folder that may not be read was not asked for and holds none. */
function holdsPictures(folder: string): boolean {
  try {
    return readdirSync(folder).some(isPictureName)
  } catch {
    return false
  }
}

async function readList(file: string, context: Context): Promise<string[]> {
  const bytes =
    file === dash
      ? await readInput(context, 'a list of pictures')
      : await readFile(file).catch((cause: Error) => {
          throw usageError(
            `Expected a file that can be read for --files-from but received ${file}: ${cause.message}`,
            cause
          )
        })
  const text = bytes.toString('utf8').replace(/^\ufeff/, '')
  const names = text.includes('\0') ? text.split('\0') : text.split('\n').map((line) => line.replace(/\r$/, ''))
  return names.filter((name) => name.trim() !== '')
}

const mostInput = 512 << 20 // bytes

/** All of standard input. */
export async function readInput({ stdin, signal }: Context, what: string): Promise<Buffer> {
  if (!stdin || stdin.isTTY) throw usageError(`Expected ${what} on standard input, which is a terminal`)
  const all = async (): Promise<Buffer> => {
    const parts = new Pieces()
    for await (const part of stdin) {
      parts.add(Buffer.from(part as Uint8Array))
      if (parts.bytes > mostInput) throw usageError(`Expected ${what} on standard input but it is larger than 512 MB`)
    }
    return parts.joined()
  }
  return await untilAborted(all(), signal).catch((error: unknown) => {
    // Else a reader that waits would keep the process alive.
    ;(stdin as Partial<Readable>).destroy?.()
    throw error
  })
}

/** What the model is given for a name: the name itself, or the bytes on standard input, read once. */
export class Pictures {
  #input: Promise<Buffer> | undefined

  constructor(private readonly context: Context) {}

  async open(name: string): Promise<string | Buffer> {
    if (name !== dash) return name
    this.#input ??= readInput(this.context, 'a picture')
    const bytes = await this.#input
    if (bytes.length === 0) throw usageError('Expected a picture on standard input but there is nothing')
    return bytes
  }
}
