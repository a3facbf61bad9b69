/** Pages that are made of the program say what it says now; `npm run docs` writes them. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { errorCodes } from '../../lib/base/errors'
import { execute } from '../../lib/cli/program'

const root = join(__dirname, '..', '..')
const page = (name: string) => readFileSync(join(root, 'docs', name), 'utf8')
const maker = async <T>(name: string) => (await import(pathToFileURL(join(root, 'scripts', 'docs', name)).href)) as T

async function helpOf(...words: string[]): Promise<string> {
  let text = ''
  const write = (more: string) => {
    text += more
    return true
  }
  const context = { stdout: { write }, stderr: { write }, signal: new AbortController().signal }
  await execute([...words, '--help'], context)
  return text
}

interface Devices {
  sourcesOf: (modules: (path: string) => Promise<unknown>) => Promise<{ costs: (size: string, type: string) => object }>
  devicesPage: (sources: object) => Promise<string>
  speedOf: (
    costs: object,
    tokens: number,
    limits: { gops: number; gBps: number },
    ...shares: number[]
  ) => { firstToken: number; rate: number }
}

describe('npm run docs', () => {
  it('has written docs/cli.md from the help of every verb', async () => {
    const { cliPage } = await maker<{ cliPage: (help: typeof helpOf) => Promise<string> }>('cli-page.mjs')
    const made = await cliPage(helpOf)
    expect(made.match(/^## paligemma /gm)!.length).toBeGreaterThan(20)
    expect(page('cli.md'), 'run "npm run build && npm run docs"').toBe(made)
  })

  it('has written docs/devices.md by arithmetic over shapes', async () => {
    const { devicesPage, sourcesOf, speedOf } = await maker<Devices>('devices-page.mjs')
    const sources = await sourcesOf((path) => import(pathToFileURL(join(root, 'lib', `${path}.ts`)).href))
    expect(page('devices.md'), 'run "npm run build && npm run docs"').toBe(await devicesPage(sources))
    // By hand: half of 1000 GOPS for 222 + 1031 billion operations, half of 10 GB/s for 1.65 GB.
    const { firstToken, rate } = speedOf(sources.costs('3b-224', 'Q4_0'), 260, { gops: 1000, gBps: 10 }, 0.5, 0.5)
    expect(firstToken).toBeCloseTo(2.51, 2)
    expect(rate).toBeCloseTo(3.03, 1)
  })

  it('has written docs/troubleshooting.md with a cure for every code', async () => {
    const { cures, meaningsOf, troubleshootingPage } = await maker<{
      cures: Record<string, [string, string][]>
      meaningsOf: (source: string) => [string, string][]
      troubleshootingPage: (meanings: [string, string][]) => string
    }>('troubleshooting-page.mjs')
    const meanings = meaningsOf(readFileSync(join(root, 'lib', 'base', 'errors.ts'), 'utf8'))
    expect(meanings.map(([code]) => code)).toEqual(errorCodes)
    expect(Object.keys(cures)).toEqual(errorCodes)
    expect(page('troubleshooting.md'), 'run "npm run build && npm run docs"').toBe(troubleshootingPage(meanings))
  })
})
