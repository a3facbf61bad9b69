// Writes dist/index.mjs and dist/index.d.mts after tsc: named re-exports of the CommonJS build, so that `import` and
// `require` share one copy of every class.
import { createRequire } from 'node:module'
import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const dist = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist')
const names = Object.keys(createRequire(import.meta.url)(join(dist, 'index.js'))).sort()
if (!names.includes('loadModel')) throw new Error(`${dist}/index.js does not export loadModel; run tsc first`)

writeFileSync(
  join(dist, 'index.mjs'),
  `import all from './index.js'\n\nexport const {\n  ${names.join(',\n  ')}\n} = all\n`
)
writeFileSync(join(dist, 'index.d.mts'), "export * from './index.js'\n")
