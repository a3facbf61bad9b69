/** Conversions of checkpoints to f32 without the addon. */
import { join } from 'node:path'
import { convert, type ConvertOptions } from '../../lib/convert'
import { readGguf, tempDir, widenBf16 } from './convert-helpers'
import { golden } from './golden'

/** Widens BF16, all that an f32 or bf16 conversion of the golden checkpoints needs. */
export const quantizeRows = async (data: Uint8Array, from: string, to: string): Promise<Uint8Array> => {
  if (from !== 'BF16' || to !== 'F32') throw new Error(`unexpected conversion from ${from} to ${to}`)
  return new Uint8Array(widenBf16(data).buffer)
}

export async function run(source: string, options: Partial<ConvertOptions> = {}) {
  const out = join(tempDir(), 'model.gguf')
  const result = await convert({ source, out, type: 'f32', ...options }, { quantizeRows, verify: false })
  return { result, out, gguf: readGguf(out) }
}

export const hf = (name: string) => golden('hf', name)
