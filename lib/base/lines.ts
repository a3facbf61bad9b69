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

/** The lines of a file that end with a line break; none where there is no file. */
export async function* wholeLines(path: string): AsyncGenerator<Line, void, undefined> {
  const isThere = await stat(path).then(
    () => true,
    () => false
  )
  if (!isThere) return
  let rest: Buffer = Buffer.alloc(0)
  let [line, at] = [0, 0]
  for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) {
    const bytes: Buffer = rest.length > 0 ? Buffer.concat([rest, piece as Buffer]) : (piece as Buffer)
    let start = 0
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
      const length = end + 1 - start
      yield { text: bytes.toString('utf8', start, end), line: ++line, from: at, to: at + length }
      at += length
      start = end + 1
    }
    rest = bytes.subarray(start)
  }
}
