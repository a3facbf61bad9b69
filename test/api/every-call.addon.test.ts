/**
 * Every function that the package exports, with every argument and option replaced by every value that it does not
 * expect: it works, or it fails with a PaliGemmaError; nothing else comes out, and the event loop goes on.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import * as api from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { hostile, pathsOf, replaced, standstill } from '../support/hostile'
import { limits, looped, made, outputRows, picture, signal, sync, transform, type Row } from '../support/output-rows'
import { writeTinyModel } from '../support/tiny-model'

const here = process.cwd()
let folder = ''
let gguf = ''
const examples = 'examples.jsonl'
let model: api.PaliGemma
let tokenizer: api.Tokenizer
let masks: api.MaskDecoder

beforeAll(async () => {
  folder = tempDir()
  process.chdir(folder) // hostile paths are relative ones
  for (const [name, value] of Object.entries({ HF_HUB_OFFLINE: '1', PALIGEMMA_CACHE: join(folder, 'cache') }))
    vi.stubEnv(name, value)
  gguf = writeTinyModel({ maskDecoder: true, contextSize: 256 })
  writeFileSync(examples, '{"prefix": "a", "suffix": "b"}')
  model = await api.loadModel({ model: gguf, threads: 1 })
  tokenizer = await api.loadTokenizer(gguf)
  masks = await api.loadMaskDecoder(gguf)
})
afterAll(async () => {
  await model.dispose()
  process.chdir(here)
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
  removeTempDirs()
})

const nothing = (): void => {}
const vectors = {
  type: 'f32',
  data: new Float32Array(64).fill(0.1),
  tokens: 4,
  dims: 16,
  imageTokens: 4,
  transform,
  texts: ['a']
}
const int8 = { type: 'int8', data: new Int8Array(64), scales: new Float32Array(4), tokens: 4, dims: 16 }
const sampling = {
  maxTokens: 1,
  temperature: 0.5,
  topK: 3,
  topP: 0.9,
  minP: 0.1,
  repeatPenalty: 1.1,
  lengthPenalty: 1,
  beams: 1,
  bestOf: 1,
  seed: 1,
  stop: ['z'],
  logProbs: 1,
  adapters: [],
  ignoreEos: false,
  deadlineMs: 10_000,
  signal,
  onToken: nothing
}
const tiled = { tiles: { columns: 2, rows: 1, overlap: 0.2 }, onTile: nothing }
const finding = { constrain: true, maxObjects: 1, minScore: 0, onObject: nothing, ...tiled }
const generating = {
  prompt: 'a',
  image: picture,
  images: undefined,
  ...sampling,
  constrain: { regex: 'a' },
  allowControlTokens: true
}
const schema = { type: 'object', properties: { a: { type: 'integer', minimum: 0 } }, required: ['a'] }
const loading = {
  device: 'cpu',
  threads: 1,
  contextSize: 128,
  weights: 'mapped',
  kvCacheType: 'f16',
  attentionWindow: 'none',
  finalSoftcap: true,
  resize: 'bicubic',
  fit: 'squash',
  onProgress: nothing,
  signal
}
const index = (): api.PageIndex => {
  const pages = new api.PageIndex({ dims: 16, threads: 1 })
  pages.add(vectors as never)
  return pages
}
const stream = (): api.GenerateStream => model.stream({ prompt: 'a', maxTokens: 1 })
const ofModel = (name: keyof api.PaliGemma, ...args: unknown[]): Row => ({
  call: async (...given: never[]) => await (model[name] as (...args: never[]) => unknown)(...given),
  args: () => args
})

const rows: Record<string, Row> = {
  ...outputRows,
  loadModel: {
    call: async (...args: never[]) =>
      await (await (api.loadModel as (...args: never[]) => Promise<api.PaliGemma>)(...args)).dispose(),
    args: () => [
      {
        model: gguf,
        vision: undefined,
        maskDecoder: gguf,
        adapters: [],
        nativeBinding: undefined,
        ...loading,
        maxSequences: 2,
        maxQueue: 3,
        locScale: 1023,
        maskConvention: 'demo',
        ...limits
      }
    ]
  },
  'new PaliGemma': made(api.PaliGemma, {}),
  'PaliGemma.generate': ofModel('generate', generating),
  'PaliGemma.stream': {
    call: async (...args: never[]) => await (model.stream as (...args: never[]) => api.GenerateStream)(...args).result,
    args: () => [generating]
  },
  'PaliGemma.generateObject': ofModel('generateObject', {
    ...without(generating, 'constrain', 'image'),
    image: undefined,
    images: [picture],
    schema,
    jsonSchema: schema
  }),
  'PaliGemma.generateBatch': ofModel('generateBatch', [{ prompt: 'a', maxTokens: 1 }], { onResult: nothing, signal }),
  'PaliGemma.score': ofModel('score', {
    prompt: 'a',
    suffix: 'b',
    image: undefined,
    images: [picture],
    allowControlTokens: false,
    adapters: [],
    signal
  }),
  'PaliGemma.fit': ofModel('fit', [{ images: [picture], prompt: 'a', response: 'b' }], {
    ...{ from: undefined, rank: 2, alpha: 4, rslora: false, targets: ['q_proj'], steps: 1, epochs: 1, batchSize: 1 },
    ...{
      shuffle: true,
      seed: 1,
      learningRate: 1e-4,
      warmup: 0,
      schedule: 'linear',
      dropout: 0,
      weightDecay: 0,
      clip: 1
    },
    ...{ evaluate: [{ prompt: 'a', response: 'b' }], evaluateEvery: 1, checkpoint: undefined, checkpointEvery: 1 },
    ...{ resume: false, signal, onStep: nothing, onEvaluate: nothing }
  }),
  'PaliGemma.caption': ofModel('caption', picture, { ...sampling, lang: 'en', style: 'coco' }),
  'PaliGemma.answer': ofModel('answer', picture, 'why', { ...sampling, lang: 'en', choices: ['a'] }),
  'PaliGemma.ask': ofModel('ask', picture, 'cow', { ...sampling, lang: 'en' }),
  'PaliGemma.ocr': ofModel('ocr', picture, { ...sampling, ...tiled }),
  'PaliGemma.detect': ofModel('detect', picture, ['cow'], {
    ...sampling,
    ...finding,
    nms: { iou: 0.5, classAgnostic: true }
  }),
  'PaliGemma.segment': ofModel('segment', picture, 'cow', { ...sampling, ...finding, nms: 0.5 }),
  'PaliGemma.batch': {
    ...looped((...args) => (model.batch as (...args: never[]) => AsyncIterable<unknown>)(...args), [picture], {
      task: 'detect',
      labels: 'cow',
      concurrency: 1,
      ordered: true,
      ...without(sampling, 'onToken'),
      constrain: true,
      maxObjects: 1,
      minScore: 0,
      nms: 0.5,
      tiles: 'auto'
    }),
    // the source's own error comes out of the loop as it is
    passes: (error) => error instanceof TypeError && /detached/.test(error.message)
  },
  'PaliGemma.describeVideo': ofModel('describeVideo', 'no.mp4', {
    ...sampling,
    prompt: 'a',
    frames: 1,
    start: 0,
    end: 1,
    segmentSeconds: 1,
    strideSeconds: 1,
    onSegment: nothing,
    allowPrivateAddresses: false
  }),
  'PaliGemma.watch': {
    ...looped((...args) => (model.watch as (...args: never[]) => AsyncIterable<unknown>)(...args), [picture], {
      task: 'detect',
      labels: 'cow',
      minInterval: 0,
      onlyWhenChanged: true,
      tracks: { newScore: 0.5, keepSeconds: 1, confirmFrames: 1, lines: [], zones: [] },
      size: 9,
      stallSeconds: 1,
      onReconnect: nothing,
      ...without(sampling, 'onToken'),
      constrain: true,
      maxObjects: 1,
      minScore: 0,
      nms: 0.5,
      tiles: 'auto'
    }),
    passes: (error) => error instanceof TypeError && /detached|revoked/.test(error.message)
  },
  'PaliGemma.encodeImage': ofModel('encodeImage', picture, { adapters: [], signal }),
  'PaliGemma.embedImage': ofModel('embedImage', picture, { flavour: 'transformers', adapters: [], signal }),
  'PaliGemma.embedText': ofModel('embedText', 'a', { flavour: 'transformers', adapters: [], signal }),
  'PaliGemma.tokenize': sync((...args) => (model.tokenize as (...args: never[]) => unknown)(...args), 'a', {
    allowControlTokens: true
  }),
  'PaliGemma.detokenize': sync((...args) => (model.detokenize as (...args: never[]) => unknown)(...args), [1, 2]),
  'PaliGemma.decodeMask': ofModel('decodeMask', new Array(16).fill(1)),
  'PaliGemma.parse': ofModel('parse', '<loc0000><loc0000><loc0500><loc0500> cow', picture, { signal }),
  'PaliGemma.stats': ofModel('stats'),
  'PaliGemma.dispose': ofModel('dispose'),
  'new GenerateStream': made(api.GenerateStream, nothing),
  'GenerateStream.cancel': sync(() => stream().cancel()),
  'GenerateStream.text': { call: async () => await stream().text(), args: () => [] },
  'GenerateStream.toReadableStream': sync(() => void stream().toReadableStream().cancel()),
  'GenerateStream.toTextStream': sync(() => void stream().toTextStream().cancel()),
  'GenerateStream.toResponse': sync(
    (...args) => void (stream().toResponse as (...args: never[]) => Response)(...args).body!.cancel(),
    { format: 'sse', status: 200, headers: { a: 'b' } }
  ),
  quantizeVectors: sync(api.quantizeVectors, vectors, 'int8'),
  maxSim: sync(api.maxSim, vectors, [vectors, int8]),
  rescore: { call: api.rescore, args: () => [vectors, [{ page: 0, score: 1 }], () => vectors], passes: isTheirs },
  'new PageIndex': made(api.PageIndex, { type: 'f32', dims: 16, threads: 1 }),
  'PageIndex.add': sync((...args) => (index().add as (...args: never[]) => unknown).apply(index(), args), int8),
  'PageIndex.remove': sync((page) => index().remove(page), 0),
  'PageIndex.clear': sync(() => index().clear()),
  'PageIndex.search': {
    call: async (query, options) => await index().search(query, options),
    args: () => [vectors, { limit: 3, signal }]
  },
  'PageIndex.score': { call: async (query, pages) => await index().score(query, pages), args: () => [vectors, [0]] },
  poolTokens: { call: api.poolTokens, args: () => [vectors, { factor: 2 }] },
  similarityMap: sync(api.similarityMap, vectors, vectors, { tokens: [0] }),
  drawSimilarityMap: {
    call: api.drawSimilarityMap,
    args: () => [
      picture,
      { data: new Float32Array(4).fill(0.5), rows: 2, columns: 2, transform },
      { opacity: 0.5, range: [0, 1], ...limits, signal }
    ]
  },
  'prompts.shortCaption': sync(api.prompts.shortCaption, 'en'),
  'prompts.caption': sync(api.prompts.caption, 'en'),
  'prompts.describe': sync(api.prompts.describe, 'en'),
  'prompts.answer': sync(api.prompts.answer, 'why', 'en'),
  'prompts.question': sync(api.prompts.question, 'cow', 'en'),
  'prompts.ocr': sync(api.prompts.ocr),
  'prompts.detect': sync(api.prompts.detect, ['cow']),
  'prompts.segment': sync(api.prompts.segment, ['cow']),
  loadTokenizer: { call: api.loadTokenizer, args: () => [gguf] },
  'new Tokenizer': made(api.Tokenizer, {}),
  'Tokenizer.encode': sync((text, options) => tokenizer.encode(text, options), 'a', { allowControlTokens: true }),
  'Tokenizer.decode': sync((ids) => tokenizer.decode(ids), [1, 2]),
  'Tokenizer.piece': sync((id) => tokenizer.piece(id), 1),
  'Tokenizer.stream': sync(() => tokenizer.stream()),
  'new TokenStream': made(api.TokenStream, nothing),
  'TokenStream.push': sync((id) => tokenizer.stream().push(id), 1),
  'TokenStream.flush': sync(() => tokenizer.stream().flush()),
  loadMaskDecoder: { call: api.loadMaskDecoder, args: () => [gguf] },
  'new MaskDecoder': made(api.MaskDecoder, {}),
  'MaskDecoder.decode': { call: async (codes) => await masks.decode(codes), args: () => [new Array(16).fill(1)] },
  inspectModel: { call: api.inspectModel, args: () => [gguf, { maxArray: 2 }] },
  setNativeBinding: sync(api.setNativeBinding, join(here, 'build', 'Release', 'paligemma.node')),
  dequantizeTensor: { call: api.dequantizeTensor, args: () => [gguf, 'output_norm.weight'] },
  listDevices: { call: api.listDevices, args: () => [] },
  estimateMemory: {
    call: api.estimateMemory,
    args: () => [
      '3b-224',
      {
        vision: undefined,
        type: 'Q8_0',
        contextSize: 512,
        maxSequences: 2,
        weights: 'mapped',
        kvCacheType: 'f16',
        threads: 1,
        images: 1,
        promptTokens: 9,
        maxTokens: 9,
        fit: { rank: 4, targets: ['text'], responseTokens: 9 }
      }
    ]
  },
  pull: {
    call: (id, options) => api.pull(id, options),
    args: () => [
      'a/b',
      {
        type: 'Q8_0',
        visionType: 'F16',
        revision: 'main',
        subfolder: 'a',
        maskDecoder: gguf,
        keep: false,
        force: false,
        endpoint: 'http://127.0.0.1:1',
        token: 'hf_a',
        cacheDir: 'cache',
        fetch: nothing,
        onPlan: nothing,
        onProgress: nothing,
        onMessage: nothing,
        signal
      }
    ]
  },
  listPulled: { call: api.listPulled, args: () => [{ cacheDir: 'cache' }] },
  removePulled: { call: api.removePulled, args: () => ['a/b', { cacheDir: 'cache', onMessage: nothing, signal }] },
  convertModel: {
    call: (options) => api.convertModel(options),
    args: () => [
      {
        ...{ source: [gguf], out: 'made.gguf', type: 'Q8_0', visionType: 'F16', maskDecoder: undefined },
        ...{ tokenizer: undefined, imatrix: undefined, unfoldProjector: false, adapters: [] },
        ...{ onProgress: nothing, signal }
      }
    ]
  },
  quantizeModel: {
    call: (options) => api.quantizeModel(options),
    args: () => [
      {
        ...{ source: gguf, out: 'made.gguf', type: 'Q8_0', visionType: 'F16', imatrix: undefined },
        ...{ onProgress: nothing, signal }
      }
    ]
  },
  verifyModel: {
    call: api.verifyModel,
    args: () => [{ model: gguf, vision: undefined, threads: 1, onProgress: nothing, signal: AbortSignal.abort() }],
    passes: (error) => (error as Error).name === 'AbortError'
  },
  convertDataset: {
    call: api.convertDataset,
    args: () => [
      {
        ...{ source: 'rows.csv', out: 'rows.jsonl', from: 'csv', to: 'jsonl', task: 'detect', per: 'picture' },
        ...{ labels: ['a'], images: 'pictures', truth: false, maskEncoder: undefined, prefix: '{a}', suffix: '{a}' },
        ...{ imageName: 'a.png', annotations: undefined, subset: 'train', split: 0.5, heldOut: 'v.jsonl', seed: 1 },
        ...{ badRows: 'skip', onBadRow: nothing, onRows: nothing, signal }
      }
    ]
  },
  evaluateModel: {
    call: api.evaluateModel,
    args: () => [
      {
        ...{ model: gguf, vision: undefined, maskDecoder: undefined, adapters: [], ...without(loading, 'weights') },
        ...{ maxSequences: 2, data: examples, images: 'pictures', metric: 'vqa', limit: 1, maxTokens: 1 },
        ...{ minScore: 0.5, onRow: nothing }
      }
    ]
  },
  collectImportance: {
    call: api.collectImportance,
    args: () => [
      {
        model: gguf,
        vision: undefined,
        ...without(loading, 'weights', 'kvCacheType', 'finalSoftcap'),
        out: 'i.gguf',
        images: [picture],
        prompts: [{ prompt: 'a', answer: 'b' }],
        maxTokens: 1
      }
    ]
  },
  compareQuality: {
    call: api.compareQuality,
    args: () => [
      {
        model: gguf,
        vision: undefined,
        against: gguf,
        againstVision: undefined,
        ...loading,
        images: [picture],
        prompts: ['a'],
        maxTokens: 1
      }
    ]
  }
}

/** What is no function of ours to call with strangers' values. */
const values = ['PaliGemmaError', 'recommendedMinScore', 'demoImage', 'prompts']

