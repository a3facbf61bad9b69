/** What a GGUF holds, as the engine's reader sees it. */
import { nativeCall } from '../base/errors'
import { checkReadable } from '../base/permission'
import { Turns } from '../base/turns'
import { native } from './native'
import type { NativeGgufFile, NativeMetadataEntry, NativeTensorEntry } from './native-gguf'

export interface Structure extends Pick<NativeGgufFile, 'version' | 'alignment' | 'bytes'> {
  /** In file order, as are the tensors. */
  metadata: NativeMetadataEntry[]
  tensors: NativeTensorEntry[]
}

const partItems = 2048 // tensors, the most expensive, take 3 ms

/** No weight is read. `maxArray`: values kept of each metadata array; default all. */
export async function readStructure(path: string, maxArray = Infinity, engine = native()): Promise<Structure> {
  await checkReadable(path)
  return await nativeCall(async () => {
    const file = await engine.inspect(path)
    try {
      return await readAll(file, maxArray)
    } finally {
      file.close()
    }
  })
}

async function readAll(file: NativeGgufFile, maxArray: number): Promise<Structure> {
  const { version, alignment, bytes } = file
  const turns = new Turns()
  const metadata = await inParts(file.metadataCount, turns, (first, count) => file.metadata(first, count))
  for (const [entry, { value }] of metadata.entries()) {
    if (typeof value !== 'object') continue
    const kept = Math.min(value.count, maxArray)
    value.values = await inParts(kept, turns, (first, count) => file.values(entry, first, count))
  }
  const tensors = await inParts(file.tensorCount, turns, (first, count) => file.tensors(first, count))
  return { version, alignment, bytes, metadata, tensors }
}

async function inParts<T>(total: number, turns: Turns, read: (first: number, count: number) => T[]): Promise<T[]> {
  const all: T[] = []
  while (all.length < total) {
    all.push(...read(all.length, Math.min(partItems, total - all.length)))
    if (turns.due) await turns.next()
  }
  return all
}
