/**
 * Package managers, bundlers, tracers and frameworks of the registry with the packed package: npm run test:frameworks.
 * Tests whose tools cannot be had are skipped, or fail where PALIGEMMA_ALL_TESTS is set, as .ci/run does.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { appWith, askServer, demoModel, demoPicture, leaveOut, packWithEngine, runNode } from '../support/packed'

const root = join(__dirname, '..', '..')
const temporary = mkdtempSync(join(tmpdir(), 'paligemma-frameworks-'))
let tarball = ''
let want = ''
let app: string | undefined
const tools = ['esbuild', '@vercel/nft', 'webpack', 'rollup', 'vite', 'express', 'fastify', 'hono', '@hono/node-server']

const program = `const { loadModel } = require('node-paligemma')
async function main() {
  const model = await loadModel(process.env.MODEL)
  console.log((await model.generate({ image: process.env.PICTURE, prompt: 'caption en', maxTokens: 32 })).text)
  await model.dispose()
}
main().catch((error) => console.log(error.code, error.message))
`
const env = { MODEL: demoModel, PICTURE: demoPicture }

beforeAll(() => {
  tarball = packWithEngine(temporary)
  want = runNode(root, ['-e', program.replace("'node-paligemma'", "'./dist/index.js'")], env)
  expect(want).toMatch(/^[a-z0-9 ,]+$/)
  app = appWith(join(temporary, 'app'), tarball, tools)
  if (!app) return
  writeFileSync(join(app, 'index.cjs'), program)
  writeFileSync(join(app, 'index.mjs'), program.replace(/^const .*$/m, "import { loadModel } from 'node-paligemma'"))
})
afterAll(() => {
  rmSync(temporary, { recursive: true, force: true })
})

/** The application with the tools; the test is skipped where they cannot be installed. */
function need(context: TestContext): string {
  return app ?? leaveOut(context, 'the tools cannot be installed here')
}

