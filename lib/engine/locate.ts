/** Where the engine's files may be: in the package, or, where a bundler has moved this code, in what lies around it. */
import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { foldersBeside, packagesSeen } from '../base/package-files'

/** Files that may be the engine, best first: a local build, then the prebuilt binaries. */
export function candidates(): string[] {
  const own = inPackage()
  const others = otherRoots().flatMap((root) => [
    join(root, 'build', 'Release', 'paligemma.node'),
    ...prebuiltNames().map((name) => join(root, 'prebuilds', `${process.platform}-${process.arch}`, name))
  ])
  return [...new Set([...own, ...unpacked(own), ...others, ...unpacked(others)])]
}

/** Where a name may lead: from the working folder, and from the bundle, beside which bundlers put what they copy. */
export function meant(path: string): string[] {
  return isAbsolute(path) ? [path] : [path, ...foldersBeside().map((folder) => join(folder, path))]
}

/** Files that may be CUDA's kernels, best first. */
export function cudaKernelFiles(): string[] {
  const own = typeof __dirname === 'string' ? [join(__dirname, '../../prebuilds/cuda/kernels.br')] : []
  const others = otherRoots().map((root) => join(root, 'prebuilds', 'cuda', 'kernels.br'))
  return [...new Set([...own, ...unpacked(own), ...others])]
}

/** Where Node's permission model denies the question, there is nothing for this process. */
export function isThere(path: string): boolean {
  try {
    return existsSync(path)
  } catch {
    return false
  }
}

/** Whether this code runs out of an Electron archive. */
export function isInArchive(): boolean {
  return typeof __dirname === 'string' && archive.test(__dirname)
}

// Written out in full: tools that copy what an application needs (@vercel/nft and those that use it) follow calls of
// join(__dirname, ...) with literals. A require of these files would make bundlers without a rule for them fail.
function inPackage(): string[] {
  if (typeof __dirname !== 'string') return []
  const platform = `${process.platform}-${process.arch}`
  const build = join(__dirname, '../../build/Release/paligemma.node')
  const glibc = join(__dirname, `../../prebuilds/${platform}/node-paligemma.glibc.node`)
  const musl = join(__dirname, `../../prebuilds/${platform}/node-paligemma.musl.node`)
  const plain = join(__dirname, `../../prebuilds/${platform}/node-paligemma.node`)
  if (process.platform !== 'linux') return [build, plain]
  return [build, ...(usesMusl() ? [musl, glibc] : [glibc, musl]), plain]
}

function prebuiltNames(): string[] {
  const plain = 'node-paligemma.node'
  if (process.platform !== 'linux') return [plain]
  const names = ['node-paligemma.glibc.node', 'node-paligemma.musl.node', plain]
  return usesMusl() ? [names[1]!, names[0]!, plain] : names
}

/**
 * Folders to search beyond the package's own: the package that Node finds from the program, and what lies beside the
 * bundle, the program or a single executable. What merely lies in the working folder is nobody's word.
 */
function otherRoots(): string[] {
  return [...new Set([...packagesSeen(), ...foldersBeside()])]
}

const archive = /\.asar(?=[\\/]|$)/

/** Where Electron's packagers put files that were taken out of the archive. */
function unpacked(paths: string[]): string[] {
  return paths.filter((path) => archive.test(path)).map((path) => path.replace(archive, '.asar.unpacked'))
}

/**
 * Whether this program is linked with musl instead of glibc, by the name of its loader. Not by a diagnostic report:
 * that looks up the name of every connection's other end, for seconds each where no name server answers.
 */
export function usesMusl(program = process.execPath): boolean {
  try {
    return /(^|\/)ld-musl-/.test(elfInterpreter(program))
  } catch {
    return false // not readable, or no ELF file; the other kind is tried all the same
  }
}

/** The loader that an ELF file (64 bits, little endian) asks for; '' where it asks for none. */
function elfInterpreter(path: string): string {
  const file = openSync(path, 'r')
  const read = (bytes: number, at: number): Buffer => {
    const buffer = Buffer.alloc(bytes)
    return buffer.subarray(0, readSync(file, buffer, 0, bytes, at))
  }
  try {
    const header = read(64, 0)
    if (header.readUInt32BE(0) !== 0x7f454c46) return ''
    const [entryBytes, entries] = [header.readUInt16LE(54), header.readUInt16LE(56)]
    const table = read(entryBytes * entries, Number(header.readBigUInt64LE(32)))
    for (let at = 0; at < table.length; at += entryBytes) {
      const isInterpreter = table.readUInt32LE(at) === 3
      if (!isInterpreter) continue
      const bytes = Math.min(Number(table.readBigUInt64LE(at + 32)), 4096)
      return read(bytes, Number(table.readBigUInt64LE(at + 8)))
        .toString('latin1')
        .replace(/\0.*$/s, '')
    }
    return ''
  } finally {
    closeSync(file)
  }
}
