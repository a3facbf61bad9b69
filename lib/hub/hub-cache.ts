/** What the cache of Hugging Face's Python library has of a repository, for when the hub cannot be asked. */
import { open, readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { isCommit } from './cache'
import { type GgufHeader, parseGgufHeader } from './gguf-header'
import { folderName } from './reference'
import type { HubFile } from './repository'
import { absentAs } from '../base/system-limits'

const repositoryDir = (dir: string, id: string): string => join(dir, `models--${folderName(id)}`)
export const snapshotDir = (dir: string, id: string, commit: string): string =>
  join(repositoryDir(dir, id), 'snapshots', commit)

/** The commit that a revision last stood for there, if its files are there. */
export async function snapshotOf(dir: string, id: string, revision: string): Promise<string | undefined> {
  const ref = join(repositoryDir(dir, id), 'refs', ...revision.split('/'))
  const commit = isCommit(revision) ? revision : (await readFile(ref, 'utf8').catch(absentAs(''))).trim()
  if (!isCommit(commit)) return undefined
  const names = await readdir(snapshotDir(dir, id, commit)).catch(absentAs([]))
  return names.length > 0 ? commit : undefined
}

/** Its files. Each is a link to a content that is called by its checksum; what is none cannot be verified. */
export async function snapshotFiles(dir: string, id: string, commit: string): Promise<HubFile[]> {
  const root = snapshotDir(dir, id, commit)
  const names = await readdir(root, { recursive: true })
  const files = await Promise.all(
    names.map(async (name): Promise<HubFile[]> => {
      const file = join(root, name)
      const info = await stat(file).catch(() => undefined)
      if (!info?.isFile()) return []
      const value = basename(await realpath(file))
      const kind = /^[0-9a-f]{64}$/.test(value) ? 'sha256' : /^[0-9a-f]{40}$/.test(value) ? 'git' : undefined
      return kind ? [{ path: name.replaceAll('\\', '/'), bytes: info.size, hash: { kind, value } }] : []
    })
  )
  return files.flat().sort((a, b) => (a.path < b.path ? -1 : 1))
}

/** As much of a file as tells what it is; see {@link readGgufHeader}. */
export async function snapshotHeader(
  dir: string,
  id: string,
  commit: string,
  file: HubFile
): Promise<GgufHeader | undefined> {
  const handle = await open(join(snapshotDir(dir, id, commit), ...file.path.split('/')))
  try {
    for (let size = 1 << 16; ; size *= 4) {
      const data = Buffer.alloc(Math.min(size, file.bytes))
      const { bytesRead } = await handle.read(data, 0, data.length, 0)
      const whole = bytesRead >= file.bytes || size >= 1 << 26
      const header = parseGgufHeader(data.subarray(0, bytesRead), whole)
      if (header !== 'more') return header
      if (whole) return undefined
    }
  } finally {
    await handle.close()
  }
}
