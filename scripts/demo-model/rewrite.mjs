// A GGUF with some of its tensors and metadata changed.
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const { GgufSource, readFloats } = require('../../dist/convert/gguf/source.js')
const { OutputFile } = require('../../dist/base/output-file.js')
const { layoutGguf } = require('../../dist/formats/gguf-writer.js')
const { native } = require('../../dist/engine/native.js')

/** The values of a tensor that `rewrite` hands out. */
export const floatsOf = (tensor) => readFloats(tensor, native().quantizeRows)

/**
 * Writes the model `from` to `to`. `change` gives { type, shape, bytes } of a tensor, or nothing where it stays;
 * `changeValue` the value of a key.
 */
export async function rewrite(from, to, change, changeValue = (_, value) => value) {
  const source = await GgufSource.open(from)
  try {
    const metadata = source.metadata.map(({ key, type, value }) => [
      key,
      { type: 'copy', of: type, value: changeValue(key, value) }
    ])
    const tensors = []
    for (const tensor of source.tensors) {
      const { name, type, shape } = tensor
      const bytes = new Uint8Array(tensor.bytes)
      await tensor.read(0, bytes)
      tensors.push({ name, ...((await change(tensor)) ?? { type, shape, bytes }) })
    }
    const layout = await layoutGguf(metadata, tensors)
    const file = await OutputFile.create(to)
    try {
      await file.truncate(layout.bytes)
      await file.write(layout.header, 0)
      for (const [i, tensor] of tensors.entries()) await file.write(tensor.bytes, layout.offsets[i])
      await file.commit()
    } catch (error) {
      await file.discard()
      throw error
    }
  } finally {
    await source.close()
  }
}