describe('bundlers', () => {
  it('esbuild: one file finds the engine in node_modules, also as an ES module', (context) => {
    const cwd = need(context)
    const esbuild = join(cwd, 'node_modules/esbuild/bin/esbuild')
    const flags = ['index.mjs', '--bundle', '--platform=node', '--external:sharp']
    const banner = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)"
    spawnSync(esbuild, [...flags, '--outfile=out/plain.cjs'], { cwd })
    spawnSync(esbuild, [...flags, '--format=esm', `--banner:js=${banner}`, '--outfile=out/plain.mjs'], { cwd })
    expect(runNode(cwd, ['out/plain.cjs'], env)).toBe(want)
    expect(runNode(cwd, ['out/plain.mjs'], env)).toBe(want)
    // SVGs are decoded in a process of their own, which looks for sharp by itself
    const picture = 'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    expect(runNode(cwd, ['out/plain.mjs'], { ...env, PICTURE: picture })).not.toMatch(/undefined|ERR_/)
    expect(runNode(cwd, ['out/plain.cjs'], { ...env, MODEL: 'demo' })).toBe(want)
  })

  it('esbuild: a bundle far from the package says what to set, and PALIGEMMA_NATIVE does', (context) => {
    const cwd = need(context)
    const alone = join(temporary, 'alone')
    mkdirSync(join(alone, 'node_modules'), { recursive: true })
    for (const name of ['sharp', '@img', 'detect-libc', 'semver'])
      cpSync(join(cwd, 'node_modules', name), join(alone, 'node_modules', name), { recursive: true })
    spawnSync(
      join(cwd, 'node_modules/esbuild/bin/esbuild'),
      ['index.mjs', '--bundle', '--platform=node', '--external:sharp', `--outfile=${alone}/app.cjs`],
      { cwd }
    )
    expect(runNode(alone, ['app.cjs'], env)).toMatch(/^ERR_NATIVE_MISSING.*serverExternalPackages.*PALIGEMMA_NATIVE/s)
    cpSync(join(cwd, 'node_modules/node-paligemma/prebuilds'), join(alone, 'engines'), { recursive: true })
    const engine = spawnSync('find', ['engines', '-name', '*.node'], { cwd: alone, encoding: 'utf8' }).stdout.trim()
    expect(runNode(alone, ['app.cjs'], { ...env, PALIGEMMA_NATIVE: engine })).toBe(want)
    const demo = runNode(alone, ['app.cjs'], { ...env, PALIGEMMA_NATIVE: engine, MODEL: 'demo' })
    expect(demo).toMatch(/^ERR_MODEL_NOT_FOUND.*serverExternalPackages/s)
    cpSync(join(alone, 'engines'), join(alone, 'prebuilds'), { recursive: true })
    expect(runNode(alone, ['app.cjs'], env)).toBe(want)
  })

  it('webpack: with the package inside the bundle', (context) => {
    const cwd = need(context)
    writeFileSync(
      join(cwd, 'webpack.cjs'),
      `require('webpack')({ mode: 'production', target: 'node', entry: './index.cjs',
        externals: { sharp: 'commonjs sharp' }, output: { path: __dirname + '/out', filename: 'webpack.cjs' } },
        (error, stats) => {
          if (!error && !stats.hasErrors()) return
          console.log(error || stats.toString('errors-only'))
          process.exit(1)
        })`
    )
    expect(runNode(cwd, ['webpack.cjs'])).toBe('')
    expect(runNode(cwd, ['out/webpack.cjs'], env)).toBe(want)
  })

  it('webpack as an ES module, whose import of sharp gives a namespace', (context) => {
    const cwd = need(context)
    writeFileSync(
      join(cwd, 'webpack-esm.cjs'),
      `require('webpack')({ mode: 'production', target: 'node', entry: './index.mjs',
        experiments: { outputModule: true },
        externals: { sharp: 'module sharp' },
        output: { path: __dirname + '/out', filename: 'webpack.mjs', module: true, library: { type: 'module' } } },
        (error, stats) => {
          if (!error && !stats.hasErrors()) return
          console.log(error || stats.toString('errors-only'))
          process.exit(1)
        })`
    )
    expect(runNode(cwd, ['webpack-esm.cjs'])).toBe('')
    expect(runNode(cwd, ['out/webpack.mjs'], env)).toBe(want)
  })

  it('Rollup and Vite: with the package outside', (context) => {
    const cwd = need(context)
    writeFileSync(
      join(cwd, 'bundle.mjs'),
      `import { rollup } from 'rollup'
      import { build } from 'vite'
      const bundle = await rollup({ input: 'index.mjs', external: ['node-paligemma'] })
      await bundle.write({ file: 'out/rollup.mjs' })
      const rollupOptions = { output: { entryFileNames: '[name].mjs' } }
      await build({
        logLevel: 'error',
        build: { ssr: 'index.mjs', outDir: 'out/vite', emptyOutDir: true, rollupOptions }
      })`
    )
    expect(runNode(cwd, ['bundle.mjs'])).toBe('')
    expect(runNode(cwd, ['out/rollup.mjs'], env)).toBe(want)
    const output = ['index.mjs', 'index.js'].find((name) => existsSync(join(cwd, 'out/vite', name)))!
    expect(runNode(cwd, [`out/vite/${output}`], env)).toBe(want)
  })

  it('@vercel/nft: a copy of the files it lists runs', async (context) => {
    const cwd = need(context)
    const { nodeFileTrace } = createRequire(join(cwd, 'noop.js'))('@vercel/nft') as {
      nodeFileTrace: (files: string[], options: object) => Promise<{ fileList: Set<string> }>
    }
    const { fileList } = await nodeFileTrace([join(cwd, 'index.cjs')], { base: cwd })
    const copy = join(temporary, 'traced')
    for (const file of fileList) {
      mkdirSync(dirname(join(copy, file)), { recursive: true })
      cpSync(join(cwd, file), join(copy, file))
    }
    expect([...fileList].filter((file) => /node-paligemma.*\.node$/.test(file))).toHaveLength(1)
    expect(runNode(copy, ['index.cjs'], env)).toBe(want)
  })
})

describe('servers of examples/servers', () => {
  it.for(['express', 'fastify', 'hono'])('%s', async (name, context) => {
    const cwd = need(context)
    cpSync(join(root, 'examples', 'servers'), join(cwd, 'servers'), { recursive: true })
    expect(await askServer(cwd, [`servers/${name}.mjs`], '/caption')).toBe(want)
  })
})

