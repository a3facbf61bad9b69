import { mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { convert, type ConvertOptions } from '../../lib/convert'
import { golden, hasGolden } from '../support/golden'
import {
  copyCheckpoint,
  edit,
  editJson,
  readGguf,
  readSafetensors,
  removeTempDirs,
  sourceFloats,
  tempDir,
  type TestCheckpoint,
  widenBf16
} from '../support/convert-helpers'

afterEach(removeTempDirs)

/** Widens BF16, all that an f32 or bf16 conversion of the golden checkpoints needs. */
const quantizeRows = async (data: Uint8Array, from: string, to: string): Promise<Uint8Array> => {
  if (from !== 'BF16' || to !== 'F32') throw new Error(`unexpected conversion from ${from} to ${to}`)
  return new Uint8Array(widenBf16(data).buffer)
}

async function run(source: string, options: Partial<ConvertOptions> = {}) {
  const out = join(tempDir(), 'model.gguf')
  const result = await convert({ source, out, type: 'f32', ...options }, { quantizeRows, verify: false })
  return { result, out, gguf: readGguf(out) }
}

const hf = (name: string) => golden('hf', name)
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

  it('takes the embedding from lm_head where only that was saved', async () => {
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

describe.skipIf(!hasGolden)('convert refuses', () => {
  /** Every refusal names the file or the directory, and leaves no file. */
  async function refused(dir: string, code: string, ...parts: string[]): Promise<void> {
    const out = join(tempDir(), 'model.gguf')
    const error = await convert({ source: dir, out, type: 'f32' }, { quantizeRows, verify: false }).catch(
      (reason) => reason
    )
    expect(error).toMatchObject({ name: 'PaliGemmaError', code })
    for (const part of [dir, ...parts]) expect(error.message).toContain(part)
    expect(readdirSync(join(out, '..'))).toEqual([])
  }

  it('an unknown tensor, by name', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    edit(dir, ({ header }) => {
      header['vision_tower.vision_model.neck.probe'] = header['multi_modal_projector.linear.bias']!
      delete header['multi_modal_projector.linear.bias']
    })
    await refused(
      dir,
      'ERR_MODEL_INVALID',
      'unknown: vision_tower.vision_model.neck.probe',
      'missing: multi_modal_projector.linear.bias'
    )
  })

  it('missing tensors, by name', async () => {
    const dir = copyCheckpoint(hf('pg2-k'))
    edit(dir, ({ header }) => {
      delete header['model.language_model.layers.2.pre_feedforward_layernorm.weight']
    })
    await refused(dir, 'ERR_MODEL_INVALID', 'missing: language_model.model.layers.2.pre_feedforward_layernorm.weight')
  })

  it('a shape that the config does not say', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    editJson(dir, 'config.json', (json) => {
      json.text_config.intermediate_size = 161
    })
    await refused(dir, 'ERR_MODEL_INVALID', 'layers.0.mlp.gate_proj.weight is [160, 64] instead of [161, 64]')
  })

  it('the same tensor under two names', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    edit(dir, (checkpoint) => {
      const at = checkpoint.data.length
      checkpoint.data = Buffer.concat([checkpoint.data, Buffer.alloc(256)])
      checkpoint.header['model.multi_modal_projector.linear.bias'] = {
        dtype: 'F32',
        shape: [64],
        data_offsets: [at, at + 256]
      }
    })
    await refused(
      dir,
      'ERR_MODEL_INVALID',
      'twice: multi_modal_projector.linear.bias and model.multi_modal_projector.linear.bias'
    )
  })

  it('weights of a type that cannot be converted', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    edit(dir, ({ header }) => {
      header['multi_modal_projector.linear.bias']!.dtype = 'I32'
    })
    await refused(dir, 'ERR_MODEL_UNSUPPORTED', 'multi_modal_projector.linear.bias is I32')
  })

  it('truncated weights, naming the tensor and the byte', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    truncateSync(join(dir, 'model.safetensors'), 1_400_000)
    await refused(dir, 'ERR_MODEL_INVALID', 'ends at byte', 'truncated')
    truncateSync(join(dir, 'model.safetensors'), 4000)
    await refused(dir, 'ERR_MODEL_INVALID', 'states a header of 10312 bytes')
    truncateSync(join(dir, 'model.safetensors'), 3)
    await refused(dir, 'ERR_MODEL_INVALID', 'has 3 bytes')
  })

  it('a header that lies about sizes', async () => {
    const change = async (patch: (header: TestCheckpoint['header']) => void, part: string) => {
      const dir = copyCheckpoint(hf('pg1-tiny'))
      edit(dir, ({ header }) => patch(header))
      await refused(dir, 'ERR_MODEL_INVALID', part)
    }
    const bias = 'multi_modal_projector.linear.bias'
    await change((header) => {
      header[bias]!.shape = [65]
    }, 'needs 260')
    await change((header) => {
      header[bias]!.shape = [-64]
    }, 'has the shape [-64]')
    await change((header) => {
      header[bias]!.dtype = 'Q7'
    }, 'unknown type "Q7"')
    await change((header) => {
      header[bias]!.data_offsets = [0, 256]
    }, 'overlap')
    await change((header) => {
      header[bias]!.data_offsets = [256]
    }, 'data_offsets')
  })

  it('a git-lfs pointer', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    writeFileSync(join(dir, 'model.safetensors'), 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n')
    await refused(dir, 'ERR_MODEL_INVALID', 'git-lfs')
  })

  it('a missing or broken config.json', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    writeFileSync(join(dir, 'config.json'), '{"model_type": ')
    await refused(dir, 'ERR_MODEL_INVALID', 'config.json is not valid JSON')
    rmSync(join(dir, 'config.json'))
    await refused(dir, 'ERR_MODEL_NOT_FOUND', 'config.json does not exist')
  })

  it('config fields of a wrong type or range, by their path', async () => {
    const change = async (patch: (json: any) => void, code: string, part: string) => {
      const dir = copyCheckpoint(hf('pg2-tiny'))
      editJson(dir, 'config.json', patch)
      await refused(dir, code, part)
    }
    await change(
      (json) => {
        json.text_config.hidden_size = '96'
      },
      'ERR_MODEL_INVALID',
      'expected an integer >= 1 for text_config.hidden_size but found "96"'
    )
    await change(
      (json) => {
        json.text_config.num_key_value_heads = 3
      },
      'ERR_MODEL_INVALID',
      'a divisor of num_attention_heads (4)'
    )
    await change(
      (json) => {
        delete json.vision_config
      },
      'ERR_MODEL_INVALID',
      'vision_config'
    )
    await change(
      (json) => {
        json.vision_config.image_size = 71
      },
      'ERR_MODEL_INVALID',
      'a multiple of patch_size (14)'
    )
    await change(
      (json) => {
        json.model_type = 'llava'
      },
      'ERR_MODEL_UNSUPPORTED',
      'llava'
    )
    await change(
      (json) => {
        json.text_config.model_type = 'gemma3_text'
      },
      'ERR_MODEL_UNSUPPORTED',
      'gemma3_text'
    )
    await change(
      (json) => {
        json.text_config.hidden_activation = 'silu'
      },
      'ERR_MODEL_UNSUPPORTED',
      'silu'
    )
    await change(
      (json) => {
        json.text_config.rope_scaling = { factor: 2 }
      },
      'ERR_MODEL_UNSUPPORTED',
      'rope_scaling'
    )
    await change(
      (json) => {
        json.image_token_index = 2003
      },
      'ERR_MODEL_INVALID',
      'image_token_index is 2003'
    )
  })

  it('a directory without tokenizer.model, or with a damaged one', async () => {
    const dir = copyCheckpoint(hf('pg1-tiny'))
    const path = join(dir, 'tokenizer.model')
    const whole = readFileSync(path)
    writeFileSync(path, whole.subarray(0, 20_001))
    await refused(dir, 'ERR_MODEL_INVALID', 'tokenizer.model')
    writeFileSync(path, 'not a protobuf')
    await refused(dir, 'ERR_MODEL_INVALID', 'tokenizer.model')
    rmSync(path)
    rmSync(join(dir, 'tokenizer.json'))
    await refused(dir, 'ERR_MODEL_NOT_FOUND', 'tokenizer.model does not exist')
  })

  it('a tokenizer larger than the embedding', async () => {
    const dir = copyCheckpoint(hf('pg2-tiny-sharded'))
    writeFileSync(join(dir, 'tokenizer.model'), readFileSync(join(hf('pg2-tiny'), 'tokenizer.model')))
    await refused(dir, 'ERR_MODEL_INVALID')
  })

  it('a shard that is missing, or lacks what the index places in it', async () => {
    const dir = copyCheckpoint(hf('pg2-tiny-sharded'))
    editJson(dir, 'model.safetensors.index.json', (json) => {
      json.weight_map['language_model.model.extra.weight'] = 'model-00002-of-00003.safetensors'
    })
    await refused(dir, 'ERR_MODEL_INVALID', 'model-00002-of-00003.safetensors', 'language_model.model.extra.weight')
    editJson(dir, 'model.safetensors.index.json', (json) => {
      json.weight_map['language_model.model.extra.weight'] = '../other.safetensors'
    })
    await refused(dir, 'ERR_MODEL_INVALID', '../other.safetensors')
    editJson(dir, 'model.safetensors.index.json', (json) => {
      delete json.weight_map['language_model.model.extra.weight']
    })
    rmSync(join(dir, 'model-00002-of-00003.safetensors'))
    await refused(dir, 'ERR_MODEL_NOT_FOUND', 'model-00002-of-00003.safetensors does not exist')
  })

  it('what is no model directory, saying what to do', async () => {
    await refused(
      hf('pg1-tiny-lora'),
      'ERR_MODEL_UNSUPPORTED',
      'is a LoRA adapter, trained on ../pg1-tiny; convert the model that it was trained on'
    )
    await refused(
      join(hf('pg1-tiny'), 'config.json'),
      'ERR_MODEL_UNSUPPORTED',
      'neither a Hugging Face model directory'
    )
    await refused(join(tempDir(), 'nothing'), 'ERR_MODEL_NOT_FOUND')
    const dir = copyCheckpoint(hf('pg1-tiny'))
    rmSync(join(dir, 'model.safetensors'))
    await refused(dir, 'ERR_MODEL_NOT_FOUND', 'neither model.safetensors nor')
  })

  it('unknown types, listing the known ones', async () => {
    const attempt = (options: object) =>
      convert({ source: hf('pg1-tiny'), out: join(tempDir(), 'x.gguf'), ...options }, { verify: false })
    await expect(attempt({ type: 'q4_k_x' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('Q4_K_M')
    })
    await expect(attempt({ visionType: 'q4_k' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('visionType')
    })
    await expect(attempt({ out: '' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('for out')
    })
  })
})

describe.skipIf(!hasGolden)('convert leaves no file', () => {
  it("when it is aborted, and rejects with the signal's reason", async () => {
    const out = join(tempDir(), 'model.gguf')
    const controller = new AbortController()
    const reason = new Error('enough')
    const onProgress = () => {
      expect(readdirSync(join(out, '..'))).toEqual([expect.stringMatching(/^model\.gguf\.[0-9a-f]+\.part$/)])
      controller.abort(reason)
    }
    const promise = convert(
      { source: hf('pg1-tiny'), out, type: 'f32', onProgress, signal: controller.signal },
      { verify: false }
    )
    await expect(promise).rejects.toBe(reason)
    expect(readdirSync(join(out, '..'))).toEqual([])
  })

  it('when a row conversion fails, and keeps an older file of that name', async () => {
    const out = join(tempDir(), 'model.gguf')
    writeFileSync(out, 'older')
    const failing = async () => {
      throw new Error('no quantizer')
    }
    await expect(
      convert({ source: hf('pg1-tiny'), out, type: 'q8_0' }, { quantizeRows: failing, verify: false })
    ).rejects.toThrow('no quantizer')
    expect(readdirSync(join(out, '..'))).toEqual(['model.gguf'])
    expect(readFileSync(out, 'utf8')).toBe('older')
  })

  it('when the target folder does not exist', async () => {
    const dir = tempDir()
    await expect(
      convert({ source: hf('pg1-tiny'), out: join(dir, 'no', 'x.gguf'), type: 'f32' }, { verify: false })
    ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining('x.gguf') })
    mkdirSync(join(dir, 'no'))
    expect(readdirSync(join(dir, 'no'))).toEqual([])
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
