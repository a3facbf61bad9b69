/**
 * One file of the hub to the disk: resumed, checked while it streams, and there under its name only when it is right.
 */
import { createHash, type Hash } from 'node:crypto'
import {
  constants,
  copyFile,
  type FileHandle,
  link,
  lstat,
  open,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { isDiskFull, makeFolder, writeFailure, writeOutput } from '../base/output-file'
import { syncFile } from '../base/permission'
import { snapshotDir } from './hub-cache'
import { fileUrl, type HubFile } from './repository'
import { type HubClient, Transient } from './client'
import { type OpenResponse, request } from './request'
import { withRetries } from './retries'

export interface DownloadTarget {
  id: string
  commit: string
  file: HubFile
  /** Where it goes; beside it, `.part` is what was received and `.part.etag` which version it is of. */
  path: string
  /** Bytes of the file that are there, from 0 (or what an earlier run left) to all; falls when a part is given up. */
  onBytes: (bytes: number) => void
}

/** Downloads a file, going on from what an earlier attempt or process left. The file that results is verified. */
export async function downloadFile(client: HubClient, target: DownloadTarget): Promise<void> {
  const { file, path, id, onBytes } = target
  // Under its final name it was verified.
  if ((await stat(path).catch(() => undefined))?.size === file.bytes) return onBytes(file.bytes)
  await makeFolder(dirname(path), cacheOption.option)
  const part = await Part.open(path, file)
  // Counts what the network brought, not what the disk had: resuming is no progress.
  let received = 0
  try {
    // A part of another process may be damaged: a wrong checksum of it is worth one more try from the start.
    for (let fresh = part.bytes === 0; ; fresh = true) {
      onBytes(part.bytes)
      await withRetries(
        client,
        `${id}/${file.path}`,
        async () => {
          while (part.bytes < file.bytes) {
            await receive(client, target, part, (bytes) => {
              received += bytes
              onBytes(part.bytes)
            })
          }
        },
        () => received
      )
      const actual = part.digest()
      if (actual === file.hash.value) return await part.commit()
      await part.restart()
      if (fresh) {
        await part.discard()
        throw new PaliGemmaError(
          'ERR_DOWNLOAD_FAILED',
          `${id}/${file.path}: the content is not what the hub lists: ` +
            `${file.hash.kind === 'git' ? 'git SHA-1' : 'SHA-256'} ${actual} instead of ${file.hash.value}; it was ` +
            'removed. A proxy or a mirror may have changed it'
        )
      }
      client.onRetry?.(`${id}/${file.path}: what was left of an earlier download is damaged; starting over`)
    }
  } catch (error) {
    if (isDiskFull(error)) {
      throw new PaliGemmaError(
        'ERR_DISK_FULL',
        `${path}: the disk is full; make room and run the same command, it goes on from here`,
        { cause: error }
      )
    }
    throw error
  } finally {
    await part.close()
  }
}

/** One request for what is missing. */
async function receive(
  client: HubClient,
  { id, commit, file }: DownloadTarget,
  part: Part,
  onReceived: (bytes: number) => void
): Promise<void> {
  const from = part.bytes
  const name = `${id}/${file.path}`
  const subject = { id, revision: commit, file: file.path }
  // Parts end at whole answers of one version only: If-Range makes a server with another version send all of it.
  const headers: Record<string, string> =
    from === 0 ? {} : { range: `bytes=${from}-`, ...(part.etag !== undefined && { 'if-range': part.etag }) }
  const answer = await request(client, fileUrl(client, id, commit, file.path), subject, headers)
  const { response, body, release } = answer
  try {
    checkIdentity(name, file, answer)
    if (response.status === 416 || response.status === 412) {
      await part.restart()
      throw new Transient(`the server refuses to go on at byte ${from}`)
    }
    const resumed = response.status === 206
    const encoded = (response.headers.get('content-encoding') ?? 'identity') !== 'identity'
    const total = totalBytes(response, from, encoded)
    if (total === 'bad range' || (resumed && encoded)) {
      await part.restart()
      throw new Transient(
        `the server answers with another range than the asked one (${response.headers.get('content-range')})`
      )
    }
    if (total !== undefined && total !== file.bytes) {
      // What came before is kept: this may be some proxy's page instead of the file.
      if (from === 0) await part.discard()
      throw new PaliGemmaError(
        'ERR_DOWNLOAD_FAILED',
        `${name}: the server sends ${total} bytes, but the hub lists ${file.bytes}; a proxy or a mirror may be in ` +
          'the way'
      )
    }
    if (!resumed && from > 0) {
      // No version and no length: rather a login page than the file, so the part is not given up for it.
      if (total === undefined && !response.headers.has('etag'))
        throw new Transient('the server answers with something else than the file')
      await part.restart()
      onReceived(0)
    }
    await part.setEtag(response.headers.get('etag'))
    await append(name, file, part, body(), onReceived)
  } finally {
    release()
  }
}

async function append(
  name: string,
  file: HubFile,
  part: Part,
  body: AsyncIterable<Uint8Array>,
  onReceived: (bytes: number) => void
): Promise<void> {
  for await (const chunk of body) {
    if (part.bytes + chunk.length > file.bytes) {
      await part.discard()
      throw new PaliGemmaError(
        'ERR_DOWNLOAD_FAILED',
        `${name}: the server sends more than the ${file.bytes} bytes that the hub lists; the part was removed`
      )
    }
    await part.append(chunk)
    onReceived(chunk.length)
  }
  if (part.bytes < file.bytes) throw new Transient(`the connection ended after ${part.bytes} of ${file.bytes} bytes`)
}

/**
 * The hub tells size and checksum of large files with every redirect: another version is noticed before its first byte.
 */
function checkIdentity(name: string, file: HubFile, { hops }: OpenResponse): void {
  for (const headers of hops) {
    const size = headers.get('x-linked-size')
    const etag = headers.get('x-linked-etag')?.replace(/^W\//, '').replaceAll('"', '')
    const otherSize = size !== null && Number(size) !== file.bytes
    if (
      otherSize ||
      (etag !== undefined && /^[0-9a-f]{64}$/.test(etag) && file.hash.kind === 'sha256' && etag !== file.hash.value)
    ) {
      throw new PaliGemmaError(
        'ERR_DOWNLOAD_FAILED',
        `${name}: the hub lists ${file.bytes} bytes with checksum ${file.hash.value}, but serves ` +
          `${size ?? 'another version'}${size === null ? '' : ' bytes'} with ${etag ?? 'another one'}; run the ` +
          'command again'
      )
    }
  }
}

/** Size of the whole file as the server states it. */
function totalBytes(response: Response, from: number, encoded: boolean): number | 'bad range' | undefined {
  if (response.status === 206) {
    const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '')
    if (!match || Number(match[1]) !== from) return 'bad range'
    return match[3] === '*' ? undefined : Number(match[3])
  }
  const length = response.headers.get('content-length')
  return length === null || encoded ? undefined : Number(length)
}

function startHash(file: HubFile): Hash {
  return file.hash.kind === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${file.bytes}\0`)
}

/** What was received of a file, with its running checksum. */
class Part {
  private handle: FileHandle | undefined
  private hash: Hash
  bytes = 0
  /** Of the version that the bytes are of; strong ones only, as others do not promise equal bytes. */
  etag: string | undefined

  private constructor(
    private readonly path: string,
    private readonly file: HubFile
  ) {
    this.hash = startHash(file)
  }

  static async open(path: string, file: HubFile): Promise<Part> {
    const part = new Part(path, file)
    part.handle = await openPart(part.name)
    try {
      const { size } = await part.handle.stat()
      const [value, etag] = (await readFile(`${part.name}.etag`, 'utf8').catch(() => '')).split('\n')
      // Without its note it may be of anything.
      if (size > file.bytes || (size > 0 && value !== file.hash.value)) await part.restart()
      else {
        await part.rehash(size)
        part.etag = etag || undefined
      }
      return part
    } catch (error) {
      await part.close()
      throw error
    }
  }

  private get name(): string {
    return `${this.path}.part`
  }

  private async rehash(size: number): Promise<void> {
    const buffer = Buffer.allocUnsafe(1 << 20)
    while (this.bytes < size) {
      const { bytesRead } = await this.handle!.read(buffer, 0, Math.min(buffer.length, size - this.bytes), this.bytes)
      if (bytesRead === 0) break
      this.hash.update(buffer.subarray(0, bytesRead))
      this.bytes += bytesRead
    }
  }

  async setEtag(etag: string | null): Promise<void> {
    const strong = etag !== null && /^"[^"\r\n]*"$/.test(etag) ? etag : undefined
    if (this.bytes > 0 && strong === this.etag) return
    this.etag = strong
    await writeOutput(`${this.name}.etag`, `${this.file.hash.value}\n${strong ?? ''}`, cacheOption)
  }

  async append(chunk: Uint8Array): Promise<void> {
    // Opened for appending: the position is always the end.
    try {
      for (let done = 0; done < chunk.length; )
        done += (await this.handle!.write(chunk, done, chunk.length - done)).bytesWritten
    } catch (error) {
      throw writeFailure(error, this.path, cacheOption.option)
    }
    this.hash.update(chunk)
    this.bytes += chunk.length
  }

  async restart(): Promise<void> {
    await this.handle!.truncate(0)
    this.bytes = 0
    this.etag = undefined
    this.hash = startHash(this.file)
  }

  digest(): string {
    return this.hash.copy().digest('hex')
  }

  async commit(): Promise<void> {
    await syncFile(this.handle!)
    await this.close()
    await rename(this.name, this.path)
    await rm(`${this.name}.etag`, { force: true })
  }

  async discard(): Promise<void> {
    await this.close()
    await rm(this.name, { force: true })
    await rm(`${this.name}.etag`, { force: true })
  }

  async close(): Promise<void> {
    const { handle } = this
    this.handle = undefined
    await handle?.close()
  }
}

/** What an earlier run left is gone on with, but not what a link or a pipe of the name leads to. */
async function openPart(name: string): Promise<FileHandle> {
  try {
    const there = await lstat(name).catch(() => undefined)
    if (there?.isSymbolicLink()) await rm(name, { force: true })
    else if (there && !there.isFile()) {
      throw new PaliGemmaError('ERR_INVALID_OPTION', `${name} is in the way of a download and no file; remove it`)
    }
    const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW = 0 } = constants
    return await open(name, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW)
  } catch (error) {
    throw writeFailure(error, name, cacheOption.option)
  }
}

const cacheOption = { option: 'PALIGEMMA_CACHE' }

/** Bytes of a file that need not be downloaded any more. */
export async function presentBytes(path: string, file: HubFile): Promise<number> {
  if ((await stat(path).catch(() => undefined))?.size === file.bytes) return file.bytes
  return Math.min(file.bytes, (await stat(`${path}.part`).catch(() => undefined))?.size ?? 0)
}

/**
 * Takes a file from the cache of Hugging Face's Python library, if it is there and right, without copying where
 * possible.
 */
export async function takeFromHubCache(
  hubCacheDir: string,
  { id, commit, file, path }: Omit<DownloadTarget, 'onBytes'>,
  signal?: AbortSignal
): Promise<boolean> {
  const source = join(snapshotDir(hubCacheDir, id, commit), ...file.path.split('/'))
  if ((await stat(source).catch(() => undefined))?.size !== file.bytes) return false
  if ((await hashFile(source, file, signal)) !== file.hash.value) return false
  await makeFolder(dirname(path), cacheOption.option)
  const real = await realpath(source)
  for (const take of [link, symlink, copyFile]) {
    try {
      await take(real, path)
      return true
    } catch {
      /* another file system, or not allowed: the next way */
    }
  }
  return false
}

async function hashFile(path: string, file: HubFile, signal?: AbortSignal): Promise<string | undefined> {
  const hash = startHash(file)
  const handle = await open(path, 'r').catch(() => undefined)
  if (!handle) return undefined
  try {
    const buffer = Buffer.allocUnsafe(1 << 20)
    for (let position = 0; ; ) {
      signal?.throwIfAborted()
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, position)
      if (bytesRead === 0) return hash.digest('hex')
      hash.update(buffer.subarray(0, bytesRead))
      position += bytesRead
    }
  } finally {
    await handle.close()
  }
}
