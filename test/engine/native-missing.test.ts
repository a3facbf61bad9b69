import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'addon-'))
  vi.resetModules()
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true })
})

for (const kind of ['absent', 'broken']) {
  it(`an ${kind} engine is an error that says what to do, and the library still imports`, {
    tags: ['slow']
  }, async () => {
    const path = join(folder, 'paligemma.node')
    if (kind === 'broken') writeFileSync(path, 'not a binary')
    vi.stubEnv('PALIGEMMA_NATIVE', path)
    const { loadModel, preprocessImage, parseOutput, prompts } = await import('../../lib/index')
    const missing = {
      name: 'PaliGemmaError',
      code: 'ERR_NATIVE_MISSING',
      message: expect.stringMatching(/paligemma\.node.*npx paligemma build/s) as unknown
    }
    await expect(loadModel('x.gguf')).rejects.toMatchObject(missing)
    await expect(preprocessImage({ data: new Uint8Array(3), width: 1, height: 1 }, { size: 14 })).rejects.toMatchObject(
      missing
    )
    expect(parseOutput('<loc0000><loc0000><loc1023><loc1023> a', { width: 1, height: 1 })).toHaveLength(1)
    expect(prompts.detect(['a', 'b'])).toBe('detect a ; b')
  })
}
