/** A Redis of the test's own, whose data survive a restart. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'

export const hasRedis = spawnSync('redis-server', ['--version']).status === 0

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

export class TestRedis {
  #child: ChildProcess | undefined

  private constructor(
    readonly port: number,
    private readonly folder: string
  ) {}

  static async start(folder: string): Promise<TestRedis> {
    const redis = new TestRedis(await freePort(), folder)
    await redis.run()
    return redis
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`
  }

  async run(): Promise<void> {
    const args = ['--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.folder, '--save', '']
    this.#child = spawn('redis-server', [...args, '--appendonly', 'yes', '--appendfsync', 'everysec'], {
      stdio: 'ignore'
    })
    while (!(await this.#answers())) await new Promise((resolve) => setTimeout(resolve, 20))
  }

  async #answers(): Promise<boolean> {
    return await new Promise((resolve) => {
      const socket = connect(this.port, '127.0.0.1', () => socket.write('PING\r\n'))
      socket.once('data', (data) => {
        socket.destroy()
        resolve(String(data).startsWith('+PONG'))
      })
      socket.once('error', () => resolve(false))
    })
  }

  async stop(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (!child || child.exitCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }
}
