/** Pictures of examples, prepared while the engine computes the one before. */
import { isAnyArrayBuffer, isUint8Array, isUrl } from '../../base/realms'
import { untilAborted } from '../../base/signals'
import { isEmbedding, type ImageInput } from '../../images/image-input'
import type { TakenExample } from '../../train/examples'
import type { NativeImage } from '../../engine/native'
import type { ModelHost } from '../request/host'

export interface ReadyExample {
  example: TakenExample
  images: NativeImage[]
}

export class Pictures {
  /** Of examples whose pictures can be read only once, such as streams. */
  private readonly once = new Map<TakenExample, NativeImage[]>()

  constructor(
    private readonly host: ModelHost,
    private readonly signal: AbortSignal
  ) {}

  /** The examples in order, each with its pictures; one is prepared ahead. */
  async *ahead(examples: Iterable<TakenExample>): AsyncGenerator<ReadyExample, undefined, undefined> {
    let next: Promise<ReadyExample> | undefined
    for (const example of examples) {
      const ready = this.prepare(example)
      ready.catch(() => {}) // its turn may never come
      if (next) yield await next
      next = ready
    }
    if (next) yield await next
  }

  private async prepare(example: TakenExample): Promise<ReadyExample> {
    const kept = this.once.get(example)
    if (kept) return { example, images: kept }
    const prepared = await untilAborted(this.host.prepareImages({ images: example.images }, this.signal), this.signal)
    const images = prepared.map(({ native }) => native)
    if (example.images.some((image) => !canReadAgain(image))) this.once.set(example, images)
    return { example, images }
  }
}

function canReadAgain(image: unknown): boolean {
  if (typeof image === 'string' || isUrl(image) || isUint8Array(image) || isAnyArrayBuffer(image)) return true
  return isEmbedding(image as ImageInput) || typeof (image as { width?: unknown }).width === 'number'
}
