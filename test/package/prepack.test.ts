/** Packing stops where the tarball would not run. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')
const needed = [
  'dist/index.js',
  'dist/index.mjs',
  'dist/index.d.ts',
  'dist/cli/main.js',
  'dist/server/index.mjs',
  'dist/aisdk/index.mjs',
  'dist/server/page/index.html',
  'dist/queue/index.mjs',
  'dist/sources.tgz',
  'demo/paligemma2-demo.gguf',
  'demo/shapes.png'
]
const engine = `prebuilds/${process.platform}-${process.arch}/node-paligemma.node`

function check(folder: string, env: Record<string, string> = {}) {
  const { PALIGEMMA_PACK_WITHOUT_ENGINE: _, ...rest } = process.env
  return spawnSync(process.execPath, [join(root, 'scripts', 'check-package.mjs'), folder], {
    encoding: 'utf8',
    env: { ...rest, ...env }
  })
}

function clone(): string {
  const folder = tempDir()
  for (const file of [...needed, engine]) {
    mkdirSync(join(folder, file, '..'), { recursive: true })
    writeFileSync(join(folder, file), '')
  }
  return folder
}

describe('prepack', () => {
  it('is what npm runs before it packs', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>
    }
    expect(scripts['prepack']).toContain('scripts/check-package.mjs')
  })

  it('says nothing where all is there', () => {
    expect(check(clone())).toMatchObject({ status: 0, stdout: '', stderr: '' })
  })

  it.each(needed)('stops without %s', (file) => {
    const folder = clone()
    rmSync(join(folder, file))
    expect(check(folder)).toMatchObject({ status: 1, stderr: expect.stringContaining(file) })
  })

  it("stops without this platform's engine, unless told otherwise", () => {
    const folder = clone()
    rmSync(join(folder, 'prebuilds'), { recursive: true })
    expect(check(folder)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/npm run prebuild.*PALIGEMMA_PACK/)
    })
    expect(check(folder, { PALIGEMMA_PACK_WITHOUT_ENGINE: '1' })).toMatchObject({ status: 0, stderr: '' })
  })
})
