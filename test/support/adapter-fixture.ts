/** The tiny PaliGemma 1 and its LoRA adapter, in every form, with what the reference says of them. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect } from 'vitest'
import { convert } from '../../lib/convert'
import { loadModel, type LoadOptions, type PaliGemma } from '../../lib/index'
import { readSafetensors as readRaw, removeTempDirs, tempDir, writeSafetensors } from './convert-helpers'
import { golden, hasGoldens } from './golden'
import { readSafetensors, type FloatTensor } from './safetensors'
import { ggufBytes, type GgufValue } from './tiny-model'

export interface Case {
  name: string
  kind: 'generate' | 'score'
  images: string[]
  prompt: string
  greedy: { tokens: number[]; logprobs: number[] }
  suffix: string
  logprobs: number[]
}

export const tolerance = { vision: 1e-3, logits: 2e-3 }
export const present = hasGoldens('hf/pg1-tiny', 'hf/pg1-tiny-lora')
export const base = golden('hf', 'pg1-tiny')
export const lora = golden('hf', 'pg1-tiny-lora')
export const image = (file: string) => join(lora, 'images', file)

export const models: PaliGemma[] = []
export let file = ''
export let cases: Case[] = []

export const load = async (options: Partial<LoadOptions> = {}): Promise<PaliGemma> => {
  const model = await loadModel({ model: file, kvCacheType: 'f32', threads: 2, ...options })
  models.push(model)
  return model
}

/** The base model as a GGUF, for the tests of a file; loaded models are disposed after them. */
export function useAdapters(): void {
  beforeAll(async () => {
    if (!present) return
    cases = (JSON.parse(readFileSync(join(lora, 'expected.json'), 'utf8')) as { cases: Case[] }).cases
    file = join(tempDir(), 'base.gguf')
    await convert({ source: base, out: file, type: 'f32' })
  })
  afterAll(async () => {
    for (const model of models) await model.dispose()
    removeTempDirs()
  })
}

export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length)
  let worst = 0
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!))
  return worst
}

export const generate = async (model: PaliGemma, c: Case, adapters?: LoadOptions['adapters'], maxTokens = 24) =>
  await model.generate({
    images: c.images.map(image),
    prompt: c.prompt,
    maxTokens,
    ignoreEos: true,
    logProbs: 5,
    ...(adapters && { adapters })
  })

export async function expectReference(model: PaliGemma): Promise<void> {
  for (const c of cases) {
    if (c.kind === 'generate') {
      const { tokens } = await generate(model, c)
      expect(
        tokens.map((t) => t.id),
        c.name
      ).toEqual(c.greedy.tokens)
      expect(
        maxDifference(
          tokens.map((t) => t.logProb!),
          c.greedy.logprobs
        ),
        c.name
      ).toBeLessThanOrEqual(tolerance.logits)
    } else {
      const { logProbs } = await model.score({ images: c.images.map(image), prompt: c.prompt, suffix: c.suffix })
      expect(maxDifference(logProbs, c.logprobs), c.name).toBeLessThanOrEqual(tolerance.logits)
    }
  }
  const expected = readSafetensors(join(lora, 'expected.safetensors'))
  for (const name of ['a.png', 'b.png', 'c.png']) {
    const { data } = await model.encodeImage(image(name))
    expect(maxDifference(data, expected.get(`image.${name}.projector_output`)!.data), name).toBeLessThanOrEqual(
      tolerance.vision
    )
  }
}

/** The adapter with other tensor names, values or settings. */
export function editedAdapter(edit: {
  name?: (name: string) => string
  config?: Record<string, unknown>
  values?: (values: Float32Array, name: string) => void
}): string {
  const dir = join(tempDir(), 'adapter')
  mkdirSync(dir)
  const config = JSON.parse(readFileSync(join(lora, 'adapter_config.json'), 'utf8')) as object
  writeFileSync(join(dir, 'adapter_config.json'), JSON.stringify({ ...config, ...edit.config }))
  const { header, data } = readRaw(join(lora, 'adapter_model.safetensors'))
  const copy = Buffer.from(data)
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue
    const [begin, end] = entry.data_offsets as [number, number]
    const values = new Float32Array(Uint8Array.from(copy.subarray(begin, end)).buffer)
    edit.values?.(values, name)
    Buffer.from(values.buffer).copy(copy, begin)
  }
  writeSafetensors(join(dir, 'adapter_model.safetensors'), {
    header: Object.fromEntries(
      Object.entries(header).map(([name, entry]) => [
        name === '__metadata__' ? name : (edit.name?.(name) ?? name),
        entry
      ])
    ),
    data: copy
  })
  return dir
}

