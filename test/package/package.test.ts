/**
 * What `npm install node-paligemma` gives: the tarball is installed into an empty folder without network, compiler or
 * scripts, and used from there. Its dependencies are copied from this clone, since there is no registry to ask.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeOthers } from '../support/other-snippets'
import { npmPack, putEngine, removeEngine, unpacked } from '../support/packed'
import { runnable, toJavaScript } from '../support/snippets'
import { writeTinyModel } from '../support/tiny-model'

const root = join(__dirname, '..', '..')
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  version: string
  bin: Record<string, string>
}
const temporary = mkdtempSync(join(tmpdir(), 'paligemma-package-'))
const emptyCache = join(temporary, 'cache')
const windows = process.platform === 'win32'

function npm(cwd: string, ...args: string[]): string {
  return execFileSync('npm', [...args, '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd,
    encoding: 'utf8',
    shell: windows,
    env: { ...process.env, npm_config_cache: emptyCache, npm_config_offline: 'true' }
  })
}

/** Runs a program in an application folder, seeing nothing of this clone. */
function run(app: string, command: string, ...args: string[]) {
  const { PALIGEMMA_NATIVE: _native, NODE_PATH: _path, ...env } = process.env
  return spawnSync(command, args, { cwd: app, encoding: 'utf8', env })
}

/** The output of a script in the application's folder. */
function script(app: string, name: string, source: string): string {
  writeFileSync(join(app, name), source)
  const { stdout, stderr, status } = run(app, process.execPath, name)
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
  return stdout.trim()
}

function install(name: string, tarball: string): string {
  const app = join(temporary, name)
  const modules = join(app, 'node_modules')
  mkdirSync(join(modules, '.bin'), { recursive: true })
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name, version: '1.0.0', private: true }))
  const folders = execFileSync('npm', ['ls', '--omit=dev', '--all', '--parseable'], {
    cwd: root,
    encoding: 'utf8',
    shell: windows,
    stdio: ['ignore', 'pipe', 'ignore']
  })
  for (const folder of folders.trim().split(/\r?\n/).slice(1)) {
    const target = join(app, relative(root, folder))
    cpSync(folder, target, { recursive: true })
    // npm fetches a package anew when its command is missing
    const { name, bin = {} } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
      name: string
      bin?: string | Record<string, string>
    }
    for (const [command, file] of Object.entries(typeof bin === 'string' ? { [name]: bin } : bin))
      symlinkSync(relative(join(modules, '.bin'), join(target, file)), join(modules, '.bin', command))
  }
  npm(app, 'install', tarball)
  return app
}

/** The packed package without any engine, and with the one built here as its prebuilt binary. */
let bare = ''
let complete = ''
let files: string[] = []
let model = ''

beforeAll(() => {
  const contents = unpacked(temporary)
  files = readdirSync(contents, { recursive: true, encoding: 'utf8' }).map((name) => name.replaceAll('\\', '/'))
  removeEngine(contents)
  bare = install('bare', npmPack(contents, join(temporary, 'bare-tarball')))
  putEngine(contents)
  complete = install('complete', npmPack(contents, join(temporary, 'complete-tarball')))
  model = writeTinyModel({ maskDecoder: true })
})

afterAll(() => {
  rmSync(temporary, { recursive: true, force: true })
  if (model) rmSync(dirname(model), { recursive: true, force: true })
})

