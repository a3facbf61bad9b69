/** PEFT LoRA directories: adapter_config.json and adapter_model.safetensors as low-rank updates of named matrices. */
import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { type Fields, readJson } from './fields'
import { canonicalName } from './names'
import { Safetensors } from '../formats/safetensors'
import { someOf, type SourceTensor, toFloat32 } from './source'

/** weight += b a; `b` is multiplied by alpha / rank (rslora: alpha / sqrt(rank)) already. */
export interface LowRankUpdate {
  /** The weight it changes, as {@link canonicalName} spells it; where it is no known one, as the adapter does. */
  target: string
  /** [rank, in], [out, rank]; missing where the file has only the other half. */
  a?: { shape: number[]; data: Float32Array }
  b?: { shape: number[]; data: Float32Array }
}

export interface PeftAdapter {
  dir: string
  /** What it says it was trained on: a hub name or a path. */
  base?: string
  updates: LowRankUpdate[]
  /** Whole tensors that replace the base's (`modules_to_save`, trained biases), by canonical name. */
  replaced: Map<string, { shape: number[]; data: Float32Array }>
}

/** The directory of a PEFT adapter given by itself or by one of its files; undefined where `path` is something else. */
export async function peftDirectory(path: string): Promise<string | undefined> {
  const info = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${path} cannot be read: ${cause.message}`, { cause })
  })
  if (info.isDirectory()) return path
  return /\.(?:safetensors|json)$/.test(path) ? dirname(path) : undefined
}

/**
 * Reads a PEFT directory whole.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED (other methods than LoRA)
 */
export async function readPeft(dir: string): Promise<PeftAdapter> {
  const config = await readJson(join(dir, 'adapter_config.json'))
  if (config.string('peft_type', 'LORA') !== 'LORA')
    config.unsupported('peft_type', 'but only LORA adapters can be used')
  if (config.boolean('use_dora', false))
    config.unsupported('use_dora', 'but DoRA is not a sum; merge it with PEFT and convert the merged model')
  const source = await Safetensors.openFiles([join(dir, 'adapter_model.safetensors')])
  try {
    return await collect(dir, config, source)
  } finally {
    await source.close()
  }
}

async function collect(dir: string, config: Fields, source: Safetensors): Promise<PeftAdapter> {
  const updates = new Map<string, LowRankUpdate & { module: string }>()
  const replaced: PeftAdapter['replaced'] = new Map()
  const unsupported: string[] = []
  const twice: string[] = []
  const scaleOf = scales(config)
  for (const tensor of source.tensors) {
    if (!['F32', 'F16', 'BF16'].includes(tensor.type)) {
      unsupported.push(`${tensor.name} (${tensor.type})`)
      continue
    }
    const name = tensor.name.replace(/^base_model\.model\./, '')
    // saved state dicts leave the adapter's own name ("default") out, in-memory ones have it
    const half = /^(.+)\.lora_([AB])(?:\.[\w-]+)?\.weight$/.exec(name)
    if (half) {
      const [, module, which] = half as unknown as [string, string, 'A' | 'B']
      const target = canonicalName(`${module}.weight`) ?? `${module}.weight`
      const update = updates.get(target) ?? { target, module }
      updates.set(target, update)
      const side = which === 'A' ? 'a' : 'b'
      if (update[side]) twice.push(tensor.name)
      update[side] = await readMatrix(tensor)
    } else if (/(?:^|\.)lora_/.test(name)) {
      unsupported.push(tensor.name)
    } else {
      const whole = canonicalName(
        name.replace(/\.modules_to_save(?:\.[\w-]+)?(?=\.(?:weight|bias)$)/, '').replace(/\.base_layer(?=\.)/, '')
      )
      if (whole === undefined) continue
      if (replaced.has(whole)) twice.push(tensor.name)
      replaced.set(whole, { shape: tensor.shape, data: await readAll(tensor) })
    }
  }
  if (twice.length > 0)
    throw new PaliGemmaError('ERR_MODEL_INVALID', `${dir} holds the same matrix twice: ${someOf(twice)}`)
  if (unsupported.length > 0) {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${dir}: ${someOf(unsupported)}; only F32, F16 and BF16 lora_A and lora_B of linear layers can be used`
    )
  }
  if (updates.size === 0 && replaced.size === 0)
    throw new PaliGemmaError('ERR_MODEL_INVALID', `${dir}: the adapter holds no tensors`)
  for (const { module, a, b } of updates.values()) {
    const rank = a?.shape[0]
    if (!b || !rank) continue
    const scale = scaleOf(module, rank)
    for (let i = 0; i < b.data.length; i++) b.data[i]! *= scale
  }
  const base = config.string('base_model_name_or_path', '')
  return {
    dir,
    ...(base !== '' && { base }),
    updates: [...updates.values()].map(({ module: _, ...update }) => update),
    replaced
  }
}

/** alpha / rank per module; the rank is that of the tensors, which rank_pattern describes. */
function scales(config: Fields): (module: string, rank: number) => number {
  const alpha = config.number('lora_alpha', 8)
  const rslora = config.boolean('use_rslora', false)
  const patterns = Object.keys(config.object('alpha_pattern', true).values).map((key) => {
    try {
      // as PEFT matches: the whole module path, or its end after a dot
      return { pattern: new RegExp(`^(?:.*\\.)?(?:${key})$`), alpha: config.object('alpha_pattern').number(key) }
    } catch (cause) {
      if (cause instanceof PaliGemmaError) throw cause
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${config.file}: alpha_pattern: ${JSON.stringify(key)} is no regular expression`,
        { cause }
      )
    }
  })
  return (module, rank) => {
    const own = patterns.find(({ pattern }) => pattern.test(module))?.alpha ?? alpha
    return own / (rslora ? Math.sqrt(rank) : rank)
  }
}

async function readAll(tensor: SourceTensor): Promise<Float32Array> {
  const bytes = Buffer.alloc(tensor.bytes)
  await tensor.read(0, bytes)
  return toFloat32(bytes, tensor.type)
}

/** Convolutions are matrices over flattened patches: [rank, 3, p, p] and [out, rank, 1, 1]. */
async function readMatrix(tensor: SourceTensor): Promise<{ shape: number[]; data: Float32Array }> {
  const [rows = 0, ...rest] = tensor.shape
  return { shape: [rows, rest.reduce((product, n) => product * n, 1)], data: await readAll(tensor) }
}
