/**
 * `paligemma build` out of the tarball, with a stand-in for the compiler: it lets the real one read every source with
 * all that it includes, and links to the engine that this clone has. What is tested is the way: the sources come out of
 * their archive complete, node-gyp finds them, and what it makes is taken. Compiling takes ten minutes of a core.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { removeEngine, unpacked } from '../support/packed'

const root = join(__dirname, '..', '..')
const temporary = mkdtempSync(join(tmpdir(), 'paligemma-build-'))
const app = join(temporary, 'app')
const own = join(app, 'node_modules', 'node-paligemma')
const engine = join(root, 'build', 'Release', 'paligemma.node')
const log = join(temporary, 'compiled.txt')
const headers = join(dirname(process.execPath), '..')

const standIn = `#!/bin/sh
# Arguments as of a compiler; what is compiled goes into the log.
compile= output= source=
for word; do
  case $previous in -o) output=$word ;; esac
  case $word in -c) compile=1 ;; *.cpp) source=$word ;; esac
  previous=$word
done
[ -n "$output" ] || exec c++ "$@"
[ -n "$compile" ] || exec cp '${engine}' "$output"
echo "$source" >> '${log}'
c++ "$@" -E && : > "$output"
`

function command(...args: string[]) {
  const { PALIGEMMA_NATIVE: _native, NODE_PATH: _path, ...env } = process.env
  return spawnSync(process.execPath, [join(own, 'dist', 'cli', 'main.js'), ...args], {
    cwd: app,
    encoding: 'utf8',
    env: { ...env, CXX: join(temporary, 'cxx'), LINK: join(temporary, 'cxx') }
  })
}

beforeAll(() => {
  const contents = unpacked(temporary)
  removeEngine(contents)
  mkdirSync(dirname(own), { recursive: true })
  cpSync(contents, own, { recursive: true })
  for (const name of ['sharp', '@img', 'detect-libc', 'semver', 'node-gyp'])
    symlinkSync(join(root, 'node_modules', name), join(dirname(own), name))
  writeFileSync(join(temporary, 'cxx'), standIn, { mode: 0o755 })
})
afterAll(() => {
  rmSync(temporary, { recursive: true, force: true })
})

describe.runIf(process.platform === 'linux' && existsSync(join(headers, 'include', 'node', 'common.gypi')))(
  'paligemma build from the tarball',
  () => {
    it('says what to do before it', () => {
      const { status, stderr } = command('demo')
      expect(stderr).toMatch(/ERR_NATIVE_MISSING|No native engine for .*npx paligemma build/)
      expect(status).toBe(1)
    })

    it('compiles every source once, and the engine works', () => {
      const { status, stdout, stderr } = command('build', '--jobs', '2', '--nodedir', headers)
      expect({ status, stderr: status === 0 ? '' : stderr.slice(0, 1500) }).toEqual({ status: 0, stderr: '' })
      expect(stdout).toMatch(/paligemma\.node works on this machine \(\w+\)/)
      const { variables } = JSON.parse(readFileSync(join(root, 'native', 'sources.gypi'), 'utf8')) as {
        variables: Record<string, string[]>
      }
      const compiled = readFileSync(log, 'utf8').trim().split('\n')
      const sources = compiled.map((path) => path.replace(/^(\.\.\/)*/, '')).sort()
      expect(sources).toEqual([...variables.engine_sources!, ...variables.addon_sources!].sort())
      expect(existsSync(join(own, 'binding.gyp'))).toBe(false)
      expect(existsSync(join(own, 'build', 'Release', 'paligemma.node'))).toBe(true)
    })

    it('is what the package uses from then on', () => {
      const { status, stdout, stderr } = command('demo')
      expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' })
      expect(stdout).toContain('purple ring')
    })
  }
)
