/** The published declarations as applications compile them: old and new compilers, strictest settings, web types. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'

const root = join(__dirname, '..', '..')
const dir = mkdtempSync(join(tmpdir(), 'paligemma-types-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

// With exactOptionalPropertyTypes: whatever may be missing at the caller's may be handed on as it is.
const application = `
import { drawDetections, preprocessImage, quantizeVectors, maxSim, similarityMap, convertModel, quantizeModel, pull,
  listPulled, estimateMemory, parseOutput, poolTokens, PageIndex, collectImportance, compareQuality, inspectModel,
  dequantizeTensor, loadMaskDecoder, loadModel } from 'node-paligemma'
import type { PaliGemma, GenerateOptions, Detection, ObjectList } from 'node-paligemma'

interface Query {
  text?: string | undefined, n?: number | undefined, flag?: boolean | undefined, signal?: AbortSignal | undefined
  photo?: string | undefined, list?: string[] | undefined, onToken?: ((chunk: { text: string }) => void) | undefined
  progress?: ((fraction: number) => void) | undefined
}

export const load = async ({ text, n, signal, progress }: Query): Promise<PaliGemma> =>
  await loadModel({ model: 'm', vision: text, maskDecoder: text, threads: n, contextSize: n, maxQueue: n, signal,
    onProgress: progress, adapters: [{ path: 'a', scale: n }] })

export async function use(model: PaliGemma, q: Query) {
  const { text, n, flag, signal, photo, list, onToken } = q
  const options: GenerateOptions = { prompt: 'p', image: photo, maxTokens: n, temperature: n, topK: n, topP: n, minP: n,
    repeatPenalty: n, beams: n, lengthPenalty: n, bestOf: n, seed: n, stop: list, logProbs: n, adapters: list,
    ignoreEos: flag, deadlineMs: n, signal, onToken, allowControlTokens: flag, constrain: undefined, images: undefined }
  const { seed, finishReason } = await model.generate(options)
  const stream = model.stream(options)
  await model.generateBatch([options], { signal, onResult: undefined })
  await model.score({ prompt: 'p', suffix: 's', image: photo, signal })
  await model.caption('x', { style: undefined, lang: text, signal })
  await model.answer('x', 'q', { signal, lang: text })
  const found: ObjectList<Detection> = await model.detect('x', 'cow', { nms: n, minScore: n, maxObjects: n, signal })
  const masks = await model.segment('x', ['cow'], { constrain: flag, signal })
  await model.encodeImage('x', { signal, adapters: list })
  await model.embedText('q', { flavour: undefined, signal })
  return { seed, finishReason, stream, reason: found.finishReason, masks, text: await stream.text() }
}

export async function bodies(model: PaliGemma) {
  const png = await drawDetections('x', [], { scale: undefined, labels: undefined })
  const { data } = await preprocessImage('x', { size: 224, fit: undefined, signal: undefined })
  const [object] = await model.segment('x', 'cow')
  if (!object) return []
  const { mask } = object
  const { data: floats } = await dequantizeTensor('m', 't')
  const codes = await (await loadMaskDecoder('m')).decode([])
  await fetch('http://x', { method: 'POST', body: png })
  const stream = model.stream({ prompt: 'p' })
  return [new Response(png), new Response(data), new Response(mask.data), new Blob([png, floats, codes]),
    new Response(stream.toReadableStream()), new Response(stream.toTextStream()),
    stream.toResponse({ format: 'sse', status: undefined, headers: undefined })]
}

/** What goes in may lie in any memory. */
export async function shared(model: PaliGemma, bytes: Uint8Array, memory: SharedArrayBuffer) {
  await model.caption(bytes)
  await model.caption({ data: bytes, width: 1, height: 1, channels: undefined })
  return await model.caption(memory)
}

