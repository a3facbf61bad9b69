/** GGUFs taken apart and written again, changed. */
import { readFileSync, writeFileSync } from 'node:fs'
import { readStructure } from '../../lib/engine/structure'
import { layoutGguf, type Metadata } from '../../lib/formats/gguf-writer'

export interface EditTensor {
  name: string
  type: string
  shape: number[]
  bytes: Buffer
}

export interface EditGguf {
  metadata: Metadata
  tensors: EditTensor[]
}

export async function openGguf(path: string): Promise<EditGguf> {
  const { metadata, tensors } = await readStructure(path)
  const file = readFileSync(path)
  return {
    metadata: metadata.map(({ key, type, value }) => [key, { type: 'copy', of: type, value }]),
    tensors: tensors.map(({ name, type, shape, offset, bytes }) => ({
      name,
      type,
      shape,
      bytes: Buffer.from(file.subarray(offset, offset + bytes))
    }))
  }
}

export async function writeGguf(path: string, { metadata, tensors }: EditGguf): Promise<string> {
  const { header, offsets, bytes } = await layoutGguf(metadata, tensors)
  const file = Buffer.alloc(bytes)
  header.copy(file)
  for (const [i, tensor] of tensors.entries()) tensor.bytes.copy(file, offsets[i]!)
  writeFileSync(path, file)
  return path
}

/** The same with a key of another value. */
export function withKey(gguf: EditGguf, key: string, value: Metadata[number][1]): EditGguf {
  return { ...gguf, metadata: [...gguf.metadata.filter(([name]) => name !== key), [key, value]] }
}

const u16 = (value: number): Metadata[number][1] => ({ type: 'copy', of: 'uint16', value })

/** As splitters write them: `stem`-00001-of-0000N.gguf; the first part has the metadata. */
export async function splitGguf(
  stem: string,
  { metadata, tensors }: EditGguf,
  parts: number,
  edit: (part: EditGguf, index: number) => EditGguf = (part) => part
): Promise<string[]> {
  const size = Math.ceil(tensors.length / parts)
  const paths: string[] = []
  for (let i = 0; i < parts; i++) {
    const own: Metadata = [
      ['split.no', u16(i)],
      ['split.count', u16(parts)],
      ['split.tensors.count', { type: 'copy', of: 'int32', value: tensors.length }]
    ]
    const part = { metadata: i === 0 ? [...metadata, ...own] : own, tensors: tensors.slice(i * size, (i + 1) * size) }
    const pad = (n: number) => String(n).padStart(5, '0')
    paths.push(await writeGguf(`${stem}-${pad(i + 1)}-of-${pad(parts)}.gguf`, edit(part, i)))
  }
  return paths
}
