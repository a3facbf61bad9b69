/** From a hub on this machine to text: download, conversion, cache, loadModel and the command, with the real engine. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { execute } from '../../lib/cli/program'
import { convertModel, inspectModel, loadModel, loadTokenizer, pull } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { TestHub } from '../support/hub-server'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
/** What `pull` wrote down of the model's files. */
const recorded = (path: string): unknown =>
  (JSON.parse(readFileSync(path.replace(/gguf$/, 'json'), 'utf8')) as { sha256: unknown }).sha256
const command = join(root, 'dist', 'cli', 'main.js')
const source = (name: string): string => golden('hf', name)

function readModel(name: string): Record<string, Buffer> {
  return Object.fromEntries(
    readdirSync(source(name))
      .filter((file) => /\.(json|model|safetensors)$/.test(file) && !file.startsWith('expected'))
      .map((file) => [file, readFileSync(join(source(name), file))])
  )
}

describe.skipIf(!hasGolden)('a pulled model', () => {
  let hub: TestHub
  let cacheDir: string
  let before: NodeJS.ProcessEnv

  beforeEach(() => {
    cacheDir = tempDir()
    before = process.env
    process.env = { ...process.env, PALIGEMMA_CACHE: cacheDir, HF_HOME: join(cacheDir, 'hf'), HF_TOKEN: '' }
  })
  afterEach(async () => {
    process.env = before
    await hub?.stop()
  })

  it.each(['pg2-tiny', 'pg2-tiny-sharded'])(
    "%s is loaded by its name and gives the reference's greedy tokens",
    async (name) => {
      hub = await TestHub.start(readModel(name))
      process.env.HF_ENDPOINT = hub.url
      await expect(loadModel(hub.id)).rejects.toMatchObject({
        code: 'ERR_MODEL_NOT_FOUND',
        message: expect.stringContaining(`npx paligemma pull ${hub.id}`) as string
      })
      const { path, bytes, type } = await pull(hub.id, { type: 'f32' })
      expect({ type, exists: existsSync(path), bytes }).toEqual({
        type: 'F32',
        exists: true,
        bytes: readFileSync(path).length
      })
      expect(existsSync(join(cacheDir, 'downloads', 'org--tiny-model'))).toBe(false)
      await using model = await loadModel({ model: hub.id, kvCacheType: 'f32', attentionWindow: 'suffix' })
      expect(model.info).toMatchObject({ architecture: 'paligemma2', name: 'tiny-model' })
      const { cases } = JSON.parse(readFileSync(join(source(name), 'expected.json'), 'utf8')) as {
        cases: { kind: string; images: string[]; prompt: string; greedy: { tokens: number[] } }[]
      }
      const item = cases.find(({ kind, images }) => kind === 'generate' && images.length === 1)!
      const result = await model.generate({
        image: join(source(name), 'images', item.images[0]!),
        prompt: item.prompt,
        maxTokens: 24,
        ignoreEos: true
      })
      expect(result.tokens.map(({ id }) => id)).toEqual(item.greedy.tokens)
      expect(await inspectModel(`${hub.id}:f32`)).toMatchObject({ path, architecture: 'gemma2' })
      expect((await loadTokenizer(hub.id)).encode('a').length).toBeGreaterThan(0)
    }
  )

  it('with a mask decoder it can segment', async () => {
    hub = await TestHub.start(readModel('pg2-tiny'))
    await pull(`${hub.id}:q8_0`, { endpoint: hub.url, maskDecoder: golden('segment', 'vae-oid.random.npz') })
    await using model = await loadModel(hub.id)
    expect(model.info.hasMaskDecoder).toBe(true)
  })

  it('a ready GGUF is taken as it is; a file that is none is refused', async () => {
    hub = await TestHub.start(readModel('pg2-tiny'))
    const converted = await pull(hub.id, { endpoint: hub.url, type: 'f16' })
    const made = readFileSync(converted.path)
    expect(recorded(converted.path)).toEqual({ 'tiny-model-F16.gguf': sha256(made) })
    await hub.stop()
    hub = await TestHub.start({ 'tiny-F16.gguf': made, 'tiny-Q8_0.gguf': Buffer.from('no GGUF at all') })
    hub.commit = 'b'.repeat(40)
    const ready = await pull(hub.id, { endpoint: hub.url, type: 'f16' })
    expect(ready).toMatchObject({ converted: false, type: 'F16', vision: null })
    expect(readFileSync(ready.path).equals(made)).toBe(true)
    expect(recorded(ready.path)).toEqual({ 'tiny-F16.gguf': sha256(made) })
    await using model = await loadModel(`${hub.id}:F16`)
    expect(model.info.hasVision).toBe(true)
    await expect(pull(hub.id, { endpoint: hub.url, type: 'q8_0' })).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('GGUFs of the types F16 only, not Q8_0') as string
    })
  })

  it('paligemma pull shows the files, then run takes the name', async () => {
    hub = await TestHub.start(readModel('pg2-tiny'))
    process.env.HF_ENDPOINT = hub.url
    const cli = async (...args: string[]) => {
      const out: string[] = []
      const err: string[] = []
      const code = await execute(args, {
        stdout: { write: (text) => out.push(text) },
        stderr: { write: (text) => err.push(text) },
        signal: new AbortController().signal
      })
      return { code, out: out.join(''), err: err.join('') }
    }
    const pulled = await cli('pull', hub.id, '--type', 'q8_0', '--json')
    expect(pulled.code).toBe(0)
    expect(JSON.parse(pulled.out)).toMatchObject({ id: hub.id, type: 'Q8_0', cached: false })
    expect(pulled.err).toMatch(/^org\/tiny-model at c0ffee0000, 9 files, 3\.2 MB, to be converted to Q8_0\n/)
    expect(pulled.err).toContain('2.7 MB  model.safetensors\n')
    const again = await cli('pull', hub.id)
    expect(again).toMatchObject({ code: 0, out: expect.stringContaining('Q8_0, ') as string })
    expect(again.out).toContain('was in the cache')
    const run = await cli(
      'run',
      '--model',
      hub.id,
      '--image',
      join(source('pg2-tiny'), 'images', 'd.png'),
      '--prompt',
      'caption en',
      '--max-tokens',
      '4',
      '--json'
    )
    expect(run.code).toBe(0)
    expect(JSON.parse(run.out).usage.imageTokens).toBeGreaterThan(0)
    expect(await cli('run', '--model', 'org/never', '--prompt', 'x')).toMatchObject({
      code: 1,
      err: expect.stringContaining('npx paligemma pull org/never') as string
    })
  })

  it('that is an adapter is merged by its name', async () => {
    const files = ['adapter_config.json', 'adapter_model.safetensors'].map(
      (name) => [name, readFileSync(join(source('pg1-tiny-lora'), name))] as const
    )
    const config = JSON.parse(String(files[0]![1])) as object
    const plain = JSON.stringify({ ...config, base_model_name_or_path: '/home/somebody/model' })
    hub = await TestHub.start({ ...Object.fromEntries(files), 'adapter_config.json': Buffer.from(plain) })
    await pull(hub.id, { endpoint: hub.url })
    const [byName, byPath, byCommand] = ['name.gguf', 'path.gguf', 'command.gguf'].map((name) => join(cacheDir, name))
    const options = { source: source('pg1-tiny'), type: 'f32' }
    const { notes } = await convertModel({ ...options, out: byName!, adapters: [{ path: hub.id, scale: 0.5 }] })
    expect(notes.join()).toContain('30 matrices changed')
    await convertModel({ ...options, out: byPath!, adapters: [{ path: source('pg1-tiny-lora'), scale: 0.5 }] })
    const context = { stdout: { write() {} }, stderr: { write() {} }, signal: new AbortController().signal }
    const adapter = ['--adapter', `${hub.id}=0.5`, '--type', 'f32']
    expect(await execute(['convert', source('pg1-tiny'), '-o', byCommand!, ...adapter], context)).toBe(0)
    const [expected, ...others] = [byPath, byName, byCommand].map((path) => readFileSync(path!))
    for (const bytes of others) expect(bytes.equals(expected!)).toBe(true)
    await expect(convertModel({ ...options, out: byName!, adapters: ['org/never'] })).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringContaining('npx paligemma pull org/never') as string
    })
  })

  it.skipIf(!existsSync(command))(
    'killed in the middle, the next process takes over lock and part, and finishes',
    async () => {
      hub = await TestHub.start(readModel('pg2-tiny'))
      const content = hub.files.get('model.safetensors')!
      let cut = true
      hub.intercept = (_request, response, { at, path }) => {
        if (at !== 'files' || !path.endsWith('model.safetensors') || !cut) return false
        response
          .writeHead(200, { 'content-length': content.length, etag: '"v1-model.safetensors"' })
          .write(content.subarray(0, 1_000_000))
        return true
      }
      const env = { ...process.env, HF_ENDPOINT: hub.url }
      const child = spawn(process.execPath, [command, 'pull', hub.id], { env, stdio: 'ignore' })
      const part = join(cacheDir, 'downloads', 'org--tiny-model', hub.commit, 'tiny-model', 'model.safetensors.part')
      while (!existsSync(part) || readFileSync(part).length < 1_000_000)
        await new Promise((resolve) => setTimeout(resolve, 20))
      child.kill('SIGKILL')
      await new Promise((resolve) => child.on('exit', resolve))
      expect(readdirSync(join(cacheDir, 'locks'))).toEqual(['org--tiny-model.lock'])
      cut = false
      const result = await pull(hub.id, { endpoint: hub.url })
      expect(result.cached).toBe(false)
      expect(hub.requestsFor('model.safetensors', 'files').map(({ headers }) => headers.range)).toEqual([
        undefined,
        'bytes=1000000-'
      ])
      await using model = await loadModel(hub.id)
      expect(model.info.quantization).toBe('Q8_0')
    }
  )
})