function without(object: object, ...names: string[]): object {
  return Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name)))
}

/** What hostile callbacks throw. */
function isTheirs(error: unknown): boolean {
  return (error instanceof RangeError && error.message === 'boom') || error === 1
}

function exported(): string[] {
  const names: string[] = []
  for (const [name, value] of Object.entries(api)) {
    if (name === 'prompts') {
      for (const [prompt, write] of Object.entries(value))
        if (typeof write === 'function') names.push(`${name}.${prompt}`)
    } else if (typeof value !== 'function' || values.includes(name)) {
      expect(values).toContain(name)
    } else if (/^class\b/.test(String(value))) {
      names.push(`new ${name}`)
      const all = Object.getOwnPropertyDescriptors(value.prototype)
      for (const [method, { value: own }] of Object.entries(all))
        if (typeof own === 'function' && method !== 'constructor' && !hidden.has(`${name}.${method}`))
          names.push(`${name}.${method}`)
    } else names.push(name)
  }
  return names
}
/** TypeScript's `private`. */
const hidden = new Set(['push', 'end', 'fail', 'next'].map((method) => `GenerateStream.${method}`))

describe('every exported function', () => {
  it('has a row', () => {
    expect(Object.keys(rows).sort()).toEqual(exported().sort())
  })

  it.each(Object.keys(rows))('%s has every option in its row', async (name) => {
    const row = rows[name]!
    for (const [i, options] of row.args().entries()) {
      if (typeof options !== 'object' || options === null) continue
      const call = async (): Promise<unknown> =>
        await row.call(...(replaced(row.args(), [i, 'no such option'], 1) as never[]))
      const { message = '' } = ((await call().catch((error: unknown) => error)) ?? {}) as { message?: string }
      const known = /^Unknown option.*Known options: (.*)$/.exec(message)?.[1]?.split(', ') ?? []
      expect(known.filter((option) => !(option in options))).toEqual([])
    }
  })

  it.each(Object.keys(rows))(
    '%s works, or fails with a code',
    async (name) => {
      const row = rows[name]!
      const wrong = new Set<string>()
      for (const path of pathsOf(row.args()).slice(1)) {
        for (const [kind, make] of Object.entries(hostile)) {
          const where = `${name}(${path.join('.')} = ${kind})`
          const attempt = async (): Promise<void> => {
            const end = await settled(row, replaced(row.args(), path, make()) as never[])
            if (end !== 'coded') wrong.add(`${where}: ${end}`)
          }
          let worst = await standstill(attempt)
          // another process may have had the processor
          for (let tries = 0; worst > 200 && tries < 9; tries++) worst = Math.min(worst, await standstill(attempt))
          if (worst > 200) wrong.add(`${where}: ${worst.toFixed(0)} ms`)
        }
      }
      expect([...wrong]).toEqual([])
    },
    600_000
  )
})

/** Makes the call; nothing but results and coded errors may come out, and of asynchronous calls no exception. */
async function settled(row: Row, args: never[]): Promise<string> {
  let returned: unknown
  try {
    returned = row.call(...args)
  } catch (error) {
    return row.sync ? reasonOf(row, error) : 'thrown by an asynchronous call'
  }
  if (row.sync) return 'coded'
  return await Promise.resolve(returned).then(
    () => 'coded',
    (error: unknown) => reasonOf(row, error)
  )
}

function reasonOf(row: Row, error: unknown): string {
  if (error instanceof api.PaliGemmaError) return error.code === 'ERR_INTERNAL' ? `internal: ${error.message}` : 'coded'
  if (row.passes?.(error) || isTheirs(error)) return 'coded'
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
