/** The reference checkpoints, value for value, and what their configs leave out. */
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { hasGolden } from '../../support/golden'
import {
  copyCheckpoint,
  edit,
  editJson,
  readSafetensors,
  removeTempDirs,
  sourceFloats
} from '../../support/convert-helpers'
import { hf, run } from '../../support/convert-run'

afterEach(removeTempDirs)

const models = ['pg1-tiny', 'pg2-tiny', 'pg2-tiny-sharded', 'pg2-k', 'colpali-tiny']

describe.skipIf(!hasGolden)('convert of the reference checkpoints', () => {
  it.each(models)('%s: every source value is in the f32 file, text norms plus one', async (name) => {
    const { gguf } = await run(hf(name))
    const pairs = renamed(name)
    for (const [source, target] of pairs) {
      const expected = sourceFloats(hf(name), source)
      const tensor = gguf.tensors.get(target)
      expect(tensor, target).toBeDefined()
      expect(tensor!.type, target).toBe(0)
      const plus = /^(blk\.\d+\.(attn|ffn|post_attention|post_ffw)_norm|output_norm)\.weight$/.test(target) ? 1 : 0
      expect(tensor!.bytes.equals(new Uint8Array(expected.map((value) => value + plus).buffer)), target).toBe(true)
    }
    expect(gguf.order).toHaveLength(pairs.length)
  })

  it('takes model.safetensors where the index of an earlier, sharded save lies beside it', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    const index = { weight_map: { 'lm_head.weight': 'model-00001-of-00002.safetensors' } }
    writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify(index))
    expect((await run(dir)).gguf.order).toEqual((await run(hf('pg1-tiny'))).gguf.order)
  })

  it('keeps bf16 weights bit for bit when asked for bf16; norms, biases and positions are f32', async () => {
    const { gguf } = await run(hf('pg2-k'), { type: 'bf16' })
    const { header, data } = readSafetensors(join(hf('pg2-k'), 'model.safetensors'))
    const [begin, end] = header['model.language_model.layers.1.mlp.down_proj.weight']!.data_offsets
    const down = gguf.tensors.get('blk.1.ffn_down.weight')!
    expect(down.type).toBe(30)
    expect(down.bytes.equals(data.subarray(begin, end))).toBe(true)
    expect(gguf.tensors.get('token_embd.weight')!.type).toBe(30)
    for (const vector of [
      'blk.0.attn_norm.weight',
      'v.position_embd.weight',
      'v.blk.0.ln1.bias',
      'v.blk.1.ffn_up.bias',
      'mm.0.bias',
      'v.patch_embd.weight'
    ]) {
      expect(gguf.tensors.get(vector)!.type, vector).toBe(0)
    }
  })

  it('stores shapes outermost first and the patch embedding as [out, 3, patch, patch]', async () => {
    const { gguf } = await run(hf('pg2-tiny'))
    const shape = (name: string) => gguf.tensors.get(name)!.shape
    expect(shape('token_embd.weight')).toEqual([2048, 96])
    expect(shape('blk.3.attn_q.weight')).toEqual([128, 96])
    expect(shape('blk.3.attn_k.weight')).toEqual([64, 96])
    expect(shape('blk.3.ffn_down.weight')).toEqual([96, 192])
    expect(shape('v.patch_embd.weight')).toEqual([64, 3, 14, 14])
    expect(shape('v.position_embd.weight')).toEqual([25, 64])
    expect(shape('v.blk.1.ffn_up.weight')).toEqual([112, 64])
    expect(shape('mm.0.weight')).toEqual([96, 64])
  })

  it('fills in the defaults that a PaliGemma 1 config leaves out', async () => {
    const { gguf } = await run(hf('pg1-tiny'))
    const get = (key: string) => gguf.metadata.get(key)
    expect(get('general.architecture')).toBe('gemma')
    expect(get('general.name')).toBe('pg1-tiny')
    expect(get('general.file_type')).toBe(0)
    expect(get('gemma.context_length')).toBe(8192)
    expect(get('gemma.attention.layer_norm_rms_epsilon')).toBe(Math.fround(1e-6))
    expect(get('gemma.rope.freq_base')).toBe(10000)
    expect(get('gemma.attention.head_count_kv')).toBe(1)
    expect(get('gemma.attention.key_length')).toBe(32)
    expect(get('clip.vision.image_size')).toBe(56)
    expect(get('clip.vision.attention.layer_norm_epsilon')).toBe(Math.fround(1e-6))
    expect(get('clip.projector_type')).toBe('paligemma')
    expect(get('paligemma.image.resize')).toBe('bicubic')
    expect([...gguf.metadata.keys()].filter((key) => key.includes('softcap') || key.includes('query_pre'))).toEqual([])
  })

  it('takes a missing image size from the preprocessor, else from the image tokens, else 224', async () => {
    const dir = copyCheckpoint(hf('pg2-tiny'))
    editJson(dir, 'config.json', (json) => {
      delete json.vision_config.image_size
    })
    expect((await run(dir)).gguf.metadata.get('clip.vision.image_size')).toBe(70)
    rmSync(join(dir, 'preprocessor_config.json'))
    expect((await run(dir)).gguf.metadata.get('clip.vision.image_size')).toBe(70)
    editJson(dir, 'config.json', (json) => {
      delete json.vision_config.num_image_tokens
    })
    await expect(run(dir)).rejects.toThrow('position_embedding.weight is [25, 64] instead of [256, 64]')
  })

  it('reads newer configs: rope_parameters, layer_types, softcaps switched off with null', async () => {
    const dir = copyCheckpoint(hf('pg2-tiny'))
    editJson(dir, 'config.json', ({ text_config: text }) => {
      text.rope_parameters = { rope_type: 'default', rope_theta: 20000 }
      text.layer_types = ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention']
      text.final_logit_softcapping = null
      delete text.query_pre_attn_scalar
      delete text.sliding_window
      delete text.attn_logit_softcapping
    })
    const { metadata } = (await run(dir)).gguf
    expect(metadata.get('gemma2.rope.freq_base')).toBe(20000)
    expect(metadata.get('gemma2.final_logit_softcapping')).toBe(0)
    expect(metadata.get('gemma2.attn_logit_softcapping')).toBe(50)
    expect(metadata.get('gemma2.attention.query_pre_attn_scalar')).toBe(256)
    expect(metadata.get('gemma2.attention.sliding_window')).toBe(4096)
    editJson(dir, 'config.json', ({ text_config: text }) => {
      text.layer_types.reverse()
    })
    await expect(run(dir)).rejects.toMatchObject({ code: 'ERR_MODEL_UNSUPPORTED' })
  })

  describe('published configs', () => {
    const metadata = async (model: string, change: (json: any) => void) => {
      const dir = copyCheckpoint(hf(model))
      editJson(dir, 'config.json', change)
      return (await run(dir)).gguf.metadata
    }

    it("leave out the patch size of 14, not of 16 as the class's default would have it", async () => {
      const found = await metadata('pg1-tiny', ({ vision_config: vision }) => {
        delete vision.patch_size
      })
      expect(found.get('clip.vision.patch_size')).toBe(14)
    })

    it('leave out the head size: 256, not hidden / heads', async () => {
      await expect(
        metadata('pg2-k', ({ text_config: text }) => {
          delete text.head_dim
        })
      ).rejects.toThrow('q_proj.weight is [256, 256] instead of [1024, 256]')
    })

    it('name an activation for the projector, which has none', async () => {
      for (const act of ['gelu_fast', 'relu']) {
        const found = await metadata('pg1-tiny', ({ vision_config: vision }) => {
          vision.projector_hidden_act = act
        })
        expect(found.get('clip.projector_type')).toBe('paligemma')
      }
    })

    it('state a number of positions that is wrong', async () => {
      const found = await metadata('pg2-tiny', ({ vision_config: vision }) => {
        vision.num_positions = 256
      })
      expect(found.get('clip.vision.image_size')).toBe(70)
    })

    it('say gelu where tanh gelu is meant, each Gemma under its own key', async () => {
      expect(
        (
          await metadata('pg1-tiny', ({ text_config: text }) => {
            text.hidden_act = 'gelu'
            text.hidden_activation = null
          })
        ).get('clip.use_gelu')
      ).toBe(true)
      // Gemma 2 reads hidden_activation only
      expect(
        (
          await metadata('pg2-tiny', ({ text_config: text }) => {
            text.hidden_act = 'silu'
            text.hidden_activation = 'gelu'
          })
        ).get('general.architecture')
      ).toBe('gemma2')
      await expect(
        metadata('pg1-tiny', ({ text_config: text }) => {
          text.hidden_act = 'silu'
        })
      ).rejects.toMatchObject({ code: 'ERR_MODEL_UNSUPPORTED' })
    })

    it("spell the image token's key in two ways", async () => {
      const found = await metadata('pg1-tiny', (json) => {
        json.image_token_id = json.image_token_index
        delete json.image_token_index
      })
      expect((found.get('tokenizer.ggml.tokens') as string[])[2004]).toBe('<image>')
      await expect(
        metadata('pg1-tiny', (json) => {
          json.image_token_id = 7
          delete json.image_token_index
        })
      ).rejects.toThrow('2004')
    })
  })

  it("writes Gemma 2's constants from the config", async () => {
    const { gguf } = await run(hf('pg2-tiny'))
    const get = (key: string) => gguf.metadata.get(key)
    expect(get('general.architecture')).toBe('gemma2')
    expect(get('gemma2.attention.query_pre_attn_scalar')).toBe(24)
    expect(get('gemma2.attn_logit_softcapping')).toBe(50)
    expect(get('gemma2.final_logit_softcapping')).toBe(30)
    expect(get('gemma2.attention.sliding_window')).toBe(24)
    expect(get('clip.vision.projection_dim')).toBe(96)
  })

  it('takes the vocabulary from tokenizer.model and added_tokens.json and pads it to the embedding', async () => {
    const { gguf } = await run(hf('pg2-tiny'))
    const tokens = gguf.metadata.get('tokenizer.ggml.tokens') as string[]
    const types = gguf.metadata.get('tokenizer.ggml.token_type') as number[]
    const scores = gguf.metadata.get('tokenizer.ggml.scores') as number[]
    expect([tokens.length, types.length, scores.length]).toEqual([2048, 2048, 2048])
    expect(tokens.slice(0, 4)).toEqual(['<pad>', '<eos>', '<bos>', '<unk>'])
    expect(types.slice(0, 4)).toEqual([3, 3, 3, 2])
    expect([tokens[2004], types[2004]]).toEqual(['<image>', 3])
    expect([tokens[2005], types[2005], scores[2005]]).toEqual(['[PAD2005]', 5, -10000])
    expect(types[tokens.indexOf('<loc0000>')]).toBe(4)
    expect(types[tokens.indexOf('<0x0A>')]).toBe(6)
    expect(gguf.metadata.get('tokenizer.ggml.add_bos_token')).toBe(false)
  })

  it("does not make text_config's second end token one of the model", async () => {
    const { gguf } = await run(hf('pg2-tiny'))
    expect(gguf.metadata.get('tokenizer.ggml.eos_token_id')).toBe(1)
    expect(gguf.metadata.has('tokenizer.ggml.eot_token_id')).toBe(false)

    const dir = copyCheckpoint(hf('pg2-tiny'))
    editJson(dir, 'generation_config.json', (json) => {
      json.eos_token_id = [1, 107]
    })
    expect((await run(dir)).gguf.metadata.get('tokenizer.ggml.eot_token_id')).toBe(107)

    rmSync(join(dir, 'generation_config.json'))
    editJson(dir, 'config.json', (json) => {
      delete json.eos_token_id
    })
    const fallback = (await run(dir)).gguf.metadata
    expect(fallback.get('tokenizer.ggml.eos_token_id')).toBe(1)
    expect(fallback.has('tokenizer.ggml.eot_token_id')).toBe(false)
  })

  it('reports progress up to 1 and the parameter count of the checkpoint', async () => {
    const seen: number[] = []
    const { result } = await run(hf('pg1-tiny'), { onProgress: (fraction) => seen.push(fraction) })
    expect(seen.at(-1)).toBe(1)
    expect([...seen].sort((a, b) => a - b)).toEqual(seen)
    const { header } = readSafetensors(join(hf('pg1-tiny'), 'model.safetensors'))
    delete header['__metadata__']
    const parameters = Object.values(header).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    expect(result.parameters).toBe(parameters)
  })

  it('reads both generations of names, and vision names without vision_model', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    edit(dir, ({ header }) => {
      for (const name of Object.keys(header)) {
        const renamed = name
          .replace(/^language_model\.model\./, 'model.language_model.')
          .replace(/^vision_tower\.vision_model\./, 'model.vision_tower.')
          .replace(/^multi_modal/, 'model.multi_modal')
        if (renamed === name) continue
        header[renamed] = header[name]!
        delete header[name]
      }
    })
    const classic = await run(hf('pg1-tiny'))
    const nested = await run(dir)
    for (const [name, tensor] of classic.gguf.tensors)
      expect(nested.gguf.tensors.get(name)!.bytes.equals(tensor.bytes), name).toBe(true)
  })

  it('drops a tied lm_head, and refuses one that differs from the embedding', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    edit(dir, (checkpoint) => {
      const embedding = checkpoint.header['language_model.model.embed_tokens.weight']!
      const [begin, end] = embedding.data_offsets as [number, number]
      const at = checkpoint.data.length
      checkpoint.data = Buffer.concat([checkpoint.data, checkpoint.data.subarray(begin, end)])
      checkpoint.header['language_model.lm_head.weight'] = { ...embedding, data_offsets: [at, at + end - begin] }
    })
    const { gguf } = await run(dir)
    expect(gguf.order).toEqual((await run(hf('pg1-tiny'))).gguf.order)

    edit(dir, ({ data }) => {
      data[data.length - 1]! ^= 0x40
    })
    await expect(run(dir)).rejects.toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringContaining('lm_head')
    })
  })

  it('takes the embedding from lm_head where only that was saved', { tags: ['slow'] }, async () => {
    const dir = copyCheckpoint(hf('pg2-k'))
    edit(dir, ({ header }) => {
      header['lm_head.weight'] = header['model.language_model.embed_tokens.weight']!
      delete header['model.language_model.embed_tokens.weight']
    })
    const { gguf } = await run(dir)
    const expected = sourceFloats(hf('pg2-k'), 'model.language_model.embed_tokens.weight')
    expect(gguf.tensors.get('token_embd.weight')!.bytes.equals(new Uint8Array(expected.buffer))).toBe(true)
  })
})

