// What is compared with what: each job names its two engines, files included, as `child.mjs` starts them.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sizesModule from '../../dist/measure/sizes.js'
import synthetic from '../../dist/measure/synthetic.js'
import vocabulary from '../../dist/measure/vocabulary.js'
import { textModel, visionModel } from './onnx-graphs.mjs'

/** Shapes of our random model of that name, and its vocabulary with locations and padding. */
export function shapesOf(size) {
  const { config, basePieces } = sizesModule.parseSize(size)
  return { ...config, vocab: vocabulary.syntheticVocabulary(basePieces).tokens.length }
}

const loopText = { hidden: 64, ffn: 128, layers: 1, heads: 4, kvHeads: 2, headDim: 16 }

/** A folder as transformers.js reads it. */
function loopModel(dir, { text, vocab }) {
  const sizes = { text: { ...text, ...loopText, queryPreAttnScalar: loopText.headDim }, vocab }
  const model = join(dir, 'loop')
  mkdirSync(join(model, 'onnx'), { recursive: true })
  textModel(join(model, 'onnx', 'model.onnx'), sizes, 'float', { positions: 1024, ids: true })
  const config = {
    model_type: 'gemma2',
    architectures: ['Gemma2ForCausalLM'],
    hidden_size: loopText.hidden,
    num_hidden_layers: loopText.layers,
    num_attention_heads: loopText.heads,
    num_key_value_heads: loopText.kvHeads,
    head_dim: loopText.headDim,
    vocab_size: vocab,
    bos_token_id: 2,
    eos_token_id: 1,
    'transformers.js_config': { use_external_data_format: true }
  }
  writeFileSync(join(model, 'config.json'), JSON.stringify(config))
  writeFileSync(join(model, 'generation_config.json'), JSON.stringify({ bos_token_id: 2, eos_token_id: 1 }))
  return { model, sizes }
}

/** Writes what the job needs. Gives `ours` and `theirs`: name, script and job. `common`: threads, prefill, tokens. */
export async function prepare(name, { size, dir, folder, common }) {
  const sizes = shapesOf(size)
  const ours = async (type, work) => {
    const { path } = await synthetic.syntheticModel({ size, type })
    return { name: `node-paligemma ${type}`, script: './run-ours.mjs', job: { ...common, work, path }, path }
  }
  const onnx = (name, path, work) => ({ name, script: './run-onnx.mjs', job: { ...common, folder, path, work, sizes } })
  const positions = common.prefill + 512
  switch (name) {
    case 'vision': {
      const path = visionModel(join(dir, `${size}-vision-int8.onnx`), sizes, 'int8')
      // the tower is Q8_0 in that file as well
      const { name: _, ...engine } = await ours('Q4_0', 'vision')
      return { ours: { name: 'node-paligemma Q8_0', ...engine }, theirs: onnx('onnxruntime int8', path, 'vision') }
    }
    case 'onnx-int8':
    case 'onnx-int4': {
      const weights = name.slice('onnx-'.length)
      const path = textModel(join(dir, `${size}-text-${weights}.onnx`), sizes, weights, { positions })
      const type = weights === 'int8' ? 'Q8_0' : 'Q4_0'
      return { ours: await ours(type, 'text'), theirs: onnx(`onnxruntime ${weights}`, path, 'text') }
    }
    case 'llama-q8_0':
    case 'llama-q4_0': {
      const type = name.slice('llama-'.length).toUpperCase()
      const { path } = await synthetic.syntheticModel({ size, type, textOnly: true, dir })
      const job = { ...common, folder, path }
      return {
        ours: await ours(type, 'text'),
        theirs: { name: `node-llama-cpp ${type}`, script: './run-llama.mjs', job }
      }
    }
    default: {
      // whose logits the loop handles; a long prompt would hide what a token costs
      const whole = { ...sizes, vocab: shapesOf('3b-224').vocab }
      const job = { ...common, folder, ...loopModel(dir, whole), prefill: 4, tokens: 64 }
      const script = './run-transformers.mjs'
      return {
        ours: { name: 'onnxruntime alone', script, job: { ...job, loop: 'plain' } },
        theirs: { name: 'transformers.js', script, job: { ...job, loop: 'transformers' } }
      }
    }
  }
}