export async function others({ text, n, flag, signal, progress }: Query) {
  const adapters = [{ path: 'p', scale: n }]
  await convertModel({ source: 's', out: 'o', type: text, adapters, onProgress: progress, signal })
  await quantizeModel({ source: 's', out: 'o', type: 'Q8_0', imatrix: text, signal })
  await pull('a/b', { type: text, keep: flag, token: text, cacheDir: text, fetch: undefined, signal })
  await pull('a/b', { onPlan: undefined })
  await listPulled({ cacheDir: text })
  await estimateMemory('3b-224', { contextSize: n, type: text })
  await inspectModel('m', { maxArray: n })
  const prompts = [{ prompt: 'p', answer: text }]
  await collectImportance({ model: 'm', out: 'o', images: [], prompts, maxTokens: n, signal })
  await compareQuality({ model: 'm', against: 'a', againstVision: text, images: [], signal })
  parseOutput('', { width: 1, height: 1, locScale: undefined, transform: undefined })
  const vectors = { data: new Float32Array(0), tokens: 0, dims: 1, imageTokens: n, texts: undefined, type: undefined }
  const scores = maxSim(quantizeVectors(vectors, 'int8'), [])
  similarityMap(vectors, vectors, { tokens: undefined })
  await poolTokens(vectors, { factor: n })
  await new PageIndex({ dims: n, threads: n }).search(vectors, { limit: n, signal })
  return new Response(scores)
}
`

// The other calls, and the other entries.
const others = `
import { collectImportance, convertDataset, demoImage, drawSimilarityMap, estimateMemory, evaluateModel, listDevices,
  loadTokenizer, maskToPolygons, maskToRle, maskToSvg, removePulled, rescore, setNativeBinding, toCoco, toYolo, Tracker,
  videoFrames, cropBox, suppressOverlaps } from 'node-paligemma'
import type { Detection, FitOptions, PaliGemma, Segmentation } from 'node-paligemma'
import { createServer } from 'node-paligemma/server'
import { createPaliGemma } from 'node-paligemma/ai-sdk'
import { createQueue, readShards, startWorker } from 'node-paligemma/queue'

interface Query {
  text?: string | undefined, n?: number | undefined, flag?: boolean | undefined, signal?: AbortSignal | undefined
  list?: string[] | undefined, url?: URL | undefined, progress?: ((fraction: number) => void) | undefined
}

export async function many(model: PaliGemma, { text, n, flag, signal, list }: Query) {
  for await (const { result, error } of model.batch(['a'], { task: 'detect', labels: ['cow'], minScore: n, maxTokens: n,
    ordered: flag, signal, concurrency: n, tiles: undefined })) console.log(result, error?.message)
  for await (const { result } of model.watch('camera:0', { task: 'caption', minInterval: n, lang: text, signal,
    size: n, onReconnect: undefined })) console.log(result)
  const film = await model.describeVideo('v', { prompt: text, frames: n, segmentSeconds: n, strideSeconds: n, start: n,
    end: n, maxTokens: n, stop: list, signal, onSegment: undefined })
  for await (const { image } of videoFrames('v', { count: n, fps: n, size: n, start: n, end: n,
    times: undefined, signal }))
    await fetch('http://x', { method: 'POST', body: image.data })
  return film.text
}

export async function learn(model: PaliGemma, { text, n, flag, signal, list }: Query) {
  const options: FitOptions = { rank: n, alpha: n, rslora: flag, targets: undefined, steps: n, epochs: n, batchSize: n,
    seed: n, learningRate: n, warmup: n, schedule: undefined, weightDecay: n, clip: n, dropout: n, shuffle: flag,
    evaluate: undefined, evaluateEvery: n, checkpoint: text, checkpointEvery: n, resume: flag, from: text, signal,
    onStep: undefined, onEvaluate: undefined }
  const { adapter } = await model.fit([{ prompt: 'p', response: 'r', image: text, images: list }], options)
  await adapter.save('a')
  await evaluateModel({ model, data: 'd', metric: 'exact', maxTokens: n, signal, onRow: undefined,
    onProgress: undefined })
  await convertDataset({ source: 's', out: 'o', from: undefined, to: undefined, labels: list, split: n, heldOut: text,
    images: text, signal, onBadRow: undefined })
}

export function forms(found: Detection[], masks: Segmentation[], { n, text }: Query) {
  const tracker = new Tracker({ newScore: n, keepSeconds: n, confirmFrames: n, lines: undefined, zones: undefined })
  const mask = masks[0]!.mask
  return [maskToRle(mask), maskToPolygons(mask, { tolerance: n }), maskToSvg(mask, { color: text }), tracker, found,
    toCoco([{ fileName: 'a', width: 1, height: 1, objects: found }], { labels: undefined }),
    suppressOverlaps(found, 0.5, { classAgnostic: undefined })]
}

