/** A checkpoint of any size that takes no disk space: its weights are holes in a file, so they read as zeros. */
import { copyFileSync, ftruncateSync, mkdirSync, openSync, closeSync, writeSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface SyntheticOptions {
  vocab: number
  hidden: number
  ffn: number
  layers: number
}

/**
 * Writes a PaliGemma 2 of these sizes in bfloat16, with the tokenizer of another checkpoint; returns its weights'
 * bytes.
 */
export function writeSyntheticCheckpoint(
  dir: string,
  tokenizerFrom: string,
  { vocab, hidden, ffn, layers }: SyntheticOptions
): number {
  mkdirSync(dir, { recursive: true })
  const vision = { hidden: 64, ffn: 100, layers: 1 }
  const imageTokenId = 2004
  const json = (name: string, value: unknown) => writeFileSync(join(dir, name), JSON.stringify(value))
  json('config.json', {
    model_type: 'paligemma',
    image_token_index: imageTokenId,
    text_config: {
      model_type: 'gemma2',
      hidden_size: hidden,
      intermediate_size: ffn,
      num_hidden_layers: layers,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 256
    },
    vision_config: {
      hidden_size: vision.hidden,
      intermediate_size: vision.ffn,
      num_hidden_layers: vision.layers,
      num_attention_heads: 1,
      image_size: 28,
      patch_size: 14
    }
  })
  for (const name of ['tokenizer.model', 'added_tokens.json']) copyFileSync(join(tokenizerFrom, name), join(dir, name))

  const shapes: Record<string, number[]> = {
    'model.language_model.embed_tokens.weight': [vocab, hidden],
    'model.language_model.norm.weight': [hidden]
  }
  for (let n = 0; n < layers; n++) {
    const layer = (name: string, shape: number[]) => {
      shapes[`model.language_model.layers.${n}.${name}.weight`] = shape
    }
    for (const norm of ['input', 'post_attention', 'pre_feedforward', 'post_feedforward'])
      layer(`${norm}_layernorm`, [hidden])
    layer('self_attn.q_proj', [512, hidden])
    layer('self_attn.k_proj', [256, hidden])
    layer('self_attn.v_proj', [256, hidden])
    layer('self_attn.o_proj', [hidden, 512])
    layer('mlp.gate_proj', [ffn, hidden])
    layer('mlp.up_proj', [ffn, hidden])
    layer('mlp.down_proj', [hidden, ffn])
  }
  const tower = (name: string, shape: number[]) => {
    shapes[`model.vision_tower.vision_model.${name}.weight`] = shape
    shapes[`model.vision_tower.vision_model.${name}.bias`] = [shape[0]!]
  }
  tower('embeddings.patch_embedding', [vision.hidden, 3, 14, 14])
  shapes['model.vision_tower.vision_model.embeddings.position_embedding.weight'] = [4, vision.hidden]
  for (const norm of ['layer_norm1', 'layer_norm2']) tower(`encoder.layers.0.${norm}`, [vision.hidden])
  for (const name of ['q', 'k', 'v', 'out'])
    tower(`encoder.layers.0.self_attn.${name}_proj`, [vision.hidden, vision.hidden])
  tower('encoder.layers.0.mlp.fc1', [vision.ffn, vision.hidden])
  tower('encoder.layers.0.mlp.fc2', [vision.hidden, vision.ffn])
  tower('post_layernorm', [vision.hidden])
  shapes['model.multi_modal_projector.linear.weight'] = [hidden, vision.hidden]
  shapes['model.multi_modal_projector.linear.bias'] = [hidden]

  let at = 0
  const header: Record<string, unknown> = {}
  for (const [name, shape] of Object.entries(shapes)) {
    const bytes = 2 * shape.reduce((product, n) => product * n, 1)
    header[name] = { dtype: 'BF16', shape, data_offsets: [at, at + bytes] }
    at += bytes
  }
  const text = Buffer.from(JSON.stringify(header))
  const start = Buffer.alloc(8)
  start.writeBigUInt64LE(BigInt(text.length))
  const file = openSync(join(dir, 'model.safetensors'), 'w')
  writeSync(file, Buffer.concat([start, text]))
  ftruncateSync(file, 8 + text.length + at)
  closeSync(file)
  return at
}
