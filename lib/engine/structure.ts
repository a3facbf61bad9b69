/** What a GGUF holds, as the engine's reader sees it. */
import { nativeCall } from '../base/errors'
import { checkReadable } from '../base/permission'
import { native, type NativeGguf } from './native'

/** No weight is read. `maxArray`: values kept of each metadata array; default all. */
export async function readStructure(file: string, maxArray?: number): Promise<NativeGguf> {
  await checkReadable(file)
  return await nativeCall(() => native().inspect(file, maxArray))
}
