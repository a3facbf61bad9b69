/** The server as a fetch handler of Bun and Deno, as docs/server.md says: under a path, with uploads and streams. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { appWith, demoPicture, leaveOut, packWithEngine } from '../support/packed'

const temporary = mkdtempSync(join(tmpdir(), 'paligemma-mounted-'))
let app: string | undefined

const program = `import { createServer } from 'node-paligemma/server'

const server = createServer({ models: { demo: 'demo' }, basePath: '/vision' })
const fetch = (request) => server.fetch(request)
const port = Number(process.env.PORT)
if (globalThis.Bun) Bun.serve({ port, hostname: '127.0.0.1', fetch })
else globalThis.Deno.serve({ port, hostname: '127.0.0.1' }, fetch)
`

beforeAll(() => {
  app = appWith(join(temporary, 'app'), packWithEngine(temporary), ['bun@1', 'deno@2'])
  if (app) writeFileSync(join(app, 'mounted.mjs'), program)
})
afterAll(() => rmSync(temporary, { recursive: true, force: true }))

async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return String(port)
}

async function answering(base: string): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (await fetch(`${base}/health`).catch(() => undefined)) return
    await sleep(200)
  }
  throw new Error(`${base} never answered`)
}

it.for([
  ['bun', []],
  ['deno', ['run', '-A']]
] as const)('%s', async ([name, words], context) => {
  const cwd = app ?? leaveOut(context, 'the tools cannot be installed here')
  const port = await freePort()
  const env = { ...process.env, PORT: port }
  // a group of its own: the command of npm is a script that starts the runtime
  const options = { cwd, env, stdio: 'ignore', detached: true } as const
  const server = spawn(join(cwd, 'node_modules/.bin', name), [...words, 'mounted.mjs'], options)
  const base = `http://127.0.0.1:${port}/vision`
  try {
    await answering(base)
    const form = new FormData()
    form.append('image', new Blob([new Uint8Array(readFileSync(demoPicture))]), 'shapes.png')
    form.append('labels', 'purple ring')
    const found = await fetch(`${base}/v1/detect`, { method: 'POST', body: form })
    expect(await found.json()).toMatchObject({ objects: [{ label: 'purple ring' }] })
    const stream = await fetch(`${base}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ stream: true, max_tokens: 4, messages: [{ role: 'user', content: 'caption en' }] })
    })
    expect(stream.headers.get('content-type')).toContain('text/event-stream')
    expect(await stream.text()).toMatch(/^data: \{.*data: \[DONE\]\s*$/s)
  } finally {
    process.kill(-server.pid!, 'SIGKILL')
  }
})
