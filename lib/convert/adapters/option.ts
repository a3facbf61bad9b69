/** The `adapters` option of loading and of requests. */
import { absolute, isAddress, toPath } from '../../base/paths'
import { isRecord, isUrl } from '../../base/realms'
import { rule, takeList, type Rule } from '../../base/validate'
import { TrainedAdapter } from './trained'

/** An adapter to load, or a loaded one to use. */
export interface AdapterOption {
  /**
   * When loading: a PEFT directory (adapter_config.json, adapter_model.safetensors) or a GGUF adapter. In a request: a
   * loaded adapter, by the same path or by its `name` in the model's info. Or what `fit` returned, loaded or not.
   */
  path: string | URL | TrainedAdapter
  /** Multiplies what the adapter adds: 1 (default when loading) as trained, 0 off. In a request, default: as loaded. */
  scale?: number | undefined
}

export type AdapterList = readonly (string | URL | TrainedAdapter | AdapterOption)[]

const maxScale = 1e6
const scaleRule = rule.number(-maxScale, maxScale)

/** An adapter as the rule below leaves it. */
export interface TakenAdapter {
  /** As given. */
  path: string
  /** `path` as a file: relative ones begin where the process was when the call was made. '' for a trained one. */
  file: string
  /** Instead of a file. */
  trained?: TrainedAdapter
  scale?: number
}

export const adaptersRule: Rule = {
  expected: 'array of paths or { path: string, scale?: number }, or of adapters that fit returned,',
  take: (list, folder) => {
    const copy = takeList(list, 1024)
    return Array.isArray(copy) ? copy.map((item) => takeAdapter(item, folder)) : copy
  },
  accepts: (v) => Array.isArray(v) && v.every((item) => item !== undefined)
}

/** undefined for what is none. */
function takeAdapter(item: unknown, folder: string): TakenAdapter | undefined {
  const alone = typeof item === 'string' || isUrl(item) || item instanceof TrainedAdapter
  const given: Record<string, unknown> = alone ? { path: item } : isRecord(item) ? item : {}
  const { path: named, scale, ...others } = given
  if (Object.keys(others).length > 0 || (scale !== undefined && !scaleRule.accepts(scale))) return undefined
  const scaled = scale === undefined ? {} : { scale: scale as number }
  if (named instanceof TrainedAdapter) return { path: 'a trained adapter', file: '', trained: named, ...scaled }
  const path = isUrl(named) ? named.href : named
  if (!rule.path.accepts(path)) return undefined
  const text = path as string
  const file = isAddress(text) && !/^file:/i.test(text) ? text : absolute(folder, toPath(text)) // a page of the hub
  return { path: text, file, ...scaled }
}
