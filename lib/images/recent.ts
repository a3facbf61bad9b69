/** Pictures that a model was given lately, as it takes them: a second question about one need not decode it again. */
import { webcrypto } from 'node:crypto'
import { types } from 'node:util'
import type { ImageTransform } from './transform'

/** 100 pictures of 224 pixels, or six of 896. */
const defaultLimit = 16 * 1024 * 1024

interface Prepared {
  data: Uint8Array
  transform: ImageTransform
}

interface Kept<T> {
  /** Of the encoded bytes. */
  length: number
  picture: T
}

/** One picture's way: is it known, and if not, what became of it. */
export interface Looking<T> {
  for: (encoded: Buffer) => Promise<T | undefined>
  keep: (picture: T) => void
}

/** Known by what stands in a file or buffer, never by its name: both change under their names. */
export class RecentPictures<T extends Prepared> {
  private readonly kept = new Map<string, Kept<T>>() // by key, the one used last at the end
  private bytes = 0

  constructor(private readonly limit = defaultLimit) {}

  /** `borrowed`: the caller's memory, to which it may write while the picture is decoded. */
  looking(borrowed: boolean): Looking<T> {
    let encoded: Buffer | undefined
    let before: Promise<string | undefined> | undefined
    return {
      for: async (bytes) => {
        encoded = bytes
        before = keyOf(bytes)
        // a key takes milliseconds of another thread: only who may be known waits for it
        return this.mayHave(bytes.length) ? this.find(await before) : undefined
      },
      keep: (picture) => {
        if (encoded) void this.keep(encoded, picture, before, borrowed)
      }
    }
  }

  private mayHave(length: number): boolean {
    for (const one of this.kept.values()) if (one.length === length) return true
    return false
  }

  private find(key: string | undefined): T | undefined {
    const found = key === undefined ? undefined : this.kept.get(key)
    if (!found) return undefined
    this.kept.delete(key!)
    this.kept.set(key!, found)
    return withOwnTransform(found.picture)
  }

  private async keep(
    encoded: Buffer,
    picture: T,
    before: Promise<string | undefined> | undefined,
    borrowed: boolean
  ): Promise<void> {
    const key = await before
    if (key === undefined || this.kept.has(key)) return
    // what was written meanwhile would give later pictures the wrong pixels
    if (borrowed && ((await keyOf(encoded)) !== key || this.kept.has(key))) return
    this.kept.set(key, { length: encoded.length, picture: withOwnTransform(picture) })
    this.bytes += picture.data.length
    for (const [oldest, { picture }] of this.kept) {
      if (this.bytes <= this.limit) break
      this.kept.delete(oldest)
      this.bytes -= picture.data.length
    }
  }
}

/** SHA-256, in the thread pool; undefined for memory of several threads, or that is gone. */
async function keyOf(encoded: Buffer): Promise<string | undefined> {
  if (!types.isArrayBuffer(encoded.buffer)) return undefined
  try {
    return Buffer.from(await webcrypto.subtle.digest('SHA-256', encoded)).toString('base64')
  } catch {
    return undefined
  }
}

/** Results hand the transform on; what their owners do with it is theirs. */
function withOwnTransform<T extends Prepared>(picture: T): T {
  return { ...picture, transform: { ...picture.transform } }
}
