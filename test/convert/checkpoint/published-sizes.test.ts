/**
 * Every published size, planned from its config and tensor list without a weight: names, shapes, types, parameter
 * counts.
 * @module-tag slow
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readConfig } from '../../../lib/convert/checkpoint/config'
import { layoutGguf, tensorBytes } from '../../../lib/formats/gguf-writer'
import { modelMetadata } from '../../../lib/convert/checkpoint/metadata'
import { expectedTensors } from '../../../lib/convert/checkpoint/names'
import { placeOf } from '../../../lib/convert/checkpoint/npz-layout'
import { planConversion } from '../../../lib/convert/checkpoint/plan'
import type { SourceTensor } from '../../../lib/formats/source'
import { fileTypeNames, layoutOf, parseFileType } from '../../../lib/formats/types'
import { countParameters } from '../../../lib/convert/write'
import { removeTempDirs, tempDir } from '../../support/convert-helpers'

afterAll(removeTempDirs)

interface Published {
  hidden: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  ffn: number
  /** Attention is scaled by its -0.5th power; Gemma 1: the head size. */
  scalar?: number
  /** With the tower at 224 px and 257152 embedding rows, as KerasHub's presets count them. */
  parameters: number
}

const published: Record<string, Published> = {
  'paligemma-3b': {
    hidden: 2048,
    layers: 18,
    heads: 8,
    kvHeads: 1,
    headDim: 256,
    ffn: 16384,
    parameters: 2_923_335_408
  },
  'paligemma2-3b': {
    hidden: 2304,
    layers: 26,
    heads: 8,
    kvHeads: 4,
    headDim: 256,
    ffn: 9216,
    scalar: 256,
    parameters: 3_032_094_960
  },
  'paligemma2-10b': {
    hidden: 3584,
    layers: 42,
    heads: 16,
    kvHeads: 8,
    headDim: 256,
    ffn: 14336,
    scalar: 256,
    parameters: 9_662_409_456
  },
  'paligemma2-28b': {
    hidden: 4608,
    layers: 46,
    heads: 32,
    kvHeads: 16,
    headDim: 128,
    ffn: 36864,
    scalar: 144,
    parameters: 27_650_192_112
  }
}
const vocab = 257216
const trained = 257152
const cases = Object.keys(published).flatMap((name) => [224, 448, 896].map((size) => [name, size] as const))

/** config.json as the hub has it: PaliGemma 1 leaves out whatever equals a default, and image_size at 224 px. */
function writeConfig(name: string, size: number): string {
  const { hidden, layers, heads, kvHeads, headDim, ffn, scalar } = published[name]!
  const tokens = (size / 14) ** 2
  const second = scalar !== undefined
  const dir = tempDir()
  const text = {
    hidden_size: hidden,
    intermediate_size: ffn,
    num_attention_heads: heads,
    num_hidden_layers: layers,
    num_image_tokens: tokens,
    num_key_value_heads: kvHeads,
    vocab_size: vocab
  }
  writeFileSync(
    join(dir, 'config.json'),
    JSON.stringify({
      architectures: ['PaliGemmaForConditionalGeneration'],
      bos_token_id: 2,
      eos_token_id: 1,
      hidden_size: hidden,
      ignore_index: -100,
      image_token_index: 257152,
      model_type: 'paligemma',
      pad_token_id: 0,
      projection_dim: hidden,
      vocab_size: vocab,
      text_config: second
        ? {
            ...text,
            model_type: 'gemma2',
            head_dim: headDim,
            query_pre_attn_scalar: scalar,
            attn_logit_softcapping: 50.0,
            final_logit_softcapping: 30.0,
            sliding_window: 4096,
            eos_token_id: [1, 107],
            hidden_act: 'gelu_pytorch_tanh',
            hidden_activation: 'gelu_pytorch_tanh',
            rms_norm_eps: 1e-6,
            rope_theta: 10000.0,
            max_position_embeddings: 8192
          }
        : { ...text, model_type: 'gemma' },
      vision_config: {
        hidden_size: 1152,
        intermediate_size: 4304,
        model_type: 'siglip_vision_model',
        num_attention_heads: 16,
        num_hidden_layers: 27,
        num_image_tokens: tokens,
        patch_size: 14,
        projection_dim: hidden,
        projector_hidden_act: 'gelu_fast',
        vision_use_head: false,
        // Stated as for 224 px at every size, in PaliGemma 2.
        ...(second ? { num_positions: 256, image_size: size } : size === 224 ? {} : { image_size: size })
      }
    })
  )
  return dir
}

