// npm run docs:site: docs/ as a static site in build/site, with the reference of all types by TypeDoc, and every
// link in it tried. VitePress, because it takes the pages as they are (GitHub and the package show the same files),
// searches without a server and stays out of node_modules: the tools are installed into build/docs-site.
//   --serve shows it at http://127.0.0.1:5173 instead
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const home = join(root, 'build', 'docs-site')
const source = join(home, 'source')
const site = join(root, 'build', 'site')
const tools = { vitepress: '1.6.4', typedoc: '0.28.14', typescript: '5.9.3' }

function run(command, args, cwd) {
  const { status, error } = spawnSync(command, args, { cwd, stdio: 'inherit' })
  if (status !== 0) {
    console.error(`${command} ${args.join(' ')} failed${error ? `: ${error.message}` : ''}`)
    process.exit(1)
  }
}

function install() {
  const wanted = JSON.stringify({ private: true, type: 'module', dependencies: tools }, null, 2)
  const file = join(home, 'package.json')
  mkdirSync(home, { recursive: true })
  if (existsSync(file) && readFileSync(file, 'utf8') === wanted && existsSync(join(home, 'node_modules'))) return
  writeFileSync(file, wanted)
  run('npm', ['install', '--no-audit', '--no-fund', '--silent'], home)
}

/** Pages outside docs/ that its pages lead to: they are shown from within. */
const outside = {
  'SECURITY.md': 'security.md',
  'README.md': 'readme.md',
  'CHANGELOG.md': 'changelog.md',
  'demo/README.md': 'demo-model.md'
}
const plain = { NOTICE: 'notice.md' }

/** The pages, with links to the repository's other files led to where they are in the site. */
function writePages() {
  rmSync(source, { recursive: true, force: true })
  cpSync(join(root, 'docs'), source, { recursive: true })
  for (const [from, to] of Object.entries(outside)) cpSync(join(root, from), join(source, to))
  for (const [from, to] of Object.entries(plain))
    writeFileSync(join(source, to), `# ${from}\n\n\`\`\`text\n${readFileSync(join(root, from), 'utf8')}\`\`\`\n`)
  for (const name of readdirSync(source).filter((file) => file.endsWith('.md'))) {
    const was = Object.keys(outside).find((from) => outside[from] === name) ?? `docs/${name}`
    const text = readFileSync(join(source, name), 'utf8')
    writeFileSync(
      join(source, name),
      text.replace(/\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)/g, (whole, path, hash = '') => {
        const target = relative(root, resolve(root, dirname(was), path)).replaceAll('\\', '/')
        const page = outside[target] ?? plain[target] ?? (target.startsWith('docs/') ? target.slice(5) : undefined)
        return page ? `](./${page}${hash})` : whole
      })
    )
  }
}

const sections = {
  Begin: ['start', 'checkpoints', 'tasks', 'migrate', 'compare', 'troubleshooting'],
  Use: ['api', 'cli', 'constraints', 'outputs', 'tiles', 'video', 'retrieval'],
  Models: ['pull', 'convert', 'quantize', 'gguf', 'fit', 'datasets', 'evaluate', 'adapters', 'demo-model'],
  Run: ['server', 'ai-sdk', 'batch', 'queue', 'recipes', 'deploy', 'performance', 'devices', 'gpu'],
  Understand: [
    'results',
    'reliability',
    'benchmarks',
    'architecture',
    'lab-book',
    'releases',
    'changelog',
    'security',
    'notice'
  ]
}

const titleOf = (page) => /^# (.*)$/m.exec(readFileSync(join(source, `${page}.md`), 'utf8'))?.[1] ?? page

