/** Which pictures are held out: the same for the same seed, whatever the order of rows. */
import { createHash } from 'node:crypto'

/** Rows about one picture stay together: a model that has seen it would be judged on what it knows. */
export class Split {
  private readonly pictures = new Map<string, number>()

  constructor(private readonly seed: number) {}

  /** `key`: of the row's pictures. Returns their number, from 0. */
  add(key: string): number {
    const number = this.pictures.get(key) ?? this.pictures.size
    this.pictures.set(key, number)
    return number
  }

  get count(): number {
    return this.pictures.size
  }

  /** The numbers of those that are held out: the share of all, but neither none nor all of them. */
  heldOut(share: number): Set<number> {
    const many = Math.min(Math.max(Math.round(share * this.count), 1), this.count - 1)
    const ranked = [...this.pictures].map(([key, number]) => ({ number, rank: this.rank(key) }))
    ranked.sort((a, b) => (a.rank < b.rank ? -1 : 1))
    return new Set(ranked.slice(0, Math.max(many, 0)).map(({ number }) => number))
  }

  private rank(key: string): string {
    return createHash('sha256').update(`${this.seed}\0${key}`).digest('hex')
  }
}
