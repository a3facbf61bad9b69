/** Where the system refuses threads: children whose address space is limited, which refuses their stacks. */
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeTinyModel } from '../support/tiny-model'

const addon = process.env.PALIGEMMA_NATIVE ?? join(__dirname, '..', '..', 'build', 'Release', 'paligemma.node')
const canLimit = process.platform === 'linux' && spawnSync('prlimit', ['--version']).status === 0
let model = ''
beforeAll(() => {
  model = writeTinyModel()
})
afterAll(() => {
  rmSync(dirname(model), { recursive: true, force: true })
})

/** What refused-child.cjs prints. */
interface RefusedResult {
  before: number[]
  after: number[]
  threads?: number
  tokens?: number[]
  code?: string
  message?: string
  best?: number[]
  limits?: boolean
}

/** Runs `work` of refused-child.cjs with so much room for stacks of 8 MB. */
function child(work: string, megabytes: number): RefusedResult {
  const script = join(__dirname, '..', 'support', 'refused-child.cjs')
  const command = 'ulimit -S -s 8192; exec "$0" "$@"'
  const args = ['-c', command, process.execPath, script, addon, model, ...work.split(' '), String(megabytes)]
  const { stdout, stderr, status, signal } = spawnSync('sh', args, { encoding: 'utf8', timeout: 60_000 })
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' })
  return JSON.parse(stdout) as RefusedResult
}

describe.skipIf(!canLimit)('where threads are refused', () => {
  it('a model takes those it gets, says how many, and answers the same; a model that ran goes on', () => {
    const { threads, tokens, before, after } = child('load 64', 200)
    expect(threads).toBeGreaterThanOrEqual(1)
    expect(threads).toBeLessThan(64)
    expect(tokens).toEqual(before)
    expect(after).toEqual(before)
  })

  it('a model without a thread of its own is refused with a code, and the one that ran goes on', () => {
    const { code, message, before, after } = child('load 1', 7)
    expect(code).toBe('ERR_OUT_OF_MEMORY')
    expect(message).toMatch(/refused a thread.*pids limit/)
    expect(after).toEqual(before)
  })

  it('a page index and the machine measurement take those they get', () => {
    const { best, limits, before, after } = child('others 400', 2600)
    expect(best).toEqual([0])
    expect(limits).toBe(true)
    expect(after).toEqual(before)
  })
})
