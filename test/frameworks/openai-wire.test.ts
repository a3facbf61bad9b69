/** LangChain.js and LlamaIndex through the server, as docs/ai-sdk.md writes it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { demoImage, loadModel } from '../../lib'
import { createServer, type PaliGemmaServer } from '../../lib/server'
import { appWith, packWithEngine } from '../support/packed'

const page = readFileSync(join(__dirname, '..', '..', 'docs', 'ai-sdk.md'), 'utf8')
const temporary = mkdtempSync(join(tmpdir(), 'paligemma-wire-'))
const packages = ['@langchain/openai', '@langchain/core', '@llamaindex/openai', '@llamaindex/core', '@llamaindex/env']
let server: PaliGemmaServer
let url: string
let app: string | undefined
let want: string

beforeAll(async () => {
  app = appWith(join(temporary, 'app'), packWithEngine(temporary), packages)
  server = createServer({ models: { demo: 'demo' }, logger: false })
  url = (await server.listen({ port: 0 })).url
  const model = await loadModel('demo')
  want = await model.caption(demoImage)
  await model.dispose()
})

afterAll(async () => {
  await server?.close()
  rmSync(temporary, { recursive: true, force: true })
})

describe('the snippet for', () => {
  it.each(['LangChain.js', 'LlamaIndex'])('%s streams the caption', async (heading) => {
    if (!app) {
      if (process.env['PALIGEMMA_ALL_TESTS']) expect.fail('the packages cannot be installed')
      return console.log('not run: the packages cannot be installed here')
    }
    const after = page.slice(page.indexOf(`## ${heading}`))
    const snippet = /```js\n(.*?)```/s.exec(after)![1]!
    const file = join(app, `${heading}.mjs`)
    writeFileSync(file, snippet.replace('http://127.0.0.1:8080', url).replace("'cow.png'", JSON.stringify(demoImage)))
    // not spawnSync: the server is this process
    const child = spawn(process.execPath, [file], { cwd: app })
    let out = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (data) => {
        out += data
      })
    await once(child, 'close')
    expect(out).toBe(want)
  })
})
