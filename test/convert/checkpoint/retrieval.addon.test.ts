/**
 * Every form in which ColPali checkpoints are published gives the reference's vectors: golden/hf/colpali-tiny's tensors
 * under other names, or as a base and a LoRA adapter that make them up again.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { convert } from '../../../lib/convert'
import { loadModel, type LoadOptions, type MultiVector, type RetrievalFlavour } from '../../../lib/index'
import {
  copyCheckpoint,
  readSafetensors as readRaw,
  removeTempDirs,
  tempDir,
  writeSafetensors
} from '../../support/convert-helpers'
import { golden, hasGolden } from '../../support/golden'
import { type FloatTensor, readSafetensors } from '../../support/safetensors'

const folder = golden('hf', 'colpali-tiny')
const rank = 4
const alpha = 8 // scale 2

afterAll(removeTempDirs)

function worstDifference(ours: MultiVector, { shape, data }: FloatTensor): number {
  expect([ours.tokens, ours.dims]).toEqual(shape)
  return ours.data.reduce((worst, x, i) => Math.max(worst, Math.abs(x - data[i]!)), 0)
}

/** The model, with its own default prompts, gives the reference's page and query. */
async function expectReference(load: LoadOptions, flavour: RetrievalFlavour): Promise<void> {
  const model = await loadModel({ kvCacheType: 'f32', threads: 2, ...load })
  try {
    expect(model.info).toMatchObject({ hasRetrieval: true, retrievalFlavour: flavour })
    const expected = readSafetensors(join(folder, 'expected.safetensors'))
    const { sets } = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as {
      sets: { flavour: string; queries: { query: string }[] }[]
    }
    const key = flavour.replace('-', '_')
    const { query } = sets.find((set) => set.flavour === key)!.queries[0]!
    expect(
      worstDifference(await model.embedImage(join(folder, 'images', 'a.png')), expected.get(`${key}.doc.a.png`)!)
    ).toBeLessThanOrEqual(1e-4)
    expect(worstDifference(await model.embedText(query), expected.get(`${key}.query.0`)!)).toBeLessThanOrEqual(1e-4)
  } finally {
    await model.dispose()
  }
}

/** The checkpoint with other tensor names and settings. */
function renamed(
  name: (name: string) => string | undefined,
  config: (config: Record<string, unknown>) => Record<string, unknown> = (c) => c
): string {
  const dir = copyCheckpoint(folder)
  const { header, data } = readRaw(join(folder, 'model.safetensors'))
  const entries = Object.entries(header).flatMap(([key, entry]) => {
    const to = key === '__metadata__' ? key : name(key)
    return to === undefined ? [] : [[to, entry] as const]
  })
  writeSafetensors(join(dir, 'model.safetensors'), { header: Object.fromEntries(entries), data })
  writeFileSync(
    join(dir, 'config.json'),
    JSON.stringify(config(JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as Record<string, unknown>))
  )
  return dir
}

/** transformers' configuration of its port. */
const portConfig = (config: Record<string, unknown>): Record<string, unknown> => ({
  architectures: ['ColPaliForRetrieval'],
  model_type: 'colpali',
  embedding_dim: 128,
  vlm_config: { ...config, architectures: undefined },
  text_config: config['text_config']
})
const head = (name: string): string => name.replace('custom_text_proj', 'embedding_proj_layer')

const gguf = async (source: string, adapters?: string[]): Promise<string> => {
  const out = join(tempDir(), 'model.gguf')
  await convert({ source, out, type: 'f32', adapters })
  return out
}

describe.skipIf(!hasGolden)('ColPali checkpoints', () => {
  it("under colpali-engine's names", async () => {
    await expectReference({ model: await gguf(folder) }, 'colpali-engine')
  })

  it("under the names of transformers' port", async () => {
    const dir = renamed((name) => head(name.replace(/^model\./, 'vlm.')), portConfig)
    expect(Object.keys(readRaw(join(dir, 'model.safetensors')).header)).toEqual(
      expect.arrayContaining(['vlm.language_model.model.norm.weight', 'embedding_proj_layer.bias'])
    )
    await expectReference({ model: await gguf(dir) }, 'transformers')
  })

  it('under the names that newer versions of the port save, with the tied head beside', async () => {
    const dir = renamed(
      (name) =>
        head(
          name
            .replace(/^model\.language_model\.model\./, 'vlm.model.language_model.')
            .replace(/^model\.(vision_tower|multi_modal_projector)\./, 'vlm.model.$1.')
        ),
      portConfig
    )
    const file = join(dir, 'model.safetensors')
    const { header, data } = readRaw(file)
    const {
      data_offsets: [begin, end],
      ...embedding
    } = header['vlm.model.language_model.embed_tokens.weight']!
    const tied = { ...embedding, data_offsets: [data.length, data.length + end! - begin!] }
    writeSafetensors(file, {
      header: { ...header, 'vlm.lm_head.weight': tied },
      data: Buffer.concat([data, data.subarray(begin, end)])
    })
    await expectReference({ model: await gguf(dir) }, 'transformers')
  })

  it("with either flavour's prompts on request", async () => {
    const model = await loadModel({ model: await gguf(folder), kvCacheType: 'f32' })
    const expected = readSafetensors(join(folder, 'expected.safetensors'))
    expect(
      worstDifference(
        await model.embedImage(join(folder, 'images', 'a.png'), { flavour: 'transformers' }),
        expected.get('transformers.doc.a.png')!
      )
    ).toBeLessThanOrEqual(1e-4)
    await model.dispose()
  })
})

