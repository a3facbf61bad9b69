/** What the documentation shows for the demo model runs as it stands, from a clone; test/package does it installed. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { writeOthers } from '../support/other-snippets'
import { runnable, toJavaScript } from '../support/snippets'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')

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
    expect(stdout).toContain('a red circle, a purple ring, a black heart and a blue square')
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
    for (const name of ['zod', 'sharp'])
      symlinkSync(join(root, 'node_modules', name), join(app, 'node_modules', name), 'junction')
    const { stderr, status } = spawnSync(process.execPath, [writeOthers(app)], { cwd: app, encoding: 'utf8' })
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
  })
})
