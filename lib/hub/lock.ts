/** One process at a time works on a model, also across containers and machines that share a cache. */
import { randomUUID } from 'node:crypto'
import { type FileHandle, open, readFile, rm, stat, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { makeFolder, writeFailure } from '../base/output-file'
import { sleep } from './retries'

const cacheOption = 'PALIGEMMA_CACHE'

/** What tests shorten. */
export interface LockTiming {
  /** The owner touches the file this often. */
  beatMs: number
  /** A file that nobody touched for so long, seen from here, has no owner any more. */
  deadMs: number
}

export const defaultLockTiming: LockTiming = { beatMs: 3000, deadMs: 45_000 }

export interface Lock {
  /** Aborts when somebody else took the lock, after this process slept through its beats. */
  lost: AbortSignal
  release: () => Promise<void>
}

interface Owner {
  nonce: string
  pid: number
  host: string
  /** When it started, where the system tells: a restarted container has the same numbers again. */
  started?: string
}

/**
 * Takes the lock, waiting for its owner as long as that one lives. Owners are known to be gone when their process is
 * (on this machine), or when the file's time stands still; it is compared with itself only, so clocks may differ.
 */
export async function acquireLock(
  path: string,
  {
    signal,
    onWait,
    timing = defaultLockTiming,
    option = cacheOption
  }: {
    signal?: AbortSignal | undefined
    /** Told once, who holds it. */
    onWait?: ((owner: string) => void) | undefined
    timing?: LockTiming
    /** What named the place, for messages. */
    option?: string
  } = {}
): Promise<Lock> {
  const nonce = randomUUID()
  const started = await startOf(process.pid)
  const self: Owner = { nonce, pid: process.pid, host: hostname(), ...(started !== undefined && { started }) }
  await makeFolder(dirname(path), option)
  let seen = { mark: '', since: 0 }
  let told = false
  for (;;) {
    signal?.throwIfAborted()
    if (await createExclusive(path, JSON.stringify(self), option)) return hold(path, nonce, timing)
    const [owner, time] = await Promise.all([
      readOwner(path),
      stat(path).then(
        (info) => info.mtimeMs,
        () => undefined
      )
    ])
    if (time === undefined) continue // released just now
    const mark = `${owner?.nonce} ${time}`
    const now = performance.now()
    if (mark !== seen.mark) seen = { mark, since: now }
    // A process of this machine that is gone may also live in another container: then its beats go on.
    const dead = owner !== undefined && (await isGone(owner))
    if (
      now - seen.since > (dead ? Math.min(timing.deadMs, 2.5 * timing.beatMs) : timing.deadMs) ||
      (dead === 'surely' && Date.now() - time > 2.5 * timing.beatMs) ||
      (dead && Date.now() - time > timing.deadMs)
    ) {
      await removeStale(path, owner?.nonce, timing)
      continue
    }
    if (!told) {
      told = true
      onWait?.(owner ? `process ${owner.pid} on ${owner.host}` : 'another process')
    }
    await sleep(Math.min(500, timing.beatMs), signal)
  }
}

/** False where the file exists. */
async function createExclusive(path: string, text: string, option = cacheOption): Promise<boolean> {
  let handle: FileHandle
  try {
    handle = await open(path, 'wx')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // Windows answers EPERM while a file of the name is being deleted.
    if (code === 'EEXIST' || (process.platform === 'win32' && code === 'EPERM')) return false
    throw writeFailure(error, path, option)
  }
  try {
    await handle.writeFile(text)
    return true
  } catch (error) {
    await rm(path, { force: true })
    throw writeFailure(error, path, option)
  } finally {
    await handle.close()
  }
}

async function readOwner(path: string): Promise<Owner | undefined> {
  try {
    const owner = JSON.parse(await readFile(path, 'utf8')) as Owner
    return typeof owner.nonce === 'string' && typeof owner.pid === 'number' && typeof owner.host === 'string'
      ? owner
      : undefined
  } catch {
    return undefined // being written, or gone
  }
}

/** 'surely': the same boot of this machine says so, whose clock is that of the file's times. */
async function isGone({ pid, host, started }: Owner): Promise<boolean | 'surely'> {
  if (host !== hostname()) return false
  const now = await startOf(pid)
  if (started !== undefined && now !== undefined && now !== started)
    return now.split(' ')[0] === started.split(' ')[0] ? 'surely' : true
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}

/** Linux: the boot's identity, and the clock ticks from the boot to the process's start. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    const [boot, text] = await Promise.all(
      ['/proc/sys/kernel/random/boot_id', `/proc/${pid}/stat`].map(async (file) => await readFile(file, 'utf8'))
    )
    // The second field is the program's name in parentheses, which may hold spaces; the start is field 22.
    const start = text!.slice(text!.lastIndexOf(')') + 2).split(' ')[19]
    return start === undefined ? undefined : `${boot!.trim()} ${start}`
  } catch {
    return undefined // another system, or no such process
  }
}

/**
 * Removes an owner's lock, but not that of somebody who took it in the meantime: only one process removes at a time.
 */
async function removeStale(path: string, nonce: string | undefined, timing: LockTiming): Promise<void> {
  const guard = `${path}.stale`
  if (!(await createExclusive(guard, ''))) {
    const age = await stat(guard).then(
      (info) => Date.now() - info.mtimeMs,
      () => 0
    )
    if (age > timing.deadMs) await rm(guard, { force: true })
    else await sleep(20)
    return
  }
  try {
    if ((await readOwner(path))?.nonce === nonce) await rm(path, { force: true })
  } finally {
    await rm(guard, { force: true })
  }
}

function hold(path: string, nonce: string, timing: LockTiming): Lock {
  const lost = new AbortController()
  const beat = async (): Promise<void> => {
    if ((await readOwner(path))?.nonce !== nonce) {
      clearInterval(timer)
      lost.abort(
        new PaliGemmaError(
          'ERR_DOWNLOAD_FAILED',
          `${path}: another process took over after this one stood still; run the command again`
        )
      )
      return
    }
    const now = new Date()
    await utimes(path, now, now)
  }
  const timer = setInterval(() => {
    beat().catch(() => {})
  }, timing.beatMs)
  timer.unref()
  return {
    lost: lost.signal,
    release: async () => {
      clearInterval(timer)
      if ((await readOwner(path))?.nonce === nonce) await rm(path, { force: true })
    }
  }
}
