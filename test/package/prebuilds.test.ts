/** Which engines may be shipped: scripts/check-prebuilds.mjs over small libraries of every system. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')
const fixture = (name: string): Buffer => readFileSync(join(root, 'test', 'fixtures', 'engines', name))
const elf = fixture('good.elf')
const dylib = gunzipSync(fixture('good.dylib.gz'))

/** What is said of these bytes at this place of prebuilds/. */
function check(place: string, bytes: Uint8Array, env: Record<string, string> = {}) {
  const file = join(tempDir(), place)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, bytes)
  const { PALIGEMMA_GLIBC_FLOOR: _, ...rest } = process.env
  return spawnSync(process.execPath, [join(root, 'scripts', 'check-prebuilds.mjs'), file], {
    encoding: 'utf8',
    env: { ...rest, ...env }
  })
}

function edited(bytes: Buffer, edit: (copy: Buffer) => void): Buffer {
  const copy = Buffer.from(bytes)
  edit(copy)
  return copy
}

/** The same file, with another name at the place of one of its own. */
const renamed = (bytes: Buffer, from: string, to: string) =>
  edited(bytes, (copy) => copy.write(to.padEnd(from.length, '\0'), copy.indexOf(`${from}\0`), 'latin1'))

describe('check-prebuilds', () => {
  it.each([
    ['linux-x64/node-paligemma.glibc.node', elf],
    ['win32-x64/node-paligemma.node', fixture('good.dll')],
    ['darwin-arm64/node-paligemma.node', dylib]
  ])('lets %s pass', (place, bytes) => {
    expect(check(place, bytes)).toMatchObject({ status: 0, stderr: expect.stringContaining('1 engine(s)') })
  })

  it.each<[string, string, Buffer, RegExp]>([
    ['a newer glibc', 'linux-x64/node-paligemma.glibc.node', fixture('newer-glibc.elf'), /needs glibc 2\.30, beyond/],
    ['glibc under the name of musl', 'linux-x64/node-paligemma.musl.node', elf, /is named musl but needs glibc/],
    ['a loud library', 'linux-x64/node-paligemma.glibc.node', fixture('loud.elf'), /shows 1 names beside the entrance/],
    ['another processor', 'linux-arm64/node-paligemma.glibc.node', elf, /is elf for x64/],
    ['another system', 'win32-x64/node-paligemma.node', elf, /lies in win32-x64, but is elf/],
    ['a foreign library', 'linux-x64/node-paligemma.glibc.node', renamed(elf, 'libc.so.6', 'libz.so.1'), /needs libz/],
    [
      'half an engine',
      'linux-x64/node-paligemma.glibc.node',
      renamed(elf, 'getpid', '_Z3abv'),
      /lacks _Z3abv of its own/
    ],
    [
      'no entrance',
      'win32-x64/node-paligemma.node',
      renamed(fixture('good.dll'), 'napi_register_module_v1', 'f'),
      /has no napi/
    ],
    ['a newer macOS', 'darwin-arm64/node-paligemma.node', newerMacos(), /needs macOS 14\.0, beyond 12\.0/],
    ['no signature', 'darwin-arm64/node-paligemma.node', unsigned(), /is not signed/],
    ['a signature of other bytes', 'darwin-arm64/node-paligemma.node', patched(), /is not signed, or not as it is now/],
    [
      'half a file',
      'linux-x64/node-paligemma.glibc.node',
      elf.subarray(0, elf.length >> 1),
      /cannot be checked: ends before/
    ],
    ['data beyond its end', 'darwin-arm64/node-paligemma.node', beyond(), /cannot be checked: ends before/],
    ['text', 'linux-x64/node-paligemma.glibc.node', Buffer.from('x'.repeat(99)), /is neither an ELF nor a Mach-O nor/]
  ])('refuses %s', (_, place, bytes, why) => {
    expect(check(place, bytes)).toMatchObject({ status: 1, stderr: expect.stringMatching(why) })
  })

  it('packs for newer systems where it is told to', () => {
    const env = { PALIGEMMA_GLIBC_FLOOR: '2.30' }
    expect(check('linux-x64/node-paligemma.glibc.node', fixture('newer-glibc.elf'), env).status).toBe(0)
  })
})

describe('a library for macOS without the names of its functions', () => {
  const stripped = gunzipSync(fixture('stripped.dylib.gz'))

  it('still shows its entrance, where dlsym looks', () => {
    expect(check('darwin-arm64/node-paligemma.node', stripped)).toMatchObject({ status: 0 })
    const nameless = edited(stripped, (copy) => copy.write('x', copy.indexOf('napi_register_module_v1\0'), 'latin1'))
    expect(check('darwin-arm64/node-paligemma.node', nameless).stderr).toMatch(/has no napi_register/)
  })

  it('is refused where its exports go round', () => {
    const place = stripped.indexOf('napi_register_module_v1\0') + 'napi_register_module_v1\0'.length
    const round = edited(stripped, (copy) => copy.writeUInt8(0, place))
    expect(check('darwin-arm64/node-paligemma.node', round).stderr).toMatch(/cannot be checked/)
  })
})

/** Load commands of the dylib, each [command, place]. */
function commands(): [number, number][] {
  const found: [number, number][] = []
  for (let i = dylib.readUInt32LE(16), at = 32; i > 0; i--, at += dylib.readUInt32LE(at + 4))
    found.push([dylib.readUInt32LE(at), at])
  return found
}

function newerMacos(): Buffer {
  const [, at] = commands().find(([command]) => command === 0x32)!
  return edited(dylib, (copy) => copy.writeUInt32LE(14 << 16, at + 12))
}

function unsigned(): Buffer {
  const [, at] = commands().find(([command]) => command === 0x1d)!
  return edited(dylib, (copy) => copy.writeUInt32LE(0x26, at))
}

function patched(): Buffer {
  return edited(dylib, (copy) => copy.writeUInt8(copy.readUInt8(0x520) ^ 1, 0x520))
}

/** Data in code, of which there is none, behind the end. */
function beyond(): Buffer {
  const [, at] = commands().find(([command]) => command === 0x29)!
  return edited(dylib, (copy) => copy.writeUInt32LE(dylib.length + 8, at + 8))
}

describe.skipIf(process.platform === 'win32')('npm run prebuilds', () => {
  it('compiles in a folder of its own: what npm run build made stays', () => {
    const dir = tempDir()
    const gyp = join(dir, 'node-gyp')
    // as node-gyp does: empties "build" beside the binding.gyp, and writes the engine there
    const script =
      'pwd; ls native/addon.gypi binding.gyp; rm -rf build; mkdir -p build/Release; echo > build/Release/x.node'
    writeFileSync(gyp, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    const kept = join(root, 'build', 'kept-by-prebuilds.test')
    mkdirSync(dirname(kept), { recursive: true })
    writeFileSync(kept, '')
    const made = join(root, 'prebuilds', 'nowhere-none')
    try {
      const { status, stdout } = spawnSync(
        process.execPath,
        [
          join(root, 'scripts', 'prebuild.mjs'),
          ...['--node-gyp', gyp, '--strip-bin', 'true', '--platform', 'nowhere', '--arch', 'none']
        ],
        { encoding: 'utf8' }
      )
      expect({ status, stdout }).toMatchObject({ status: 0, stdout: expect.stringContaining('native/addon.gypi') })
      expect(readdirSync(made)).toHaveLength(1)
      expect(existsSync(kept)).toBe(true)
    } finally {
      rmSync(kept, { force: true })
      rmSync(made, { recursive: true, force: true })
    }
  })
})
