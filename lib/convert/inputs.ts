/** The files that a conversion reads, so that none of them is written over. */
import { readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { AdapterList } from './adapters/option'
import { absentAs } from '../base/system-limits'

interface Inputs {
  source: string | (string | undefined)[]
  maskDecoder?: string | undefined
  tokenizer?: string | undefined
  imatrix?: string | undefined
  adapters?: AdapterList | undefined
}

/**
 * Files as they are, with the other parts of split ones; folders with what is in them. A GGUF in a checkpoint's folder
 * is an earlier output of it.
 */
export async function filesRead({ source, maskDecoder, tokenizer, imatrix, adapters }: Inputs): Promise<string[]> {
  const paths = [source, maskDecoder, tokenizer, imatrix, adapters?.map((item) => adapterPath(item))]
    .flat()
    .filter((path): path is string => typeof path === 'string' && path !== '')
  const found = await Promise.all(
    paths.map(async (path) => {
      const names = await readdir(path).catch(absentAs([]))
      const inside = names.filter((name) => !name.endsWith('.gguf')).map((name) => join(path, name))
      return [path, ...inside, ...(await otherParts(path))]
    })
  )
  return found.flat()
}

async function otherParts(path: string): Promise<string[]> {
  const [, stem, end] = /^(.*-)\d+(-of-\d+(?:\.[^.]*)?)$/.exec(basename(path)) ?? []
  if (stem === undefined || end === undefined) return []
  const names = await readdir(dirname(path)).catch(absentAs([]))
  return names.filter((name) => name.startsWith(stem) && name.endsWith(end)).map((name) => join(dirname(path), name))
}

function adapterPath(adapter: unknown): unknown {
  return typeof adapter === 'object' && adapter !== null ? (adapter as { path?: unknown }).path : adapter
}
