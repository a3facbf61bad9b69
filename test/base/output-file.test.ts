/** What may be replaced by a file that the package writes, and what is left when writing fails. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  checkOutput,
  makeFolder,
  OutputFile,
  removeStaleParts,
  removeUnfinished,
  writeFailure,
  writeOutput
} from '../../lib/base/output-file'
import { writeModel } from '../../lib/convert/write'
import { NpzWriter } from '../../lib/formats/npz-writer'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { asStranger, hasStrangers } from '../support/permissions'

afterAll(removeTempDirs)

const windows = process.platform === 'win32'

/** Every writer of the library, by the same rules. */
const writers: [string, (path: string) => Promise<unknown>][] = [
  ['writeOutput', async (path) => await writeOutput(path, 'new')],
  ['writeModel', async (path) => await writeModel(path, [], [], { verify: false })],
  [
    'NpzWriter',
    async (path) => {
      const writer = await NpzWriter.create(path)
      await writer.close()
    }
  ]
]

describe.each(writers)('%s', (_, write) => {
  it('writes a new file and replaces a regular one, keeping its mode', async () => {
    const path = join(tempDir(), 'x.gguf')
    await write(path)
    expect(lstatSync(path).isFile()).toBe(true)
    writeFileSync(path, 'old')
    if (!windows) chmodSync(path, 0o600)
    await write(path)
    expect(readFileSync(path, 'utf8')).not.toBe('old')
    if (!windows) expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(readdirSync(join(path, '..'))).toEqual(['x.gguf'])
  })

  it('refuses a folder, a missing folder, a file as a folder, an endless name and a NUL', async () => {
    const dir = tempDir()
    mkdirSync(join(dir, 'folder'))
    writeFileSync(join(dir, 'file'), '')
    for (const name of ['folder', 'folder/', 'no/x', 'file/x', 'x'.repeat(300), 'a\0b'])
      await expect(write(join(dir, name)), name).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect(readdirSync(dir).sort()).toEqual(['file', 'folder'])
  })

  it('refuses an address, which would become a folder called "http:"', async () => {
    const before = readdirSync('.')
    for (const address of ['http://host/x.gguf', 's3://bucket/x.gguf', 'https://host/x/'])
      await expect(write(address)).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: `Expected a path on this machine for out but received the address ${address}`
      })
    await expect(makeFolder('http://host/folder', '--out')).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect(readdirSync('.')).toEqual(before)
  })

  it.skipIf(windows)('refuses pipes, sockets and devices, and links to them, and touches none', async () => {
    const dir = tempDir()
    execFileSync('mkfifo', [join(dir, 'pipe')])
    symlinkSync('pipe', join(dir, 'to-pipe'))
    symlinkSync('/dev/null', join(dir, 'to-null'))
    symlinkSync('loop', join(dir, 'loop'))
    const server = createServer().listen(join(dir, 'socket'))
    await new Promise((resolve) => server.once('listening', resolve))
    const before = readdirSync(dir).sort()
    for (const name of ['pipe', 'to-pipe', 'to-null', 'loop', 'socket']) {
      const info = lstatSync(join(dir, name))
      await expect(write(join(dir, name)), name).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(name)
      })
      expect(lstatSync(join(dir, name)).ino).toBe(info.ino)
    }
    for (const path of ['/dev/null', '/dev/stdout', '/dev/fd/1', '/proc/self/fd/1', '/dev/new-file'])
      await expect(write(path), path).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect(readdirSync(dir).sort()).toEqual(before)
    server.close()
  })

  it.skipIf(windows)(
    'writes what a symbolic link leads to, also where nothing is yet, and leaves the link',
    async () => {
      const dir = tempDir()
      mkdirSync(join(dir, 'disk'))
      writeFileSync(join(dir, 'disk', 'there'), 'old')
      symlinkSync('disk/there', join(dir, 'a'))
      symlinkSync('a', join(dir, 'b'))
      symlinkSync(join(dir, 'disk', 'new'), join(dir, 'c'))
      await write(join(dir, 'b'))
      await write(join(dir, 'c'))
      expect([readlinkSync(join(dir, 'a')), readlinkSync(join(dir, 'b'))]).toEqual(['disk/there', 'a'])
      expect(readFileSync(join(dir, 'disk', 'there'), 'utf8')).not.toBe('old')
      expect(readdirSync(join(dir, 'disk')).sort()).toEqual(['new', 'there'])
    }
  )

  it.skipIf(!hasStrangers)('names the path where the folder may not be written', async () => {
    const parent = tempDir()
    const dir = join(parent, 'shut')
    mkdirSync(dir, { mode: 0o555 })
    await asStranger(parent, async () => {
      await expect(write(join(dir, 'x'))).rejects.toMatchObject({
        code: 'ERR_ACCESS_DENIED',
        message: expect.stringContaining(join(dir, 'x'))
      })
    })
  })
})

