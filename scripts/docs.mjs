// npm run docs: writes the pages of docs/ that are made of the program itself. Tests hold them to it.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answered } from './docs/answers.mjs'
import { cliPage } from './docs/cli-page.mjs'
import { devicesPage, sourcesOf } from './docs/devices-page.mjs'
import { writePictures } from './docs/pictures.mjs'
import { meaningsOf, troubleshootingPage } from './docs/troubleshooting-page.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const command = join(root, 'dist', 'cli', 'main.js')
const helpOf = (...words) => execFileSync(process.execPath, [command, ...words, '--help'], { encoding: 'utf8' })
const errors = readFileSync(join(root, 'lib', 'base', 'errors.ts'), 'utf8')

writeFileSync(join(root, 'docs', 'cli.md'), await cliPage(helpOf))
writeFileSync(join(root, 'docs', 'troubleshooting.md'), troubleshootingPage(meaningsOf(errors)))
const required = createRequire(import.meta.url)
const modules = (path) => required(join(root, 'dist', `${path}.js`))
writeFileSync(join(root, 'docs', 'devices.md'), await devicesPage(await sourcesOf(modules)))

// Only where asked: they change with every demo model. By the kernels that every machine has, as what stands beside
// them.
if (process.argv.includes('--pictures')) {
  process.env.PALIGEMMA_ISA = 'scalar'
  const pictures = join(root, 'docs', 'pictures')
  await writePictures(required(join(root, 'dist')), pictures)
  const tasks = join(root, 'docs', 'tasks.md')
  writeFileSync(tasks, answered(readFileSync(tasks, 'utf8'), pictures))
}
