/** Where the package is, seen from bundles of it: the demo, and what is said where it was left behind. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rolldown } from 'rolldown'
import { afterAll, beforeAll, expect, it } from 'vitest'

const root = join(__dirname, '..', '..')
const temporary = realpathSync(mkdtempSync(join(tmpdir(), 'bundled-')))
const application = join(temporary, 'application')

beforeAll(async () => {
  // deep in a package of others, as .next/server is
  const deep = join(application, 'out', 'server')
  mkdirSync(deep, { recursive: true })
  writeFileSync(join(application, 'package.json'), '{ "name": "application" }')
  const entry = join(temporary, 'entry.ts')
  const files = ['base/package-files', 'hub/resolve'].map((name) => JSON.stringify(join(root, 'lib', name)))
  writeFileSync(
    entry,
    `import { isInstalled, packageRoot } from ${files[0]}
    import { resolveModel } from ${files[1]}
    const told = (error) => ({ code: error.code, message: error.message })
    resolveModel('demo').catch(told).then((demo) => console.log(JSON.stringify({ isInstalled, packageRoot, demo })))`
  )
  for (const format of ['cjs', 'esm'] as const) {
    const bundle = await rolldown({ input: entry, platform: 'node', logLevel: 'silent' })
    const file = join(deep, format === 'cjs' ? 'app.cjs' : 'app.mjs')
    await bundle.write({ file, format, codeSplitting: false })
    await bundle.close()
  }
})
afterAll(() => {
  rmSync(temporary, { recursive: true, force: true })
})

function run(file: string): { isInstalled: boolean; packageRoot: string; demo: Record<string, string> } {
  const { stdout, stderr } = spawnSync(process.execPath, [file], { cwd: application, encoding: 'utf8' })
  expect(stderr).toBe('')
  return JSON.parse(stdout) as ReturnType<typeof run>
}

it.for(['app.cjs', 'app.mjs'])('%s without the package names what to set', (name) => {
  const { isInstalled, demo } = run(join('out', 'server', name))
  expect(isInstalled).toBe(false)
  expect(demo).toEqual({
    code: 'ERR_MODEL_NOT_FOUND',
    message: expect.stringMatching(/left it behind.*serverExternalPackages.*outputFileTracingIncludes/)
  })
})

it.for(['app.cjs', 'app.mjs'])(
  '%s finds the demo in the package that Node finds from it',
  { tags: ['slow'] },
  (name) => {
    const modules = join(application, 'node_modules')
    mkdirSync(modules)
    symlinkSync(root, join(modules, 'node-paligemma'), 'junction')
    try {
      const { isInstalled, packageRoot, demo } = run(join('out', 'server', name))
      expect({ isInstalled, packageRoot: realpathSync(packageRoot) }).toEqual({ isInstalled: false, packageRoot: root })
      expect(demo).toEqual({ path: join(packageRoot, 'demo', 'paligemma2-demo.gguf') })
    } finally {
      rmSync(modules, { recursive: true })
    }
  }
)
