// What the generating loop of transformers.js costs beside onnxruntime: the same small model (one narrow layer, but the
// whole vocabulary, whose logits it handles), driven by `generate` or by a loop that does nothing but run the session.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { serve, timed } from './child.mjs'

const int64 = (ort, values) => new ort.Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length])

await serve(async ({ folder, model, threads, loop, sizes, prefill, tokens }) => {
  const require = createRequire(join(folder, 'package.json'))
  const options = { intraOpNumThreads: threads, interOpNumThreads: 1, executionMode: 'sequential' }
  const ids = Array.from({ length: prefill }, (_, i) => 100 + i)
  if (loop === 'transformers') {
    const { AutoModelForCausalLM, Tensor, env } = require('@huggingface/transformers')
    Object.assign(env, { allowRemoteModels: false, localModelPath: join(model, '..') })
    const net = await AutoModelForCausalLM.from_pretrained('loop', { dtype: 'fp32', session_options: options })
    const ones = (length) => new Tensor('int64', new BigInt64Array(length).fill(1n), [1, length])
    const generate = async (count) =>
      void (await net.generate({
        input_ids: new Tensor('int64', BigInt64Array.from(ids, BigInt), [1, prefill]),
        attention_mask: ones(prefill),
        max_new_tokens: count,
        min_new_tokens: count,
        do_sample: false
      }))
    return { run: async () => await withoutPrefill(generate, tokens) }
  }
  const ort = require('onnxruntime-node')
  const session = await ort.InferenceSession.create(join(model, 'onnx', 'model.onnx'), options)
  const { layers, kvHeads, headDim } = sizes.text
  const generate = async (count) => {
    let past = {}
    for (let layer = 0; layer < layers; layer++)
      for (const part of ['key', 'value'])
        past[`past_key_values.${layer}.${part}`] = new ort.Tensor('float32', new Float32Array(0), [
          1,
          kvHeads,
          0,
          headDim
        ])
    for (let i = 0; i < count; i++) {
      const input_ids = int64(ort, i === 0 ? ids : [7])
      const attention_mask = int64(ort, new Array(prefill + i).fill(1))
      const { logits: _, ...present } = await session.run({ input_ids, attention_mask, ...past })
      past = Object.fromEntries(
        Object.entries(present).map(([name, tensor]) => [name.replace('present', 'past_key_values'), tensor])
      )
    }
  }
  return { run: async () => await withoutPrefill(generate, tokens) }
})

/** Time of a token: that of many less that of one, which has the prefill. */
async function withoutPrefill(generate, tokens) {
  const one = await timed(() => generate(1))
  const all = await timed(() => generate(tokens + 1))
  return { decode: { ms: (all.ms - one.ms) / tokens, cpuMs: (all.cpuMs - one.cpuMs) / tokens } }
}