// What ColPali's published adapters change: the text model's matrices and the head, not SigLIP.
const targets =
  /^(?:model\.language_model\.model\.layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.\w+_proj)|custom_text_proj)\.weight$/

/** The golden checkpoint taken apart: a base that lacks an update of low rank, and the adapter that adds it. */
function takenApart(edit: { targets?: RegExp; head?: 'in base' | 'in adapter' } = {}): {
  base: string
  adapter: string
} {
  let state = 7
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state / 2 ** 31 - 1) * 0.1
  }
  const adapter = join(tempDir(), 'colpali-lora')
  mkdirSync(adapter)
  const wholeHead = edit.head === 'in adapter'
  const base = wholeHead
    ? renamed((name) => (name.startsWith('custom_text_proj') ? undefined : name))
    : copyCheckpoint(folder)
  const file = join(base, 'model.safetensors')
  const { header, data } = readRaw(file)
  const weights = Buffer.from(data)
  const update: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }> = {}
  const parts: Buffer[] = []
  let bytes = 0
  const add = (name: string, shape: number[], values: Float32Array): void => {
    update[`base_model.model.${name}`] = { dtype: 'F32', shape, data_offsets: [bytes, (bytes += values.byteLength)] }
    parts.push(Buffer.from(values.buffer, values.byteOffset, values.byteLength))
  }
  for (const [name, entry] of Object.entries(header)) {
    if (!(edit.targets ?? targets).test(name)) continue
    const [out, width] = entry.shape as [number, number]
    const [a, b] = [Float32Array.from({ length: rank * width }, next), Float32Array.from({ length: out * rank }, next)]
    for (let o = 0; o < out; o++) {
      for (let i = 0; i < width; i++) {
        let sum = 0
        for (let r = 0; r < rank; r++) sum += b[o * rank + r]! * a[r * width + i]!
        const at = entry.data_offsets[0]! + (o * width + i) * 4
        weights.writeFloatLE(weights.readFloatLE(at) - (sum * alpha) / rank, at)
      }
    }
    const module = name.replace(/\.weight$/, '')
    add(`${module}.lora_A.weight`, [rank, width], a)
    add(`${module}.lora_B.weight`, [out, rank], b)
  }
  writeSafetensors(file, { header, data: weights })
  if (wholeHead) {
    const whole = readSafetensors(join(folder, 'model.safetensors'))
    for (const name of ['custom_text_proj.weight', 'custom_text_proj.bias'])
      add(name, whole.get(name)!.shape, whole.get(name)!.data)
  }
  writeSafetensors(join(adapter, 'adapter_model.safetensors'), { header: update, data: Buffer.concat(parts) })
  writeFileSync(
    join(adapter, 'adapter_config.json'),
    JSON.stringify({
      base_model_name_or_path: 'vidore/colpaligemma-3b-pt-448-base',
      peft_type: 'LORA',
      r: rank,
      lora_alpha: alpha,
      task_type: 'FEATURE_EXTRACTION',
      target_modules:
        '(.*(language_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)'
    })
  )
  return { base, adapter }
}

describe.skipIf(!hasGolden)('a ColPali LoRA', () => {
  it('merged into its base while that is converted', async () => {
    const { base, adapter } = takenApart()
    await expectReference({ model: await gguf(base, [adapter]) }, 'colpali-engine')
  })

  it('beside the weights of its converted base', async () => {
    const { base, adapter } = takenApart()
    const model = await gguf(base)
    await expect(expectReference({ model }, 'colpali-engine')).rejects.toThrow() // the base alone is something else
    await expectReference({ model, adapters: [adapter] }, 'colpali-engine')
  })

  it('with the whole head, on a PaliGemma that has none', async () => {
    const { base, adapter } = takenApart({
      head: 'in adapter',
      targets: /^model\.language_model\.model\.layers\.\d+\.self_attn\.[qv]_proj\.weight$/
    })
    await expectReference({ model: await gguf(base, [adapter]) }, 'colpali-engine')
    const plain = await gguf(base)
    await expect(loadModel({ model: plain, adapters: [adapter] })).rejects.toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/retrieval\.weight.*paligemma convert/)
    })
  })

  it('says which base it needs where the head is missing', async () => {
    const { adapter } = takenApart()
    const { base: headless } = takenApart({ head: 'in adapter', targets: /^$/ })
    await expect(gguf(headless, [adapter])).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringMatching(
        /has no retrieval head.*trained on, vidore\/colpaligemma-3b-pt-448-base, with this adapter/
      )
    })
    await expect(gguf(adapter)).rejects.toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/is a LoRA adapter, trained on vidore\/colpaligemma-3b-pt-448-base/)
    })
  })
})
