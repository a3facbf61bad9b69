/** A line of JSON per event, in the form of pino's: whatever reads those reads these. */

/** Where the server writes what happens; pino's loggers are such. */
export interface Logger {
  /** What goes well: a line of each request, and models that are loaded and unloaded. */
  info: (fields: object, message?: string) => void
  /** What is the server's own failure. */
  error: (fields: object, message?: string) => void
}

const levels = { info: 30, error: 50 }

/** What takes whole lines, such as a write to a file. */
export type LineWriter = (line: string) => void

function jsonLogger(write: LineWriter): Logger {
  const line = (level: number) => (fields: object, message?: string) =>
    write(`${JSON.stringify({ level, time: Date.now(), ...fields, ...(message !== undefined && { msg: message }) })}\n`)
  return { info: line(levels.info), error: line(levels.error) }
}

const silent: Logger = { info: () => {}, error: () => {} }

export function loggerOf(given: Logger | LineWriter | false | undefined): Logger {
  if (given === false) return silent
  if (typeof given === 'object') return given
  return jsonLogger(given ?? ((line) => process.stderr.write(line)))
}
