/** What is refused, by name, and that no file is left behind. */
import { mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { convert } from '../../../lib/convert'
import { hasGolden } from '../../support/golden'
import {
  copyCheckpoint,
  edit,
  editJson,
  removeTempDirs,
  tempDir,
  type TestCheckpoint
} from '../../support/convert-helpers'
import { hf, quantizeRows } from '../../support/convert-run'

afterEach(removeTempDirs)

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
