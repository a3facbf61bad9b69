/** Long work on the event loop, in slices. */
const sliceMs = 3

/** `if (turns.due) await turns.next()`, often: what else waits in the process has its turn every few milliseconds. */
export class Turns {
  #since = performance.now()

  get due(): boolean {
    return performance.now() - this.#since > sliceMs
  }

  /** Rejects with the reason of a signal that has aborted. */
  async next(signal?: AbortSignal): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    signal?.throwIfAborted()
    this.#since = performance.now()
  }
}