/** What the hub's safetensors headers list. */
function headers(name: string, size: number, nested: boolean): SourceTensor[] {
  const { hidden, layers, heads, kvHeads, headDim, ffn, scalar } = published[name]!
  const [llm, tower, projector] = nested
    ? ['model.language_model', 'model.vision_tower.vision_model', 'model.multi_modal_projector']
    : ['language_model.model', 'vision_tower.vision_model', 'multi_modal_projector']
  const list: SourceTensor[] = []
  const add = (tensor: string, ...shape: number[]) => {
    list.push({
      name: tensor,
      file: 'model.safetensors',
      type: 'BF16',
      shape,
      bytes: 2 * shape.reduce((a, b) => a * b, 1),
      read: async () => {
        throw new Error('nothing is read')
      }
    })
  }
  const linear = (tensor: string, out: number, input: number) => {
    add(`${tensor}.weight`, out, input)
    add(`${tensor}.bias`, out)
  }
  const norm = (tensor: string) => {
    add(`${tensor}.weight`, 1152)
    add(`${tensor}.bias`, 1152)
  }
  add(`${llm}.embed_tokens.weight`, vocab, hidden)
  add(`${llm}.norm.weight`, hidden)
  for (let n = 0; n < layers; n++) {
    const layer = `${llm}.layers.${n}`
    add(`${layer}.self_attn.q_proj.weight`, heads * headDim, hidden)
    add(`${layer}.self_attn.k_proj.weight`, kvHeads * headDim, hidden)
    add(`${layer}.self_attn.v_proj.weight`, kvHeads * headDim, hidden)
    add(`${layer}.self_attn.o_proj.weight`, hidden, heads * headDim)
    for (const which of ['gate', 'up']) add(`${layer}.mlp.${which}_proj.weight`, ffn, hidden)
    add(`${layer}.mlp.down_proj.weight`, hidden, ffn)
    for (const which of scalar === undefined
      ? ['input', 'post_attention']
      : ['input', 'post_attention', 'pre_feedforward', 'post_feedforward'])
      add(`${layer}.${which}_layernorm.weight`, hidden)
  }
  add(`${tower}.embeddings.patch_embedding.weight`, 1152, 3, 14, 14)
  add(`${tower}.embeddings.patch_embedding.bias`, 1152)
  add(`${tower}.embeddings.position_embedding.weight`, (size / 14) ** 2, 1152)
  for (let n = 0; n < 27; n++) {
    const layer = `${tower}.encoder.layers.${n}`
    for (const which of ['q', 'k', 'v', 'out']) linear(`${layer}.self_attn.${which}_proj`, 1152, 1152)
    linear(`${layer}.mlp.fc1`, 4304, 1152)
    linear(`${layer}.mlp.fc2`, 1152, 4304)
    for (const which of [1, 2]) norm(`${layer}.layer_norm${which}`)
  }
  norm(`${tower}.post_layernorm`)
  linear(`${projector}.linear`, hidden, 1152)
  return list
}

const vocabulary = {
  tokens: ['<pad>', '<eos>', '<bos>', '<unk>'],
  scores: [0, 0, 0, 0],
  types: [3, 3, 3, 2],
  unkId: 3,
  imageId: -1
}

