/** Where the engine is looked for, and how the C library is told. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { candidates, meant, usesMusl } from '../../lib/engine/locate'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'locate-'))
  vi.resetModules()
})
afterEach(() => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
  rmSync(folder, { recursive: true })
})

/** An ELF file of 64 bits that asks for this loader after a program header of another kind. */
function program(interpreter: string | undefined): string {
  const bytes = Buffer.alloc(64 + 2 * 56 + 64)
  bytes.writeUInt32BE(0x7f454c46)
  bytes.writeBigUInt64LE(64n, 32)
  bytes.writeUInt16LE(56, 54)
  bytes.writeUInt16LE(2, 56)
  bytes.writeUInt32LE(6, 64)
  bytes.writeUInt32LE(interpreter === undefined ? 1 : 3, 64 + 56)
  bytes.writeBigUInt64LE(176n, 64 + 56 + 8)
  bytes.writeBigUInt64LE(BigInt((interpreter?.length ?? 0) + 1), 64 + 56 + 32)
  bytes.write(interpreter ?? '', 176, 'latin1')
  const path = join(folder, 'program')
  writeFileSync(path, bytes)
  return path
}

describe('the C library', () => {
  it.each([
    ['/lib64/ld-linux-x86-64.so.2', false],
    ['/lib/ld-musl-x86_64.so.1', true],
    ['/lib/ld-musl-aarch64.so.1', true],
    ['/nix/store/abc-glibc-2.39/lib/ld-linux-aarch64.so.1', false],
    [undefined, false]
  ])('of a program that asks for %s', (interpreter, musl) => {
    expect(usesMusl(program(interpreter))).toBe(musl)
  })

  it('of files that are no program, too short or missing is taken for glibc', () => {
    writeFileSync(join(folder, 'script'), '#!/bin/sh\n')
    writeFileSync(join(folder, 'short'), Buffer.from('7f454c46', 'hex'))
    for (const name of ['script', 'short', 'missing']) expect(usesMusl(join(folder, name))).toBe(false)
  })

  it.runIf(process.platform === 'linux')('is told without a diagnostic report', () => {
    const report = vi.spyOn(process.report, 'getReport')
    const names = candidates().map((path) => relative(join(__dirname, '..', '..'), path))
    expect(names[0]).toBe(join('build', 'Release', 'paligemma.node'))
    const glibc = !usesMusl()
    expect(names[1]).toMatch(glibc ? /\.glibc\.node$/ : /\.musl\.node$/)
    expect(names[2]).toMatch(glibc ? /\.musl\.node$/ : /\.glibc\.node$/) // where the guess was wrong
    expect(report).not.toHaveBeenCalled()
  })
})

describe('a package that the program sees', () => {
  it('is searched from the working folder and from the program', () => {
    const root = join(folder, 'node_modules', 'node-paligemma')
    mkdirSync(root, { recursive: true })
    writeFileSync(join(root, 'package.json'), '{ "name": "node-paligemma" }')
    const engine = join(root, 'prebuilds', `${process.platform}-${process.arch}`)
    vi.spyOn(process, 'cwd').mockReturnValue(folder)
    expect(candidates().some((path) => path.startsWith(engine))).toBe(true)
    vi.spyOn(process, 'cwd').mockReturnValue(tmpdir())
    expect(candidates().some((path) => path.startsWith(engine))).toBe(false)
    const script = process.argv[1]
    process.argv[1] = join(folder, 'server.js')
    try {
      expect(candidates().some((path) => path.startsWith(engine))).toBe(true)
    } finally {
      process.argv[1] = script!
    }
  })
})

describe('nativeBinding', () => {
  const engine = { Model: class {}, inspect: () => ({ tensors: 1 }) }

  it('may be the addon itself, or a module around it; the first one serves calls without it', async () => {
    const { native, nativePath } = await import('../../lib/engine/native')
    expect(native({ default: engine })).toBe(engine)
    expect(native()).toBe(engine)
    expect(nativePath()).toBe('')
    const other = { ...engine }
    expect(native(other)).toBe(other)
    expect(native()).toBe(engine)
  })

  it('may be a path from the working folder or a file: URL; what is no engine is refused by name', async () => {
    const { native } = await import('../../lib/engine/native')
    const path = join(folder, 'other.cjs')
    writeFileSync(path, 'exports.answer = 42')
    const url = new URL(`file://${path}`)
    for (const choice of [path, relative(process.cwd(), path), url, url.href]) {
      expect(() => native(choice)).toThrow(/other\.cjs does not load: it is not the engine/)
    }
    expect(() => native('no/such.node')).toThrow(/^nativeBinding names no\/such\.node, which does not exist/)
    vi.stubEnv('PALIGEMMA_NATIVE', relative(process.cwd(), path))
    expect(() => native()).toThrow(/other\.cjs does not load/)
    // as .env files and units write it, where no shell expands
    vi.stubEnv('ENGINES', folder)
    vi.stubEnv('PALIGEMMA_NATIVE', '$ENGINES/other.cjs')
    expect(() => native()).toThrow(/other\.cjs does not load/)
    if (process.platform !== 'win32') {
      vi.stubEnv('HOME', folder)
      vi.stubEnv('PALIGEMMA_NATIVE', '~/other.cjs')
      expect(() => native()).toThrow(/other\.cjs does not load/)
    }
  })

  it('is set once for the calls that have no such option', { tags: ['slow'] }, async () => {
    const { setNativeBinding, inspectModel } = await import('../../lib/index')
    const { native, nativePath } = await import('../../lib/engine/native')
    const inspect = vi.fn(async () => await Promise.reject(Object.assign(new Error('mine'), { code: 'ERR_BUSY' })))
    setNativeBinding({ Model: class {}, inspect })
    await expect(inspectModel(__filename)).rejects.toMatchObject({ code: 'ERR_BUSY', message: 'mine' })
    expect(inspect).toHaveBeenCalledOnce()
    setNativeBinding(engine)
    expect(native()).toBe(engine)
    expect(nativePath()).toBe('')
    for (const value of [5, '', {}, null]) expect(() => setNativeBinding(value as object)).toThrow(/for nativeBinding/)
    expect(() => setNativeBinding('no/such.node')).toThrow(/no\/such\.node, which does not exist/)
    expect(native()).toBe(engine)
  })

  it.each([5, '', {}, { Model: 1 }, null, new URL('https://example.com/x.node')])('refuses %s', async (value) => {
    const { loadModel } = await import('../../lib/index')
    await expect(loadModel({ model: 'x.gguf', nativeBinding: value as object })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('nativeBinding') as unknown
    })
  })
})

it('a relative name is meant from the working folder, then from beside the bundle and the program', () => {
  const program = process.argv[1]!
  process.argv[1] = join(folder, 'app.cjs')
  try {
    expect(meant('./engine.node')[0]).toBe('./engine.node')
    expect(meant('./engine.node')).toContain(join(folder, 'engine.node'))
  } finally {
    process.argv[1] = program
  }
  expect(meant(join(folder, 'engine.node'))).toEqual([join(folder, 'engine.node')])
})
