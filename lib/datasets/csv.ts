/** CSV as RFC 4180 has it, record by record, each with the line where it begins. */
export interface CsvRecord {
  line: number
  cells: string[]
}

const longest = 1 << 24 // characters of a record; an open quote would take in the rest of the file

/** Throws RangeError for a record without end. */
export async function* csvRecords(
  chunks: AsyncIterable<string>,
  delimiter?: string
): AsyncGenerator<CsvRecord, void, undefined> {
  const reader = new Reader(delimiter)
  for await (const chunk of chunks) yield* reader.push(chunk)
  yield* reader.end()
}

class Reader {
  private rest = ''
  private line = 1
  private first = true

  constructor(private delimiter: string | undefined) {}

  push(chunk: string): CsvRecord[] {
    this.rest += this.first ? chunk.replace(/^\uFEFF/, '') : chunk
    this.first = false
    return this.take(false)
  }

  end(): CsvRecord[] {
    return this.take(true)
  }

  private take(isEnd: boolean): CsvRecord[] {
    const records: CsvRecord[] = []
    let from = 0
    for (;;) {
      const to = this.recordEnd(from, isEnd)
      if (to === undefined) break
      const text = this.rest.slice(from, to)
      const { line } = this
      this.line += (text.match(/\r\n|\r|\n/g) ?? []).length
      from = to
      const content = text.replace(/(?:\r\n|\r|\n)$/, '')
      this.delimiter ??= likely(content)
      if (content !== '') records.push({ line, cells: cellsOf(content, this.delimiter) })
    }
    this.rest = this.rest.slice(from)
    if (this.rest.length > longest) throw new RangeError(`line ${this.line}: a quote that is opened there never ends`)
    return records
  }

  /** Behind the line break that no quotes hold; undefined: it has not come yet. */
  private recordEnd(from: number, isEnd: boolean): number | undefined {
    const { rest } = this
    let quoted = false
    for (let i = from; i < rest.length; i++) {
      const c = rest[i]
      if (c === '"') quoted = !quoted
      if (quoted || (c !== '\n' && c !== '\r')) continue
      if (c === '\r' && i + 1 === rest.length && !isEnd) return undefined // \n may follow
      return c === '\r' && rest[i + 1] === '\n' ? i + 2 : i + 1
    }
    if (!isEnd || from === rest.length) return undefined
    if (quoted) throw new RangeError(`line ${this.line}: a quote that is opened there never ends`)
    return rest.length
  }
}

/** Of the first line. */
function likely(header: string): string {
  const count = (delimiter: string): number => header.split(delimiter).length
  return [',', ';', '\t'].reduce((best, one) => (count(one) > count(best) ? one : best))
}

function cellsOf(record: string, delimiter: string): string[] {
  const cells: string[] = []
  for (let at = 0; at <= record.length; ) {
    if (record[at] !== '"') {
      const end = record.indexOf(delimiter, at)
      cells.push(record.slice(at, end < 0 ? record.length : end))
      at = end < 0 ? record.length + 1 : end + 1
      continue
    }
    let end = at + 1
    while (end < record.length && (record[end] !== '"' || record[end + 1] === '"')) end += record[end] === '"' ? 2 : 1
    const behind = record.indexOf(delimiter, end)
    const tail = record.slice(end + 1, behind < 0 ? record.length : behind)
    cells.push(record.slice(at + 1, end).replaceAll('""', '"') + tail)
    at = behind < 0 ? record.length + 1 : behind + 1
  }
  return cells
}

/** A line of a file that others read. */
export function csvLine(cells: readonly string[]): string {
  const quoted = cells.map((cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell))
  return `${quoted.join(',')}\r\n`
}
