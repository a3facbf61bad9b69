// Before packing: what is packed must run on this machine at least. A tarball without the engine, or without the
// compiled TypeScript, installs without a word and fails at the first call.
//   node scripts/check-package.mjs [FOLDER]       default: this clone
// PALIGEMMA_PACK_WITHOUT_ENGINE=1 packs without the engine, for those who build it where they install.
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), '..')

function stop(message) {
  console.error(`Not packed: ${message}`)
  process.exit(1)
}

const built = [
  'dist/index.js',
  'dist/index.mjs',
  'dist/index.d.ts',
  'dist/cli/main.js',
  'dist/server/index.mjs',
  'dist/aisdk/index.mjs',
  'dist/queue/index.mjs',
  'dist/sources.tgz'
]
for (const file of [...built, 'dist/server/page/index.html']) {
  if (!existsSync(join(root, file))) stop(`${file} is missing; run "npm run build:ts" first`)
}
for (const file of ['demo/paligemma2-demo.gguf', 'demo/shapes.png']) {
  if (!existsSync(join(root, file))) stop(`${file} is missing; loadModel('demo') would not work`)
}
const platform = `${process.platform}-${process.arch}`
const folder = join(root, 'prebuilds', platform)
const engines = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.node')) : []
if (engines.length === 0 && !process.env.PALIGEMMA_PACK_WITHOUT_ENGINE) {
  stop(
    `there is no engine for ${platform} in prebuilds/. Make it with "npm run prebuilds" (minutes; where it needs a ` +
      'newer glibc than 2.28, packing says what to set), or set ' +
      'PALIGEMMA_PACK_WITHOUT_ENGINE=1 to pack a package that every user has to build with "npx paligemma build"'
  )
}
