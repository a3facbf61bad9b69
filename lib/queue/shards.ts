/** Results as lines of JSON, a file a worker. */
import { randomBytes } from 'node:crypto'
import { type FileHandle, open, readdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { wholeLines } from '../base/lines'
import { makeFolder, writeFailure } from '../base/output-file'
import { syncFile } from '../base/permission'
import { explainSystem } from '../base/system-limits'
import { take, rule } from '../base/validate'
import { reviveResults } from '../output/masks/mask-forms'
import type { ResultFields } from '../api/many/rows'

/** A result in a shard. */
export type ShardRow = {
  /** Of the job. */
  id: string
  /** The path or URL of its picture; absent of encoded bytes, and without a picture. */
  image?: string
} & ResultFields

const syncEveryMs = 1000

/** A row is in the file before its job counts as done: a worker that dies between leaves it twice, never lost. */
export class ShardWriter {
  #queue: Promise<unknown> = Promise.resolve()
  #synced = performance.now()

  private constructor(
    private readonly path: string,
    private readonly handle: FileHandle
  ) {}

  static async open(folder: string): Promise<ShardWriter> {
    await makeFolder(folder, 'out')
    const name = `${hostname()}-${process.pid}-${randomBytes(4).toString('hex')}.jsonl`
    const path = join(folder, name)
    const handle = await open(path, 'wx').catch((error: unknown) => {
      throw writeFailure(error, path)
    })
    return new ShardWriter(path, handle)
  }

  async append(row: ShardRow): Promise<void> {
    const written = this.#queue.then(async () => await this.#write(row))
    this.#queue = written.catch(() => {})
    await written
  }

  async #write(row: ShardRow): Promise<void> {
    const bytes = Buffer.from(`${JSON.stringify(row)}\n`)
    try {
      for (let done = 0; done < bytes.length; )
        done += (await this.handle.write(bytes, done, bytes.length - done)).bytesWritten
      if (performance.now() - this.#synced > syncEveryMs) {
        await syncFile(this.handle)
        this.#synced = performance.now()
      }
    } catch (error) {
      throw writeFailure(error, this.path)
    }
  }

  async close(): Promise<void> {
    await this.#queue
    await syncFile(this.handle)
    await this.handle.close()
  }
}

/**
 * The rows of all shards in a folder, each id once: a worker that was killed may have left a row whose job another one
 * did again, and half a line at its end.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export async function* readShards(folder: string | URL): AsyncGenerator<ShardRow, void, undefined> {
  const path = take('folder', folder, rule.file) as string
  const names = await readdir(path).catch((cause: Error) => {
    const text = `Expected a folder of shards for folder but ${path} cannot be read: ${cause.message}`
    throw explainSystem(new PaliGemmaError('ERR_INVALID_OPTION', text, { cause }))
  })
  const seen = new Set<string>()
  for (const name of names.filter((one) => one.endsWith('.jsonl')).sort())
    for await (const { text } of wholeLines(join(path, name))) {
      const row = parse(text)
      if (!row || seen.has(row.id)) continue
      seen.add(row.id)
      yield row
    }
}

function parse(text: string): ShardRow | undefined {
  try {
    const row = JSON.parse(text, reviveResults) as ShardRow
    return typeof row.id === 'string' ? row : undefined
  } catch {
    return undefined
  }
}
