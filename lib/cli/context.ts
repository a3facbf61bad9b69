/** What a verb may touch of the outside world, so that verbs can be tested and Ctrl-C reaches all of them. */
import { PaliGemmaError } from '../base/errors'

export interface Output {
  write(text: string): unknown
  isTTY?: boolean
  columns?: number
}

export interface Context {
  stdout: Output
  stderr: Output
  /** Aborted by Ctrl-C. */
  signal: AbortSignal
}

/** The reason of an abort by Ctrl-C. */
export class Interrupted extends Error {
  constructor() {
    super('interrupted')
  }
}

/** A mistake in how the command was called: exit code 2. */
export function usageError(message: string): PaliGemmaError {
  return new PaliGemmaError('ERR_INVALID_OPTION', message)
}

export function printLine(context: Context, text: string): void {
  context.stdout.write(`${text}\n`)
}

/** One line of JSON. */
export function printJson(context: Context, value: unknown): void {
  printLine(
    context,
    JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? Number(item) : item))
  )
}

/** `code: message`, as every failure is reported. */
export function describeError(error: unknown): { code: string; message: string } {
  if (!(error instanceof Error)) return { code: 'ERR_INTERNAL', message: String(error) }
  const { code } = error as { code?: unknown }
  return { code: typeof code === 'string' ? code : 'ERR_INTERNAL', message: error.message }
}

/** Text for a terminal: control characters from files or models shown, not obeyed. */
export function printable(text: string): string {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
  )
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

export function formatCount(n: number): string {
  return n >= 1e9 ? `${(n / 1e9).toFixed(2)} billion` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} million` : String(n)
}
