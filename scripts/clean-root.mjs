// A fresh Debian without fonts, certificates or a compiler: installs the packed tarball there and runs the demo, a
// caption, a drawing and a Next application.
//   node scripts/clean-root.mjs [--suite trixie] [--from FOLDER] [--keep]
//     --suite: default bookworm (Debian 12)    FOLDER: what debootstrap made before, to be copied
// As root; needs debootstrap and the registry, ends with 2 where they are missing.
// Bounded: 10 minutes for the root, 10 for everything in it.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const work = mkdtempSync(join(tmpdir(), 'paligemma-root-'))
const clean = join(work, 'root')
const app = join(clean, 'app')
const limitMs = 600_000
let [passed, failed] = [0, 0]

process.on('exit', () => {
  run('umount', ['-l', join(clean, 'proc')]) // harmless where it never was mounted
  if (!process.argv.includes('--keep')) rmSync(work, { recursive: true, force: true })
})

function run(command, args, options = {}) {
  return spawnSync(command, args, { encoding: 'utf8', timeout: limitMs, maxBuffer: 2 ** 26, ...options })
}

function skip(why) {
  console.log(`clean root: skipped, ${why}`)
  process.exit(2)
}

function check(name, right, got) {
  if (right) passed++
  else failed++
  console.log(right ? `ok ${name}` : `FAILED ${name}: ${String(got).slice(-600)}`)
}

/** Node in the clean root; `env -i`: nothing of this machine's settings. */
function inside(folder, ...args) {
  const { stdout, stderr, status } = run('chroot', [
    clean,
    '/usr/bin/env',
    '-i',
    'PATH=/usr/local/bin:/usr/bin:/bin',
    'HOME=/tmp',
    'NEXT_TELEMETRY_DISABLED=1',
    'sh',
    '-c',
    `cd ${folder} && "$@"`,
    'sh',
    ...args
  ])
  return { status, stdout: (stdout ?? '').trim(), all: `${stdout}${stderr}` }
}

function bootstrap() {
  if (run('debootstrap', ['--version']).status !== 0) skip('debootstrap is not installed')
  const at = process.argv.indexOf('--suite')
  const suite = at > 0 ? process.argv[at + 1] : 'bookworm'
  return run('debootstrap', ['--variant=minbase', suite, clean, 'http://deb.debian.org/debian'])
}

function makeRoot() {
  if (process.getuid?.() !== 0) skip('only root can change the root folder')
  const from = process.argv.indexOf('--from')
  const made = from > 0 ? run('cp', ['-a', process.argv[from + 1], clean]) : bootstrap()
  if (made.status !== 0) skip(`debootstrap failed: ${(made.stdout + made.stderr).slice(-300)}`)
  // What debootstrap itself brings of these is none of the application's.
  rmSync(join(clean, 'etc', 'ssl', 'certs'), { recursive: true, force: true })
  rmSync(join(clean, 'usr', 'share', 'fonts'), { recursive: true, force: true })
  cpSync(process.execPath, join(clean, 'usr', 'local', 'bin', 'node'))
  for (const device of ['null', 'urandom', 'random', 'zero']) {
    if (!existsSync(join(clean, 'dev', device))) run('cp', ['-a', `/dev/${device}`, join(clean, 'dev', device)])
  }
  run('mount', ['-t', 'proc', 'proc', join(clean, 'proc')])
}

/** The tarball with the engine built here. */
function pack() {
  const stage = join(work, 'stage')
  mkdirSync(stage)
  const npmPack = (folder) => {
    run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', work], { cwd: folder })
    return join(
      work,
      readdirSync(work).find((name) => name.endsWith('.tgz'))
    )
  }
  run('tar', ['-xzf', npmPack(root), '-C', stage])
  const prebuilds = join(stage, 'package', 'prebuilds', `linux-${process.arch}`)
  mkdirSync(prebuilds, { recursive: true })
  cpSync(join(root, 'build', 'Release', 'paligemma.node'), join(prebuilds, 'node-paligemma.glibc.node'))
  return npmPack(join(stage, 'package'))
}

/** npm runs outside, where the registry's certificates are; what it installs is for the same platform. */
function install(tarball) {
  cpSync(join(root, 'examples', 'next'), app, { recursive: true })
  const { status, stderr } = run('npm', ['install', '--no-audit', '--no-fund', '--silent', tarball], { cwd: app })
  if (status !== 0) skip(`npm install failed: ${stderr.slice(-300)}`)
  mkdirSync(join(app, 'demo'))
  const demo = join(app, 'node_modules', 'node-paligemma', 'demo')
  for (const name of ['paligemma2-demo.gguf', 'shapes.png']) cpSync(join(demo, name), join(app, 'demo', name))
  writeFileSync(join(app, 'use.mjs'), use)
  writeFileSync(join(app, 'ask.mjs'), ask)
}

const use = `import { loadModel, drawDetections } from 'node-paligemma'
import { writeFileSync } from 'node:fs'
const image = 'demo/shapes.png'
const model = await loadModel('demo/paligemma2-demo.gguf')
console.log((await model.generate({ image, prompt: 'caption en', maxTokens: 32 })).text)
const box = { x: 20, y: 20, width: 80, height: 60 }
writeFileSync('drawn.png', await drawDetections(image, [{ label: 'café Übermaß', box }]))
await model.dispose()
`

const ask = `import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
const env = { ...process.env, PORT: '3123', HOSTNAME: '127.0.0.1', MODEL: '/app/demo/paligemma2-demo.gguf' }
const server = spawn(process.execPath, ['.next/standalone/server.js'], { env, stdio: ['ignore', 'ignore', 'inherit'] })
for (let tries = 0; ; tries++) {
  try {
    const body = readFileSync('demo/shapes.png')
    console.log(await (await fetch('http://127.0.0.1:3123/api/caption', { method: 'POST', body })).text())
    break
  } catch (error) {
    if (tries > 300) { console.log(error); break }
    await sleep(200)
  }
}
server.kill()
`

makeRoot()
install(pack())
const fonts = inside('/', 'sh', '-c', 'ls /usr/share/fonts /etc/ssl/certs; command -v cc gcc make python3')
check('the root has no fonts, no certificates, no compiler', fonts.stdout === '', fonts.all)
const demo = inside('/tmp', 'node', '/app/node_modules/node-paligemma/dist/cli/main.js', 'demo')
check('paligemma demo', demo.status === 0 && demo.stdout.length > 0, demo.all)
const used = inside('/app', 'node', 'use.mjs')
const caption = used.stdout
check('a caption', used.status === 0 && /^[a-z0-9 ,]+$/.test(caption), used.all)
const png = existsSync(join(app, 'drawn.png')) ? readFileSync(join(app, 'drawn.png')) : Buffer.alloc(0)
check('a drawing', png.length > 1000 && png.toString('latin1', 1, 4) === 'PNG', used.all)
const built = inside('/app', 'node', 'node_modules/next/dist/bin/next', 'build')
check('next build', built.status === 0, built.all)
const asked = inside('/app', 'node', 'ask.mjs')
check('the standalone Next application answers', asked.stdout === JSON.stringify({ text: caption }), asked.all)
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed ? 1 : 0
