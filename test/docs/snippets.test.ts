/**
 * Documentation that can be copied: snippets that Node 20 reads, calls that the command knows, links that lead
 * somewhere.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { execute } from '../../lib/cli/program'
import { lineAbout } from '../support/command'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { pages, runnable, snippets, toJavaScript } from '../support/snippets'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')
const code = snippets(['js', 'mjs', 'ts', 'typescript', 'javascript'])
const calls = snippets(['sh', 'bash', 'console']).flatMap(({ where, text }) =>
  [...text.replaceAll('\\\n', ' ').matchAll(/(?:npx |\| *|^\s*\$? *)paligemma ([a-z]+)([^\n|#]*)/gm)].map(
    ([, verb, rest]) => [where, verb!, rest!] as const
  )
)

describe('snippets', () => {
  it('are there, and some of them run as they stand', () => {
    expect(code.length).toBeGreaterThan(5)
    expect(runnable().map(({ where }) => where.replace(/:.*/, ''))).toEqual(
      expect.arrayContaining(['README.md', 'README.md'])
    )
    // what newcomers copy first says nothing that Node 20 does not know, not even in a comment
    for (const { where, text } of runnable()) expect(text, where).not.toMatch(/\bawait using\b/)
  })

  it.each(code.map((snippet) => [snippet.where, snippet] as const))(
    '%s is a module that Node 20 reads',
    { tags: ['slow'] },
    (_, snippet) => {
      const { code: text, problems } = toJavaScript(snippet)
      expect(problems).toEqual([])
      // A newer Node that runs this test would read it.
      if (/^(?!\s*\/\/).*\bawait using\b/m.test(snippet.text))
        return expect(snippet.around).toMatch(/Node(?:\.js)? *(?:>= *)?24/)
      const file = join(tempDir(), 'snippet.mjs')
      writeFileSync(file, text)
      expect(spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' }).stderr).toBe('')
    }
  )

  it.each(calls)('%s: paligemma %s %s uses options that there are', async (_, verb, rest) => {
    const out: string[] = []
    const stdout = { write: (text: string) => out.push(text) }
    expect(await execute([verb, '--help'], { stdout, stderr: stdout, signal: new AbortController().signal })).toBe(0)
    for (const [, option] of rest.matchAll(/(?:^|\s)(--?[a-z][a-z-]*)/g))
      expect(out.join('')).toMatch(lineAbout(option!))
  })

  it.skipIf(process.platform === 'win32').each(snippets(['sh', 'bash']).map(({ where, text }) => [where, text]))(
    '%s is read by a shell',
    { tags: ['slow'] },
    (_, text) => {
      expect(spawnSync('bash', ['-n'], { input: text, encoding: 'utf8' }).stderr).toBe('')
    }
  )
})

describe('links', () => {
  const { files } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { files: string[] }
  const pattern = (glob: string) => new RegExp(`^${glob.replaceAll('.', '\\.').replaceAll('*', '[^/]*')}$`)
  const within = (place: string, names: string[]) =>
    names.some((name) => place === name || place.startsWith(`${name}/`) || pattern(name).test(place))
  const left = files.filter((name) => name.startsWith('!')).map((name) => name.slice(1))
  const ships = (place: string) => within(place, ['README.md', 'LICENSE', ...files]) && !within(place, left)

  it.each(pages)('of %s lead to files, and those of the package into the package', (page) => {
    const text = readFileSync(join(root, page), 'utf8').replace(/```[\s\S]*?```/g, '')
    const inPackage = !page.startsWith('examples')
    for (const [, isPicture, target] of text.matchAll(/(!?)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue
      const path = join(dirname(join(root, page)), target!)
      expect(existsSync(path), `${page} -> ${target}`).toBe(true)
      // what a page shows is taken from the repository, by GitHub and npm's page alike
      if (inPackage && !isPicture)
        expect(ships(relative(root, path).replaceAll('\\', '/')), `${page} -> ${target} does not ship`).toBe(true)
    }
  })

  it('of the first page lead to all others', () => {
    const first = readFileSync(join(root, 'docs', 'index.md'), 'utf8')
    const others = pages.filter((page) => dirname(page) === 'docs' && page !== join('docs', 'index.md'))
    expect(others.filter((page) => !first.includes(`](${basename(page)})`))).toEqual([])
  })

  it.each(pages)('of %s to headings find them', (page) => {
    const onGithub = (heading: string) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .trim()
        .replaceAll(' ', '-')
    // VitePress makes the site's anchors otherwise
    const onSite = (heading: string) =>
      heading
        .replace(/[\s~`!@#$%^&*()\-_+=[\]{}|\\;:"'“”‘’<>,.?/]+/g, '-')
        .replace(/^-|-$/g, '')
        .replace(/^(\d)/, '_$1')
        .toLowerCase()
    const text = readFileSync(join(root, page), 'utf8')
    for (const [, target, anchor] of text.replace(/```[\s\S]*?```/g, '').matchAll(/\]\(([^)#:\s]*)#([^)\s]+)\)/g)) {
      const file = target === '' ? join(root, page) : join(dirname(join(root, page)), target!)
      if (!existsSync(file) || !statSync(file).isFile()) continue
      const headings = [...readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!)
      expect(headings.map(onGithub), `${page} -> ${target}#${anchor}`).toContain(anchor)
      if (!page.startsWith('examples') && dirname(file) === join(root, 'docs'))
        expect(headings.map(onSite), `${page} -> ${target}#${anchor} on the site`).toContain(anchor)
    }
  })
})
