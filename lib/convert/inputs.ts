/** The files that a conversion reads, so that none of them is written over. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { AdapterList } from './adapters/option'

interface Inputs {
  source: string | string[]
  maskDecoder?: string | undefined
  tokenizer?: string | undefined
  imatrix?: string | undefined
  adapters?: AdapterList | undefined
}

/** Files as they are, folders with what is in them. A GGUF in a checkpoint's folder is an earlier output of it. */
export async function filesRead({ source, maskDecoder, tokenizer, imatrix, adapters }: Inputs): Promise<string[]> {
  const paths = [source, maskDecoder, tokenizer, imatrix, adapters?.map((item) => adapterPath(item))]
    .flat()
    .filter((path): path is string => typeof path === 'string' && path !== '')
  const found = await Promise.all(
    paths.map(async (path) => {
      const names = await readdir(path).catch(() => [])
      return [path, ...names.filter((name) => !name.endsWith('.gguf')).map((name) => join(path, name))]
    })
  )
  return found.flat()
}

function adapterPath(adapter: unknown): unknown {
  return typeof adapter === 'object' && adapter !== null ? (adapter as { path?: unknown }).path : adapter
}
