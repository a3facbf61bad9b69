/** Our kernels in Metal's words, and the driver in Objective-C++, as far as they can be checked without a Mac. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = join(__dirname, '..', '..')
const compiler = ['clang++-19', 'clang++'].find((name) => spawnSync(name, ['--version']).status === 0)
let sources: [name: string, text: string][] = []
const folder = mkdtempSync(join(tmpdir(), 'paligemma-metal-'))

beforeAll(async () => {
  const path = '../../scripts/build-msl.mjs'
  const script = (await import(path)) as { mslSources: () => typeof sources; buildMsl: () => void }
  sources = script.mslSources()
  script.buildMsl()
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** What the compiler says, or nothing. */
function check(file: string, ...args: string[]): string {
  const common = ['-std=c++20', '-fsyntax-only', '-Wall', '-Werror', '-I', join(root, 'native')]
  const { stderr } = spawnSync(compiler!, [...common, ...args, file], { encoding: 'utf8' })
  return stderr
}

describe.skipIf(!compiler && !process.env.PALIGEMMA_ALL_TESTS)('kernels for Metal', () => {
  it('are texts of their own that name no other language', () => {
    expect(sources.length).toBeGreaterThan(5)
    for (const [name, text] of sources) {
      expect(text, name).toContain('KERNEL(')
      expect(text, name).not.toMatch(/#include "|__global__|__shared__|asm\(|threadIdx|if constexpr|\[&\]|nullptr/)
    }
  })

  it("keep Metal's address spaces apart", () => {
    const file = join(folder, 'all.cpp')
    const names = sources.map(([name]) => `#include "gpu/kernels/${name}.cu"\n`)
    const flags = ['-Wno-unknown-attributes', '-Wno-unused-function', '-Wno-unused-const-variable']
    const metal = [
      '-DPG_ADDRESS_SPACES',
      '-D__METAL_VERSION__=300',
      '-I',
      join(root, 'native', 'gpu', 'emulator', 'metal')
    ]
    writeFileSync(file, names.join(''))
    expect(check(file, ...flags, ...metal)).toBe('')
    // and the check finds a pointer that leads elsewhere
    const wrong = 'inline void wrong(device const float* x, threadgroup float* y) { y = x; }'
    writeFileSync(file, `#include "gpu/kernels/common.h"\n${wrong}\n`)
    expect(check(file, ...flags, ...metal)).toMatch(/changes address space/)
  }, 300_000)

  it('are started by a driver that compiles', () => {
    const objective = ['-x', 'objective-c++', '-fobjc-arc', '-fblocks', '-fobjc-runtime=macosx-12']
    const fake = ['-I', join(root, 'native', 'test', 'fake_metal')]
    expect(check(join(root, 'native', 'gpu', 'metal', 'metal_driver.mm'), ...objective, ...fake)).toBe('')
  }, 300_000)
})
