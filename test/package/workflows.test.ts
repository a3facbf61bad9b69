/** GitHub's workflows, of which a machine of ours runs no step: what they name exists, and is there when it is used. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'

const root = join(__dirname, '..', '..')
const folder = join(root, '.github', 'workflows')

interface Job {
  needs?: string[]
  strategy?: { matrix?: { include?: { arch: string; platform?: string }[] } }
  steps: { uses?: string; run?: string }[]
}
const workflows = readdirSync(folder).map((name) => {
  const text = readFileSync(join(folder, name), 'utf8')
  return { name, text, jobs: (parse(text) as { jobs: Record<string, Job> }).jobs }
})

describe.each(workflows)('$name', ({ text, jobs }) => {
  it('waits for jobs that it has', () => {
    const needed = Object.values(jobs).flatMap(({ needs }) => needs ?? [])
    expect(needed.filter((name) => !(name in jobs))).toEqual([])
  })

  it('names scripts that the clone has', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>
    }
    // A suite of the matrix is one of `npm run test:...`, too.
    const commands = text.replaceAll('test:${{ matrix.suite }}', 'test:long')
    const run = [...commands.matchAll(/\bnpm run ([\w:-]+)/g)].map(([, name]) => name!)
    expect(run.filter((name) => !scripts[name])).toEqual([])
    const files = [...text.matchAll(/\b(?:scripts|bench|test|native)\/[\w./-]+\.\w+/g)].map(([path]) => path)
    expect(files.filter((path) => !existsSync(join(root, path)))).toEqual([])
  })

  it('has the clone before it works in it', () => {
    const late = Object.entries(jobs).filter(([, { steps }]) => {
      const clone = steps.findIndex(({ uses }) => uses?.startsWith('actions/checkout@'))
      const first = steps.findIndex(({ run }) => run && /^\s*(npm|npx|node|docker|cmake|gh) /m.test(run))
      return first >= 0 && (clone < 0 || clone > first)
    })
    expect(late.map(([name]) => name)).toEqual([])
  })
})

it('prebuild.yml builds every engine that the package has a place for', async () => {
  const { targets } = (await import('../../scripts/prebuild/targets.mjs' as string)) as { targets: { name: string }[] }
  const { jobs } = workflows.find(({ name }) => name === 'prebuild.yml')!
  const built = Object.entries(jobs).flatMap(([job, { strategy }]) =>
    (strategy?.matrix?.include ?? []).map(({ arch, platform }) =>
      platform ? `${platform}-${arch}` : `linux-${arch}-${job.replace('linux-', '')}`
    )
  )
  expect(built.sort()).toEqual(targets.map(({ name }) => name).sort())
})
