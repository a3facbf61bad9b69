/**
 * Every file that the package writes: there as a whole or not at all, never in place of anything but a regular file.
 */
import { randomBytes } from 'node:crypto'
import { rmSync, type BigIntStats } from 'node:fs'
import {
  access,
  constants,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  realpath,
  rename,
  rm,
  stat
} from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { PaliGemmaError } from './errors'
import { isAddress } from './paths'
import { syncFile } from './permission'
import { explainOpenFiles } from './system-limits'
import { wrongOption } from './validate'

export interface OutputOptions {
  /** The option that named the path, as messages call it; default `out`. */
  option?: string | undefined
  /** Files that are read for this output: it must not become one of them. */
  sources?: readonly string[] | undefined
  /** What messages name instead of the path: the output that a file of ours stands beside for a while. */
  shownAs?: string | undefined
}

/** Where the bytes go in the end: behind symbolic links, and with the mode of what stands there. */
interface Target {
  path: string
  mode: number | undefined
}

const mostLinks = 40 // as the kernel's own limit

/**
 * Looks before any work is done whether a file can appear at `path`.
 * @throws PaliGemmaError ERR_INVALID_OPTION for devices, pipes, sockets, folders, missing folders and the sources
 * themselves, ERR_ACCESS_DENIED where the folder cannot be written
 */
export async function checkOutput(path: string, options: OutputOptions = {}): Promise<void> {
  await resolveOutput(path, options)
}

/** The file that writing `path` would make or replace, behind all links; throws as {@link checkOutput} does. */
export async function resolveOutput(path: string, options: OutputOptions = {}): Promise<string> {
  const target = await findTarget(path, options)
  await access(dirname(target.path), writable).catch((cause: Error) => {
    throw writeFailure(cause, path, options.option)
  })
  return target.path
}

const writable = constants.W_OK | constants.X_OK

/** Makes a folder and its parents. */
export async function makeFolder(path: string, option?: string): Promise<void> {
  refuseAddress(path, option)
  await mkdir(path, { recursive: true }).catch(async (cause: NodeJS.ErrnoException) => {
    throw writeFailure((await readOnly(path, cause)) ?? cause, path, option)
  })
}

/** On a read-only file system Node says that a folder's parent is not there, which is. */
async function readOnly(path: string, { code }: NodeJS.ErrnoException): Promise<Error | undefined> {
  if (code !== 'ENOENT') return undefined
  let parent = dirname(resolve(path))
  while (parent !== dirname(parent) && !(await stat(parent).catch(() => undefined))) parent = dirname(parent)
  return await access(parent, writable).then(
    () => undefined,
    (error: Error) => error
  )
}

/** Writes a whole file: what was there before stays until the new content is complete. */
export async function writeOutput(path: string, data: Uint8Array | string, options: OutputOptions = {}): Promise<void> {
  const file = await OutputFile.create(path, options)
  try {
    await file.write(typeof data === 'string' ? Buffer.from(data) : data, 0)
    await file.commit()
  } catch (error) {
    await file.discard()
    throw error
  }
}

