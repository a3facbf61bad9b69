/** LoRA adapters of a loaded model: reading them, and which of them a request uses. */
import { basename, resolve } from 'node:path'
import { matrixName } from '../convert/names'
import { replacedBy } from '../convert/merge'
import { readPeft } from '../convert/peft'
import { peftDirectory } from '../convert/peft-folder'
import { someOf } from '../convert/source'
import { PaliGemmaError } from '../base/errors'
import type { NativeAdapter, NativeAdapterInfo, NativeRequest, NativeTensorSource } from '../engine/native'
import { rule, show, type Rule } from '../base/validate'

/** An adapter to load, or a loaded one to use. */
export interface AdapterOption {
  /**
   * When loading: a PEFT directory (adapter_config.json, adapter_model.safetensors) or a GGUF adapter. In a request: a
   * loaded adapter, by the same path or by its {@link AdapterInfo.name}.
   */
  path: string
  /** Multiplies what the adapter adds: 1 (default when loading) as trained, 0 off. In a request, default: as loaded. */
  scale?: number
}

/** A loaded adapter. */
export interface AdapterInfo {
  /** Folder or file name without ".gguf". */
  name: string
  /** As given to `loadModel`. */
  path: string
  /** Of requests that choose no adapters. */
  scale: number
  /** The largest rank. */
  rank: number
  /** Matrices it changes. */
  targets: number
  parameters: number
}

const maxScale = 1e6

export const adaptersRule: Rule = {
  expected: 'array of paths or { path: string, scale?: number }',
  accepts: (v: unknown) =>
    Array.isArray(v) &&
    v.every(
      (item) =>
        rule.path.accepts(item) ||
        (typeof item === 'object' &&
          item !== null &&
          Object.keys(item).every((key) => key === 'path' || key === 'scale') &&
          rule.path.accepts((item as AdapterOption).path) &&
          ((item as AdapterOption).scale === undefined ||
            rule.number(-maxScale, maxScale).accepts((item as AdapterOption).scale)))
    )
}

const asOption = (item: string | AdapterOption): AdapterOption => (typeof item === 'string' ? { path: item } : item)

/** The adapters of `loadModel` as the addon takes them: PEFT's tensors are read here, GGUFs by the engine. */
export async function readAdapters(list: readonly (string | AdapterOption)[]): Promise<NativeAdapter[]> {
  const seen = new Set<string>()
  const adapters: NativeAdapter[] = []
  for (const { path, scale = 1 } of list.map(asOption)) {
    const full = resolve(path)
    if (seen.has(full))
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected each adapter once for adapters but received ${path} twice`
      )
    seen.add(full)
    const dir = await peftDirectory(path)
    adapters.push(
      dir === undefined ? { name: path, path, scale } : { name: path, tensors: await readTensors(dir), scale }
    )
  }
  return adapters
}

async function readTensors(dir: string): Promise<NativeTensorSource> {
  const adapter = await readPeft(dir)
  const replaced = replacedBy(adapter)
  if (replaced !== '') {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${dir} replaces whole tensors (${replaced}), which cannot be done while running; ` +
        `merge it: paligemma convert BASE --adapter ${dir} --out MERGED.gguf`
    )
  }
  const tensors: NativeTensorSource = {}
  for (const { target, a, b } of adapter.updates) {
    // unknown names go through: the engine lists everything that does not fit
    const name = matrixName(target) ?? target
    if (a) tensors[`${name}.lora_a`] = a
    if (b) tensors[`${name}.lora_b`] = b
  }
  return tensors
}

export function toAdapterInfo({ name, scale, rank, targets, parameters }: NativeAdapterInfo): AdapterInfo {
  return { name: basename(resolve(name)).replace(/\.gguf$/i, ''), path: name, scale, rank, targets, parameters }
}

/** Which loaded adapters a request names; undefined: all, as loaded. */
export function chooseAdapters(
  loaded: readonly AdapterInfo[],
  chosen: readonly (string | AdapterOption)[] | undefined
): NativeRequest['adapters'] {
  return chosen?.map(asOption).map(({ path, scale }) => {
    const byPath = loaded.findIndex((adapter) => adapter.path === path || resolve(adapter.path) === resolve(path))
    const named = loaded.filter((adapter) => adapter.name === path)
    if (byPath < 0 && named.length !== 1) {
      const known =
        loaded.length === 0
          ? 'none is loaded'
          : `loaded are ${someOf(loaded.map((adapter) => (named.length > 1 ? adapter.path : adapter.name)))}`
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected a loaded adapter for adapters but received ${show(path)}${named.length > 1 ? ', a name that several have' : ''}; ${known}`
      )
    }
    const index = byPath < 0 ? loaded.indexOf(named[0]!) : byPath
    return { index, scale: scale ?? loaded[index]!.scale }
  })
}
