/** Repositories in the forms that people publish, and the names that they paste. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { convert } from '../../lib/convert'
import { Cache } from '../../lib/hub/cache'
import { chooseFiles, unknownGgufs } from '../../lib/hub/choose'
import { type GgufHeader, parseGgufHeader } from '../../lib/hub/gguf-header'
import { listPulled, removePulled } from '../../lib/hub/manage'
import { pull } from '../../lib/hub/pull'
import type { PullOptions } from '../../lib/hub/pull-options'
import { parseReference } from '../../lib/hub/reference'
import type { HubFile } from '../../lib/hub/repository'
import { resolveAdapter, resolveModel } from '../../lib/hub/resolve'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { refuse, TestHub } from '../support/hub-server'
import { ggufBytes, type GgufValue } from '../support/tiny-model'

afterAll(removeTempDirs)

const text = (value: string): GgufValue => ({ type: 'string', value })
const vocabulary: GgufValue = { arrayOf: 'string', values: Array.from({ length: 3000 }, (_, i) => `piece ${i}`) }
const weights = (name: string) => ({ name, shape: [1, 32], data: new Float32Array(32) })
const gguf = (metadata: Record<string, GgufValue>, ...tensors: string[]): Buffer =>
  ggufBytes({ 'tokenizer.ggml.tokens': vocabulary, ...metadata }, tensors.map(weights)) as Buffer

const whole = () => gguf({ 'general.architecture': text('gemma2') }, 'token_embd.weight', 'v.patch_embd.weight')
const textOnly = () => gguf({ 'general.architecture': text('gemma') }, 'token_embd.weight')
const vision = () => gguf({ 'general.architecture': text('clip') }, 'v.patch_embd.weight')

describe('the first bytes of a GGUF', () => {
  it.each([
    ['a model with its vision tower', whole(), { kind: 'model', hasVision: true, architecture: 'gemma2' }],
    ['a text model', textOnly(), { kind: 'model', hasVision: false }],
    ['a vision tower', vision(), { kind: 'vision' }],
    ['an mmproj file', gguf({ 'general.type': text('mmproj'), 'general.architecture': text('x') }), { kind: 'vision' }],
    [
      'an adapter',
      gguf({
        'general.type': text('adapter'),
        'general.base_model.0.repo_url': text('https://huggingface.co/org/base')
      }),
      { kind: 'adapter', base: 'https://huggingface.co/org/base' }
    ],
    ['another model', gguf({ 'general.architecture': text('llama') }), { kind: 'other', architecture: 'llama' }],
    ['a nameless file', gguf({}), { kind: 'other' }]
  ])('tell %s', (_, data, header) => {
    const bytes = Buffer.from(data as Uint8Array)
    expect(parseGgufHeader(bytes, true)).toMatchObject(header)
    // However few bytes are there: the same answer, or the wish for more.
    for (let size = 24; size < bytes.length; size += 501) {
      const early = parseGgufHeader(bytes.subarray(0, size), false)
      if (early !== 'more') expect(early).toMatchObject(header)
    }
  })

  it('of something else tell that', () => {
    expect(parseGgufHeader(Buffer.from('no GGUF at all, but long enough'), true)).toBeUndefined()
    const lying = Buffer.alloc(40, 0xff)
    lying.write('GGUF')
    lying.writeUInt32LE(3, 4)
    expect(parseGgufHeader(lying, true)).toBeUndefined()
  })
})

describe('pasted addresses', () => {
  const commit = 'a'.repeat(40)
  it.each([
    ['https://huggingface.co/org/name', { id: 'org/name' }],
    ['https://huggingface.co/org/name/', { id: 'org/name' }],
    ['https://hf.co/org/name', { id: 'org/name' }],
    ['huggingface.co/org/name', { id: 'org/name' }],
    ['hf://org/name', { id: 'org/name' }],
    ['https://huggingface.co/org/name?library=transformers#usage', { id: 'org/name' }],
    ['https://huggingface.co/org/name/discussions/3', { id: 'org/name' }],
    ['https://huggingface.co/org/name/tree/main', { id: 'org/name', revision: 'main' }],
    [
      'https://huggingface.co/org/name/tree/bfloat16/sub/folder',
      { id: 'org/name', revision: 'bfloat16', folder: 'sub/folder' }
    ],
    ['https://huggingface.co/org/name/tree/refs%2Fpr%2F1', { id: 'org/name', revision: 'refs/pr/1' }],
    ['https://huggingface.co/org/name/tree/refs/pr/1/sub', { id: 'org/name', revision: 'refs/pr/1', folder: 'sub' }],
    [`https://huggingface.co/org/name/commit/${commit}`, { id: 'org/name', revision: commit }],
    ['https://huggingface.co/org/name/blob/main/README.md', { id: 'org/name', revision: 'main' }],
    ['https://huggingface.co/org/name/blob/main/sub/config.json', { id: 'org/name', revision: 'main', folder: 'sub' }],
    [
      'https://huggingface.co/org/name/resolve/main/a/b-Q8_0.gguf?download=true',
      { id: 'org/name', revision: 'main', file: 'a/b-Q8_0.gguf' }
    ],
    ['https://huggingface.co/api/models/org/name', { id: 'org/name' }],
    ['https://huggingface.co/org/name.git', { id: 'org/name' }],
    ['git@hf.co:org/name.git', { id: 'org/name' }],
    ['hf.co/org/name-GGUF:Q4_K_M', { id: 'org/name-GGUF', type: 'Q4_K_M' }],
    ['https://huggingface.co/org/name:Q8_0', { id: 'org/name', type: 'Q8_0' }],
    ['hf:org/name:Q4_K_M', { id: 'org/name', type: 'Q4_K_M' }],
    ['hf:org/name/sub/m.gguf#v2', { id: 'org/name', revision: 'v2', file: 'sub/m.gguf' }],
    ['hf://org/name@v1/sub', { id: 'org/name', revision: 'v1', folder: 'sub' }],
    ['hf://models/org/name/m.gguf', { id: 'org/name', file: 'm.gguf' }],
    ['hf://org/name@refs/pr/1/sub', { id: 'org/name', revision: 'refs/pr/1', folder: 'sub' }],
    [
      'https://huggingface.co/org/name/tree/main/sub?show_file_info=sub%2Fm-Q4_0.gguf',
      {
        id: 'org/name',
        revision: 'main',
        file: 'sub/m-Q4_0.gguf'
      }
    ],
    ['https://huggingface.co/org/name?show_file_info=../../m.gguf', { id: 'org/name' }],
    ['https://mirror.example/hf/org/name/tree/v1', { id: 'org/name', revision: 'v1' }]
  ])('%s', (address, reference) => {
    expect(parseReference(address, 'https://mirror.example/hf')).toEqual(reference)
  })

  it.each([
    'https://example.org/org/name',
    'https://huggingface.co/datasets/org/name',
    'https://huggingface.co/spaces/org/name',
    'https://huggingface.co/org',
    'https://huggingface.co/org/%zz',
    'https://mirror.example/elsewhere/org/name',
    'hf://datasets/org/name',
    'hf.co/org/name@:Q8_0',
    'git@github.com:org/name.git',
    'file:///org/name'
  ])('%s is none', (address) => {
    expect(parseReference(address, 'https://mirror.example/hf')).toBeUndefined()
  })
})

describe('the choice of files', () => {
  const file = (path: string, bytes = 10): HubFile => ({ path, bytes, hash: { kind: 'git', value: '0'.repeat(40) } })
  const model: GgufHeader = {
    kind: 'model',
    architecture: 'gemma',
    hasVision: true,
    fileType: undefined,
    base: undefined
  }
  const choose = (paths: string[], more: Partial<Parameters<typeof chooseFiles>[1]> = {}) =>
    chooseFiles(
      paths.map((path) => file(path)),
      { id: 'org/name', type: undefined, mustConvert: false, ...more }
    )

  it('takes all parts of a split model, and misses none silently', () => {
    const parts = [1, 2, 3].map((n) => `m-Q4_K_M-0000${n}-of-00003.gguf`)
    expect(choose(parts)).toMatchObject({ type: 'Q4_K_M', model: parts.map((path) => ({ path })) })
    expect(() => choose(parts.slice(0, 2))).toThrow(/lacks m-Q4_K_M-00003-of-00003\.gguf/)
    expect(
      unknownGgufs(
        parts.map((path) => file(path)),
        { id: 'x', type: undefined, mustConvert: false }
      )
    ).toHaveLength(1)
  })

  it('takes the type from the metadata where the name says none', () => {
    const headers = new Map([['weights.gguf', { ...model, fileType: 15 }]])
    expect(choose(['weights.gguf'], { headers })).toMatchObject({ kind: 'gguf', type: 'Q4_K_M', vision: undefined })
    expect(choose(['weights.gguf'], { headers, type: 'Q4_K_M' })).toMatchObject({ kind: 'gguf' })
    expect(() => choose(['weights.gguf'], { headers: new Map([['weights.gguf', undefined]]) })).toThrow(
      /weights\.gguf is no GGUF/
    )
    const llama = new Map([['weights.gguf', { ...model, kind: 'other' as const, architecture: 'llama' }]])
    expect(() => choose(['weights.gguf'], { headers: llama })).toThrow(/architecture llama/)
  })

  it('takes checkpoints of transformers 5, and those of a folder', () => {
    const five = ['config.json', 'tokenizer.json', 'processor_config.json', 'model.safetensors']
    expect(
      choose(five)
        .files.map(({ path }) => path)
        .sort()
    ).toEqual(five.sort())
    const inside = five.map((name) => `checkpoint/${name}`)
    expect(choose(['README.md', ...inside])).toMatchObject({ kind: 'checkpoint', folder: 'checkpoint' })
    const two = [...inside, ...five.map((name) => `other/${name}`)]
    expect(() => choose(two)).toThrow(/several folders: checkpoint, other; choose one with --subfolder/)
    expect(choose(two, { folder: 'other' })).toMatchObject({ folder: 'other' })
    expect(() => choose(two, { folder: 'third' })).toThrow(/no folder third; models are in checkpoint, other/)
  })

  it('takes the type from the folder that is called so, with the vision file of the top folder', () => {
    const parts = [1, 2].map((n) => `Q8_0/m-0000${n}-of-00002.gguf`)
    const many = ['mmproj-m-F16.gguf', ...parts, 'Q4_K_M/m-Q4_K_M.gguf', 'README.md']
    expect(choose(many, { type: 'Q4_K_M' })).toMatchObject({
      model: [{ path: 'Q4_K_M/m-Q4_K_M.gguf' }],
      vision: { path: 'mmproj-m-F16.gguf' }
    })
    expect(choose(many)).toMatchObject({ type: 'Q8_0', model: parts.map((path) => ({ path })) })
    expect(choose([...many, 'm-IQ4_XS.gguf'], { type: 'Q8_0' })).toMatchObject({ type: 'Q8_0' })
    expect(choose([...many, 'm-IQ4_XS.gguf'])).toMatchObject({ type: 'IQ4_XS', model: [{ path: 'm-IQ4_XS.gguf' }] })
    expect(() => choose(many, { type: 'F16' })).toThrow(/Q4_K_M, Q8_0, none as F16.*types Q4_K_M, Q8_0 with --type/)
    expect(() => choose([...many, 'old/m-Q8_0.gguf'])).toThrow(/type Q8_0 in several folders: Q8_0, old/)
    expect(choose([...many, 'old/m-Q8_0.gguf'], { folder: 'old' })).toMatchObject({
      model: [{ path: 'old/m-Q8_0.gguf' }]
    })
    const checkpoint = ['config.json', 'tokenizer.json', 'model.safetensors']
    expect(choose([...many, ...checkpoint])).toMatchObject({ kind: 'checkpoint' })
  })

  it('takes GGUFs of folders, and the one that is named', () => {
    expect(choose(['Q8_0/m-Q8_0.gguf', 'README.md'])).toMatchObject({ kind: 'gguf', type: 'Q8_0' })
    const two = ['a-Q8_0.gguf', 'b-Q8_0.gguf']
    expect(choose(two, { file: 'b-Q8_0.gguf' })).toMatchObject({ model: [{ path: 'b-Q8_0.gguf' }] })
    expect(() => choose(two, { file: 'c.gguf' })).toThrow(/no file c\.gguf/)
  })

  it('takes GGUFs of folders though "vision" is in the name of each', () => {
    const one = ['F32/vision-model-00001-of-00002.gguf', 'F32/vision-model-00002-of-00002.gguf']
    expect(choose(one)).toMatchObject({ type: 'F32', model: [{ path: one[0] }, { path: one[1] }] })
    const more = ['Q8_0/vision-language.gguf', 'Q4_K_M/vision-language.gguf']
    expect(choose(more)).toMatchObject({ type: 'Q8_0', model: [{ path: more[0] }] })
  })
})

describe.skipIf(!hasGolden)('pulling', () => {
  let hub: TestHub
  let cacheDir: string
  const adapterFile = (name: string) => readFileSync(golden('hf', 'pg1-tiny-lora', name))
  const config = (more: object) =>
    JSON.stringify({ ...(JSON.parse(adapterFile('adapter_config.json').toString()) as object), ...more })
  const fakeConvert: typeof convert = async ({ out, type }) => {
    writeFileSync(out, 'model')
    return { path: String(out), bytes: 5, type: type!, tensors: 1, parameters: 1, notes: [] }
  }
  const start = async (files: Record<string, Buffer | string>) => {
    hub = await TestHub.start(files)
  }
  const run = async (id = hub.id, options: PullOptions = {}) =>
    await pull(
      id,
      { endpoint: hub.url, cacheDir, ...options },
      { timing: { pauseMs: 5, attempts: 2 }, convert: fakeConvert, env: { HF_HOME: join(cacheDir, 'no-hf') } }
    )
  const failure = async (...args: Parameters<typeof run>) =>
    (await run(...args).then(
      () => ({ code: 'none', message: 'it did not fail' }),
      (error: unknown) => error
    )) as { code: string; message: string }

  beforeEach(() => {
    cacheDir = tempDir()
  })
  afterEach(async () => await hub?.stop())

  /** The base lies in the cache already, so that one hub is enough. */
  async function withBase(): Promise<string> {
    const cache = new Cache(cacheDir)
    const commit = 'd'.repeat(40)
    const record = await cache
      .add({
        ...{ format: 1, id: 'org/base', revision: 'main', commit, type: 'Q8_0', visionType: null, maskDecoder: null },
        ...{ converted: true, model: 'base.gguf', vision: null, bytes: 0, pulledAt: new Date().toISOString() }
      })
      .catch(() => undefined)
    expect(record).toBeUndefined()
    writeFileSync(join(cache.modelDir('org/base', commit), 'base.gguf'), '')
    return join(cache.modelDir('org/base', commit), 'base.gguf')
  }

  it.each(['', 'default/'])(
    'an adapter in %j comes with its base and is found by its name',
    { tags: ['slow'] },
    async (folder) => {
      await start({
        [`${folder}adapter_config.json`]: config({ base_model_name_or_path: 'org/base' }),
        [`${folder}adapter_model.safetensors`]: adapterFile('adapter_model.safetensors'),
        'README.md': '# An adapter'
      })
      const base = await withBase()
      const result = await run()
      expect(result).toMatchObject({
        type: 'adapter',
        adapter: { base: 'org/base' },
        base: { id: 'org/base', path: base }
      })
      expect(readdirSync(result.path).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors'])
      const cache = new Cache(cacheDir)
      expect(await resolveModel(hub.id, cache)).toMatchObject({
        path: base,
        adapters: [{ path: hub.id, file: result.path }]
      })
      expect(await resolveAdapter(hub.id, undefined, cache)).toBe(result.path)
      await expect(resolveAdapter('org/base', undefined, cache)).rejects.toMatchObject({
        code: 'ERR_MODEL_UNSUPPORTED'
      })
      expect(await run()).toMatchObject({ cached: true, path: result.path })
      const { models } = await listPulled({ cacheDir })
      expect(models.map(({ name }) => name)).toEqual(['org/base:Q8_0', hub.id])
      await removePulled(hub.id, { cacheDir })
      expect(existsSync(result.path)).toBe(false)
    }
  )

  it('an adapter whose base cannot be had names it, and the way', async () => {
    await start({
      'adapter_config.json': config({ base_model_name_or_path: 'org/missing' }),
      'adapter_model.safetensors': adapterFile('adapter_model.safetensors')
    })
    expect(await failure()).toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
      message: expect.stringMatching(/is an adapter of org\/missing, which cannot be pulled.*pull org\/missing/)
    })
    await expect(resolveModel(hub.id, new Cache(cacheDir))).rejects.toMatchObject({
      message: expect.stringMatching(/adapter of org\/missing.*npx paligemma pull/)
    })
  })

  it('an adapter of a folder on somebody’s machine comes alone, with a note', async () => {
    await start({
      'adapter_config.json': config({ base_model_name_or_path: '/home/somebody/model' }),
      'adapter_model.safetensors': adapterFile('adapter_model.safetensors')
    })
    const result = await run()
    expect(result.adapter).toEqual({ base: null })
    expect(result.notes.join()).toMatch(/names no model of the hub as its base/)
  })

  it('an adapter that cannot be used is refused before its base is asked for', async () => {
    await start({
      'adapter_config.json': config({ base_model_name_or_path: 'org/missing', init_lora_weights: 'pissa' }),
      'adapter_model.safetensors': adapterFile('adapter_model.safetensors')
    })
    expect((await failure()).message).toMatch(/init_lora_weights is "pissa"/)
    expect(hub.seen.some(({ path }) => path.includes('missing'))).toBe(false)
  })

  it('a quantized or foreign checkpoint is refused when nothing but its configs is here', async () => {
    const rest = { 'tokenizer.json': '{}', 'tokenizer_config.json': '{}', 'model.safetensors': 'weights' }
    for (const [config, told] of [
      [{ model_type: 'paligemma', quantization_config: { quant_method: 'awq', bits: 4 } }, /^org\/tiny-model.*AWQ/i],
      [{ model_type: 'paligemma', quantization_config: { quant_method: 'compressed-tensors' } }, /compressed-tensors/],
      [{ model_type: 'llama' }, /^org\/tiny-model\/config\.json: model_type is "llama"/]
    ] as const) {
      await start({ ...rest, 'config.json': JSON.stringify(config), 'preprocessor_config.json': '{}' })
      const options = { endpoint: hub.url, cacheDir: tempDir() }
      const error = await pull(hub.id, options, { env: {} }).then(String, (reason: Error) => reason)
      expect(error).toMatchObject({ code: 'ERR_MODEL_UNSUPPORTED', message: expect.stringMatching(told) })
      const asked = hub.seen.filter(({ path }) => path.includes('/resolve/')).map(({ path }) => basename(path))
      expect(asked.sort()).toEqual(['config.json', 'preprocessor_config.json'])
      await hub.stop()
    }
  })

  it('so is one that a file beside it calls quantized, and one that lacks a shard', async () => {
    const rest = { 'config.json': '{"model_type":"paligemma"}', 'tokenizer.json': '{}' }
    const index = { weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' } }
    for (const [files, told] of [
      [{ 'quantize_config.json': '{}', 'model.safetensors': 'weights' }, /GPTQ/],
      [
        { 'model.safetensors.index.json': JSON.stringify(index), 'model-00001-of-00002.safetensors': 'weights' },
        /lacks model-00002-of-00002\.safetensors/
      ]
    ] as const) {
      await start({ ...rest, ...files })
      const hooks = 'quantize_config.json' in files ? {} : { convert: fakeConvert }
      const options = { endpoint: hub.url, cacheDir: tempDir() }
      const error = await pull(hub.id, options, { env: {}, ...hooks }).then(String, (reason: Error) => reason)
      expect(error).toMatchObject({ message: expect.stringMatching(told) })
      expect(hub.seen.some(({ path }) => path.endsWith('.safetensors'))).toBe(false)
      await hub.stop()
    }
  })

  it('names in another case are one model, under the hub’s own spelling', async () => {
    await start({ 'config.json': '{}', 'tokenizer.model': 'x', 'model.safetensors': 'weights' })
    hub.intercept = (request, response) => {
      if (!request.url!.includes('Org/Tiny-Model')) return false
      response.writeHead(307, { location: request.url!.replace('Org/Tiny-Model', hub.id) }).end()
      return true
    }
    const result = await run('Org/Tiny-Model')
    expect(result.id).toBe(hub.id)
    expect(await resolveModel('ORG/tiny-model', new Cache(cacheDir))).toEqual({ path: result.path })
    expect(await run()).toMatchObject({ cached: true, path: result.path })
  })

  it('an address with a folder is another model than the one in the top folder', { tags: ['slow'] }, async () => {
    const checkpoint = { 'config.json': '{}', 'tokenizer.model': 'x', 'model.safetensors': 'weights' }
    await start({
      ...checkpoint,
      ...Object.fromEntries(Object.entries(checkpoint).map(([name, content]) => [`sub/${name}`, content]))
    })
    const top = await run()
    const sub = await run(`${hub.url}/${hub.id}/tree/main/sub`)
    expect(sub).toMatchObject({ cached: false, folder: 'sub' })
    expect(basename(sub.path)).toBe('tiny-model-sub-Q8_0.gguf')
    expect(await run()).toMatchObject({ cached: true, path: top.path })
    expect(await run(hub.id, { subfolder: 'sub' })).toMatchObject({ cached: true, path: sub.path })
    expect(await failure(hub.id, { subfolder: '../x' })).toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('an address of another server gets no request', async () => {
    await start({})
    const other = await TestHub.start({})
    expect(await failure(`${other.url}/org/name`, { token: 'hf_secret' })).toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/HF_ENDPOINT/)
    })
    expect([hub.seen, other.seen]).toEqual([[], []])
    await other.stop()
  })

  it('a bare 401 says to check the name or to log in', async () => {
    await start({})
    hub.intercept = (_, response) => {
      refuse(response, 401)
      return true
    }
    const error = await failure('org/tinny')
    expect(error.message).toMatch(/no org\/tinny without a token.*check the name.*log in.*HF_TOKEN/)
    expect(hub.seen).toHaveLength(1)
  })
})
