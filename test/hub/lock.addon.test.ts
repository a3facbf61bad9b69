/** Locks between containers: namespaces of their own, in which processes have the same number and host name. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

const container = [
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
  '--uts',
  'sh',
  '-c',
  'hostname box; exec "$@"',
  'sh'
]
const canUnshare = process.platform === 'linux' && spawnSync('unshare', [...container, 'true']).status === 0
const lockModule = join(__dirname, '..', '..', 'dist', 'hub', 'lock.js')

const program = `const { acquireLock } = require(${JSON.stringify(lockModule)})
const began = Date.now()
acquireLock(process.argv[1], { timing: { beatMs: 400, deadMs: 60_000 } }).then(async (lock) => {
  console.log(Date.now() - began)
  if (process.argv[2] === 'leave') return await lock.release()
  await new Promise(() => setInterval(() => {}, 1000))
})`

const children: ChildProcess[] = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})
afterAll(removeTempDirs)

/** A process with number 1 in a container called "box". */
function start(path: string, then: 'leave' | 'stay'): { child: ChildProcess; taken: Promise<number> } {
  const child = spawn('unshare', [...container, process.execPath, '-e', program, path, then])
  children.push(child)
  const taken = once(child.stdout!, 'data').then(([text]) => Number(text))
  return { child, taken }
}

describe.skipIf(!canUnshare)('a lock of a process that has the same number in the same container', () => {
  it('is taken over at once when that container was killed and started again', async () => {
    const path = join(tempDir(), 'a.lock')
    const first = start(path, 'stay')
    await first.taken
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ pid: 1, host: 'box' })
    first.child.kill('SIGKILL')
    await once(first.child, 'exit')
    expect(existsSync(path)).toBe(true)
    const again = start(path, 'leave')
    expect(await again.taken).toBeLessThan(10_000)
    await once(again.child, 'exit')
    expect(existsSync(path)).toBe(false)
  })

  it('is kept by the living one of two containers that share the folder', async () => {
    const path = join(tempDir(), 'a.lock')
    const owner = start(path, 'stay')
    await owner.taken
    const nonce = readFileSync(path, 'utf8')
    const other = start(path, 'leave')
    expect(await Promise.race([other.taken, sleep(4000, 'waits')])).toBe('waits')
    expect(readFileSync(path, 'utf8')).toBe(nonce)
    owner.child.kill('SIGKILL')
    expect(await other.taken).toBeGreaterThan(4000)
  })
})