describe('an output file', () => {
  it('has a temporary name that nobody can guess and that follows no link', async () => {
    const path = join(tempDir(), 'x.gguf')
    const [a, b] = [await OutputFile.create(path), await OutputFile.create(path)]
    expect(a.part).toMatch(/x\.gguf\.[0-9a-f]{16}\.part$/)
    expect(b.part).not.toBe(a.part)
    await a.discard()
    await b.discard()
    expect(readdirSync(join(path, '..'))).toEqual([])
  })

  it('leaves what was planted under the old fixed name alone', async () => {
    const dir = tempDir()
    writeFileSync(join(dir, 'victim'), 'mine')
    linkSync(join(dir, 'victim'), join(dir, 'x.part'))
    await writeOutput(join(dir, 'x'), 'new')
    expect(readFileSync(join(dir, 'victim'), 'utf8')).toBe('mine')
  })

  it('is not one of the files that are read for it, by whatever name', async () => {
    const dir = tempDir()
    const source = join(dir, 'source')
    writeFileSync(source, 'weights')
    const names = ['source', './source']
    if (!windows) {
      symlinkSync('source', join(dir, 'link'))
      linkSync(source, join(dir, 'hard'))
      names.push('link', 'hard')
    }
    for (const name of names)
      await expect(checkOutput(join(dir, name), { sources: [source] }), name).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining('choose another name')
      })
    expect(readFileSync(source, 'utf8')).toBe('weights')
  })

  it.skipIf(windows)('looks again before it takes its place', async () => {
    const path = join(tempDir(), 'x')
    const file = await OutputFile.create(path)
    execFileSync('mkfifo', [path])
    await expect(file.commit()).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await file.discard()
    expect(lstatSync(path).isFIFO()).toBe(true)
    expect(readdirSync(join(path, '..'))).toEqual(['x'])
  })

  it('goes when the process ends in the middle', async () => {
    const path = join(tempDir(), 'x')
    const listeners = process.listenerCount('exit')
    const file = await OutputFile.create(path)
    expect(process.listenerCount('exit')).toBe(listeners + 1)
    removeUnfinished()
    expect(readdirSync(join(path, '..'))).toEqual([])
    await file.discard()
    expect(process.listenerCount('exit')).toBe(listeners)
  })

  it('of a process that was killed is removed by the next one, after an hour', async () => {
    const dir = tempDir()
    const old = new Date(Date.now() - 7_200_000)
    const names = ['x.0123456789abcdef.part', 'x.0123456789abcdee.part', 'x.part', 'y.0123456789abcdef.part']
    for (const name of names) writeFileSync(join(dir, name), '')
    for (const name of names.filter((_, i) => i !== 1)) utimesSync(join(dir, name), old, old)
    await removeStaleParts(join(dir, 'x'))
    expect(readdirSync(dir).sort()).toEqual(names.slice(1).sort())
  })
})

describe('what the system says', () => {
  const said = (code: string) => writeFailure(Object.assign(new Error(`${code}: no`), { code }), 'a/b.gguf', '--out')
  it.each([
    ['ENOSPC', 'ERR_DISK_FULL'],
    ['EDQUOT', 'ERR_DISK_FULL'],
    ['EFBIG', 'ERR_DISK_FULL'],
    ['EROFS', 'ERR_ACCESS_DENIED'],
    ['EACCES', 'ERR_ACCESS_DENIED'],
    ['EPERM', 'ERR_ACCESS_DENIED'],
    ['EBUSY', 'ERR_ACCESS_DENIED'],
    ['ERR_ACCESS_DENIED', 'ERR_ACCESS_DENIED'],
    ['ENOENT', 'ERR_INVALID_OPTION'],
    ['EISDIR', 'ERR_INVALID_OPTION'],
    ['EIO', 'ERR_WRITE_FAILED'],
    ['EMFILE', 'ERR_OUT_OF_MEMORY'],
    ['ESTALE', 'ERR_WRITE_FAILED']
  ])('%s is %s with the path', (code, own) => {
    expect(said(code)).toMatchObject({ code: own, message: expect.stringContaining('a/b.gguf') })
  })

  it('other errors stay what they are', () => {
    const reason = new Error('stop')
    expect(writeFailure(reason, 'x')).toBe(reason)
    expect(writeFailure('text', 'x')).toBe('text')
  })

  it.skipIf(!hasStrangers)('makeFolder names the folder and the option', async () => {
    const dir = tempDir()
    chmodSync(dir, 0o555)
    await asStranger(dir, async () => {
      await expect(makeFolder(join(dir, 'new'), 'PALIGEMMA_CACHE')).rejects.toMatchObject({
        code: 'ERR_ACCESS_DENIED',
        message: expect.stringContaining('PALIGEMMA_CACHE')
      })
    })
    chmodSync(dir, 0o755)
  })
})
