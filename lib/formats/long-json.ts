/**
 * JSON of many megabytes, such as tokenizer.json, without holding up the event loop: large objects and arrays are cut
 * at their commas, and JSON.parse gets some members at a time.
 */
import { Turns } from '../base/turns'

// Of objects and arrays larger than a chunk: each level looks through a chunk anew.
const mostDepth = 64

const [quote, backslash, comma, colon, openArray, closeArray, openObject, closeObject] = [...'"\\,:[]{}'].map((c) =>
  c.charCodeAt(0)
) as [number, number, number, number, number, number, number, number]

const names = new WeakMap<object, string[]>()

/** Object.keys, which for a table of 250,000 entries takes long: they were gathered while it was read. */
export function keysOf(object: object): string[] {
  return names.get(object) ?? Object.keys(object)
}

/**
 * As JSON.parse of the text; errors name the byte near which they are. `chunk`: bytes that are parsed at a time;
 * `most`: members of all objects and arrays larger than that, for texts of strangers.
 */
export async function parseLongJson(bytes: Buffer, chunk = 1 << 16, most = Infinity): Promise<unknown> {
  const parser = new Parser(bytes, chunk, most)
  const value = await parser.value()
  parser.end()
  return value
}

class Parser {
  private at = 0
  private members = 0
  private depth = 0
  private readonly turns = new Turns()

  constructor(
    private readonly bytes: Buffer,
    private readonly chunk: number,
    private readonly most: number
  ) {}

  async value(): Promise<unknown> {
    this.skipSpace()
    const first = this.bytes[this.at]
    if (first === openObject || first === openArray) return await this.container(first === openObject)
    const begin = this.at
    this.at = this.memberEnd(begin, this.bytes.length)
    return this.parse(begin, this.at)
  }

  end(): void {
    this.skipSpace()
    if (this.at < this.bytes.length) this.fail(this.at, 'text behind the end of the value')
  }

  private async container(isObject: boolean): Promise<object> {
    const close = isObject ? closeObject : closeArray
    const [object, keys, list]: [Record<string, unknown>, string[], unknown[]] = [{}, [], []]
    const put = (key: string, value: unknown): void => {
      if (!Object.hasOwn(object, key)) keys.push(key)
      // what is called __proto__ is an entry like others
      if (key === '__proto__')
        Object.defineProperty(object, key, { value, configurable: true, enumerable: true, writable: true })
      else object[key] = value
    }
    this.at++
    if (++this.depth > mostDepth) this.fail(this.at, `nested more than ${mostDepth} deep`)
    for (let first = true; ; first = false) {
      if (this.turns.due) await this.turns.next()
      const begin = this.at
      this.at = this.groupEnd(begin)
      if (this.at > begin) {
        const empty = this.isBlank(begin, this.at)
        if (empty && !(first && this.bytes[this.at] === close)) this.fail(begin, 'a value is missing')
        const part = this.parse(begin, this.at, isObject)
        const names = isObject ? Object.keys(part as object) : []
        this.count(isObject ? names.length : (part as unknown[]).length)
        if (isObject) for (const key of names) put(key, (part as Record<string, unknown>)[key])
        else for (const item of part as unknown[]) list.push(item)
      } else if (this.bytes[begin] === comma || (this.bytes[begin] === close && !first)) {
        this.fail(begin, 'a value is missing')
      } else if (this.bytes[begin] !== close) {
        // one member that is large by itself
        this.count(1)
        const key = isObject ? this.key() : ''
        const value = await this.value()
        this.skipSpace()
        if (isObject) put(key, value)
        else list.push(value)
      }
      const next = this.bytes[this.at++]
      if (next === close) break
      if (next !== comma) this.fail(this.at - 1, `"," or "${String.fromCharCode(close)}" is missing`)
    }
    this.depth--
    if (isObject) names.set(object, keys)
    return isObject ? object : list
  }

  private count(members: number): void {
    this.members += members
    if (this.members > this.most) this.fail(this.at, `more than ${this.most} members`)
  }

  private key(): string {
    this.skipSpace()
    const begin = this.at
    if (this.bytes[begin] !== quote) this.fail(begin, 'a name in quotes is missing')
    this.at = this.stringEnd(begin, this.bytes.length)
    const key = this.parse(begin, this.at) as string
    this.skipSpace()
    if (this.bytes[this.at++] !== colon) this.fail(this.at - 1, '":" is missing')
    return key
  }

  /** Where the members within a chunk end: at a comma or closing bracket; `begin` where the first is larger. */
  private groupEnd(begin: number): number {
    const limit = Math.min(this.bytes.length, begin + this.chunk)
    let end = begin
    for (let at = begin; ; ) {
      const next = this.memberEnd(at, limit)
      if (next >= limit && limit < this.bytes.length) return end
      end = next
      if (this.bytes[next] !== comma) return end
      at = next + 1
    }
  }

  /** The first comma or closing bracket behind `at` that is not inside a value, or `limit`. */
  private memberEnd(at: number, limit: number): number {
    const { bytes } = this
    for (let depth = 0; at < limit; at++) {
      const byte = bytes[at]
      if (byte === quote) at = this.stringEnd(at, limit) - 1
      else if (byte === openObject || byte === openArray) depth++
      else if (byte === closeObject || byte === closeArray) {
        if (depth-- === 0) return at
      } else if (byte === comma && depth === 0) return at
    }
    return limit
  }

  /** Behind the closing quote of the string at `at`. */
  private stringEnd(at: number, limit: number): number {
    const { bytes } = this
    at++
    // a picture's base64 is long and holds nothing that is escaped
    const end = limit === bytes.length ? bytes.indexOf(quote, at) : -1
    if (end >= 0 && bytes[end - 1] !== backslash) return end + 1
    for (; at < limit; at++) {
      if (bytes[at] === backslash) at++
      else if (bytes[at] === quote) return at + 1
    }
    return limit
  }

  private parse(begin: number, end: number, isObject?: boolean): unknown {
    const text = this.bytes.toString('utf8', begin, end)
    try {
      return JSON.parse(isObject === undefined ? text : isObject ? `{${text}}` : `[${text}]`)
    } catch (error) {
      return this.fail(begin, (error as Error).message)
    }
  }

  private isBlank(begin: number, end: number): boolean {
    for (let at = begin; at < end; at++) if (!isSpace(this.bytes[at])) return false
    return true
  }

  private skipSpace(): void {
    while (isSpace(this.bytes[this.at])) this.at++
  }

  private fail(at: number, what: string): never {
    throw new SyntaxError(`${what} (near byte ${at})`)
  }
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}
