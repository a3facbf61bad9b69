/** What a file is, by its first bytes: names of caches and blobs have no extension. */
import { open, stat } from 'node:fs/promises'
import { absentAs } from './system-limits'

/** At most `count` bytes from the start, one character each; '' where the file cannot be read. */
export async function firstBytes(path: string, count: number): Promise<string> {
  // Opening a pipe would wait for its writer.
  const isFile = await stat(path).then(
    (info) => info.isFile(),
    () => false
  )
  const file = isFile ? await open(path, 'r').catch(absentAs(undefined)) : undefined
  if (!file) return ''
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(count), 0, count, 0)
    return buffer.toString('latin1', 0, bytesRead)
  } finally {
    await file.close()
  }
}
