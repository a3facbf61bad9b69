/** The `adapters` option of loading and of requests. */
import { toPath } from '../../base/paths'
import { resolve } from 'node:path'
import { rule, takeList, type Rule } from '../../base/validate'

/** An adapter to load, or a loaded one to use. */
export interface AdapterOption {
  /**
   * When loading: a PEFT directory (adapter_config.json, adapter_model.safetensors) or a GGUF adapter. In a request: a
   * loaded adapter, by the same path or by its `name` in the model's info.
   */
  path: string
  /** Multiplies what the adapter adds: 1 (default when loading) as trained, 0 off. In a request, default: as loaded. */
  scale?: number | undefined
}

const maxScale = 1e6
const scaleRule = rule.number(-maxScale, maxScale)

/** An adapter as the rule below leaves it. */
export interface TakenAdapter extends AdapterOption {
  /** `path` as a file: relative ones begin where the process was when the call was made. */
  file: string
}

export const adaptersRule: Rule = {
  expected: 'array of paths or { path: string, scale?: number }',
  take: (list, folder) => {
    const copy = takeList(list, 1024)
    return Array.isArray(copy) ? copy.map((item) => takeAdapter(item, folder)) : copy
  },
  accepts: (v) => Array.isArray(v) && v.every((item) => item !== undefined)
}

/** undefined for what is none. */
function takeAdapter(item: unknown, folder: string): TakenAdapter | undefined {
  const { path, scale, ...others } = typeof item === 'string' ? { path: item } : { ...(item as AdapterOption) }
  if (!rule.path.accepts(path) || Object.keys(others).length > 0) return undefined
  if (scale !== undefined && !scaleRule.accepts(scale)) return undefined
  return { path, ...(scale !== undefined && { scale }), file: resolve(folder, toPath(path)) }
}
