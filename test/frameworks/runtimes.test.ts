/** Other runtimes, Plug'n'Play, process managers and servers of the registry with the packed package. */
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { appWith, askServer, demoModel, demoPicture, leaveOut, packWithEngine, runNode } from '../support/packed'

const root = join(__dirname, '..', '..')
const temporary = mkdtempSync(join(tmpdir(), 'paligemma-runtimes-'))
const env = { MODEL: demoModel, PICTURE: demoPicture }
const tools = ['bun@1', 'deno@2', 'pm2', '@yarnpkg/cli-dist@4', 'express']
const nest = ['@nestjs/core', '@nestjs/common', '@nestjs/platform-express', 'reflect-metadata', 'rxjs']
const program = `const { loadModel } = require('node-paligemma')
async function main() {
  const model = await loadModel(process.env.MODEL)
  console.log((await model.generate({ image: process.env.PICTURE, prompt: 'caption en', maxTokens: 32 })).text)
  await model.dispose()
}
main().catch((error) => console.log(error.code, error.message))
`
let tarball = ''
let want = ''
let app: string | undefined

beforeAll(() => {
  tarball = packWithEngine(temporary)
  want = runNode(root, ['-e', program.replace("'node-paligemma'", "'./dist/index.js'")], env)
  expect(want).toMatch(/^[a-z0-9 ,]+$/)
  app = appWith(join(temporary, 'app'), tarball, [...tools, ...nest])
  if (!app) return
  writeFileSync(join(app, 'index.cjs'), program)
  cpSync(join(root, 'examples', 'servers'), join(app, 'servers'), { recursive: true })
})
afterAll(() => {
  rmSync(temporary, { recursive: true, force: true })
})

const need = (context: TestContext): string => app ?? leaveOut(context, 'the tools cannot be installed here')

function run(cwd: string, command: string, args: string[], more: Record<string, string> = {}): string {
  const options = { cwd, env: { ...process.env, ...env, ...more }, encoding: 'utf8', timeout: 240_000 } as const
  const { status, stdout, stderr } = spawnSync(command, args, options)
  return status === 0 ? stdout.trim() : `exit ${String(status)}: ${stdout}${stderr}`
}

// npm's own packages of Node, each of one platform; the range of package.json's "engines", up to what there is
const nodes = { 20: '^20.9.0', 22: '22', 24: '24', 26: '26' }

describe('versions of Node', () => {
  it.for(Object.entries(nodes))('%s: the library and the command', ([name, range], context) => {
    const cwd = need(context)
    const maker = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`
    const folder = join(temporary, `node-${name}`)
    mkdirSync(folder)
    writeFileSync(join(folder, 'package.json'), '{ "private": true }')
    const args = ['install', '--no-audit', '--no-fund', '--silent', '--ignore-scripts', `${maker}@${range}`]
    if (spawnSync('npm', args, { cwd: folder, timeout: 240_000 }).status !== 0)
      leaveOut(context, `Node ${name} cannot be had here`)
    const node = join(folder, 'node_modules', maker, 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
    expect(run(cwd, node, ['--version'])).toMatch(new RegExp(`^v${name}\\.`))
    expect(run(cwd, node, ['index.cjs'])).toBe(want)
    expect(run(cwd, node, ['node_modules/node-paligemma/dist/cli/main.js', 'verify'])).toContain('All is well')
  })
})

describe('runtimes', () => {
  it.for([
    ['bun', []],
    ['deno', ['run', '-A']]
  ] as const)('%s', ([name, words], context) => {
    const cwd = need(context)
    expect(run(cwd, join(cwd, 'node_modules/.bin', name), [...words, 'index.cjs'])).toBe(want)
  })
})

describe("Yarn's Plug'n'Play", () => {
  it('keeps the package unpacked by itself and builds nothing', (context) => {
    const yarn = join(need(context), 'node_modules/@yarnpkg/cli-dist/bin/yarn.js')
    const folder = join(temporary, 'pnp')
    mkdirSync(folder)
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }))
    writeFileSync(join(folder, 'yarn.lock'), '')
    writeFileSync(join(folder, 'index.cjs'), program)
    const settings = {
      YARN_NPM_REGISTRY_SERVER: execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8' }).trim(),
      YARN_UNSAFE_HTTP_WHITELIST: '*',
      YARN_ENABLE_GLOBAL_CACHE: 'false',
      YARN_ENABLE_TELEMETRY: 'false',
      CXX: 'false',
      CC: 'false'
    }
    const added = run(folder, process.execPath, [yarn, 'add', `node-paligemma@file:${tarball}`], settings)
    expect(added).not.toMatch(/^exit/)
    expect(existsSync(join(folder, '.pnp.cjs'))).toBe(true)
    expect(existsSync(join(folder, 'node_modules'))).toBe(false)
    expect(run(folder, process.execPath, [yarn, 'node', 'index.cjs'], settings)).toBe(want)
  })
})

describe('servers', () => {
  it('NestJS: examples/servers/nest.mjs', async (context) => {
    expect(await askServer(need(context), ['servers/nest.mjs'], '/caption')).toBe(want)
  })

  it('PM2 runs and ends one', async (context) => {
    const cwd = need(context)
    process.env['PM2_HOME'] = join(temporary, 'pm2')
    const args = [join(cwd, 'node_modules/pm2/bin/pm2-runtime'), 'start', 'servers/express.mjs']
    expect(await askServer(cwd, args, '/caption')).toBe(want)
  })

  it('Nitro: examples/nitro, from its output alone', async (context) => {
    need(context)
    const folder = join(temporary, 'nitro')
    cpSync(join(root, 'examples', 'nitro'), folder, { recursive: true })
    if (!appWith(folder, tarball, ['nitropack@2', 'h3@1'])) leaveOut(context, 'Nitro cannot be installed here')
    expect(runNode(folder, ['node_modules/nitropack/dist/cli/index.mjs', 'build'])).not.toMatch(/^exit/)
    const deployed = join(temporary, 'nitro-deployed')
    cpSync(join(folder, '.output'), deployed, { recursive: true, verbatimSymlinks: true })
    rmSync(folder, { recursive: true })
    expect(await askServer(deployed, ['server/index.mjs'], '/caption')).toBe(want)
  })
})
