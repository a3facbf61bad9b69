/** What a process brings with it: its working folder, its permissions, the context of its calls, a model's training. */
import { spawnSync } from 'node:child_process'
import { AsyncLocalStorage } from 'node:async_hooks'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import sharp from 'sharp'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  convertDataset,
  drawDetections,
  evaluateModel,
  inspectModel,
  loadMaskDecoder,
  loadModel,
  loadTokenizer,
  type PaliGemma,
  preprocessImage,
  pull,
  quantizeModel,
  videoFrames
} from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { TestHub } from '../support/hub-server'
import { writeTinyModel } from '../support/tiny-model'

const root = join(__dirname, '..', '..')
const command = join(root, 'dist', 'cli', 'main.js')
const here = process.cwd()
let gguf = ''

beforeAll(() => {
  gguf = writeTinyModel({ contextSize: 512 })
})
afterEach(() => {
  process.chdir(here)
  vi.restoreAllMocks()
})
afterAll(removeTempDirs)

describe('relative paths', () => {
  it('begin where the process was when the call was made', async () => {
    const [before, after] = [tempDir(), tempDir()]
    copyFileSync(gguf, join(before, 'm.gguf'))
    process.chdir(before)
    const calls = [
      loadModel({ model: 'm.gguf', threads: 1 }).then(async (model) => await model.dispose()),
      inspectModel('m.gguf'),
      quantizeModel({ source: 'm.gguf', out: 'q.gguf', type: 'Q8_0' })
    ]
    process.chdir(after)
    await Promise.all(calls)
    expect(readdirSync(before).sort()).toEqual(['m.gguf', 'q.gguf'])
    expect(readdirSync(after)).toEqual([])
  })

  it.skipIf(process.platform === 'win32')('of a folder that is gone are refused, absolute ones work on', async () => {
    const gone = tempDir()
    process.chdir(gone)
    rmSync(gone, { recursive: true })
    const out = join(tempDir(), 'q.gguf')
    const model = await loadModel({ model: gguf, threads: 1 })
    const relative: [string, () => Promise<unknown>][] = [
      ['m.gguf', async () => await loadModel('m.gguf')],
      ['m.gguf', async () => await inspectModel('m.gguf')],
      ['q.gguf', async () => await quantizeModel({ source: gguf, out: 'q.gguf', type: 'Q8_0' })],
      ['a.png', async () => await preprocessImage('a.png', { size: 8 })],
      ['a.png', async () => await model.caption('a.png')],
      ['a.mp4', async () => await videoFrames('a.mp4').next()],
      ['lora', async () => await loadModel({ model: gguf, adapters: ['lora'] })]
    ]
    for (const [path, call] of relative)
      await expect(call()).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(`${path} begins in the working folder of this process`) as unknown
      })
    const [result] = await model.generateBatch([{ prompt: 'a', maxTokens: 1 }])
    expect(result).toMatchObject({ finishReason: 'length' })
    await quantizeModel({ source: gguf, out, type: 'Q8_0' })
    expect(existsSync(out)).toBe(true)
    await model.dispose()
    for (const verb of ['caption', 'batch --task caption --out r.jsonl']) {
      const line = `mkdir gone && cd gone && rmdir ../gone && "$0" "$1" ${verb} '*.png' --model demo`
      const { stderr, status } = spawnSync('sh', ['-c', line, process.execPath, command], {
        encoding: 'utf8',
        cwd: tempDir()
      })
      expect([stderr, status]).toEqual([expect.stringMatching(/^ERR_INVALID_OPTION: .*working folder/), 2])
    }
  })

  it('of pictures, examples, data and adapters are those of the call, too', async () => {
    const [before, after] = [tempDir(), tempDir()]
    const square = sharp({ create: { width: 8, height: 8, channels: 3, background: '#f80' } })
    for (const name of ['a.png', 'b.png']) await square.png().toFile(join(before, name))
    const frame = await square.png().toBuffer()
    await sharp([frame, frame], { join: { animated: true } })
      .gif({ delay: 0 })
      .toFile(join(before, 'v.gif'))
    copyFileSync(writeTinyModel({ maskDecoder: true, contextSize: 512 }), join(before, 'm.gguf'))
    writeFileSync(join(before, 'rows.jsonl'), '{"image": "a.png", "prefix": "a", "suffix": "b"}\n')
    writeFileSync(join(before, 'rows.csv'), 'image,prefix,suffix\na.png,a,b\n')
    const model = await loadModel({ model: join(before, 'm.gguf'), threads: 1 })
    const short = { maxTokens: 1 }
    const all = async (items: AsyncIterable<unknown>): Promise<void> => {
      for await (const item of items) expect((item as { error?: unknown }).error).toBeUndefined()
    }
    const row = (image: string) => ({ image, prompt: 'a', response: 'b' })
    const fitting = { steps: 1, rank: 1, targets: ['q_proj'] } as Parameters<PaliGemma['fit']>[1]
    const { adapter } = await model.fit([{ prompt: 'a', response: 'b' }], fitting)
    const calls: Record<string, () => Promise<unknown>> = {
      evaluateModel: async () =>
        await evaluateModel({ model: 'm.gguf', data: 'rows.jsonl', metric: 'exact', threads: 1, maxTokens: 1 }),
      fit: async () =>
        await model.fit([row('a.png')], { ...fitting, evaluate: [row('b.png')], checkpoint: 'checkpoint' }),
      save: async () => await Promise.all([adapter.save('adapter'), adapter.save('adapter.gguf')]),
      convertDataset: async () =>
        await convertDataset({ source: 'rows.csv', out: 'out.jsonl', from: 'csv', to: 'jsonl', images: '.' }),
      drawDetections: async () => await drawDetections('a.png', []),
      preprocessImage: async () => await preprocessImage('a.png', { size: 28 }),
      loadTokenizer: async () => await loadTokenizer('m.gguf'),
      loadMaskDecoder: async () => await loadMaskDecoder('m.gguf'),
      batch: async () => await all(model.batch(['a.png', 'b.png'], { task: 'caption', ...short })),
      watch: async () => await all(model.watch(['a.png'], { task: 'caption', minInterval: 0, ...short })),
      videoFrames: async () => await all(videoFrames('v.gif', { count: 2 })),
      describeVideo: async () => await model.describeVideo('v.gif', { prompt: 'a', frames: 2, ...short }),
      generateBatch: async () => {
        const requests = ['a.png', 'b.png'].map((image) => ({ image, prompt: 'a', ...short }))
        for (const result of await model.generateBatch(requests)) expect(result).not.toBeInstanceOf(Error)
      }
    }
    for (const [name, call] of Object.entries(calls)) {
      process.chdir(before)
      const running = call()
      process.chdir(after)
      await running.catch((error: unknown) => expect.fail(`${name}: ${String(error)}`))
    }
    await model.dispose()
    expect(readdirSync(after)).toEqual([])
    expect(readdirSync(before)).toEqual(expect.arrayContaining(['adapter', 'adapter.gguf', 'checkpoint', 'out.jsonl']))
  })

  it('may be file: URLs, as an argument or among the options', async () => {
    const url = pathToFileURL(gguf)
    for (const source of [url, url.href, { model: url, threads: 1 }, { model: url.href, threads: 1 }])
      await (await loadModel(source)).dispose()
    await expect(loadModel({ model: new URL('https://example.org/m.gguf') })).rejects.toMatchObject({
      name: 'PaliGemmaError'
    })
  })
})

