/** What a verb may touch of the outside world, so that verbs can be tested and Ctrl-C reaches all of them. */
import { PaliGemmaError } from '../base/errors'
import { isError } from '../base/realms'

export interface Output {
  write(text: string): unknown
  isTTY?: boolean
  columns?: number
}

export interface Context {
  stdout: Output
  stderr: Output
  /** For pictures and lists named `-`; tests leave it out. */
  stdin?: AsyncIterable<Uint8Array | string> & { isTTY?: boolean }
  /** Aborted by Ctrl-C and other signals. */
  signal: AbortSignal
  /** From here on a standard output that is full or closed ends nothing. */
  outlivesOutput?: () => void
}

/** The reason of an abort from outside, and the exit code that goes with it. */
export class Interrupted extends Error {
  constructor(readonly exitCode = 130) {
    super('interrupted')
  }
}

/** Standard output takes no more: that ends a run over many pictures, unlike a picture that fails. */
export class OutputFailure extends PaliGemmaError {}

/** A mistake in how the command was called: exit code 2. */
export function usageError(message: string, cause?: unknown): PaliGemmaError {
  return new PaliGemmaError('ERR_INVALID_OPTION', message, cause === undefined ? undefined : { cause })
}

export function printLine(context: Context, text: string): void {
  context.stdout.write(`${text}\n`)
}

/** The first line of what runs on for days: it tells people, and nothing depends on its being read. */
export function announce(context: Context, text: string): void {
  context.outlivesOutput?.()
  try {
    printLine(context, text)
  } catch (error) {
    context.stderr.write(`note: ${(error as Error).message}\n`)
  }
}

const shownDigits = 6

/** One line of JSON; fractions with the digits that mean something. */
export function printJson(context: Context, value: unknown, digits = shownDigits): void {
  printLine(context, roundedJson(value, digits))
}

export function roundedJson(value: unknown, digits = shownDigits): string {
  return JSON.stringify(value, (_, item: unknown) => {
    if (typeof item === 'bigint') return Number(item)
    return typeof item === 'number' && !Number.isInteger(item) ? Number(item.toPrecision(digits)) : item
  })
}

/** `code: message`, as every failure is reported. */
export function describeError(error: unknown): { code: string; message: string } {
  if (!isError(error)) return { code: 'ERR_INTERNAL', message: String(error) }
  const { code } = error as { code?: unknown }
  return { code: typeof code === 'string' ? code : 'ERR_INTERNAL', message: error.message }
}

/** The failure on stderr, in one line; `inWords`: the message as it is shown. */
export function printError(
  context: Context,
  error: unknown,
  inWords: (message: string) => string = (message) => message
): void {
  const { code, message } = describeError(error)
  context.stderr.write(`${code}: ${oneLine(inWords(message))}\n`)
}

/** Text for a terminal: control characters from files or models shown, not obeyed. */
export function printable(text: string): string {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
  )
}

/** The same without line breaks. */
export function oneLine(text: string): string {
  return printable(text.trimEnd().replace(/\s*\r?\n\s*/g, ' '))
}

const units = ['B', 'KB', 'MB', 'GB', 'TB']

/** Decimal units, as disks are sold: "3.1 GB". */
export function formatBytes(bytes: number): string {
  let unit = 0
  let value = bytes
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(value < 99.95 ? 1 : 0)} ${units[unit]}`
}

/** "1 picture", "2 pictures". */
export const counted = (n: number, things: string): string => `${n} ${n === 1 ? things.replace(/s$/, '') : things}`

export function formatCount(n: number): string {
  return n >= 1e9 ? `${(n / 1e9).toFixed(2)} billion` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} million` : String(n)
}