describe('the packed package', () => {
  it('holds what the program, a source build and the licence need, and nothing else', () => {
    for (const name of [
      'dist/index.js',
      'dist/index.mjs',
      'dist/index.d.ts',
      'dist/index.d.mts',
      'dist/cli/main.js',
      'dist/sources.tgz',
      'dist/vendored.licences.txt',
      'LICENSE',
      'NOTICE',
      'README.md',
      'CHANGELOG.md',
      'prebuilds/README.md'
    ]) {
      expect(files).toContain(name)
    }
    const { variables } = JSON.parse(readFileSync(join(root, 'native', 'sources.gypi'), 'utf8')) as {
      variables: Record<string, string[]>
    }
    const sources = execFileSync('tar', ['-tzf', join(temporary, 'stage', 'package', 'dist', 'sources.tgz')], {
      encoding: 'utf8'
    }).split('\n')
    for (const name of ['native/addon.gypi', 'native/sources.gypi', 'native/addon/exports.map', 'CMakeLists.txt'])
      expect(sources).toContain(name)
    for (const source of [
      ...variables.engine_sources!,
      ...variables.addon_sources!,
      ...variables.metal_sources!,
      'native/gpu/kernels/steps.cu'
    ])
      expect(sources).toContain(source)
    expect(files.filter((name) => /^(build|test|lib|scripts|node_modules|native)\//.test(name))).toEqual([])
    // Pictures are for those who read the documents where they are shown.
    expect(files.filter((name) => /^docs\/.*\.(png|webp)$/.test(name))).toEqual([])
  })

  it('runs nothing at installation', () => {
    const packed = JSON.parse(
      readFileSync(join(complete, 'node_modules', 'node-paligemma', 'package.json'), 'utf8')
    ) as { scripts?: Record<string, string>; gypfile?: boolean }
    expect(packed.gypfile).toBe(false)
    // npm obeys the line above; pnpm and Yarn compile whatever has this file
    expect(files).not.toContain('binding.gyp')
    for (const name of ['preinstall', 'install', 'postinstall', 'prepare'])
      expect(packed.scripts ?? {}).not.toHaveProperty(name)
  })

  it('has entry points that publint accepts', async () => {
    const { publint } = await import('publint')
    const { messages } = await publint({ pkgDir: join(complete, 'node_modules', 'node-paligemma'), strict: true })
    expect(messages).toEqual([])
  })
})

const generate = `
    const model = await loadModel(${'MODEL'})
    const image = { data: new Uint8Array(30 * 20 * 3), width: 30, height: 20, channels: 3 }
    const options = { prompt: 'caption en', image, maxTokens: 3, ignoreEos: true }
    const { tokens, finishReason } = await model.generate(options)
    await model.dispose()`

describe('an application that installs it', () => {
  const body = () => generate.replace('MODEL', JSON.stringify(model))

  it('uses it by require', () => {
    expect(
      script(
        complete,
        'use.cjs',
        `
      const { loadModel } = require('node-paligemma')
      ;(async () => { ${body()}
        console.log(tokens.length, finishReason) })()`
      )
    ).toBe('3 length')
  })

  it('uses it by import, and gets the same classes both ways', () => {
    expect(
      script(
        complete,
        'use.mjs',
        `
      import { createRequire } from 'node:module'
      import { loadModel, PaliGemmaError } from 'node-paligemma'
      ${body()}
      const required = createRequire(import.meta.url)('node-paligemma')
      console.log(tokens.length, finishReason, PaliGemmaError === required.PaliGemmaError)
      await loadModel('missing.gguf').catch((error) => console.log(error instanceof PaliGemmaError, error.code))`
      )
    ).toBe('3 length true\ntrue ERR_MODEL_NOT_FOUND')
  })

  it('serves it, by import and by require', () => {
    const serve = `
      const server = createServer({ models: { tiny: ${JSON.stringify(model)} }, logger: false })
      await server.ready()
      const { url } = await server.listen({ port: 0 })
      const { data } = await (await fetch(url + '/v1/models')).json()
      console.log(data[0].id, (await fetch(url + '/openapi.json')).status)
      await server.close()`
    const imported = `import { createServer } from 'node-paligemma/server'\n${serve}`
    expect(script(complete, 'serve.mjs', imported)).toBe('tiny 200')
    const required = `const { createServer } = require('node-paligemma/server')\n;(async () => {${serve}})()`
    expect(script(complete, 'serve.cjs', required)).toBe('tiny 200')
  })

  it('uses it in a worker', () => {
    expect(
      script(
        complete,
        'worker.cjs',
        `
      const { Worker, isMainThread, parentPort } = require('node:worker_threads')
      const { loadModel } = require('node-paligemma')
      if (isMainThread) new Worker(__filename).on('message', (message) => console.log(message))
      else (async () => { ${body()}
        parentPort.postMessage(tokens.length + ' ' + finishReason) })()`
      )
    ).toBe('3 length')
  })

  it.each(['cts', 'mts'])('is type-checked strictly as .%s', (extension) => {
    writeFileSync(
      join(complete, `types.${extension}`),
      `
      import { createPaliGemma } from 'node-paligemma/ai-sdk'
      import { createServer, type PaliGemmaServer } from 'node-paligemma/server'
      import { loadModel, parseOutput, type Detection, type GenerateResult, type PaliGemma } from 'node-paligemma'
      export async function use (path: string): Promise<string> {
        const model: PaliGemma = await loadModel({ model: path, threads: 2 })
        const result: GenerateResult = await model.generate({ prompt: 'caption en', image: 'cow.jpg' })
        const stream = model.stream({ prompt: 'x', image: new Uint8Array(3) })
        for await (const chunk of stream) process.stdout.write(chunk.text)
        const found: Detection[] = await model.detect('cow.jpg', ['cow'])
        const { languageModel } = createPaliGemma({ model })
        const server: PaliGemmaServer = createServer({ models: { mine: model, cows: { base: 'mine', adapters: [] } } })
        const answer: Response = await server.fetch(new Request('http://localhost/health'))
        // @ts-expect-error: models are needed
        createServer({})
        // @ts-expect-error: maxTokens is a number
        await model.generate({ prompt: 'x', maxTokens: '5' })
        await model.dispose()
        const pieces = parseOutput('', { width: 1, height: 1 })
        return languageModel().modelId + answer.statusText + result.text + found[0]?.label + pieces.length
      }`
    )
    const { stdout, status } = run(
      complete,
      process.execPath,
      join(root, 'node_modules', 'typescript', 'bin', 'tsc'),
      '--noEmit',
      '--strict',
      '--exactOptionalPropertyTypes',
      '--target',
      'ES2022',
      '--lib',
      'ES2022,ESNext.Disposable',
      '--module',
      'nodenext',
      '--types',
      'node',
      '--typeRoots',
      join(root, 'node_modules', '@types'),
      `types.${extension}`
    )
    expect({ stdout, status }).toEqual({ stdout: '', status: 0 })
  })

  it('has the command', () => {
    const command = join(complete, 'node_modules', '.bin', windows ? 'paligemma.cmd' : 'paligemma')
    expect(run(complete, command, '--version')).toMatchObject({ stdout: `${manifest.version}\n`, status: 0 })
    const { stdout, status } = run(complete, command, 'tokenize', '--model', model, '--json', 'caption en')
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toBeTruthy()
  })

  it.skipIf(!existsSync(join(root, 'demo')) || !readdirSync(join(root, 'demo')).some((name) => name.endsWith('.gguf')))(
    'runs the demo',
    () => {
      const command = join(complete, 'node_modules', '.bin', windows ? 'paligemma.cmd' : 'paligemma')
      const { stdout, stderr, status } = run(complete, command, 'demo')
      expect({ stderr, status }).toEqual({ stderr: expect.any(String), status: 0 })
      expect(stdout.length).toBeGreaterThan(0)
    }
  )
})

describe('the documentation', () => {
  it.each(runnable().map((snippet) => [snippet.where, snippet] as const))(
    '%s runs where it is installed',
    (_, snippet) => {
      expect(script(complete, 'snippet.mjs', toJavaScript(snippet).code)).toContain('a purple ring')
    }
  )

  it('all others run there too, beside models and pictures of their names', () => {
    cpSync(join(root, 'node_modules', 'zod'), join(complete, 'node_modules', 'zod'), { recursive: true }) // their own
    const { stderr, status } = run(complete, process.execPath, writeOthers(complete))
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
  })

  it('ships', () => {
    expect(files).toEqual(expect.arrayContaining(['README.md', 'docs/api.md', 'demo/README.md', 'demo/shapes.png']))
  })
})

describe('without an engine for the platform', () => {
  it('says what to do, and what needs no engine works', () => {
    expect(
      script(
        bare,
        'bare.cjs',
        `
      const { loadModel, parseOutput, PaliGemmaError } = require('node-paligemma')
      const found = parseOutput('<loc0000><loc0000><loc1023><loc1023> cow', { width: 100, height: 50 })
      console.log(JSON.stringify(found.map(({ label }) => label)))
      loadModel(${JSON.stringify(model)})
        .catch((error) => console.log(error instanceof PaliGemmaError, error.code, error.message))`
      )
    ).toMatch(/^\["cow"\]\ntrue ERR_NATIVE_MISSING No native engine for .*prebuilds.*paligemma build/s)
  })

  it('the command fails with the same message', () => {
    const { stderr, status } = run(
      bare,
      process.execPath,
      join(bare, 'node_modules', 'node-paligemma', manifest.bin.paligemma!),
      'tokenize',
      '--model',
      model,
      'x'
    )
    expect(status).toBe(1)
    // Each folder once, though several files are looked for in it.
    const [, folders] = /No native engine for \S+: none in build\/Release or prebuilds\/\S+ of (.*?)\. Build/s.exec(
      stderr
    )!
    const named = folders!.split(', ')
    expect(named).toContain(realpathSync(join(bare, 'node_modules', 'node-paligemma')))
    expect(new Set(named).size).toBe(named.length)
  })
})
