/** What a GGUF of the hub is, from its first bytes: its metadata says it, its name need not. */
import { PaliGemmaError } from '../base/errors'
import { Pieces } from '../base/pieces'
import type { HubClient } from './client'
import { fileUrl, type HubFile } from './repository'
import { request } from './request'
import { withRetries } from './retries'

export interface GgufHeader {
  kind: 'model' | 'vision' | 'adapter' | 'other'
  /** `general.architecture`, for messages. */
  architecture: string | undefined
  /** It has a vision tower (a model with one needs no second file). */
  hasVision: boolean
  /** `general.file_type`. */
  fileType: number | undefined
  /** Of an adapter: the address or name of its base. */
  base: string | undefined
}

type Scalar = string | number | boolean | bigint

// A vocabulary of 257,152 pieces with scores and types has some 8 MB.
const maxHeaderBytes = 64 << 20
const bytesOfType: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 }

/** Reads as much of the file as tells what it is; the rest is not downloaded. */
export async function readGgufHeader(
  client: HubClient,
  id: string,
  commit: string,
  file: HubFile
): Promise<GgufHeader | undefined> {
  if (file.bytes < 24) return undefined
  const subject = { id, revision: commit, file: file.path }
  const most = Math.min(file.bytes, maxHeaderBytes)
  return await withRetries(client, `${id}/${file.path}`, async () => {
    const { response, body, release } = await request(client, fileUrl(client, id, commit, file.path), subject, {
      range: `bytes=0-${most - 1}`
    })
    try {
      if (response.status !== 200 && response.status !== 206) return undefined
      let tried = 0
      const parts = new Pieces()
      for await (const part of body()) {
        parts.add(part)
        const { bytes } = parts
        // Often the first kilobytes tell; where they do not, each look takes twice as much as the one before.
        if (bytes < Math.max(4096, 2 * tried) && bytes < most) continue
        tried = bytes
        const header = parseGgufHeader(parts.joined(), bytes >= most)
        if (header !== 'more') return header
      }
      const header = parseGgufHeader(parts.joined(), true)
      return header === 'more' ? undefined : header
    } finally {
      release()
    }
  })
}

class Incomplete extends Error {}

/** 'more': the bytes end before it is clear; undefined: no GGUF. `whole`: there are no more bytes. */
export function parseGgufHeader(data: Buffer, whole: boolean): GgufHeader | 'more' | undefined {
  const reader = new Reader(data)
  const values = new Map<string, Scalar>()
  const names = { vision: false, text: false }
  let ended = false
  try {
    if (reader.bytes(4).toString('latin1') !== 'GGUF') return undefined
    const version = reader.number(4)
    if (version !== 2 && version !== 3) return undefined
    const [tensors, keys] = [reader.number(8), reader.number(8)]
    for (let i = 0; i < keys; i++) {
      const key = reader.text()
      const value = reader.value(reader.number(4))
      if (value !== undefined) values.set(key, value)
    }
    for (let i = 0; i < tensors; i++) {
      const name = reader.text()
      const dims = reader.number(4)
      if (dims > 8) return undefined
      reader.bytes(dims * 8 + 4 + 8)
      if (name.startsWith('v.')) names.vision = true
      if (name === 'token_embd.weight') names.text = true
    }
    ended = true
  } catch (error) {
    if (error instanceof PaliGemmaError) return undefined
    if (!(error instanceof Incomplete)) throw error
  }
  return judge(values, names, ended || whole)
}

const text = (value: Scalar | undefined): string | undefined => (typeof value === 'string' ? value : undefined)

/** Some values settle it before the tensors' names are there. */
function judge(
  values: ReadonlyMap<string, Scalar>,
  names: { vision: boolean; text: boolean },
  ended: boolean
): GgufHeader | 'more' | undefined {
  const architecture = text(values.get('general.architecture'))
  const type = text(values.get('general.type'))
  const fileType = values.get('general.file_type')
  const base = text(values.get('general.base_model.0.repo_url')) ?? text(values.get('general.base_model.0.name'))
  const header = (kind: GgufHeader['kind'], hasVision: boolean): GgufHeader => ({
    kind,
    architecture,
    hasVision,
    fileType: typeof fileType === 'number' ? fileType : undefined,
    base
  })
  if (type === 'adapter') return ended ? header('adapter', false) : 'more'
  if (type === 'mmproj' || architecture === 'clip') return header('vision', true)
  if (architecture !== undefined && !['gemma', 'gemma2', 'paligemma'].includes(architecture))
    return header('other', false)
  if (architecture === undefined) return ended ? header('other', false) : 'more'
  const hasVision = names.vision || values.get('clip.has_vision_encoder') === true
  return hasVision || ended ? header('model', hasVision) : 'more'
}

class Reader {
  private at = 0
  constructor(private readonly data: Buffer) {}

  bytes(count: number): Buffer {
    if (this.at + count > this.data.length) throw new Incomplete()
    this.at += count
    return this.data.subarray(this.at - count, this.at)
  }

  number(bytes: 4 | 8): number {
    if (bytes === 4) return this.bytes(4).readUInt32LE()
    const value = this.bytes(8).readBigUInt64LE()
    // Claims that no real file makes are answered like files that are no GGUF.
    if (value > 2n ** 40n) throw new PaliGemmaError('ERR_MODEL_INVALID', `a count of ${value}`)
    return Number(value)
  }

  text(): string {
    return this.bytes(this.number(8)).toString('utf8')
  }

  /** A scalar; undefined for arrays, which are passed over. */
  value(type: number): Scalar | undefined {
    if (type === 8) return this.text()
    if (type === 9) return this.skipArray()
    const width = bytesOfType[type]
    if (width === undefined) throw new PaliGemmaError('ERR_MODEL_INVALID', `a value of type ${type}`)
    const value = this.bytes(width)
    if (type === 7) return value[0] !== 0
    return type === 4 ? value.readUInt32LE() : type === 5 ? value.readInt32LE() : type === 0 ? value[0]! : 0n
  }

  private skipArray(): undefined {
    const [type, count] = [this.number(4), this.number(8)]
    if (type === 8) for (let i = 0; i < count; i++) this.bytes(this.number(8))
    else if (bytesOfType[type] === undefined) throw new PaliGemmaError('ERR_MODEL_INVALID', `an array of type ${type}`)
    else this.bytes(count * bytesOfType[type]!)
    return undefined
  }
}
