/** LoRA adapters of a loaded model: reading them, and which of them a request uses. */
import { basename, resolve } from 'node:path'
import { matrixName } from '../../convert/checkpoint/names'
import { replacedBy } from '../../convert/adapters/merge'
import { readPeft } from '../../convert/adapters/peft'
import { peftDirectory } from '../../convert/adapters/peft-folder'
import { someOf } from '../../formats/source'
import { PaliGemmaError } from '../../base/errors'
import { resolveAdapter } from '../../hub/resolve'
import type {
  NativeAdapter,
  NativeAddedToken,
  NativeAdapterInfo,
  NativeRequest,
  NativeTensorSource
} from '../../engine/native'
import { show } from '../../base/validate'
import { agreed, type AddedTokens, readAddedTokens } from '../../convert/checkpoint/added-tokens'
import type { TakenAdapter } from '../../convert/adapters/option'
import type { TrainedAdapter } from '../../convert/adapters/trained'

/** A loaded adapter. */
export interface AdapterInfo {
  /** Folder or file name without ".gguf". */
  name: string
  /** As given to `loadModel`; "a trained adapter" for what `fit` returned. */
  path: string
  /** Of requests that choose no adapters. */
  scale: number
  /** The largest rank. */
  rank: number
  /** Matrices it changes. */
  targets: number
  /** Values in its matrices. */
  parameters: number
}

/** The adapters of `loadModel` as the addon takes them: PEFT's tensors are read here, GGUFs by the engine. */
export async function readAdapters(
  list: readonly TakenAdapter[]
): Promise<{ adapters: NativeAdapter[]; tokens: NativeAddedToken[] }> {
  const seen = new Set<string>()
  const adapters: NativeAdapter[] = []
  const folders: string[] = []
  for (const { path, scale = 1, file, trained } of list) {
    if (trained) {
      adapters.push({ name: path, tensors: trained.engineTensors(), scale })
      continue
    }
    if (seen.has(file))
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected each adapter once for adapters but received ${path} twice`
      )
    seen.add(file)
    const source = await resolveAdapter(path, file)
    const dir = await peftDirectory(source)
    adapters.push(
      dir === undefined ? { name: path, path: source, scale } : { name: path, tensors: await readTensors(dir), scale }
    )
    if (dir !== undefined) folders.push(dir)
  }
  return { adapters, tokens: await namedTokens(folders) }
}

/** The tokens that were added for adapters: the base's vocabulary has entries for them, under other names. */
export async function namedTokens(folders: readonly string[]): Promise<NativeAddedToken[]> {
  const added: AddedTokens[] = []
  for (const dir of folders) added.push(await readAddedTokens(dir))
  const unnumbered = new Map(added.flatMap((one) => one.unnumbered).map(({ text, from }) => [text, from]))
  return [
    ...agreed(added.flatMap(({ tokens }) => tokens)),
    ...[...unnumbered].map(([text, from]) => ({ id: -1, text, special: true, flags: 0, from }))
  ]
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

/**
 * Which loaded adapters a request names; undefined: all, as loaded. `files`: those of `loaded`, in its order.
 * `trained`: where the engine has adapters that were trained.
 */
export function chooseAdapters(
  loaded: readonly AdapterInfo[],
  files: readonly string[],
  chosen: readonly TakenAdapter[] | undefined,
  trained: ReadonlyMap<TrainedAdapter, number>
): NativeRequest['adapters'] {
  return chosen?.map(({ path, file, trained: adapter, scale }) => {
    const byPath = loaded.findIndex((one, i) => one.path === path || files[i] === file)
    const index = adapter ? trained.get(adapter)! : byPath < 0 ? indexByName(loaded, path) : byPath
    // one that was not loaded has no other
    return { index, scale: scale ?? loaded[index]?.scale ?? 1 }
  })
}

function indexByName(loaded: readonly AdapterInfo[], name: string): number {
  const named = loaded.filter((adapter) => adapter.name === name)
  if (named.length === 1) return loaded.indexOf(named[0]!)
  const known = loaded.map((adapter) => (named.length > 1 ? adapter.path : adapter.name))
  throw new PaliGemmaError(
    'ERR_INVALID_OPTION',
    'Expected a loaded adapter for adapters but received ' +
      `${show(name)}${named.length > 1 ? ', a name that several have' : ''}; ` +
      (known.length === 0 ? 'none is loaded' : `loaded are ${someOf(known)}`)
  )
}
