/** Where the system refuses threads: children whose address space is limited, which refuses their stacks. */
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { demoModel, demoPicture } from '../support/packed'
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

// Limits of processes do not hold for root, and of other users nobody knows how many they have: a user of nobody's.
const stranger = ['--reuid', '54321', '--regid', '54321', '--clear-groups']
const canBeOther = process.platform === 'linux' && spawnSync('setpriv', [...stranger, 'true']).status === 0
const library = join(__dirname, '..', '..', 'dist', 'index.js')
const pictures = `const { drawDetections, preprocessImage } = require(process.argv[1])
const picture = require('node:fs').readFileSync(process.argv[2])
const objects = [{ label: 'caf\\u00e9', box: { x: 5, y: 5, width: 50, height: 50 } }]
const told = (work) => work.then(() => 'ok', (error) => error.code ?? error.message)
async function main() {
  const seen = new Set()
  for (let round = 0; round < 3; round++) {
    const works = [1, 2].flatMap(() => [preprocessImage(picture, { size: 56 }), drawDetections(picture, objects)])
    for (const work of works.map(told)) seen.add(await work)
  }
  console.log([...seen].join())
}
main()`

describe.skipIf(!canBeOther || !canLimit)('where sharp gets no more threads than', () => {
  // Node alone has 11
  it.for([
    [12, 'ERR_OUT_OF_MEMORY'],
    [14, 'ERR_OUT_OF_MEMORY'],
    [16, 'ok'],
    [23, 'ok']
  ] as const)('%i with the rest of the process: %s', ([threads, outcome]) => {
    const limited = ['prlimit', `--nproc=${threads}`, process.execPath, '-e', pictures, library, demoPicture]
    const { stdout, stderr, status, signal } = spawnSync('setpriv', [...stranger, ...limited], {
      encoding: 'utf8',
      timeout: 60_000,
      env: { ...process.env, PALIGEMMA_NATIVE: addon }
    })
    expect({ stdout: stdout.trim(), stderr, status, signal }).toEqual({
      stdout: outcome,
      stderr: '',
      status: 0,
      signal: null
    })
  })
})

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

  // A thread that takes the last of the address space leaves none for what it does first.
  it('the first model of a process loads or ends with a code, whatever is left', { tags: ['slow'] }, () => {
    const script = `
      import { execFileSync } from 'node:child_process'
      import { readFileSync } from 'node:fs'
      import { stat } from 'node:fs/promises'
      const { loadModel } = await import(process.argv[1])
      await stat('.') // with Node's own threads there
      const kilobytes = Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))[1])
      const room = '--as=' + (kilobytes * 1024 + process.argv[3] * 2 ** 20) + ':'
      execFileSync('prlimit', ['--pid', String(process.pid), room])
      const load = loadModel({ model: process.argv[2], threads: 8 })
      console.log(await load.then(() => 'ok', ({ code }) => code))
      process.exit(0)`
    const node = [process.execPath, '--input-type=module', '-e', script]
    const args = ['-c', 'ulimit -S -s 8192; exec "$0" "$@"', ...node, pathToFileURL(library).href, demoModel]
    const env = { ...process.env, PALIGEMMA_NATIVE: addon }
    for (let megabytes = 14; megabytes <= 18; megabytes += 0.25) {
      const child = spawnSync('sh', [...args, String(megabytes)], { encoding: 'utf8', timeout: 60_000, env })
      const said = `${megabytes} MB: ${child.signal ?? child.status} ${child.stdout.trim()}`
      expect(said).toMatch(/ MB: 0 (?:ok|ERR_OUT_OF_MEMORY)$/)
    }
  })

  it('a page index and the machine measurement take those they get', () => {
    const { best, limits, before, after } = child('others 400', 2600)
    expect(best).toEqual([0])
    expect(limits).toBe(true)
    expect(after).toEqual(before)
  })
})
