/** Examples with the packed package: worker_threads, a camera, Electron's main process and archive; newest AI SDK. */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { appWith, demoPicture, leaveOut, packWithEngine, runNode } from '../support/packed'

const root = join(__dirname, '..', '..')
const temporary = mkdtempSync(join(tmpdir(), 'paligemma-examples-'))
const caption =
  'a red circle, a purple ring, a black heart and a blue square on a dotted background with the number 359'
let app: string | undefined

beforeAll(() => {
  app = appWith(join(temporary, 'app'), packWithEngine(temporary), ['ai@7'])
  if (!app) return
  for (const name of ['worker-threads', 'camera', 'electron'])
    cpSync(join(root, 'examples', name), join(app, name), { recursive: true })
})
afterAll(() => {
  rmSync(temporary, { recursive: true, force: true })
})

const need = (context: TestContext): string => app ?? leaveOut(context, 'the package cannot be installed here')

describe('examples', () => {
  it('worker-threads: asks a model in another thread, and ends with it', (context) => {
    const args = ['worker-threads/main.mjs', demoPicture, demoPicture]
    expect(runNode(need(context), args)).toBe(`${caption}\n${caption}`)
  })

  it('camera: says who came', (context) => {
    const cwd = need(context)
    const clip = ['-loop', '1', '-i', demoPicture, '-t', '4', '-r', '5', '-pix_fmt', 'yuv420p', 'clip.mp4']
    const drawn = spawnSync('ffmpeg', ['-v', 'error', '-y', ...clip], { cwd, encoding: 'utf8' })
    if (drawn.status !== 0) leaveOut(context, 'ffmpeg is not installed')
    const lines = runNode(cwd, ['camera/camera.mjs', 'clip.mp4'], { SEE: '3', LABEL: 'blue square' }).split('\n')
    const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(events).toEqual([
      expect.objectContaining({ came: 1, label: 'blue square' }),
      expect.objectContaining({ looks: 3, seen: 1 })
    ])
  })

  // Electron's own installation downloads a browser. What is tried is our side: load, answer, dispose before the end.
  it("electron: the main process captions and ends, over a stand-in of Electron's app", (context) => {
    const cwd = need(context)
    mkdirSync(join(cwd, 'node_modules', 'electron'), { recursive: true })
    writeFileSync(join(cwd, 'node_modules', 'electron', 'index.js'), standIn)
    expect(runNode(cwd, ['electron/main.cjs'], { CAPTION: demoPicture })).toBe(caption)
    // An isolated window: its bytes go through the preload script, errors come back with their code.
    const broken = join(cwd, 'broken.png')
    writeFileSync(broken, 'no picture')
    const said = runNode(cwd, ['electron/main.cjs'], { PICTURES: [demoPicture, broken].join() }).split('\n')
    expect(said).toEqual([caption, expect.stringMatching(/^ERR_IMAGE_INVALID: /)])
  })
})

// What Electron shows as a folder is one here: the archive's own files under its name, what was unpacked beside it.
it("Electron's archive: asarUnpack of docs/deploy.md takes the engine out, and it is found there", (context) => {
  const cwd = need(context)
  const parts = join(temporary, 'archive')
  const resources = join(parts, 'resources')
  const archived = join(resources, 'app.asar')
  mkdirSync(join(parts, 'app'), { recursive: true })
  const modules = join(parts, 'app', 'node_modules')
  cpSync(join(cwd, 'node_modules'), modules, { recursive: true, verbatimSymlinks: true })
  writeFileSync(join(parts, 'app', 'main.cjs'), main)
  const packer = appWith(join(temporary, 'asar'), '@electron/asar@4', [])
  if (!packer) leaveOut(context, '@electron/asar cannot be installed here')
  const glob = /asarUnpack: \['([^']+)'\]/.exec(readFileSync(join(root, 'docs', 'deploy.md'), 'utf8'))![1]!
  writeFileSync(
    join(packer, 'pack.mjs'),
    `import { createPackageWithOptions, extractAll } from '@electron/asar'
    const [parts, unpackDir] = process.argv.slice(2)
    await createPackageWithOptions(parts + '/app', parts + '/packed/app.asar', { unpackDir })
    extractAll(parts + '/packed/app.asar', parts + '/resources/app.asar')`
  )
  expect(runNode(packer, ['pack.mjs', parts, glob])).toBe('')
  const engines = join('node_modules', 'node-paligemma', 'prebuilds')
  rmSync(join(archived, engines), { recursive: true })
  const run = (): string => runNode(temporary, [join(archived, 'main.cjs')], { PICTURE: demoPicture })
  expect(run()).toMatch(/^ERR_NATIVE_MISSING .*asarUnpack/s)
  cpSync(join(parts, 'packed', 'app.asar.unpacked', engines), join(`${archived}.unpacked`, engines), {
    recursive: true
  })
  expect(run()).toBe(caption)
})

