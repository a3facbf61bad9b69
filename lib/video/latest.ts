/** The newest of what comes: who takes it never waits in a queue, and never gets what is old. */
import { untilAborted } from '../base/signals'

export class Latest<T> {
  private newest: { item: T } | undefined
  private end: { error?: unknown } | undefined
  private wake: (() => void) | undefined
  /** Items that nobody took. */
  dropped = 0

  put(item: T): void {
    if (this.newest) this.dropped++
    this.newest = { item }
    this.wake?.()
  }

  /** No more come; with an error, which `next` throws once what came before is taken. */
  close(end: { error?: unknown } = {}): void {
    this.end ??= end
    this.wake?.()
  }

  /** undefined: no more come. Rejects with the signal's reason. */
  async next(signal: AbortSignal): Promise<T | undefined> {
    for (;;) {
      signal.throwIfAborted()
      if (this.newest) {
        const { item } = this.newest
        this.newest = undefined
        return item
      }
      if (this.end) {
        if ('error' in this.end) throw this.end.error
        return undefined
      }
      await untilAborted(
        new Promise<void>((resolve) => {
          this.wake = resolve
        }),
        signal
      )
    }
  }
}
