/** A process that has as many files open as it may says so, whatever it was about to read. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { writeFailure } from '../../lib/base/output-file'
import { absentAs, explainSystem } from '../../lib/base/system-limits'

const root = join(__dirname, '..', '..')
const refused = (code: string, path?: string) =>
  Object.assign(new Error(`${code}: too many open files`), { code, path })

describe('too many open files', () => {
  it.each(['EMFILE', 'ENFILE'])('%s is found among the causes of an error, and named with its path', (code) => {
    const cause = new Error('fetch failed', { cause: refused(code, 'a/b.jpg') })
    const error = new PaliGemmaError('ERR_IMAGE_INVALID', 'x', { cause })
    expect(explainSystem(error)).toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
      message: expect.stringMatching(/^a\/b\.jpg: .*limit \((?:ulimit -n|sysctl fs\.file-max)/),
      cause: error
    })
    expect(writeFailure(refused(code, 'a/b.gguf'), 'a/b.gguf')).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' })
    expect(() => absentAs([])(refused(code))).toThrow(code)
  })

  it('other errors stay', () => {
    const error = refused('ENOENT')
    expect(explainSystem(error)).toBe(error)
    expect(absentAs(7)(error)).toBe(7)
  })

  it.skipIf(process.platform === 'win32')('pictures, models, adapters, lists and files of weights', () => {
    const script = `
      const fs = require('node:fs')
      const { demoImage, inspectModel, loadModel, quantizeModel } = require(${JSON.stringify(join(root, 'dist'))})
      const { execute } = require(${JSON.stringify(join(root, 'dist', 'cli', 'program.js'))})
      const demo = ${JSON.stringify(join(root, 'demo', 'paligemma2-demo.gguf'))}
      const adapters = [fs.mkdtempSync(require('node:path').join(require('node:os').tmpdir(), 'open-files-'))]
      const calls = (model) => ({
        picture: () => model.generate({ image: demoImage, prompt: 'caption en', maxTokens: 1 }),
        model: () => loadModel(demo),
        adapter: () => loadModel({ model: demo, adapters }),
        file: () => inspectModel(demo),
        list: async () => {
          let said = ''
          const stream = { write: (text) => void (said += text) }
          const context = { stdout: stream, stderr: stream, signal: new AbortController().signal }
          await execute(['caption', '--files-from', demo], context)
          throw { code: said.split(':')[0] }
        },
        weights: () => quantizeModel({ source: demo, out: adapters[0] + '/q.gguf', type: 'Q8_0' })
      })
      const codeOf = (work) => work().then((made) => made.dispose?.(), (error) => error.code)
      loadModel('demo').then(async (model) => {
        for (const work of Object.values(calls(model))) await codeOf(work) // nothing is imported afterwards
        const found = {}
        const held = []
        for (const [name, work] of Object.entries(calls(model))) {
          try {
            for (;;) held.push(fs.openSync('/dev/null'))
          } catch {}
          found[name] = await codeOf(work)
        }
        for (const file of held) fs.closeSync(file)
        fs.rmSync(adapters[0], { recursive: true })
        console.log(JSON.stringify(found))
        process.exit()
      })`
    const node = `ulimit -n 200; exec "$0" --no-warnings -e "$1"`
    const { stdout, stderr } = spawnSync('sh', ['-c', node, process.execPath, script], { encoding: 'utf8' })
    const code = 'ERR_OUT_OF_MEMORY'
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toEqual({
      picture: code,
      model: code,
      adapter: code,
      file: code,
      list: code,
      weights: code
    })
  })
})
