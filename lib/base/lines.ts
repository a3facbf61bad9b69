/** Lines of files of any length. */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'

export interface Line {
  text: string
  /** From 1 on. */
  line: number
  /** In bytes: where it begins, and behind its line break. */
  from: number
  to: number
}

const newline = 10

/** In bytes; of a longer line nothing is kept: no row is so long, and a text could not be. */
export const longestLine = 1 << 26

type Found = Omit<Line, 'text'> & { bytes: Buffer | undefined; whole: boolean }

/** All lines, the last without a break as well. */
async function* linesOf(path: string): AsyncGenerator<Found, void, undefined> {
  let kept: Buffer[] = []
  let [line, from, at] = [1, 0, 0]
  const found = (last: Buffer, to: number, whole: boolean): Found => {
    const isLong = to - from > longestLine
    const one = { bytes: isLong ? undefined : Buffer.concat([...kept, last]), line: line++, from, to, whole }
    kept = []
    from = to
    return one
  }
  for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    let start = 0
    for (let end = piece.indexOf(newline); end >= 0; end = piece.indexOf(newline, start)) {
      yield found(piece.subarray(start, end), at + end + 1, true)
      start = end + 1
    }
    at += piece.length
    if (at - from > longestLine) kept = []
    else if (start < piece.length) kept.push(piece.subarray(start))
  }
  if (at > from) yield found(Buffer.alloc(0), at, false)
}

/** The lines of a file that end with a line break; none where there is no file. Too long ones are empty. */
export async function* wholeLines(path: string): AsyncGenerator<Line, void, undefined> {
  const isThere = await stat(path).then(
    () => true,
    () => false
  )
  if (!isThere) return
  for await (const { bytes, line, from, to, whole } of linesOf(path))
    if (whole) yield { text: bytes?.toString('utf8') ?? '', line, from, to }
}

/** All lines of a text, of Windows too; undefined for one that is too long. */
export async function* textLines(
  path: string
): AsyncGenerator<{ text: string | undefined; line: number }, void, undefined> {
  for await (const { bytes, line } of linesOf(path)) yield { text: bytes?.toString('utf8').replace(/\r$/, ''), line }
}