const main = `const { loadModel } = require('node-paligemma')
async function main () {
  const model = await loadModel('demo')
  console.log((await model.generate({ image: process.env.PICTURE, prompt: 'caption en' })).text)
  await model.dispose()
}
main().catch((error) => console.log(error.code, error.message))`

// test/aisdk has the whole provider with AI SDK 6, which Node 20 is enough for
it('AI SDK 7: text, a stream and an object, by the default specification', (context) => {
  const cwd = need(context)
  writeFileSync(join(cwd, 'sdk.mjs'), sdk)
  const [text, streamed, object] = runNode(cwd, ['sdk.mjs'], { PICTURE: demoPicture }).split('\n')
  expect([text, streamed]).toEqual([caption, caption])
  expect(JSON.parse(object!)).toEqual({ count: expect.any(Number) })
})

const sdk = `import { readFileSync } from 'node:fs'
import { generateText, jsonSchema, Output, streamText } from 'ai'
import { loadModel } from 'node-paligemma'
import { createPaliGemma } from 'node-paligemma/ai-sdk'

globalThis.AI_SDK_LOG_WARNINGS = false
const loaded = await loadModel('demo')
const model = createPaliGemma({ model: loaded }).languageModel()
const file = { type: 'file', mediaType: 'image/png', data: readFileSync(process.env.PICTURE) }
const about = (text) => [{ role: 'user', content: [{ type: 'text', text }, file] }]
console.log((await generateText({ model, messages: about('caption en') })).text)
let text = ''
for await (const more of streamText({ model, messages: about('caption en') }).textStream) text += more
console.log(text)
const count = { type: 'integer', minimum: 0, maximum: 9 }
const schema = jsonSchema({ type: 'object', properties: { count }, required: ['count'], additionalProperties: false })
const messages = about('answer en how many shapes are there?')
console.log(JSON.stringify((await generateText({ model, messages, output: Output.object({ schema }) })).output))
await loaded.dispose()
`

// Electron as far as the example uses it: the preload script in a context of its own that knows nothing but electron,
// the window's script in another one, and values between all three as structured clones.
const standIn = `const { EventEmitter } = require('node:events')
const { readFileSync } = require('node:fs')
const vm = require('node:vm')
const app = new EventEmitter()
app.whenReady = async () => {}
app.quit = () => {
  let stopped = false
  app.emit('will-quit', { preventDefault: () => { stopped = true } })
  if (!stopped) process.exit(0)
}
const handlers = new Map()
const ipcMain = { handle: (name, handler) => handlers.set(name, handler) }
const invoke = async (name, ...args) => structuredClone(await handlers.get(name)({}, ...structuredClone(args)))
const world = {}
const bridged = (call) => async (...args) => structuredClone(await call(...structuredClone(args)))
const contextBridge = {
  exposeInMainWorld: (name, api) => {
    world[name] = Object.fromEntries(Object.entries(api).map(([key, call]) => [key, bridged(call)]))
  }
}
class BrowserWindow {
  constructor ({ webPreferences }) {
    const known = { electron: { contextBridge, ipcRenderer: { invoke } } }
    vm.runInNewContext(readFileSync(webPreferences.preload, 'utf8'), { require: (name) => known[name] })
  }

  async loadFile (page) {
    const parts = { file: new EventTarget(), text: {}, picture: {} }
    const document = { getElementById: (id) => parts[id] }
    const context = vm.createContext({ window: world, document, URL: { createObjectURL: () => 'blob:' } })
    vm.runInContext(readFileSync(page.replace('index.html', 'window.js'), 'utf8'), context)
    for (const picture of process.env.PICTURES.split(',')) {
      context.picked = [...readFileSync(picture)]
      parts.file.files = [{ arrayBuffer: async () => vm.runInContext('new Uint8Array(picked).buffer', context) }]
      const before = parts.text.textContent = '...'
      parts.file.dispatchEvent(new Event('change'))
      while (parts.text.textContent === before) await new Promise((resolve) => setTimeout(resolve, 5))
      console.log(parts.text.textContent)
    }
    app.emit('window-all-closed')
  }
}
module.exports = { app, ipcMain, BrowserWindow }
`
