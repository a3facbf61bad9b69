/** The built package where sharp cannot be loaded: everything that needs no encoded picture works. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = join(__dirname, '..', '..')
const hook = `
const Module = require('node:module')
const load = Module._load
Module._load = function (name, ...rest) {
  if (name === 'sharp') throw new Error('\\nCould not load the "sharp" module\\nPossible solutions: a page of them')
  return load.call(this, name, ...rest)
}`
const script = `
const pg = require(${JSON.stringify(root)})
const demo = ${JSON.stringify(join(root, 'demo', 'paligemma2-demo.gguf'))}
const codeOf = async (call) => await call().then(() => 'ok', (error) => error.code + ': ' + error.message)
const main = async () => {
  const model = await pg.loadModel({ model: demo, threads: 1 })
  const pixels = { data: new Uint8Array(8 * 8 * 4), width: 8, height: 8, channels: 4 }
  const score = await model.score({ image: pixels, prompt: 'caption en', suffix: 'a' })
  const results = {
    objects: pg.parseOutput('<loc0000><loc0000><loc0500><loc0500> cow', { width: 100, height: 100 }).length,
    score: score.logProbs.length > 0,
    embedding: (await model.encodeImage(pixels)).data.length > 0,
    encoded: await codeOf(() => pg.preprocessImage(Buffer.from([0xff, 0xd8, 0xff, 0xe0]), { size: 56 })),
    drawing: await codeOf(() => pg.drawDetections(pixels, []))
  }
  await model.dispose()
  console.log(JSON.stringify(results))
}
main()`

const built =
  existsSync(join(root, 'dist', 'images', 'sharp.js')) && existsSync(join(root, 'build', 'Release', 'paligemma.node'))
describe.skipIf(!built)('without sharp', () => {
  let folder = ''
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'no-sharp-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  it('raw pixels, parsing, scores and embeddings work, and the rest says what to do', () => {
    writeFileSync(join(folder, 'hook.cjs'), hook)
    const { stdout, stderr } = spawnSync(process.execPath, ['-r', join(folder, 'hook.cjs'), '-e', script], {
      encoding: 'utf8',
      timeout: 60_000
    })
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toEqual({
      objects: 1,
      score: true,
      embedding: true,
      encoded: expect.stringMatching(/^ERR_DEPENDENCY_MISSING: sharp.*npm install/) as unknown,
      drawing: expect.stringMatching(/^ERR_DEPENDENCY_MISSING: sharp.*npm install/) as unknown
    })
  })
})
