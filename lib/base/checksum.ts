/** SHA-256 of files. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'

/** As hexadecimal digits. Rejects with the file's error, or the signal's reason. */
export async function sha256Of(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  const pieces = createReadStream(path, { highWaterMark: 1 << 20 })
  for await (const piece of pieces) {
    signal?.throwIfAborted()
    hash.update(piece as Buffer)
  }
  return hash.digest('hex')
}
