/**
 * Pictures in tar files, also compressed ones and ones behind URLs. As WebDataset lays them out, files with one name up
 * to its first dot belong together: `0001.json` holds options for `0001.jpg`.
 */
import { createReadStream } from 'node:fs'
import { pipeline, type Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { PaliGemmaError } from '../../base/errors'
import { collect, maxEncodedBytes, tooLarge } from '../../images/body'
import { openUrl } from '../../images/remote'
import { isPictureName } from '../images'
import type { Entry } from './rows'
import type { Extract } from './vendored'

const shardName = /\.(?:tar|tgz|tar\.gz)(?:[?#].*)?$/i
const isUrl = (name: string): boolean => /^https?:/i.test(name)

export function isShard(name: string): boolean {
  return shardName.test(isUrl(name) ? name : name.replace(/[?#]/g, ' '))
}

// Of one name up to the first dot; more are no sample but files that are named so.
const mostOfSample = 16
const mostJson = 16 << 20 // bytes

/** @throws PaliGemmaError ERR_IMAGE_INVALID where the shard cannot be read to its end */
export async function* shardEntries(
  shard: string,
  keys: readonly string[],
  signal: AbortSignal
): AsyncGenerator<Entry, void, undefined> {
  const { extract } = await import('./vendored.js')
  const source = await openShard(shard, signal)
  const files = pipeline(source, extract(), () => {}) // errors come out of the loop
  const stop = (): void => void files.destroy()
  signal.addEventListener('abort', stop, { once: true })
  try {
    yield* entriesOf(files, shard, keys, signal)
  } catch (cause) {
    signal.throwIfAborted()
    if (cause instanceof PaliGemmaError) throw cause
    throw new PaliGemmaError('ERR_IMAGE_INVALID', `${shard}: the shard cannot be read: ${(cause as Error).message}`, {
      cause
    })
  } finally {
    signal.removeEventListener('abort', stop)
    source.destroy()
  }
}

async function* entriesOf(
  files: Extract,
  shard: string,
  keys: readonly string[],
  signal: AbortSignal
): AsyncGenerator<Entry, void, undefined> {
  let sample = new Sample('', keys)
  for await (const file of files) {
    const { name, type, size = 0 } = file.header
    const place = `${shard}/${name}`
    const isPicture = isPictureName(name)
    if (type !== 'file' || (!isPicture && !/\.json$/i.test(name))) {
      file.resume()
      continue
    }
    if (sampleKey(name) !== sample.key || sample.size >= mostOfSample) {
      yield* sample.entries()
      sample = new Sample(sampleKey(name), keys)
    }
    if (size <= (isPicture ? maxEncodedBytes : mostJson)) sample.add(place, await collect(file, place, { signal }))
    else {
      file.resume()
      if (isPicture) yield { image: place, error: tooLarge(place, size) }
    }
  }
  yield* sample.entries()
}

async function openShard(shard: string, signal: AbortSignal): Promise<Readable> {
  const source: Readable = isUrl(shard) ? await openUrl(shard, { signal }) : createReadStream(shard)
  if (!/gz(?:[?#].*)?$/i.test(shard)) return source
  const plain = createGunzip()
  source.on('error', (error) => plain.destroy(error))
  return source.pipe(plain)
}

/** Up to the first dot of the file's own name. */
function sampleKey(name: string): string {
  const start = name.lastIndexOf('/') + 1
  const dot = name.indexOf('.', start)
  return dot < 0 ? name : name.slice(0, dot)
}

class Sample {
  readonly #pictures: { image: string; picture: Buffer }[] = []
  #given: Record<string, unknown> | undefined

  constructor(
    readonly key: string,
    private readonly keys: readonly string[]
  ) {}

  get size(): number {
    return this.#pictures.length
  }

  add(name: string, bytes: Buffer): void {
    if (isPictureName(name)) this.#pictures.push({ image: name, picture: bytes })
    else this.#given = chosen(bytes, this.keys)
  }

  *entries(): Generator<Entry, void, undefined> {
    for (const entry of this.#pictures) yield { ...entry, ...(this.#given && { given: this.#given }) }
  }
}

/** Of a sample's JSON, which may hold anything, what is an option of the task. */
function chosen(bytes: Buffer, keys: readonly string[]): Record<string, unknown> | undefined {
  try {
    const all = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>
    const own = Object.entries(all).filter(([key]) => keys.includes(key))
    return own.length > 0 ? Object.fromEntries(own) : undefined
  } catch {
    return undefined
  }
}