/** Else "http://host/name" would become a folder called "http:". */
function refuseAddress(path: string, option = 'out'): void {
  if (typeof path === 'string' && isAddress(path))
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected a path on this machine for ${option} but received the address ${path}`
    )
}

/** A file under a temporary name beside its place; `commit` moves it there, `discard` removes it. */
export class OutputFile {
  private constructor(
    /** As it was given. */
    readonly path: string,
    /** The temporary name. */
    readonly part: string,
    private readonly target: Target,
    private readonly options: OutputOptions,
    private handle: FileHandle | undefined
  ) {}

  static async create(path: string, options: OutputOptions = {}): Promise<OutputFile> {
    const target = await findTarget(path, options)
    const part = partName(target.path)
    try {
      // Exclusive: whatever somebody planted under this name is neither followed nor overwritten.
      const handle = await open(part, 'wx')
      keepTrack(part)
      const file = new OutputFile(path, part, target, options, handle)
      if (target.mode !== undefined) await handle.chmod(target.mode & 0o777).catch(() => {})
      return file
    } catch (cause) {
      throw writeFailure(cause, options.shownAs ?? path, options.option)
    }
  }

  /** A sparse file of this size: gaps read as zero. */
  async truncate(bytes: number): Promise<void> {
    await this.guarded(async () => await this.handle!.truncate(bytes))
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    await this.guarded(async () => {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.handle!.write(bytes, done, bytes.length - done, position + done)
        done += bytesWritten
      }
    })
  }

  /** Everything is on the disk under the temporary name. */
  async flush(): Promise<void> {
    await this.guarded(async () => {
      if (this.handle) await syncFile(this.handle)
      await this.close()
    })
  }

  async commit(): Promise<void> {
    await this.flush()
    // Minutes may have passed since `create`.
    await findTarget(this.path, this.options)
    await this.guarded(async () => await rename(this.part, this.target.path))
    loseTrack(this.part)
  }

  async discard(): Promise<void> {
    await this.close().catch(() => {})
    await rm(this.part, { force: true }).catch(() => {})
    loseTrack(this.part)
  }

  private async close(): Promise<void> {
    const handle = this.handle
    this.handle = undefined
    await handle?.close()
  }

  private async guarded<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (cause) {
      throw writeFailure(cause, this.options.shownAs ?? this.path, this.options.option)
    }
  }
}

/** Follows symbolic links, also to files that are not there yet, and refuses what a file must not replace. */
async function findTarget(given: string, { option = 'out', sources = [], shownAs }: OutputOptions): Promise<Target> {
  if (typeof given !== 'string' || given === '' || given.includes('\0')) throw wrongOption(option, 'path', given)
  const refuse = (what: string): PaliGemmaError =>
    new PaliGemmaError('ERR_INVALID_OPTION', `Expected a path of a file for ${option} but ${shownAs ?? given} ${what}`)
  refuseAddress(given, option)
  if (/[/\\]$/.test(given)) throw refuse('names a folder')
  try {
    let path = resolve(given)
    for (let links = 0; ; links++) {
      // The folder as it really is, so that links to links end in the right place.
      path = join(await realpath(dirname(path)), basename(path))
      if (/^\/(?:proc|sys|dev(?!\/shm\/))\//.test(path)) throw refuse('is a device or belongs to the system')
      const info = await lstat(path, { bigint: true }).catch(noFile)
      if (!info) return { path, mode: undefined }
      if (info.isSymbolicLink()) {
        if (links === mostLinks) throw refuse('is a symbolic link that leads in a circle')
        path = resolve(dirname(path), await readlink(path))
        continue
      }
      if (!info.isFile()) throw refuse(`is ${kindOf(info)}; only regular files are replaced`)
      for (const source of sources)
        if (await isSame(source, info)) throw refuse(`is a file that is read for it (${source}); choose another name`)
      return { path, mode: Number(info.mode) }
    }
  } catch (cause) {
    throw writeFailure(cause, shownAs ?? given, option)
  }
}

function noFile(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

async function isSame(source: string, { dev, ino }: BigIntStats): Promise<boolean> {
  const other = await stat(source, { bigint: true }).catch(() => undefined)
  return other !== undefined && other.dev === dev && other.ino === ino
}

function kindOf(info: BigIntStats): string {
  if (info.isDirectory()) return 'a folder'
  if (info.isFIFO()) return 'a named pipe'
  if (info.isSocket()) return 'a socket'
  return 'a device'
}

const noRoom = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])
const notAllowed = new Set(['EACCES', 'EPERM', 'EROFS', 'EBUSY', 'ETXTBSY'])
const wrongPath = new Set(['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP', 'ENAMETOOLONG', 'EINVAL', 'EEXIST', 'ENXIO'])

/** Whether an error of the system or of this package says that there is no room. */
export function isDiskFull(error: unknown): boolean {
  const code = (error as { code?: unknown } | undefined)?.code
  return code === 'ERR_DISK_FULL' || (typeof code === 'string' && noRoom.has(code))
}

/** What the system said about writing `path`, as an error with a code; other errors as they are. */
export function writeFailure(error: unknown, path: string, option = 'out'): unknown {
  const code = error instanceof PaliGemmaError ? undefined : (error as NodeJS.ErrnoException | undefined)?.code
  if (typeof code !== 'string' || !/^(?:E(?!RR_)[A-Z]|ERR_ACCESS_DENIED)/.test(code)) return error
  const limited = explainOpenFiles(error, path)
  if (limited !== error) return limited
  const because = `: ${(error as Error).message}`
  const coded = (own: ConstructorParameters<typeof PaliGemmaError>[0], text: string): PaliGemmaError =>
    new PaliGemmaError(own, text + because, { cause: error })
  // Beside a file lies, while it is written, the one that takes its place.
  if (code === 'ERR_ACCESS_DENIED')
    return coded(
      'ERR_ACCESS_DENIED',
      `${path} cannot be written under Node's permission model; start Node with ` +
        `--allow-fs-write=${dirname(resolve(path))}, or choose another place with ${option}`
    )
  if (noRoom.has(code))
    return coded('ERR_DISK_FULL', `${path}: no room on the disk (or a quota or limit is reached); nothing was changed`)
  if (notAllowed.has(code))
    return coded('ERR_ACCESS_DENIED', `${path} cannot be written; choose another place with ${option}`)
  if (wrongPath.has(code))
    return coded('ERR_INVALID_OPTION', `Expected a path that can be written for ${option} but received ${path}`)
  return coded('ERR_WRITE_FAILED', `${path} could not be written; what was there before is unchanged`)
}

/** Long names are cut, so that the ending fits. */
function stemOf(target: string): string {
  const name = basename(target)
  return Buffer.byteLength(name) > 200 ? [...name].slice(0, 40).join('') : name
}

function partName(target: string): string {
  return join(dirname(target), `${stemOf(target)}.${randomBytes(8).toString('hex')}.part`)
}

const staleMs = 3_600_000

/** Removes what killed processes left of this output: nobody has written there for an hour. */
export async function removeStaleParts(path: string): Promise<void> {
  const target = await findTarget(path, {}).catch(() => undefined)
  if (!target) return
  const folder = dirname(target.path)
  const start = `${stemOf(target.path)}.`
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.startsWith(start) || !/^[0-9a-f]{16}\.part$/.test(name.slice(start.length))) continue
    const info = await lstat(join(folder, name)).catch(() => undefined)
    if (info?.isFile() && Date.now() - info.mtimeMs > staleMs) await rm(join(folder, name)).catch(() => {})
  }
}

const unfinished = new Set<string>()

/** Removes the unfinished files of this process: for those that end without waiting for their calls. */
export function removeUnfinished(): void {
  for (const part of unfinished) {
    try {
      rmSync(part, { force: true })
    } catch {
      // The process ends; there is nobody to tell.
    }
  }
}

function keepTrack(part: string): void {
  if (unfinished.size === 0) process.on('exit', removeUnfinished)
  unfinished.add(part)
}

function loseTrack(part: string): void {
  if (unfinished.delete(part) && unfinished.size === 0) process.off('exit', removeUnfinished)
}
