/** How many requests may be under way, and how long one more should wait. */
import { ApiError } from './errors'

const longestWait = 60

export class Admission {
  private running = 0
  /** Of recent requests, in ms. */
  private mean = 1000
  private idle: (() => void)[] = []

  constructor(private readonly most: number) {}

  get count(): number {
    return this.running
  }

  /** Takes a place; calling the result gives it back. @throws ApiError 429 */
  enter(): () => void {
    if (this.running >= this.most) throw this.refusal()
    this.running++
    const start = performance.now()
    let over = false
    return () => {
      if (over) return
      over = true
      this.mean += (performance.now() - start - this.mean) / 8
      if (--this.running === 0) for (const tell of this.idle.splice(0)) tell()
    }
  }

  private refusal(): ApiError {
    return new ApiError(
      429,
      'ERR_BUSY',
      `${this.running} requests are under way, as many as this server takes; try again later`,
      {
        headers: { 'retry-after': this.retryAfter() }
      }
    )
  }

  /** Seconds until there should be room: the time that a few take. */
  retryAfter(): string {
    return String(Math.min(Math.max(Math.ceil(this.mean / 1000), 1), longestWait))
  }

  /** Resolves when nothing runs, or after `timeoutMs`; false: something still does. */
  async drained(timeoutMs: number): Promise<boolean> {
    if (this.running === 0) return true
    return await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), timeoutMs)
      this.idle.push(() => {
        clearTimeout(timer)
        resolve(true)
      })
    })
  }
}