describe('callbacks of long work', () => {
  const storage = new AsyncLocalStorage<string>()

  it('run in the context of their call', async () => {
    const seen = new Set<unknown>()
    const note = (): void => void seen.add(storage.getStore())
    const out = (user: string): string => join(tempDir(), `${user}.gguf`)
    await Promise.all(
      ['ann', 'bob'].map(
        async (user) =>
          await storage.run(
            user,
            async () => await quantizeModel({ source: gguf, out: out(user), type: 'Q8_0', onProgress: note })
          )
      )
    )
    expect([...seen].sort()).toEqual(['ann', 'bob'])
  })

  it('of a pull as well, and what they throw comes out unchanged', async () => {
    const hub = await TestHub.start({
      'config.json': '{}',
      'tokenizer.model': Buffer.alloc(10),
      'model.safetensors': Buffer.alloc(1000)
    })
    const seen: unknown[] = []
    const mine = new Error('mine')
    try {
      const options = { endpoint: hub.url, cacheDir: tempDir(), token: false as const }
      const pulling = storage.run(
        'ann',
        async () =>
          await pull(hub.id, {
            ...options,
            onPlan: () => {
              seen.push(storage.getStore())
              throw mine
            }
          })
      )
      await expect(pulling).rejects.toBe(mine)
      expect(seen).toEqual(['ann'])
    } finally {
      await hub.stop()
    }
  })
})