/** The adapter with an update of a SigLIP feed-forward, which block types store wider than it is. */
export function wideAdapter(): string {
  const dir = editedAdapter({
    config: { rank_pattern: { 'layers.2.mlp.fc1': 2 } },
    name: (name) =>
      name.replace(
        /(vision_tower.*layers\.2\.self_attn)\.q_proj/,
        (_, path: string) => `${path.replace('self_attn', 'mlp')}.fc1`
      )
  })
  const { header, data } = readRaw(join(dir, 'adapter_model.safetensors'))
  const name = Object.keys(header).find((key) => key.includes('fc1.lora_B'))!
  header[name] = { ...header[name]!, shape: [96, 2] }
  const half = header[name.replace('lora_B', 'lora_A')]!
  half.shape = [2, 48]
  half.data_offsets[1] = half.data_offsets[0]! + 384
  writeSafetensors(join(dir, 'adapter_model.safetensors'), { header, data })
  return dir
}

/** The adapter with whole tensors besides its updates. */
export function wholeAdapter(tensors: Record<string, Float32Array>): string {
  const dir = join(tempDir(), 'whole')
  cpSync(lora, dir, { recursive: true })
  const { header, data } = readRaw(join(lora, 'adapter_model.safetensors'))
  let end = data.length
  for (const [name, { length }] of Object.entries(tensors)) {
    header[`base_model.model.${name}`] = { dtype: 'F32', shape: [length], data_offsets: [end, (end += 4 * length)] }
  }
  const added = Object.values(tensors).map((values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength))
  writeSafetensors(join(dir, 'adapter_model.safetensors'), { header, data: Buffer.concat([data, ...added]) })
  return dir
}

/** The adapter as a GGUF in llama.cpp's layout. */
export function ggufAdapter(
  options: {
    metadata?: Record<string, GgufValue | undefined>
    keep?: (name: string) => boolean
    tensors?: (tensors: Map<string, FloatTensor>) => void
  } = {}
): string {
  const names: [RegExp, string][] = [
    [/language_model\.model\.layers\.(\d+)/, 'blk.$1'],
    [/vision_tower\.vision_model\.encoder\.layers\.(\d+)/, 'v.blk.$1'],
    [/self_attn\.([qkv])_proj/, 'attn_$1'],
    [/self_attn\.o_proj/, 'attn_output'],
    [/mlp\.(\w+)_proj/, 'ffn_$1'],
    [/base_model\.model\./, '']
  ]
  const tensors = new Map<string, FloatTensor>()
  for (const [name, tensor] of readSafetensors(join(lora, 'adapter_model.safetensors'))) {
    const gguf = names
      .reduce((text, [from, to]) => text.replace(from, to), name)
      .replace(/\.lora_([AB])\.weight$/, (_, half: string) => `.weight.lora_${half.toLowerCase()}`)
    if (options.keep?.(gguf) ?? true) tensors.set(gguf, tensor)
  }
  options.tensors?.(tensors)
  const path = join(tempDir(), 'adapter.gguf')
  const metadata: Record<string, GgufValue | undefined> = {
    'general.type': { type: 'string', value: 'adapter' },
    'general.architecture': { type: 'string', value: 'gemma' },
    'adapter.type': { type: 'string', value: 'lora' },
    'adapter.lora.alpha': { type: 'float32', value: 8 },
    ...options.metadata
  }
  const given = Object.fromEntries(Object.entries(metadata).filter(([, value]) => value !== undefined)) as Record<
    string,
    GgufValue
  >
  writeFileSync(
    path,
    ggufBytes(
      given,
      [...tensors].map(([name, tensor]) => ({ name, ...tensor }))
    )
  )
  return path
}