function writeConfig() {
  // the two that say in short what the others say
  const listed = ['index', 'readme', ...Object.values(sections).flat()].map((page) => `${page}.md`)
  const lost = readdirSync(source).filter((name) => name.endsWith('.md') && !listed.includes(name))
  if (lost.length > 0) throw new Error(`in no section of the site: ${lost.join(', ')}`)
  const sidebar = Object.entries(sections).map(([text, pages]) => ({
    text,
    items: pages.map((page) => ({ text: titleOf(page), link: `/${page}` }))
  }))
  const config = {
    title: 'node-paligemma',
    description: 'PaliGemma 1 and 2 in Node',
    base: process.env.DOCS_BASE || '/',
    outDir: site,
    cleanUrls: false,
    lastUpdated: false,
    // answers stand at the ends of long lines
    head: [['style', {}, '.vp-doc [class*=language-] code { white-space: pre-wrap }']],
    // the library reference is made after the pages
    ignoreDeadLinks: [/^\.?\/?types\//],
    themeConfig: {
      search: { provider: 'local' },
      outline: [2, 3],
      nav: [
        { text: 'Start', link: '/start' },
        { text: 'Tasks', link: '/tasks' },
        { text: 'Library', link: '/api' },
        { text: 'Types', link: '/types/index.html', target: '_self' }
      ],
      sidebar
    }
  }
  mkdirSync(join(source, '.vitepress'), { recursive: true })
  writeFileSync(join(source, '.vitepress', 'config.mjs'), `export default ${JSON.stringify(config, null, 2)}\n`)
}

/** Types and their notes, as the editor shows them. */
function writeTypes() {
  const entries = ['lib/index.ts', 'lib/server/index.ts', 'lib/queue/index.ts', 'lib/aisdk/index.ts']
  run(
    process.execPath,
    [
      ...[join(home, 'node_modules', 'typedoc', 'bin', 'typedoc'), '--out', join(site, 'types'), '--readme', 'none'],
      ...['--name', 'node-paligemma', '--excludeInternal', '--disableSources', '--tsconfig', 'tsconfig.json'],
      ...['--logLevel', 'Error', ...entries]
    ],
    root
  )
}

function* htmlFiles(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    if (statSync(path).isDirectory()) yield* htmlFiles(path)
    else if (name.endsWith('.html')) yield path
  }
}

/** Links of the finished site that lead nowhere: missing files, and missing headings of its own pages. */
function deadLinks() {
  const dead = []
  const ids = new Map()
  const idsOf = (file) => {
    if (!ids.has(file))
      ids.set(file, new Set([...readFileSync(file, 'utf8').matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id)))
    return ids.get(file)
  }
  const base = process.env.DOCS_BASE || '/'
  for (const file of htmlFiles(site)) {
    for (const [, link] of readFileSync(file, 'utf8').matchAll(/\s(?:href|src)="([^"]+)"/g)) {
      if (/^(https?:|data:|mailto:|javascript:|\/\/)/.test(link)) continue
      const [path, hash] = link.replace(/&amp;/g, '&').split('#')
      const place =
        path === '' ? file : path.startsWith(base) ? join(site, path.slice(base.length)) : resolve(dirname(file), path)
      const target = [place.split('?')[0], join(place, 'index.html')].find(
        (one) => existsSync(one) && statSync(one).isFile()
      )
      if (!target) dead.push(`${relative(site, file)}: ${link}`)
      else if (
        hash &&
        target.endsWith('.html') &&
        !/[\\/]types[\\/]/.test(target) &&
        !idsOf(target).has(decodeURIComponent(hash))
      )
        dead.push(`${relative(site, file)}: ${link}`)
    }
  }
  return [...new Set(dead)]
}

install()
writePages()
writeConfig()
const vitepress = join(home, 'node_modules', 'vitepress', 'bin', 'vitepress.js')
if (process.argv.includes('--serve')) run(process.execPath, [vitepress, 'dev', source], home)
else {
  rmSync(site, { recursive: true, force: true })
  run(process.execPath, [vitepress, 'build', source], home)
  // what pages lead to without showing it
  for (const name of readdirSync(source).filter((file) => /\.(png|webp)$/.test(file)))
    cpSync(join(source, name), join(site, name))
  writeTypes()
  const dead = deadLinks()
  console.log(
    dead.length
      ? `Dead links:\n${dead.join('\n')}`
      : `The site is in ${relative(root, site)}; all its links lead somewhere`
  )
  process.exitCode = dead.length ? 1 : 0
}
