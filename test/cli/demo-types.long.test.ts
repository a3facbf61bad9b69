/** What quantizing the demo model costs, through the script that docs/lab-book.md quotes. */
import { spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { expect, it } from 'vitest'
import { native } from '../../lib/engine/native'

const root = resolve(__dirname, '..', '..')
const accuracy = join(root, 'scripts', 'demo-model', 'accuracy.mjs')

it('loses less than 1 % of its held-out scores to 8-bit activations', () => {
  const { isa, supported } = native().cpuInfo()
  const table = isa === 'scalar' ? supported.at(-1)! : isa
  // trained weights in blocks of 32 and of 256; docs/lab-book.md has all types, on more pictures
  const args = [accuracy, '--json', '--limit', '20', '--table', table, '--type', 'Q8_0', '--type', 'Q4_K']
  const run = spawnSync(process.execPath, args, { encoding: 'utf8', cwd: root })
  expect(run.status, run.stderr).toBe(0)
  const { demo } = JSON.parse(run.stdout) as {
    demo: Record<string, Record<string, { scores: Record<string, number>; logProbs: number[] }>>
  }
  for (const type of ['Q8_0', 'Q4_K']) {
    const [exact, found] = [demo[type]!['scalar']!, demo[type]![table]!]
    const everything = Object.keys(exact.scores).find((name) => name.startsWith('everything'))!
    expect(exact.scores[everything]).toBeGreaterThan(0.8)
    expect(found.scores[everything]! / exact.scores[everything]!, `${type} on ${table}`).toBeGreaterThan(0.99)
    const errors = found.logProbs.map((value, i) => Math.abs(value - exact.logProbs[i]!))
    expect(errors.length).toBeGreaterThan(250)
    expect(errors.reduce((sum, x) => sum + x, 0) / errors.length, `${type} on ${table}`).toBeLessThan(0.005)
  }
}, 300_000)
