/** Short rounds of `npm run stress` and `npm run soak`: each in a process of its own, which must end well. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const scripts = join(__dirname, '..', '..', 'scripts')

describe('npm run stress', () => {
  it.each([
    ['terminate', ['--rounds', '21'], /^21 workers terminated in load, vision, prefill, decode, batch, fit, convert/],
    ['threads', [], /^1, 2, 3, .* 64 threads give the same bits/],
    ['models', ['--rounds', '12'], /^12 models at once, half of them of a second copy/]
  ])('%s', (part, args, said) => {
    const { status, signal, stdout, stderr } = spawnSync(
      process.execPath,
      [join(scripts, 'stress.mjs'), part, ...args],
      {
        encoding: 'utf8',
        timeout: 110_000
      }
    )
    expect({ status, signal, stderr, stdout }).toMatchObject({ status: 0, signal: null, stderr: '' })
    expect(stdout).toMatch(said)
  })
})

it('npm run soak', () => {
  const args = ['--expose-gc', join(scripts, 'soak.mjs'), '--requests', '60', '--workers', '3']
  const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 110_000 })
  expect({ status, stdout }).toMatchObject({ status: 0 })
  expect(stdout).toMatch(/^6\d requests in [\d.]+ minutes: \d+ results, \d+ failures that were asked for/m)
})