describe.each(cases)('%s at %i px', (name, size) => {
  const { hidden, layers, scalar, headDim, parameters } = published[name]!
  const extra = ((size / 14) ** 2 - 256) * 1152

  it('plans every tensor, with the published number of parameters', async () => {
    const dir = writeConfig(name, size)
    const config = await readConfig(dir)
    for (const nested of [false, true]) {
      const source = headers(name, size, nested)
      const plan = planConversion(config, source, { dir, type: parseFileType('BF16') })
      expect(plan.tensors).toHaveLength(source.length)
      expect(new Set(plan.tensors.map((tensor) => tensor.source)).size).toBe(source.length)
      // Hugging Face's embedding has 64 rows more than were trained.
      expect(countParameters(plan.tensors)).toBe(parameters + extra + (vocab - trained) * hidden)
    }
  })

  it("every type: blocks divide the rows, no text matrix falls back, the file's size is as its bits say", async () => {
    const dir = writeConfig(name, size)
    const config = await readConfig(dir)
    const source = headers(name, size, false)
    for (const type of fileTypeNames) {
      const plan = planConversion(config, source, { dir, type: parseFileType(type) })
      expect(plan.tensors.filter((tensor) => tensor.shape.at(-1)! % layoutOf(tensor.type).block !== 0)).toEqual([])
      const fallen = plan.notes.filter((note) => note.includes('width'))
      expect(fallen).toEqual([])
      const { header, offsets, bytes } = await layoutGguf(
        modelMetadata(config, plan, vocabulary, parseFileType(type)),
        plan.tensors
      )
      expect(Number.isSafeInteger(bytes)).toBe(true)
      const sum = plan.tensors.reduce((total, tensor) => total + tensorBytes(tensor), header.length)
      expect(bytes - sum).toBeLessThan(32 * plan.tensors.length)
      expect(
        offsets.every(
          (offset, i) => offset % 32 === 0 && (i === 0 || offset >= offsets[i - 1]! + tensorBytes(plan.tensors[i - 1]!))
        )
      ).toBe(true)
    }
  })

  it('the metadata states the published constants', async () => {
    const dir = writeConfig(name, size)
    const config = await readConfig(dir)
    const plan = planConversion(config, headers(name, size, false), { dir, type: parseFileType('Q8_0') })
    const metadata = new Map(modelMetadata(config, plan, vocabulary, parseFileType('Q8_0')))
    const value = (key: string) => (metadata.get(key) as { value: unknown } | undefined)?.value
    const arch = scalar === undefined ? 'gemma' : 'gemma2'
    expect(value('general.architecture')).toBe(arch)
    expect(value(`${arch}.block_count`)).toBe(layers)
    expect(value(`${arch}.attention.key_length`)).toBe(headDim)
    expect(value(`${arch}.attention.query_pre_attn_scalar`)).toBe(scalar)
    expect(value(`${arch}.context_length`)).toBe(8192)
    expect(value('gemma2.attention.sliding_window')).toBe(scalar && 4096)
    expect(value('clip.vision.image_size')).toBe(size)
    expect(value('clip.vision.feed_forward_length')).toBe(4352)
    expect(value('tokenizer.ggml.eos_token_id')).toBe(1)
    expect(metadata.has('tokenizer.ggml.eot_token_id')).toBe(false)
  })

  it('every tensor has its place in the npz of that size, and no array is left over', async () => {
    const config = await readConfig(writeConfig(name, size))
    const places = expectedTensors(config, trained).map((tensor) => ({
      tensor,
      place: placeOf(tensor.source, { ...config, fusedQkv: false, vocab: trained })
    }))
    const count = (shape: number[]) => shape.reduce((a, b) => a * b, 1)
    const parts = new Map<string, Set<number>>()
    let total = 0
    for (const { tensor, place } of places) {
      expect(count(place.shape) / place.parts, tensor.source).toBe(count(tensor.shape))
      if (place.transposed)
        expect(place.transposed.groups * place.transposed.outputs, tensor.source).toBe(tensor.shape[0])
      const taken = parts.get(place.array) ?? new Set()
      expect(taken.has(place.part), `${tensor.source} shares its place`).toBe(false)
      parts.set(place.array, taken.add(place.part))
      total += count(tensor.shape)
    }
    for (const { place } of places) expect(parts.get(place.array)!.size, place.array).toBe(place.parts)
    expect(total).toBe(parameters + extra)
  })
})
