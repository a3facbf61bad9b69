// Writes index.mjs and index.d.mts beside each entry point after tsc: named re-exports of the CommonJS build, so that
// `import` and `require` share one copy of every class. Copies what tsc leaves: the files of the server's page.
import { createRequire } from 'node:module'
import { cpSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)

/** Entry points as folders of dist, with a name that each must export. */
const entries = { '.': 'loadModel', server: 'createServer', aisdk: 'createPaliGemma', queue: 'createQueue' }

for (const [folder, expected] of Object.entries(entries)) {
  const dist = join(root, 'dist', folder)
  const names = Object.keys(require(join(dist, 'index.js'))).sort()
  if (!names.includes(expected)) throw new Error(`${dist}/index.js does not export ${expected}; run tsc first`)
  const list = names.join(',\n  ')
  writeFileSync(join(dist, 'index.mjs'), `import all from './index.js'\n\nexport const {\n  ${list}\n} = all\n`)
  writeFileSync(join(dist, 'index.d.mts'), "export * from './index.js'\n")
}

const page = join('server', 'page')
rmSync(join(root, 'dist', page), { recursive: true, force: true })
cpSync(join(root, 'lib', page), join(root, 'dist', page), { recursive: true })
