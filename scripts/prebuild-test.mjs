// npm run prebuild:test: packs the engines of prebuilds/ as a release would, installs the tarball for each system as
// its users get it, and runs it where an emulator of Debian can: arm64 under qemu, Windows under wine, musl under
// its loader, and in Bun in a root with nothing else.
//   node scripts/prebuild-test.mjs [TARGET...]
// The exit code is 1 when anything failed, 2 for a wrong argument. macOS and Windows on Arm are read, not run.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { machines } from './prebuild/machines.mjs'
import { loadWithMusl, whyNoMusl } from './prebuild/musl-host.mjs'
import { mismatch, root } from './prebuild/record.mjs'
import { targets } from './prebuild/targets.mjs'

const wanted = process.argv.slice(2)
const unknown = wanted.find((name) => !targets.some((target) => target.name === name))
if (unknown) {
  console.error(`There is no target ${unknown}; there are ${targets.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}
const home = join(root, 'build', 'prebuild-test')
let [passed, failed, skipped] = [0, 0, 0]

function report(name, why, seconds) {
  if (why) failed++
  else passed++
  console.log(why ? `FAILED ${name}: ${why}` : `ok ${name}${seconds ? ` (${seconds} s)` : ''}`)
}

function leaveOut(name, why) {
  if (process.env.PALIGEMMA_ALL_TESTS) return report(name, `${why}, and PALIGEMMA_ALL_TESTS leaves no test out`)
  skipped++
  console.log(`skipped ${name}: ${why}`)
}

function npm(args, cwd) {
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd, encoding: 'utf8', timeout: 300_000 })
  if (status !== 0) throw new Error(`npm ${args[0]} ended with ${status}: ${stderr.slice(-500)}`)
  return stdout
}

/** The tarball with what lies in prebuilds/, whatever of it is missing. */
function pack() {
  if (!existsSync(join(root, 'dist', 'index.js'))) throw new Error('dist/ is missing: npm run build:ts makes it')
  rmSync(join(home, 'packed'), { recursive: true, force: true })
  mkdirSync(join(home, 'packed'), { recursive: true })
  npm(['pack', '--ignore-scripts', '--silent', '--pack-destination', join(home, 'packed')], root)
  return join(home, 'packed', readdirSync(join(home, 'packed'))[0])
}

/** An application of that system's, from an empty folder. */
function install(target, tarball) {
  const app = join(home, 'apps', target.name)
  rmSync(app, { recursive: true, force: true })
  mkdirSync(app, { recursive: true })
  writeFileSync(join(app, 'package.json'), '{ "name": "app", "version": "1.0.0", "private": true }\n')
  const [os, cpu] = target.folder.split('-')
  const platform = [
    `--os=${os}`,
    `--cpu=${cpu}`,
    ...(os === 'linux' ? [`--libc=${target.file.includes('musl') ? 'musl' : 'glibc'}`] : [])
  ]
  npm(['install', ...platform, '--no-audit', '--no-fund', '--ignore-scripts', '--silent', tarball], app)
  return app
}

const command = join('node_modules', 'node-paligemma', 'dist', 'cli', 'main.js')
const caption =
  'a red circle, a purple ring, a black heart and a blue square on a dotted background with the number 359'

/** The two calls of a new user: what ships works, and this machine computes what it should. */
const calls = [
  {
    name: 'paligemma demo',
    args: [command, 'demo'],
    right: (output) => output.includes(caption) && /purple ring +x 12\d/.test(output)
  },
  {
    name: 'paligemma verify demo',
    args: [command, 'verify', 'demo'],
    right: (output) => output.includes('All is well')
  }
]

/** Where sharp cannot be loaded: the caption of the same picture, decoded here. */
async function rawCalls(app) {
  const { data, info } = await sharp(join(root, 'demo', 'shapes.png'))
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true })
  writeFileSync(join(app, 'picture.rgb'), data)
  writeFileSync(
    join(app, 'raw.cjs'),
    `const { readFileSync } = require('node:fs')
const { loadModel } = require('node-paligemma')
async function main() {
  const model = await loadModel('demo')
  const image = { data: readFileSync('picture.rgb'), width: ${info.width}, height: ${info.height} }
  console.log(await model.caption(image))
  await model.dispose()
}
main()
`
  )
  return [{ name: 'the caption of raw pixels', args: ['raw.cjs'], right: (output) => output.includes(caption) }]
}

async function runOn(target, machine, app) {
  for (const { name: what, args, right } of machine.sharp === false ? await rawCalls(app) : calls) {
    const name = `${target.name} on ${machine.name}: ${what}`
    const started = performance.now()
    const { status, output } = machine.node(args, app)
    const seconds = ((performance.now() - started) / 1000).toFixed(0)
    report(name, status === 0 && right(output) ? '' : `exit ${status}: ${output.slice(-1500)}`, seconds)
  }
}

async function test(target, tarball) {
  const engine = join(root, 'prebuilds', target.folder, target.file)
  if (!existsSync(engine)) return leaveOut(target.name, 'has not been built')
  report(`${target.name}: of these sources`, mismatch(engine))
  const check = spawnSync(process.execPath, [join(root, 'scripts', 'check-prebuilds.mjs'), engine], {
    encoding: 'utf8'
  })
  report(`${target.name}: loads on the oldest systems`, check.status === 0 ? '' : check.stderr)
  if (target.name === 'linux-x64-musl') {
    if (whyNoMusl()) return leaveOut(`${target.name} with musl's loader`, `this machine ${whyNoMusl()}`)
    const { status, output } = await loadWithMusl(engine)
    report(`${target.name} with musl's loader`, status === 0 ? '' : output)
  }
  const able = []
  for (const machine of machines[target.name] ?? []) {
    const why = machine.can()
    if (why) leaveOut(`${target.name} on ${machine.name}`, `this machine ${why}`)
    else able.push(machine)
  }
  if (able.length === 0) return
  const app = install(target, tarball)
  for (const machine of able) await runOn(target, machine, app)
}

const tarball = pack()
for (const target of targets) {
  if (wanted.length > 0 && !wanted.includes(target.name)) continue
  try {
    await test(target, tarball)
  } catch (error) {
    report(target.name, error.message)
  }
}
console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`)
process.exitCode = failed ? 1 : 0
