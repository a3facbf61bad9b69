/** The package as users get it, with the engine built here as its prebuilt binary, in an application of its own. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TestContext } from 'vitest'
import { usesMusl } from '../../lib/engine/locate'

const root = join(__dirname, '..', '..')
export const demoModel = join(root, 'demo', 'paligemma2-demo.gguf')
export const demoPicture = join(root, 'demo', 'shapes.png')

/** The path of the tarball of a folder. */
export function npmPack(folder: string, to: string): string {
  mkdirSync(to, { recursive: true })
  execFileSync('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', to], { cwd: folder })
  return join(to, readdirSync(to).find((name) => name.endsWith('.tgz'))!)
}

/** What the tarball of this package holds, unpacked. */
export function unpacked(temporary: string): string {
  const stage = join(temporary, 'stage')
  mkdirSync(stage, { recursive: true })
  execFileSync('tar', ['-xzf', npmPack(root, join(temporary, 'plain')), '-C', stage])
  return join(stage, 'package')
}

const prebuilds = (contents: string): string => join(contents, 'prebuilds', `${process.platform}-${process.arch}`)

export function removeEngine(contents: string): void {
  rmSync(prebuilds(contents), { recursive: true, force: true })
}

/** The engine built here as the prebuilt binary of this machine. */
export function putEngine(contents: string): void {
  removeEngine(contents)
  mkdirSync(prebuilds(contents), { recursive: true })
  const libc = process.platform !== 'linux' ? '' : usesMusl() ? '.musl' : '.glibc'
  const binary = join(prebuilds(contents), `node-paligemma${libc}.node`)
  cpSync(join(root, 'build', 'Release', 'paligemma.node'), binary)
  chmodSync(binary, 0o755)
}

/** The tarball. */
export function packWithEngine(temporary: string): string {
  const contents = unpacked(temporary)
  putEngine(contents)
  return npmPack(contents, join(temporary, 'packed'))
}

/** A tool that cannot be had: the test is skipped, but not where nothing may be left out (PALIGEMMA_ALL_TESTS). */
export function leaveOut(context: TestContext, why: string): never {
  if (process.env['PALIGEMMA_ALL_TESTS']) throw new Error(`${why}, and PALIGEMMA_ALL_TESTS leaves no test out`)
  return context.skip(why)
}

/** An application with this package and tools of the registry; `undefined` where they cannot be had. */
export function appWith(folder: string, tarball: string, tools: string[]): string | undefined {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }))
  const { status } = spawnSync('npm', ['install', '--no-audit', '--no-fund', '--silent', tarball, ...tools], {
    cwd: folder,
    timeout: 500_000
  })
  return status === 0 ? folder : undefined
}

/** What a script of the application prints. */
export function runNode(cwd: string, args: string[], env: Record<string, string> = {}): string {
  const { stdout, stderr, status } = spawnSync(process.execPath, args, {
    cwd,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 480_000
  })
  return status === 0 ? stdout.trim() : `exit ${String(status)}: ${stdout}${stderr}`
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Starts a server (the argument PORT stands for its port), posts the demo's picture, ends it; the answer's text. */
export async function askServer(cwd: string, args: string[], path: string, model = demoModel): Promise<string> {
  const port = String(await freePort())
  const env = { ...process.env, PORT: port, HOSTNAME: '127.0.0.1', MODEL: model, NEXT_TELEMETRY_DISABLED: '1' }
  const server = spawn(
    process.execPath,
    args.map((arg) => (arg === 'PORT' ? port : arg)),
    { cwd, env, stdio: ['ignore', 'ignore', 'inherit'] }
  )
  const ended = new Promise((resolve) => server.once('exit', resolve))
  const { readFile } = await import('node:fs/promises')
  try {
    for (let tries = 0; ; tries++) {
      try {
        const body = await readFile(demoPicture)
        const headers = { 'content-type': 'application/octet-stream' }
        return await (await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', body, headers })).text()
      } catch (error) {
        if (tries > 300 || server.exitCode !== null) throw error
        await sleep(200)
      }
    }
  } finally {
    server.kill('SIGTERM')
    await Promise.race([ended, sleep(5000)])
    server.kill('SIGKILL')
  }
}