describe('signals of quantizeModel', () => {
  it('end it with their reason, before and while it works, and leave nothing', async () => {
    const reason = new Error('enough')
    const folder = tempDir()
    const options = { source: gguf, out: join(folder, 'q.gguf'), type: 'Q8_0' }
    await expect(quantizeModel({ ...options, signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const control = new AbortController()
    const onProgress = (): void => control.abort(reason)
    await expect(quantizeModel({ ...options, signal: control.signal, onProgress })).rejects.toBe(reason)
    await vi.waitFor(() => expect(readdirSync(folder)).toEqual([]), 20_000)
  })
})

describe('contextSize', () => {
  it('beyond what the model was trained for warns once', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const said = (): unknown[] =>
      warn.mock.calls.filter(([, options]) => (options as { code?: string }).code === 'PALIGEMMA_CONTEXT_SIZE')
    for (const contextSize of [256, 512, 1024, 1024])
      await (await loadModel({ model: gguf, threads: 1, contextSize })).dispose()
    expect(said()).toEqual([
      [expect.stringMatching(/contextSize is 1024, but .*trained for 512 tokens/), expect.anything()]
    ])
  })
})

const permission = ['--permission', '--experimental-permission'].find((flag) =>
  process.allowedNodeEnvironmentFlags.has(flag)
)
const withAddons = permission !== undefined && process.allowedNodeEnvironmentFlags.has('--allow-addons')

const application = `
const [root, open, closed] = process.argv.slice(2)
const { loadModel, loadTokenizer, inspectModel, quantizeModel, dequantizeTensor, listPulled, preprocessImage,
  drawDetections, videoFrames, convertModel, convertDataset } = require(root)
const all = async (loop) => { for await (const { error } of loop) if (error) throw error }
const said = {}
const attempt = async (name, work) => {
  said[name] = await work().then(() => 'done', ({ name, code, message }) => ({ name, code, message }))
}
const load = async (options) => await (await loadModel({ threads: 1, ...options })).dispose()
const model = open + '/m.gguf', other = closed + '/m.gguf', out = open + '/q.gguf', type = 'Q8_0'
const work = async () => {
  await attempt('may', () => load({ model }))
  await attempt('may write', () => quantizeModel({ source: model, out, type }))
  await attempt('loadModel', () => load({ model: other }))
  await attempt('link', () => load({ model: open + '/link.gguf' }))
  await attempt('adapters', () => load({ model, adapters: [other] }))
  await attempt('maskDecoder', () => load({ model, maskDecoder: other }))
  await attempt('vision', () => load({ model, vision: other }))
  await attempt('loadTokenizer', () => loadTokenizer(other))
  await attempt('inspectModel', () => inspectModel(other))
  await attempt('dequantizeTensor', () => dequantizeTensor(other, 'a'))
  await attempt('quantizeModel', () => quantizeModel({ source: other, out, type }))
  await attempt('output', () => quantizeModel({ source: model, out: closed + '/q.gguf', type }))
  await attempt('listPulled', () => listPulled({ cacheDir: closed }))
  await attempt('shards', () => all(require(root + '/dist/queue/index.js').readShards(closed)))
  const picture = closed + '/p.png', short = { task: 'caption', maxTokens: 1 }
  await attempt('preprocessImage', () => preprocessImage(picture, { size: 28 }))
  await attempt('drawDetections', () => drawDetections(new URL('file://' + picture), []))
  await attempt('videoFrames', () => all(videoFrames(closed + '/v.gif')))
  await attempt('convertModel', () => convertModel({ source: closed, out }))
  await attempt('convertDataset', () => convertDataset({ source: closed + '/d.csv', out: open + '/d.jsonl' }))
  const loaded = await loadModel({ model, threads: 1 })
  await attempt('caption', () => loaded.caption(picture, { maxTokens: 1 }))
  await attempt('batch', () => all(loaded.batch([picture], short)))
  await attempt('watch', () => all(loaded.watch(closed, { ...short, minInterval: 0 })))
  await attempt('fit', () => loaded.fit([{ image: picture, prompt: 'a', response: 'b' }], { steps: 1 }))
  await attempt('describeVideo', () => loaded.describeVideo(closed + '/v.mp4', { prompt: 'a' }))
  await loaded.dispose()
}
work().then(() => process.stdout.write(JSON.stringify(said)))`

describe.skipIf(!withAddons || process.platform === 'win32')("Node's permission model", () => {
  it('names the flag that the engine, or an engine of another place, needs', () => {
    const ask = (flags: string[], env: Record<string, string> = {}) => {
      const { stdout, stderr } = spawnSync(
        process.execPath,
        [
          ...[permission!, ...flags],
          ...[...new Set([root, realpathSync(root)])].map((dir) => `--allow-fs-read=${dir}/*`),
          ...['-e', `require(${JSON.stringify(root)}).loadModel('demo').catch((e) => console.log(e.code, e.message))`]
        ],
        { encoding: 'utf8', env: { ...process.env, ...env } }
      )
      return stdout || stderr
    }
    expect(ask([])).toMatch(/^ERR_ACCESS_DENIED .*--allow-addons/)
    const elsewhere = join(realpathSync(tempDir()), 'engine.node')
    expect(ask(['--allow-addons'], { PALIGEMMA_NATIVE: elsewhere })).toContain(`--allow-fs-read=${elsewhere}`)
  })

  it('is kept to: what may not be read or written is refused with a code and its path', () => {
    const folder = realpathSync(tempDir())
    const [open, closed] = [join(folder, 'open'), join(folder, 'closed')]
    for (const dir of [open, closed]) {
      mkdirSync(dir)
      copyFileSync(gguf, join(dir, 'm.gguf'))
      for (const name of ['p.png', 'v.gif', 'v.mp4', 'd.csv', 'a.jsonl']) writeFileSync(join(dir, name), '')
    }
    symlinkSync(join(closed, 'm.gguf'), join(open, 'link.gguf'))
    writeFileSync(join(open, 'app.cjs'), application)
    const reads = [...new Set([root, realpathSync(root), open])].map((dir) => `--allow-fs-read=${dir}/*`)
    const flags = [permission!, '--allow-addons', ...reads, `--allow-fs-write=${open}/*`]
    const { stdout, stderr } = spawnSync(process.execPath, [...flags, join(open, 'app.cjs'), root, open, closed], {
      encoding: 'utf8',
      cwd: open
    })
    expect(stdout, stderr).not.toBe('')
    const said = JSON.parse(stdout) as Record<string, { code: string; message: string }>
    const { may, 'may write': mayWrite, ...refused } = said
    expect([may, mayWrite]).toEqual(['done', 'done'])
    expect(Object.keys(refused)).toHaveLength(22)
    for (const [name, error] of Object.entries(refused)) {
      expect([name, error]).toEqual([
        name,
        expect.objectContaining({ name: 'PaliGemmaError', code: 'ERR_ACCESS_DENIED' })
      ])
      expect([name, error.message]).toEqual([
        name,
        expect.stringMatching(/(?:closed(?:\/[\w.]+)?|open\/link\.gguf)(?= |:|$)/)
      ])
    }
    expect(existsSync(join(closed, 'q.gguf'))).toBe(false)
  })
})
