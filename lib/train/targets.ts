/** Which matrices an adapter changes: the names that people give, as modules of Hugging Face's model. */
import type { NativeModelInfo } from '../engine/native'
import { wrongOption } from '../base/validate'

const textParts: Record<string, string> = {
  q_proj: 'self_attn',
  k_proj: 'self_attn',
  v_proj: 'self_attn',
  o_proj: 'self_attn',
  gate_proj: 'mlp',
  up_proj: 'mlp',
  down_proj: 'mlp'
}
const visionParts: Record<string, string> = {
  q_proj: 'self_attn',
  k_proj: 'self_attn',
  v_proj: 'self_attn',
  out_proj: 'self_attn',
  fc1: 'mlp',
  fc2: 'mlp'
}

/** Where nothing is said: all linear layers of the text model. */
export const defaultTargets = ['text']

const modules = (stem: string, layers: number, parts: Record<string, string>, name: string): string[] =>
  Array.from({ length: layers }, (_, layer) => `${stem}.${layer}.${parts[name]}.${name}`)

/** What every name that may be given stands for. */
function table(info: NativeModelInfo): Map<string, string[]> {
  const names = new Map<string, string[]>()
  const add = (name: string, list: string[]): unknown => names.set(name, [...(names.get(name) ?? []), ...list])
  for (const name of Object.keys(textParts)) {
    const list = modules('model.language_model.layers', info.textLayers, textParts, name)
    for (const alias of [name, `text.${name}`, 'text', 'all']) add(alias, list)
  }
  if (!info.hasVision) return names
  for (const name of Object.keys(visionParts)) {
    const list = modules('model.vision_tower.vision_model.encoder.layers', info.visionLayers, visionParts, name)
    for (const alias of [`vision.${name}`, 'vision', 'all']) add(alias, list)
    if (!Object.hasOwn(textParts, name)) add(name, list)
  }
  for (const alias of ['projector', 'all']) add(alias, ['model.multi_modal_projector.linear'])
  return names
}

/**
 * The modules that `targets` name: "text" (all linear layers of the text model), one kind of them ("q_proj"), "vision",
 * one kind of the tower's ("vision.q_proj", "fc1"), "projector", "all", or a module's whole path.
 */
export function targetModules(targets: readonly string[], info: NativeModelInfo): string[] {
  const names = table(info)
  const single = new Set([...names.values()].flat())
  const found = new Set<string>()
  for (const target of targets) {
    const list = names.get(target) ?? (single.has(target) ? [target] : undefined)
    if (!list) throw wrongOption('targets', `names among ${[...names.keys()].join(', ')}, or paths of modules`, target)
    for (const module of list) found.add(module)
  }
  return [...found]
}
