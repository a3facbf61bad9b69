// onnxruntime-node over one of the files of onnx-graphs.mjs.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { serve, timed } from './child.mjs'

const int32 = (ort, value, dims) => new ort.Tensor('int32', Int32Array.from([value]), dims)
const noise = (length) => Float32Array.from({ length }, () => Math.random() + Math.random() - 1)

/** Past and present are the same memory: nothing is copied from token to token. */
function cacheOf(ort, { layers, kvHeads, headDim }, positions) {
  const feeds = {}
  const fetches = {}
  for (let layer = 0; layer < layers; layer++) {
    for (const part of ['key', 'value']) {
      const dims = [1, kvHeads, positions, headDim]
      const tensor = new ort.Tensor('float32', new Float32Array(kvHeads * positions * headDim), dims)
      feeds[`past_key_values.${layer}.${part}`] = tensor
      fetches[`present.${layer}.${part}`] = tensor
    }
  }
  return { feeds, fetches }
}

await serve(async ({ folder, path, threads, work, sizes, prefill, tokens }) => {
  const ort = createRequire(join(folder, 'package.json'))('onnxruntime-node')
  const session = await ort.InferenceSession.create(path, {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all'
  })
  const { vision, text, vocab } = sizes
  if (work === 'vision') {
    const dims = [1, vision.tokens, 3 * vision.patchSize ** 2]
    const patches = new ort.Tensor('float32', noise(dims[1] * dims[2]), dims)
    return { run: async () => ({ vision: await timed(async () => void (await session.run({ patches }))) }) }
  }
  const { feeds, fetches } = cacheOf(ort, text, prefill + tokens)
  fetches.logits = new ort.Tensor('float32', new Float32Array(vocab), [1, 1, vocab])
  const embeddings = (rows) => new ort.Tensor('float32', noise(rows * text.hidden), [1, rows, text.hidden])
  const [prompt, token] = [embeddings(prefill), embeddings(1)]
  const step = async (inputs_embeds, total) => {
    const lengths = { seqlens_k: int32(ort, total - 1, [1]), total_sequence_length: int32(ort, total, []) }
    await session.run({ inputs_embeds, ...lengths, ...feeds }, fetches)
  }
  const run = async () => ({
    prefill: await timed(() => step(prompt, prefill)),
    decode: await timed(async () => {
      for (let i = 1; i <= tokens; i++) await step(token, prefill + i)
    }, tokens)
  })
  return { run }
})
