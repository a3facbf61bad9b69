/** What the documentation shows for the demo model runs as it stands, from a clone; test/package does it installed. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { runnable, snippets, toJavaScript } from '../support/snippets'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')

/** What needs more than a model and a picture runs elsewhere. */
const elsewhere: Readonly<Record<string, RegExp>> = {
  'test/frameworks': /from '(?:ai|openai|@langchain|@llamaindex)|electron|\.node'/,
  'test/server': /node-paligemma\/server/,
  'test/queue': /node-paligemma\/queue/,
  'test/hub': /\bpull\(|removePulled\(/,
  'test/train': /adapters: \[|\.fit\(/,
  'test/video': /\.mp4|rtsp:|\/dev\/video/,
  'test/retrieval': /colpali|rescore\(|similarityMap\(/
}

/** What readers have by then. */
const prelude = `
import * as everything from 'node-paligemma'
import { writeFile } from 'node:fs/promises'
const { demoImage: image, loadModel } = everything
const model = await loadModel('demo')
const objects = await model.detect(image, 'purple ring')
const names = { model, image, page: image, before: image, after: image, paths: [image], objects, writeFile }
Object.assign(globalThis, everything, names, { schema: { enum: ['359', 'none'] }, app: { post() {} } })
process.env.MODEL = 'demo'
`

describe('snippets with the demo model', () => {
  let app: string
  beforeAll(() => {
    app = tempDir()
    mkdirSync(join(app, 'node_modules'))
    symlinkSync(root, join(app, 'node_modules', 'node-paligemma'), 'junction')
  })

  it.each(runnable().map((snippet) => [snippet.where, snippet] as const))('%s runs', (_, snippet) => {
    writeFileSync(join(app, 'snippet.mjs'), toJavaScript(snippet).code)
    const { stdout, stderr, status } = spawnSync(process.execPath, ['snippet.mjs'], { cwd: app, encoding: 'utf8' })
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
    expect(stdout).toContain('a purple ring, a blue ring and a black heart')
  })

  it('demoImage and the files under node-paligemma/demo are the same by import and require', () => {
    const script = `
      import { demoImage } from 'node-paligemma'
      import { createRequire } from 'node:module'
      import { isAbsolute } from 'node:path'
      const require = createRequire(import.meta.url)
      console.log(isAbsolute(demoImage), require('node-paligemma').demoImage === demoImage,
        require.resolve('node-paligemma/demo/shapes.png') === demoImage)`
    writeFileSync(join(app, 'paths.mjs'), script)
    expect(spawnSync(process.execPath, ['paths.mjs'], { cwd: app, encoding: 'utf8' }).stdout).toBe('true true true\n')
  })

  it('all others run where a model and pictures of their names are there', () => {
    const others = snippets(['js', 'mjs', 'cjs', 'ts'])
      .filter(({ text }) => !runnable().some((one) => one.text === text))
      .filter(({ text }) => !Object.values(elsewhere).some((pattern) => pattern.test(text)))
    expect(others.length).toBeGreaterThan(12)
    symlinkSync(join(root, 'node_modules', 'zod'), join(app, 'node_modules', 'zod'), 'junction')
    const script = [`await import('./prelude.mjs')`]
    for (const [i, snippet] of others.entries()) {
      for (const [, name, kind] of snippet.text.matchAll(/'([\w-]+\.(jpg|png|gguf))'/g))
        copyFileSync(join(root, 'demo', kind === 'gguf' ? 'paligemma2-demo.gguf' : 'shapes.png'), join(app, name!))
      const file = `other-${i}.${/\brequire\(/.test(snippet.text) ? 'cjs' : 'mjs'}`
      writeFileSync(join(app, file), toJavaScript(snippet).code.replace(/'google\/[\w-]+'/g, "'demo'"))
      script.push(`await import('./${file}').catch((error) => { console.error('${snippet.where}', error) })`)
    }
    writeFileSync(join(app, 'prelude.mjs'), prelude)
    writeFileSync(join(app, 'others.mjs'), script.join('\n'))
    const { stderr, status } = spawnSync(process.execPath, ['others.mjs'], { cwd: app, encoding: 'utf8' })
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
  })
})