/** Source and target names of a golden checkpoint, written out independently of the converter's table. */
function renamed(model: string): [source: string, target: string][] {
  const gemma1 = model === 'pg1-tiny' || model === 'colpali-tiny'
  const text: Record<string, string> = {
    input_layernorm: 'attn_norm',
    post_attention_layernorm: gemma1 ? 'ffn_norm' : 'post_attention_norm',
    pre_feedforward_layernorm: 'ffn_norm',
    post_feedforward_layernorm: 'post_ffw_norm',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down'
  }
  const vision: Record<string, string> = {
    layer_norm1: 'ln1',
    layer_norm2: 'ln2',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.out_proj': 'attn_out',
    'mlp.fc1': 'ffn_up',
    'mlp.fc2': 'ffn_down'
  }
  const names = readdirSync(hf(model))
    .filter((file) => /^model.*\.safetensors$/.test(file))
    .flatMap((file) => Object.keys(readSafetensors(join(hf(model), file)).header))
    .filter((name) => name !== '__metadata__')
  return names.map((name) => {
    const bare = name.replace(/^model\./, '')
    const block = /layers\.(\d+)\.(.*)\.(weight|bias)$/.exec(bare)
    if (block)
      return [
        name,
        bare.startsWith('vision')
          ? `v.blk.${block[1]}.${vision[block[2]!]}.${block[3]}`
          : `blk.${block[1]}.${text[block[2]!]}.${block[3]}`
      ]
    const last = bare.split('.').at(-1)!
    if (bare.includes('embed_tokens')) return [name, 'token_embd.weight']
    if (bare.includes('patch_embedding')) return [name, `v.patch_embd.${last}`]
    if (bare.includes('position_embedding')) return [name, 'v.position_embd.weight']
    if (bare.includes('post_layernorm')) return [name, `v.post_ln.${last}`]
    if (bare.includes('multi_modal_projector')) return [name, `mm.0.${last}`]
    if (bare.includes('custom_text_proj')) return [name, `retrieval.proj.${last}`]
    if (bare.endsWith('norm.weight')) return [name, 'output_norm.weight']
    throw new Error(`unexpected tensor ${name}`)
  })
}
