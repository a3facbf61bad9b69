/** From downloaded files to the model in the cache: converted, or a ready GGUF moved to its place. */
import { rename, rm, rmdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { inspectModel } from '../api/inspect'
import { PaliGemmaError } from '../base/errors'
import { isDiskFull } from '../base/output-file'
import { convert, type ConvertResult } from '../convert'
import type { CacheRecord } from './cache'
import type { Wanted } from './cached'
import type { PullHooks, PullOptions } from './pull-options'
import type { Choice } from './repository'

export interface Made {
  record: Pick<CacheRecord, 'model' | 'vision' | 'bytes'>
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
    return choice.kind === 'gguf' ? await takeReady(choice, make) : await converted(make)
  } catch (error) {
    if (!isDiskFull(error)) throw error
    throw new PaliGemmaError(
      'ERR_DISK_FULL',
      `${make.target}: the disk is full; make room and run the same command, the download is kept`,
      { cause: error }
    )
  }
}

async function converted({ id, dir, target, type, wanted, options, hooks, signal }: MakeOptions): Promise<Made> {
  const { maskHash, visionType } = wanted
  const details = [
    type,
    ...(visionType === undefined ? [] : [`vision-${visionType}`]),
    ...(maskHash === null ? [] : ['mask'])
  ]
  const name = `${id.split('/')[1]!}-${details.join('-')}.gguf`
  const result: ConvertResult = await (hooks.convert ?? convert)({
    source: dir,
    out: join(target, name),
    type,
    visionType,
    maskDecoder: options.maskDecoder,
    signal,
    onProgress: (fraction) => options.onProgress?.({ stage: 'convert', fraction, bytes: 0, totalBytes: 0 })
  })
  return { record: { model: name, vision: null, bytes: result.bytes }, notes: result.notes }
}

async function takeReady(
  { model, vision, type }: Choice & { kind: 'gguf' },
  { id, dir, target }: MakeOptions
): Promise<Made> {
  // A file that no GGUF reader takes must not become a model. One with a vision tower needs no second file.
  const { tensors } = await inspectModel(join(dir, model.path), { maxArray: 0 })
  const files = [model, ...(vision && !tensors.some(({ name }) => name.startsWith('v.')) ? [vision] : [])]
  if (files.length > 1) await inspectModel(join(dir, vision!.path), { maxArray: 0 })
  for (const file of files) await rename(join(dir, file.path), join(target, basename(file.path)))
  return {
    record: {
      model: basename(model.path),
      vision: files.length < 2 ? null : basename(vision!.path),
      bytes: files.reduce((sum, file) => sum + file.bytes, 0)
    },
    notes: [`${id} has this model as ${type}: nothing had to be converted`]
  }
}

export async function removeDownloads(dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true })
  // The commit's and the repository's folder, where they are empty now.
  for (const parent of [dirname(dir), dirname(dirname(dir))]) await rmdir(parent).catch(() => {})
}
