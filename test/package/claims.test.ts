/** What the publisher states of a release is asked before anything is built: `npm run release:check -- --claims`. */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')
const git = (folder: string, ...args: string[]) => {
  const { status, stderr } = spawnSync('git', args, { cwd: folder, encoding: 'utf8' })
  expect(status, stderr).toBe(0)
}

/** A repository of its own with what the claims are about; `change` edits its package.json. */
function repository(change: (manifest: Record<string, unknown>) => void, changelog?: string): string {
  const folder = tempDir()
  mkdirSync(join(folder, 'scripts'))
  for (const file of ['release-check.mjs', 'package-size.mjs', 'prebuild'])
    cpSync(join(root, 'scripts', file), join(folder, 'scripts', file), { recursive: true })
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<string, unknown>
  const { version } = manifest
  change(manifest)
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  writeFileSync(join(folder, 'package-lock.json'), JSON.stringify({ version, packages: { '': { version } } }))
  const waiting = '# Changelog\n\n## Unreleased\n\nNothing so far.\n\n'
  const released = `## ${String(version)} (2026-01-31)\n\nWhat is new.\n\n## 0.0.1 (2025-01-31)\n\nOld.\n`
  writeFileSync(join(folder, 'CHANGELOG.md'), changelog ?? waiting + released)
  writeFileSync(join(folder, '.gitignore'), 'build/\n')
  git(folder, 'init', '-q')
  git(folder, 'add', '.')
  git(folder, '-c', 'user.name=t', '-c', 'user.email=t@localhost', 'commit', '-q', '-m', 'all')
  return folder
}

function claims(folder: string, where?: string) {
  const { GITHUB_REPOSITORY: _, ...env } = process.env
  return spawnSync(process.execPath, [join(folder, 'scripts', 'release-check.mjs'), '--claims'], {
    encoding: 'utf8',
    env: where ? { ...env, GITHUB_REPOSITORY: where } : env
  })
}

const named = (url: string) => (manifest: Record<string, unknown>) => {
  manifest.repository = { type: 'git', url }
}
const ours = 'git+https://github.com/someone/something.git'

it('all hold, and the notes are those of the version alone', () => {
  const folder = repository(named(ours))
  const { status, stdout } = claims(folder, 'someone/something')
  expect(stdout).toContain('All claims hold')
  expect(status).toBe(0)
  expect(readFileSync(join(folder, 'build', 'release', 'notes.md'), 'utf8')).toBe('What is new.')
})

it.each([
  ['no repository', (manifest: Record<string, unknown>) => delete manifest.repository, undefined, 'The publisher adds'],
  ['an address elsewhere', named('git+ssh://example.com/a.git'), undefined, 'git+https://github.com/OWNER/NAME.git'],
  ['another repository than the one that runs', named(ours), 'a/fork', 'this is a/fork'],
  ['another version', (manifest: Record<string, unknown>) => (manifest.version = '9.9.9'), undefined, '9.9.9']
])('names %s', (_, change, where, words) => {
  const { status, stdout } = claims(repository(change), where)
  expect(stdout).toContain(words)
  expect(status).toBe(1)
})

it('names a version without a day, and changes that no version has', () => {
  for (const heading of ['## 0.2.0', '## Unreleased\n\n- new']) {
    const { status, stdout } = claims(repository(named(ours), `# Changelog\n\n${heading}\n`))
    expect(stdout).toMatch(/NO {2}CHANGELOG\.md has this version/)
    expect(status).toBe(1)
  }
})