describe('examples/next', () => {
  it('is built with nothing set, and answers, also from the standalone folder', async (context) => {
    need(context)
    const folder = join(temporary, 'next')
    cpSync(join(root, 'examples', 'next'), folder, { recursive: true })
    if (!appWith(folder, tarball, ['next@16', 'react@19', 'react-dom@19']))
      leaveOut(context, 'next cannot be installed here')
    const next = join(folder, 'node_modules/next/dist/bin/next')
    expect(runNode(folder, [next, 'build'], { NEXT_TELEMETRY_DISABLED: '1' })).not.toMatch(/^exit/)
    const answer = JSON.stringify({ text: want })
    expect(await askServer(folder, [next, 'start', '-p', 'PORT'], '/api/caption')).toBe(answer)
    const deployed = join(temporary, 'next-deployed')
    cpSync(join(folder, '.next', 'standalone'), deployed, { recursive: true, verbatimSymlinks: true })
    rmSync(folder, { recursive: true })
    expect(await askServer(deployed, ['server.js'], '/api/caption')).toBe(answer)
  })

  it('by webpack answers where it was built, demo too; a standalone folder says what to set', async (context) => {
    need(context)
    const folder = join(temporary, 'next-webpack')
    cpSync(join(root, 'examples', 'next'), folder, { recursive: true })
    if (!appWith(folder, tarball, ['next@16', 'react@19', 'react-dom@19']))
      leaveOut(context, 'next cannot be installed here')
    writeFileSync(join(folder, 'app', 'api', 'caption', 'route.js'), tellingRoute)
    const next = join(folder, 'node_modules/next/dist/bin/next')
    expect(runNode(folder, [next, 'build', '--webpack'], { NEXT_TELEMETRY_DISABLED: '1' })).not.toMatch(/^exit/)
    for (const model of [demoModel, 'demo'])
      expect(await askServer(folder, [next, 'start', '-p', 'PORT'], '/api/caption', model)).toBe(want)
    const deployed = join(temporary, 'next-webpack-deployed')
    cpSync(join(folder, '.next', 'standalone'), deployed, { recursive: true, verbatimSymlinks: true })
    rmSync(folder, { recursive: true })
    const lost = [await askServer(deployed, ['server.js'], '/api/caption')]
    lost.push(await askServer(deployed, ['server.js'], '/api/caption', 'demo'))
    for (const told of lost) expect(told).toMatch(/^ERR_(?:NATIVE_MISSING|MODEL_NOT_FOUND).*serverExternalPackages/s)
  })
})

const tellingRoute = `import { loadModel } from 'node-paligemma'
export async function POST (request) {
  try {
    const model = await (globalThis.paligemma ??= loadModel(process.env.MODEL))
    const image = new Uint8Array(await request.arrayBuffer())
    return new Response((await model.generate({ image, prompt: 'caption en', maxTokens: 32 })).text)
  } catch (error) {
    return new Response(error.code + ' ' + error.message)
  }
}
`

describe('examples/sea', () => {
  it.runIf(process.platform === 'linux')('is one program that runs without node_modules of its own', (context) => {
    need(context)
    const folder = join(temporary, 'sea')
    cpSync(join(root, 'examples', 'sea'), folder, { recursive: true })
    if (!appWith(folder, tarball, ['esbuild', 'postject@1.0.0-alpha.6']))
      leaveOut(context, 'esbuild cannot be installed here')
    expect(runNode(folder, ['build.mjs'])).not.toMatch(/^exit/)
    const deployed = join(temporary, 'sea-deployed')
    cpSync(join(folder, 'dist'), deployed, { recursive: true })
    rmSync(folder, { recursive: true })
    const { stdout, stderr } = spawnSync(join(deployed, 'caption'), [demoModel, demoPicture], { encoding: 'utf8' })
    expect({ stdout: stdout.trim(), stderr }).toEqual({ stdout: want, stderr: '' })
  })
})

describe('package managers build nothing', () => {
  it.for([
    ['pnpm@9', ['add']],
    ['pnpm@10', ['add']],
    ['yarn@1', ['add', '--no-lockfile']]
  ] as const)('%s', ([manager, words], context) => {
    const folder = join(temporary, manager.replace('@', '-'))
    mkdirSync(folder)
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }))
    writeFileSync(join(folder, 'index.cjs'), program)
    if (spawnSync('npx', ['-y', manager, '--version'], { timeout: 120_000 }).status !== 0)
      leaveOut(context, `${manager} cannot be had here`)
    const { status, stderr } = spawnSync('npx', ['-y', manager, ...words, tarball], {
      cwd: folder,
      encoding: 'utf8',
      timeout: 240_000,
      env: { ...process.env, CXX: 'false', CC: 'false', CI: 'true' }
    })
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' })
    expect(existsSync(join(folder, 'node_modules', 'node-paligemma', 'build'))).toBe(false)
    expect(runNode(folder, ['index.cjs'], env)).toBe(want)
  })

  it('has no implied install step in its tarball', () => {
    const listed = spawnSync('tar', ['-tzf', tarball], { encoding: 'utf8' }).stdout
    expect(listed).toContain('package/dist/sources.tgz')
    expect(listed).not.toContain('package/binding.gyp')
    expect(readFileSync(join(root, 'binding.gyp'), 'utf8')).toContain('native/addon.gypi')
  })
})
