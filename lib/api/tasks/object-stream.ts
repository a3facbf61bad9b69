/** Objects as the model writes them: each is told as soon as nothing that follows can change it. */
import type { PreparedImage } from '../request/host'
import type { Streaming } from '../request/job'
import { readObjects, type Found, type Geometry } from '../options/objects'
import type { Chunk, GeneratedToken, GenerateResult } from '../options/results'

// Four locations, codes, a name (or none), and what cannot belong to the name any more.
const complete = /^(?:<loc[0-9]{4}>){4}\s*(?:<seg[0-9]{3}>)*\s*(?:[^;<>\s][^;<>\r\n]*[;<>\r\n]|[;>]|<(?!seg))/

interface ObjectLimits {
  maxObjects?: number | undefined
  minScore?: number | undefined
}

export class ObjectStream<T> {
  private text = ''
  private readonly tokens: GeneratedToken[] = []
  private geometry: Geometry | undefined
  private read = 0
  private readonly kept: T[] = []

  /** `make`: the object as callers see it. `tell`: called with each in turn; undefined: nobody waits for them. */
  constructor(
    private readonly names: string[],
    private readonly limits: ObjectLimits,
    private readonly geometryOf: (images: PreparedImage[]) => Geometry,
    private readonly make: (found: Found, geometry: Geometry) => T,
    private readonly tell?: (object: T) => void
  ) {}

  /** What a generation is given. */
  get streaming(): Streaming {
    return { prepared: this.prepared, emit: this.add }
  }

  private readonly prepared = (images: PreparedImage[]): void => {
    this.geometry = this.geometryOf(images)
  }

  private readonly add = ({ text, token }: Chunk): void => {
    // without their tokens objects have no scores: they wait for the result
    if (!this.tell || !token) return
    this.text += text
    this.tokens.push(token)
    if (/[;<>\r\n]/.test(text)) this.take({ text: this.text, tokens: this.tokens }, complete)
  }

  /** All objects, those that were told among them. */
  finish(result: GenerateResult): T[] {
    this.take(result, undefined)
    return this.kept
  }

  private take(output: Pick<GenerateResult, 'text' | 'tokens'>, wanted: RegExp | undefined): void {
    const geometry = this.geometry!
    const { maxObjects = Infinity, minScore = 0 } = this.limits
    for (const found of readObjects(output, geometry, this.names).slice(this.read)) {
      if (wanted && !wanted.test(output.text.slice(found.object.span[0]))) return
      if (this.read++ >= maxObjects || found.score < minScore) continue
      const object = this.make(found, geometry)
      this.kept.push(object)
      this.tell?.(object)
    }
  }
}
