/** All files of a model to the disk: which first, how many at a time, and whether there is room. */
import { readFile, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { anySignal } from '../base/signals'
import { isBlockType, parseFileType, storage } from '../formats/types'
import type { HubClient } from './client'
import { downloadFile, presentBytes, takeFromHubCache } from './download'
import type { PullOptions } from './pull-options'
import type { HubFile } from './repository'

// More connections do not make a download faster on most lines; with one, small pauses add up.
const parallelDownloads = 3

export interface TransferOptions {
  id: string
  commit: string
  files: readonly HubFile[]
  dir: string
  /** The cache of Hugging Face's Python library. */
  hubCacheDir: string
  onProgress: PullOptions['onProgress']
  /** The configs are here; throws where the rest is not worth downloading. */
  check?: (() => Promise<void>) | undefined
  /** So is the index of the shards. */
  checkIndex?: (() => Promise<void>) | undefined
  /** Type of the model that is made of the files, which takes room too; undefined: they are the model. */
  convertTo: string | undefined
  freeBytes?: ((path: string) => Promise<number | undefined>) | undefined
}

/** config.json first: it tells whether the model can be used, and how large the converted one will be. */
export async function transfer(client: HubClient, options: TransferOptions): Promise<void> {
  const { id, commit, files, dir, onProgress } = options
  const totalBytes = files.reduce((sum, file) => sum + file.bytes, 0)
  const there = new Map<HubFile, number>()
  const report = (file: HubFile, bytes: number): void => {
    there.set(file, bytes)
    const sum = [...there.values()].reduce((a, b) => a + b, 0)
    onProgress?.({ stage: 'download', fraction: totalBytes === 0 ? 1 : sum / totalBytes, bytes: sum, totalBytes })
  }
  const fetchFile = async (one: HubClient, file: HubFile): Promise<void> => {
    const target = { id, commit, file, path: join(dir, file.path), onBytes: (bytes: number) => report(file, bytes) }
    if (
      (await presentBytes(target.path, file)) < file.bytes &&
      (await takeFromHubCache(options.hubCacheDir, target, one.signal))
    )
      return report(file, file.bytes)
    await downloadFile(one, target)
  }
  const stage = async (name: Stage): Promise<void> => {
    const those = files.filter((file) => stageOf(file) === name)
    if (name === 'weights') await checkSpace(those, options)
    await together(client, those, fetchFile)
  }
  await stage('config')
  await options.check?.()
  await stage('vocabulary')
  await options.checkIndex?.()
  await stage('weights')
}

type Stage = 'config' | 'vocabulary' | 'weights'
function stageOf({ path }: HubFile): Stage {
  if (/\.(safetensors|gguf)$/i.test(path)) return 'weights'
  return /(?:^|\/)(?!tokenizer)\w*config\.json$/.test(path) ? 'config' : 'vocabulary'
}

/** A few files at a time; the first failure ends the others. */
async function together(
  outer: HubClient,
  files: readonly HubFile[],
  fetchFile: (client: HubClient, file: HubFile) => Promise<void>
): Promise<void> {
  const failed = new AbortController()
  const both = anySignal([outer.signal, failed.signal])
  const client = { ...outer, signal: both.signal }
  const queue = [...files]
  const errors: unknown[] = []
  try {
    await Promise.all(
      Array.from({ length: parallelDownloads }, async () => {
        for (let file = queue.shift(); file !== undefined && errors.length === 0; file = queue.shift()) {
          await fetchFile(client, file).catch((error: unknown) => {
            errors.push(error)
            failed.abort(error)
          })
        }
      })
    )
  } finally {
    both.release()
  }
  outer.signal?.throwIfAborted()
  if (errors.length > 0) throw errors[0]
}

async function checkSpace(files: readonly HubFile[], options: TransferOptions): Promise<void> {
  const { id, dir, convertTo } = options
  const free = await (options.freeBytes ?? freeBytes)(dir)
  if (free === undefined) return
  let missing = 0
  for (const file of files) missing += file.bytes - (await presentBytes(join(dir, file.path), file))
  const weights = files.reduce((sum, file) => sum + file.bytes, 0)
  const converted = convertTo === undefined ? 0 : (weights / (await weightBytes(dir))) * bytesPerWeight(convertTo)
  if (missing + converted <= free) return
  throw new PaliGemmaError(
    'ERR_DISK_FULL',
    `${dir}: pulling ${id} needs ${gigabytes(missing)} for the download` +
      `${converted > 0 ? ` and about ${gigabytes(converted)} for the model` : ''}, but only ${gigabytes(free)} are ` +
      'free; make room, or set PALIGEMMA_CACHE to a folder on another disk'
  )
}

async function freeBytes(path: string): Promise<number | undefined> {
  return await statfs(path).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => undefined
  )
}

const gigabytes = (bytes: number): string =>
  bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`

/**
 * Bytes of a weight in the download: what config.json says; float16 where it says nothing, for which most room is
 * needed.
 */
async function weightBytes(dir: string): Promise<number> {
  const config = await readFile(join(dir, 'config.json'), 'utf8')
    .then((text) => JSON.parse(text) as Record<string, unknown>)
    .catch(() => ({}) as Record<string, unknown>)
  const text = config['text_config'] as Record<string, unknown> | undefined
  return [config['torch_dtype'], config['dtype'], text?.['torch_dtype'], text?.['dtype']].find(
    (value) => typeof value === 'string'
  ) === 'float32'
    ? 4
    : 2
}

/** Of the converted model as a whole: its embedding has 6 bits and its vision tower 8 where the rest has fewer. */
function bytesPerWeight(type: string): number {
  const { base } = parseFileType(type)
  const bytes = storage[base].bytes / storage[base].block
  return isBlockType(base) ? Math.max(bytes, 0.35 + 0.7 * bytes) : bytes
}
