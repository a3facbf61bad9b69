/** Where the system gives a process little: limits of cgroups, fewer CPUs; and under hooks and forced collections. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { leaveOut } from '../support/packed'

const script = join(__dirname, '..', 'support', 'confined-child.cjs')
const library = join(__dirname, '..', '..', 'dist', 'index.js')

interface Outcome {
  threads: number
  answers: string[]
  seen: Record<string, number>
  code?: string
  message?: string
}

/** Runs the child behind these words of a shell, which must end well. */
function child(before: string, threads = 0, flags: string[] = [], how = ''): Outcome {
  const args = ['-c', `${before} exec "$0" "$@"`, process.execPath, ...flags, script, library, String(threads), how]
  const { stdout, stderr, status, signal } = spawnSync('sh', args, {
    encoding: 'utf8',
    timeout: 120_000,
    env: { ...process.env, NODE_NO_WARNINGS: '1' } // that there are fewer threads is one
  })
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' })
  return JSON.parse(stdout) as Outcome
}

let free: Outcome
beforeAll(() => {
  free = child('')
  expect(free.answers[0]).toBe(free.answers[1])
})

/** A fresh cgroup of a controller with these files written, of whichever version there is; skips where none may be. */
function confined(
  test: TestContext,
  controller: string,
  files: Record<string, string>[],
  work: (enter: string) => void
) {
  const name = `node-paligemma-test-${process.pid}`
  const folders = [join('/sys/fs/cgroup', controller, name), join('/sys/fs/cgroup', name)]
  for (const [i, folder] of folders.entries()) {
    try {
      if (i === 0 && !existsSync(join('/sys/fs/cgroup', controller, 'cgroup.procs'))) continue
      mkdirSync(folder)
    } catch {
      continue
    }
    try {
      const wanted = files.find((set) => Object.keys(set).every((file) => existsSync(join(folder, file))))
      if (!wanted) continue
      for (const [file, value] of Object.entries(wanted)) writeFileSync(join(folder, file), value)
      return work(`echo $$ > ${join(folder, 'cgroup.procs')} &&`)
    } finally {
      rmdirSync(folder)
    }
  }
  // which even CI's own container may not let us, so this is no case for leaveOut
  test.skip('no control group may be made here')
}

describe.skipIf(process.platform !== 'linux')('a process that', () => {
  it.for([
    [1, 1],
    [0.3, 1]
  ] as const)('has a quota of %f CPUs computes on %i thread, and the same bits', ([cpus, threads], test) => {
    const quota = String(cpus * 100_000)
    const files = [{ 'cpu.max': `${quota} 100000` }, { 'cpu.cfs_period_us': '100000', 'cpu.cfs_quota_us': quota }]
    confined(test, 'cpu', files, (enter) => {
      const { threads: taken, answers } = child(enter)
      expect(taken).toBe(threads)
      expect(answers).toEqual(free.answers)
      expect(child(enter, 8).answers).toEqual(free.answers)
    })
  })

  it('may hold 320 MB loads the demo and answers as ever', (test) => {
    const bytes = String(320 * 2 ** 20)
    confined(test, 'memory', [{ 'memory.max': bytes }, { 'memory.limit_in_bytes': bytes }], (enter) => {
      expect(child(enter).answers).toEqual(free.answers)
    })
  })

  // Node alone has 11
  it.for([14, 20])('may have %i threads takes those that are left, and answers as ever', (most, test) => {
    confined(test, 'pids', [{ 'pids.max': String(most) }], (enter) => {
      const { threads, answers, code } = child(enter, 32)
      if (code === undefined) expect([threads < 32, answers]).toEqual([true, free.answers])
      else expect(code).toBe('ERR_OUT_OF_MEMORY')
    })
  })

  it('may use one CPU computes on one thread', (test) => {
    if (spawnSync('taskset', ['--version']).status !== 0) leaveOut(test, 'taskset is missing')
    const { threads, answers } = child('taskset -p 1 $$ > /dev/null &&')
    expect(threads).toBe(1)
    expect(answers).toEqual(free.answers)
  })
})

it('async hooks that collect garbage see balanced calls, and change nothing', () => {
  const { answers, seen } = child('', 2, ['--expose-gc'], 'hooked')
  expect(answers).toEqual(free.answers)
  expect(seen['init']).toBeGreaterThan(10)
  // the one that counts is in a call itself
  expect(seen['before']! - seen['after']!).toBeLessThanOrEqual(1)
})