export async function serve(model: PaliGemma, { text, n, flag, list, signal }: Query) {
  const server = createServer({ models: { demo: 'demo' }, lazy: flag, idleUnloadMs: n, apiKeys: list, cors: undefined,
    basePath: text, page: flag, maxQueue: n, deadlineMs: n, maxBodyBytes: n, maxImages: n,
    remoteImages: undefined, logger: undefined,
    logContent: flag })
  const answer: Response = await server.fetch(new Request('http://x', { method: 'POST', body: demoImage }))
  const provider = createPaliGemma({ model, modelId: text, specification: undefined })
  const queue = await createQueue({ redis: text ?? 'redis://x', name: text, prefix: text, connectTimeoutMs: n })
  await queue.add({ task: 'caption', image: 'a', id: text, priority: n, delayMs: n, options: undefined })
  const worker = await startWorker({ redis: 'redis://x', model: 'demo', concurrency: n, out: text, rate: undefined,
    stalledMs: n, maxStalls: n })
  for await (const row of readShards('f')) console.log(row)
  await removePulled('a/b', { cacheDir: text, signal, onMessage: undefined })
  return [answer, provider.languageModel(), worker]
}

export async function rest({ text, n, signal, progress }: Query) {
  setNativeBinding('x'); await listDevices()
  const tokenizer = await loadTokenizer('m')
  const png = await drawSimilarityMap('x', undefined as never, { opacity: n })
  await estimateMemory('m', { fit: undefined, maxSequences: n })
  await collectImportance({ model: 'm', out: 'o', images: [png], vision: text, onProgress: progress, signal })
  return [new Response(png), tokenizer.encode('x'), new Blob([png])]
}
`

const strictest = {
  module: 'node16',
  moduleResolution: 'node16',
  target: 'es2022',
  types: ['node'],
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noPropertyAccessFromIndexSignature: true,
  noImplicitOverride: true,
  noEmit: true,
  skipLibCheck: true
}

function install(compiler: string): string | undefined {
  const app = join(dir, compiler.replace('@', '-'))
  mkdirSync(join(app, 'node_modules'), { recursive: true })
  writeFileSync(join(app, 'package.json'), '{"name":"app","type":"module","private":true}')
  try {
    const packages = [compiler, '@types/node@22']
    const flags = ['--no-audit', '--no-fund', '--ignore-scripts', '--prefer-offline']
    execFileSync('npm', ['install', ...flags, ...packages], { cwd: app, stdio: 'pipe', timeout: 100_000 })
  } catch {
    return undefined
  }
  symlinkSync(root, join(app, 'node_modules', 'node-paligemma'), 'junction')
  symlinkSync(join(root, 'node_modules', 'sharp'), join(app, 'node_modules', 'sharp'), 'junction')
  return app
}

function compile(app: string, options: object): string {
  writeFileSync(join(app, 'app.ts'), application)
  writeFileSync(join(app, 'others.ts'), others)
  // the link's target has another node_modules: types must be those of the application
  const compilerOptions = { ...strictest, preserveSymlinks: true, ...options }
  writeFileSync(join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['app.ts', 'others.ts'] }))
  try {
    execFileSync(process.execPath, [join(app, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', '.'], { cwd: app })
    return ''
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: Buffer; stderr?: Buffer }
    return `${String(stdout)}${String(stderr)}`
  }
}

describe.skipIf(!existsSync(join(root, 'dist', 'index.d.ts')))('the declarations', () => {
  it.each(['typescript@5.6', 'typescript@5.9', 'typescript@7'])(
    'compile with %s, strictest settings, Node and web types, every resolution',
    { timeout: 240_000 },
    (compiler) => {
      const app = install(compiler)
      if (app === undefined) {
        console.log(`${compiler} cannot be had from npm: not tested`)
        return
      }
      expect(compile(app, { lib: ['es2023', 'esnext.disposable'] })).toBe('')
      expect(compile(app, { lib: ['es2023', 'esnext.disposable', 'dom', 'dom.iterable'] })).toBe('')
      const lib = ['es2023', 'esnext.disposable']
      expect(compile(app, { lib, module: 'esnext', moduleResolution: 'bundler' })).toBe('')
      // what knows no "exports", as in most older projects; gone from TypeScript 7
      if (!compiler.endsWith('7')) expect(compile(app, { lib, module: 'esnext', moduleResolution: 'node10' })).toBe('')
    }
  )
})
