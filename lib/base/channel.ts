/** What comes from one side, waited for on the other, in order. */
export class Channel<T> {
  private readonly items: T[] = []
  private waiting: { resolve: (item: T | undefined) => void; reject: (error: unknown) => void } | undefined
  private end: { error?: unknown } | undefined

  put(item: T): void {
    if (!this.waiting) this.items.push(item)
    else {
      this.waiting.resolve(item)
      this.waiting = undefined
    }
  }

  /** No more come; with an error, which the other side gets once it has taken what came before. */
  close(end: { error?: unknown } = {}): void {
    if (this.end) return
    this.end = end
    if ('error' in end) this.waiting?.reject(end.error)
    else this.waiting?.resolve(undefined)
    this.waiting = undefined
  }

  /** undefined: no more come. For one reader. */
  async next(): Promise<T | undefined> {
    if (this.items.length > 0) return this.items.shift()
    if (this.end && 'error' in this.end) throw this.end.error
    if (this.end) return undefined
    return await new Promise((resolve, reject) => {
      this.waiting = { resolve, reject }
    })
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Exclude<T, undefined>, void, undefined> {
    for (let item = await this.next(); item !== undefined; item = await this.next()) yield item as Exclude<T, undefined>
  }
}
