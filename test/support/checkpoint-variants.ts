import { join } from 'node:path'
import { expect } from 'vitest'
import { convert } from '../../lib/convert'
import { copyCheckpoint, edit, readGguf, tempDir, type TestCheckpoint } from './convert-helpers'
import { golden } from './golden'

export const tiny = golden('hf', 'pg1-tiny')
export const quantizeRows = async (data: Uint8Array) => data

export async function converted(dir: string) {
  const out = join(tempDir(), 'model.gguf')
  const result = await convert({ source: dir, out, type: 'f32' }, { quantizeRows, verify: false })
  return { result, gguf: readGguf(out) }
}

/** The error of a conversion, which must be the package's own. */
export async function refusal(dir: string): Promise<{ code: string; message: string }> {
  const error = await converted(dir).then(
    () => undefined,
    (reason: unknown) => reason
  )
  expect(error).toMatchObject({ name: 'PaliGemmaError' })
  return error as { code: string; message: string }
}

export function changed(change: (checkpoint: TestCheckpoint) => void): string {
  const dir = copyCheckpoint(tiny)
  edit(dir, change)
  return dir
}

export function addTensor(
  checkpoint: TestCheckpoint,
  name: string,
  dtype: string,
  shape: number[],
  data: Uint8Array
): void {
  const at = checkpoint.data.length
  checkpoint.data = Buffer.concat([checkpoint.data, data])
  checkpoint.header[name] = { dtype, shape, data_offsets: [at, at + data.length] }
}
