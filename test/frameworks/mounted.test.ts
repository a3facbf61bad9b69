/** The server as a route of Next.js, built and started, as docs/server.md writes it. */
import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, expect, it } from 'vitest'
import { demoImage } from '../../lib'
import { appWith, demoModel, packWithEngine, runNode } from '../support/packed'

const root = join(__dirname, '..', '..')
const temporary = mkdtempSync(join(tmpdir(), 'paligemma-mounted-'))
afterAll(() => rmSync(temporary, { recursive: true, force: true }))

const telemetry = { NEXT_TELEMETRY_DISABLED: '1' }

async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return String(port)
}

it('Next.js answers with it under its path', async () => {
  const app = join(temporary, 'next')
  cpSync(join(root, 'examples', 'next'), app, { recursive: true })
  const route = join(app, 'app', 'api', 'paligemma', '[...path]')
  mkdirSync(route, { recursive: true })
  const snippet = /```js\n(\/\/ app\/api\/paligemma.*?)```/s.exec(readFileSync(join(root, 'docs', 'server.md'), 'utf8'))
  writeFileSync(join(route, 'route.js'), snippet![1]!)
  if (!appWith(app, packWithEngine(temporary), ['next@16', 'react@19', 'react-dom@19'])) {
    if (process.env['PALIGEMMA_ALL_TESTS']) expect.fail('next cannot be installed')
    return console.log('not run: next cannot be installed here')
  }
  const next = join(app, 'node_modules/next/dist/bin/next')
  expect(runNode(app, [next, 'build'], { ...telemetry, MODEL: demoModel })).not.toMatch(/^exit/)
  const port = await freePort()
  const env = { ...process.env, ...telemetry, MODEL: demoModel }
  const server = spawn(process.execPath, [next, 'start', '-p', port], { cwd: app, env, stdio: 'ignore' })
  const base = `http://127.0.0.1:${port}/api/paligemma`
  try {
    let models: Response | undefined
    for (let tries = 0; !models && tries < 300; tries++) {
      models = await fetch(`${base}/v1/models`).catch(() => undefined)
      if (!models) await sleep(200)
    }
    expect(await models!.json()).toMatchObject({ data: [{ id: 'mix' }] })
    const form = new FormData()
    form.append('image', new Blob([new Uint8Array(readFileSync(demoImage))]), 'shapes.png')
    form.append('labels', 'purple ring')
    const found = await fetch(`${base}/v1/detect`, { method: 'POST', body: form })
    expect(await found.json()).toMatchObject({ objects: [{ label: 'purple ring' }] })
    const messages = [{ role: 'user', content: 'caption en' }]
    const stream = await fetch(`${base}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ stream: true, messages })
    })
    expect(await stream.text()).toMatch(/data: \[DONE\]\n\n$/)
  } finally {
    server.kill('SIGKILL')
  }
})
