/**
 * Every function that the package exports, with every argument and option replaced by every value that it does not
 * expect: it works, or it fails with a PaliGemmaError; nothing else comes out, and the event loop goes on.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import * as api from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { attackRows, exportedCalls, isTheirs, looped, made, sync, without, type Row } from '../support/call-table'
import { limits, outputRows, picture, signal, transform } from '../support/output-rows'
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
    allowPrivateAddresses: false,
    allowPlaylists: false
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
      allowPlaylists: false,
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

function exported(): string[] {
  for (const [name, value] of Object.entries(api)) if (typeof value !== 'function') expect(values).toContain(name)
  const calls = exportedCalls(api).filter((name) => !hidden.has(name) && !values.includes(name.replace(/^new /, '')))
  const prompts = exportedCalls(api.prompts).map((name) => `prompts.${name}`)
  return [...calls, ...prompts]
}
/** TypeScript's `private`. */
const hidden = new Set(['push', 'end', 'fail', 'next'].map((method) => `GenerateStream.${method}`))

describe('every exported function', () => {
  it('has a row', () => {
    expect(Object.keys(rows).sort()).toEqual(exported().sort())
  })

  attackRows(rows)
})
