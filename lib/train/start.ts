/** What training starts from: an adapter's files with their scale kept apart. */
import { join } from 'node:path'
import { readPeftSettings } from '../convert/adapters/peft'
import { peftDirectory, peftWeights } from '../convert/adapters/peft-folder'
import { peftTensor } from '../convert/adapters/peft-names'
import { type LoraSettings, loraScale, moduleMatrix, TrainedAdapter } from '../convert/adapters/trained'
import { PaliGemmaError } from '../base/errors'
import { readJson } from '../formats/fields'
import { Safetensors } from '../formats/safetensors'
import type { FloatTensor } from '../formats/safetensors-writer'
import { someOf, toFloat32 } from '../formats/source'

export interface Start {
  settings: LoraSettings
  /** "<module>.lora_A" and "<module>.lora_B". */
  tensors: ReadonlyMap<string, FloatTensor>
  /** Of its adapter_config.json. */
  config?: Readonly<Record<string, unknown>>
}

/**
 * The adapter as it was saved. Every module must have the same rank and scale.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED
 */
export async function readStart(from: string | TrainedAdapter): Promise<Start> {
  if (from instanceof TrainedAdapter) {
    const { rank, alpha, rslora, tensors } = from
    return { settings: { rank, alpha, rslora }, tensors }
  }
  const dir = await peftDirectory(from)
  if (dir === undefined)
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${from} is no PEFT folder; training starts from one (or from an adapter that fit returned), not from a GGUF`
    )
  const fields = await readJson(join(dir, 'adapter_config.json'))
  const settings = await readPeftSettings(dir)
  const tensors = await readTensors(dir)
  const first = [...tensors.entries()].find(([name]) => name.endsWith('.lora_A'))
  const rank = first?.[1].shape[0] ?? 0
  const own: LoraSettings = {
    rank,
    alpha: fields.number('lora_alpha', 8),
    rslora: fields.boolean('use_rslora', false)
  }
  for (const [name, { shape }] of tensors) {
    const moduleRank = name.endsWith('A') ? shape[0]! : shape[1]!
    if (moduleRank !== rank || settings.scaleOf(name.slice(0, -7), rank) !== loraScale(own))
      throw new PaliGemmaError(
        'ERR_MODEL_UNSUPPORTED',
        `${dir}: ${name} has another rank or scale (rank_pattern, alpha_pattern) than the others; adapters that ` +
          'training starts from have the same for all modules'
      )
  }
  return { settings: own, tensors, config: fields.values }
}

async function readTensors(dir: string): Promise<Map<string, FloatTensor>> {
  const source = await Safetensors.openFiles([await peftWeights(dir)])
  const tensors = new Map<string, FloatTensor>()
  const others: string[] = []
  try {
    for (const tensor of source.tensors) {
      const what = peftTensor(tensor.name)
      if (what.kind === 'nothing') continue
      const known = what.kind === 'half' && moduleMatrix(what.module) !== undefined
      if (!known || !['F32', 'F16', 'BF16'].includes(tensor.type) || tensor.shape.length !== 2) {
        others.push(tensor.name)
        continue
      }
      const bytes = Buffer.alloc(tensor.bytes)
      await tensor.read(0, bytes)
      const name = `${what.module}.lora_${what.side === 'a' ? 'A' : 'B'}`
      tensors.set(name, { shape: tensor.shape, data: toFloat32(bytes, tensor.type) })
    }
  } finally {
    await source.close()
  }
  if (others.length > 0)
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${dir}: training cannot go on with ${someOf(others)}; ` +
        "only lora_A and lora_B of PaliGemma's linear layers are trained"
    )
  if (tensors.size === 0) throw new PaliGemmaError('ERR_MODEL_INVALID', `${dir}: the adapter holds no tensors`)
  return tensors
}
