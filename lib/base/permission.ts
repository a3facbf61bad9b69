/**
 * Node's permission model. Addons can read what the process may not; ours keeps to it: what the engine opens is asked
 * for here first, and what Node itself refuses gets a code and a way out.
 */
import { type FileHandle, realpath } from 'node:fs/promises'
import { PaliGemmaError } from './errors'

/** `process.permission` as Node documents it; it is there with `--permission` alone. */
interface Permission {
  has: (scope: 'fs.read' | 'fs.write', path: string) => boolean
}

function denied(path: string, scope: 'fs.read' | 'fs.write', cause?: unknown): PaliGemmaError {
  const [doing, flag] = scope === 'fs.read' ? ['read', '--allow-fs-read'] : ['write', '--allow-fs-write']
  return new PaliGemmaError(
    'ERR_ACCESS_DENIED',
    `${path}: Node's permission model does not let this process ${doing} it; start Node with ${flag}=${path}`,
    cause === undefined ? undefined : { cause }
  )
}

/** Before the engine opens files: throws ERR_ACCESS_DENIED for what the process may not read, links followed. */
export async function checkReadable(...paths: (string | undefined)[]): Promise<void> {
  const { permission } = process as { permission?: Permission }
  if (!permission) return
  for (const path of paths) {
    if (path === undefined) continue
    if (!permission.has('fs.read', path)) throw denied(path, 'fs.read')
    // a file that is not there is reported by who opens it
    const real = await realpath(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ERR_ACCESS_DENIED') throw denied(path, 'fs.read', error)
      return path
    })
    if (!permission.has('fs.read', real)) throw denied(real, 'fs.read')
  }
}

/** Throws ERR_ACCESS_DENIED for a file that seems not to be there, but only may not be read. */
export function refuseDenied(path: string): void {
  const { permission } = process as { permission?: Permission }
  if (permission && !permission.has('fs.read', path)) throw denied(path, 'fs.read')
}

/** Node's own refusal, also where an error of ours came of it, with our code and words; any other error as it is. */
export function explainDenied(error: unknown): unknown {
  const { permission, resource } = refusalIn(error) ?? {}
  if (permission === undefined) return error
  if (!permission.startsWith('FileSystem')) {
    const flag = { ChildProcess: '--allow-child-process', WorkerThreads: '--allow-worker' }[permission]
    const advice = flag ? `; start Node with ${flag}` : ''
    return new PaliGemmaError('ERR_ACCESS_DENIED', `Node's permission model denies ${permission}${advice}`, {
      cause: error
    })
  }
  const path = typeof resource === 'string' && resource !== '' ? resource : 'a file'
  return denied(path, permission === 'FileSystemWrite' ? 'fs.write' : 'fs.read', error)
}

/** Node's refusal among an error and its causes; not where one of ours has said so already. */
function refusalIn(error: unknown): { permission: string; resource?: unknown } | undefined {
  for (let one = error, depth = 0; typeof one === 'object' && one !== null && depth < 8; depth++) {
    const { code, permission, resource, cause } = one as Record<string, unknown>
    if (code === 'ERR_ACCESS_DENIED')
      return typeof permission === 'string' && !(one instanceof PaliGemmaError) ? { permission, resource } : undefined
    one = cause
  }
  return undefined
}

/**
 * Brings what was written to the disk. Node 24's permission model forbids to ask for that, by any descriptor: then the
 * system does so in its own time.
 */
export async function syncFile(handle: FileHandle): Promise<void> {
  await handle.sync().catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ERR_ACCESS_DENIED') throw error
  })
}
