/** From downloaded files to the model in the cache: converted, or a ready GGUF or an adapter moved to its place. */
import { mkdir, rename, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { sha256Of } from '../base/checksum'
import { PaliGemmaError } from '../base/errors'
import { isDiskFull } from '../base/output-file'
import { readStructure } from '../engine/structure'
import { convert, type ConvertResult } from '../convert'
import { replacedBy } from '../convert/adapters/merge'
import { readPeft } from '../convert/adapters/peft'
import type { CacheRecord } from './cache'
import type { Wanted } from './cached'
import type { PullHooks, PullOptions } from './pull-options'
import { isRevision, parseReference } from './reference'
import type { Choice } from './choose'

export interface Made {
  record: Pick<CacheRecord, 'model' | 'vision' | 'bytes' | 'extra' | 'adapter' | 'sha256'>
  notes: string[]
}

export interface MakeOptions {
  id: string
  /** The downloaded files. */
  dir: string
  /** Where the model goes. */
  target: string
  type: string
  wanted: Wanted
  options: PullOptions
  hooks: PullHooks
  signal: AbortSignal | undefined
}

export async function makeModel(choice: Choice, make: MakeOptions): Promise<Made> {
  try {
    if (choice.kind === 'gguf') return await takeReady(choice, make)
    return choice.kind === 'adapter' ? await takeAdapter(choice, make) : await converted(choice, make)
  } catch (error) {
    if (!isDiskFull(error)) throw error
    throw new PaliGemmaError(
      'ERR_DISK_FULL',
      `${make.target}: the disk is full; make room and run the same command, the download is kept`,
      { cause: error }
    )
  }
}

/** Where a file of the repository goes: folders become a part of the name, since two may hold the same one. */
const placeOf = (path: string): string => path.replaceAll('/', '-')

async function converted(
  { folder }: Choice & { kind: 'checkpoint' },
  { id, dir, target, type, wanted, options, hooks, signal }: MakeOptions
): Promise<Made> {
  const { maskHash, visionType } = wanted
  const details = [
    type,
    ...(visionType === undefined ? [] : [`vision-${visionType}`]),
    ...(maskHash === null ? [] : ['mask'])
  ]
  const name = `${[id.split('/')[1]!, ...(folder === '' ? [] : [placeOf(folder)]), ...details].join('-')}.gguf`
  const result: ConvertResult = await (hooks.convert ?? convert)({
    source: join(dir, folder),
    out: join(target, name),
    type,
    visionType,
    maskDecoder: options.maskDecoder,
    signal,
    onProgress: (fraction) => options.onProgress?.({ stage: 'convert', fraction, bytes: 0, totalBytes: 0 })
  })
  const sha256 = { [name]: await sha256Of(join(target, name), signal) }
  return { record: { model: name, vision: null, bytes: result.bytes, sha256 }, notes: result.notes }
}

async function takeReady(
  { model, vision, type }: Choice & { kind: 'gguf' },
  { id, dir, target, signal }: MakeOptions
): Promise<Made> {
  // A file that no GGUF reader takes must not become a model. One with a vision tower needs no second file.
  const { tensors } = await readStructure(join(dir, model[0]!.path), 0)
  const second = vision && !tensors.some(({ name }) => name.startsWith('v.')) ? vision : undefined
  if (second) await readStructure(join(dir, second.path), 0)
  const files = [...model, ...(second ? [second] : [])]
  const sha256: Record<string, string> = {}
  for (const { path, hash } of files) {
    const place = placeOf(path)
    await rename(join(dir, path), join(target, place))
    sha256[place] = hash.kind === 'sha256' ? hash.value : await sha256Of(join(target, place), signal)
  }
  const [first, ...others] = model.map(({ path }) => placeOf(path))
  return {
    record: {
      model: first!,
      vision: second ? placeOf(second.path) : null,
      ...(others.length > 0 && { extra: others }),
      bytes: files.reduce((sum, file) => sum + file.bytes, 0),
      sha256
    },
    notes: [`${id} has this model as ${type}: nothing had to be converted`]
  }
}

/** A PEFT folder as it is, or a GGUF adapter; what cannot be used is refused before it is in the cache. */
async function takeAdapter({ files, folder, base }: Choice & { kind: 'adapter' }, make: MakeOptions): Promise<Made> {
  const { dir, target } = make
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
  const [only] = files
  if (files.length === 1 && /\.gguf$/i.test(only!.path)) {
    const { path } = only!
    await readStructure(join(dir, path), 0)
    await rename(join(dir, path), join(target, placeOf(path)))
    return { record: { model: placeOf(path), vision: null, bytes, adapter: { base: hubBase(base) } }, notes: [] }
  }
  const adapter = await readPeft(join(dir, folder))
  const name = folder === '' ? 'adapter' : `adapter-${placeOf(folder)}`
  await mkdir(join(target, name), { recursive: true })
  const names = files.map(({ path }) => path.slice(folder === '' ? 0 : folder.length + 1))
  for (const file of names) await rename(join(dir, folder, file), join(target, name, file))
  const replaced = replacedBy(adapter)
  return {
    record: {
      model: name,
      vision: null,
      bytes,
      extra: names.map((file) => `${name}/${file}`),
      adapter: { base: hubBase(adapter.base, adapter.baseRevision) }
    },
    notes:
      replaced === ''
        ? []
        : [
            `the adapter replaces whole tensors (${replaced}), which cannot be done while running; ` +
              `merge it: paligemma convert BASE --adapter ${join(target, name)} --out MERGED.gguf`
          ]
  }
}

/** What an adapter says of its base, where that is a model of a hub and no folder of somebody's machine. */
function hubBase(base: string | undefined, revision?: string): string | null {
  const reference = base === undefined ? undefined : parseReference(base)
  if (!reference) return null
  const at = reference.revision ?? (revision !== undefined && isRevision(revision) ? revision : undefined)
  return at === undefined || at === 'main' ? reference.id : `${reference.id}@${at}`
}

export async function removeDownloads(dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true })
  // The commit's and the repository's folder, where they are empty now.
  for (const parent of [dirname(dir), dirname(dirname(dir))]) await rmdir(parent).catch(() => {})
}
