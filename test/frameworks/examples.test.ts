/** Examples that need no tool of the registry, with the packed package: worker_threads, a camera, Electron's main. */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { appWith, demoPicture, leaveOut, packWithEngine, runNode } from '../support/packed'

const root = join(__dirname, '..', '..')
const temporary = mkdtempSync(join(tmpdir(), 'paligemma-examples-'))
const caption = 'a purple ring, a blue ring and a black heart on a striped background with the number 359'
let app: string | undefined

beforeAll(() => {
  app = appWith(join(temporary, 'app'), packWithEngine(temporary), [])
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
    const lines = runNode(cwd, ['camera/camera.mjs', 'clip.mp4'], { SEE: '3', LABEL: 'blue ring' }).split('\n')
    const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(events).toEqual([
      expect.objectContaining({ came: 1, label: 'blue ring' }),
      expect.objectContaining({ looks: 3, seen: 1 })
    ])
  })

  // Electron's own installation downloads a browser. What is tried is our side: load, answer, dispose before the end.
  it("electron: the main process captions and ends, over a stand-in of Electron's app", (context) => {
    const cwd = need(context)
    mkdirSync(join(cwd, 'node_modules', 'electron'), { recursive: true })
    writeFileSync(join(cwd, 'node_modules', 'electron', 'index.js'), standIn)
    expect(runNode(cwd, ['electron/main.cjs'], { CAPTION: demoPicture })).toBe(caption)
    for (const file of ['preload.cjs', 'window.js']) expect(runNode(cwd, ['--check', `electron/${file}`])).toBe('')
  })
})

const standIn = `const { EventEmitter } = require('node:events')
const app = new EventEmitter()
app.whenReady = async () => {}
app.quit = () => {
  let stopped = false
  app.emit('will-quit', { preventDefault: () => { stopped = true } })
  if (!stopped) process.exit(0)
}
module.exports = { app, ipcMain: { handle() {} }, BrowserWindow: class {}, contextBridge: {}, ipcRenderer: {} }
`
