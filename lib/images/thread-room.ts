/**
 * Room for sharp's threads. libvips crashes, hangs or leaves half a picture where the system refuses it a thread in the
 * middle of its work (a pids limit, TasksMax, ulimit -u or -v), so nothing begins before all its threads can be had.
 */
import { anyNative } from '../engine/native'

/** As libvips names its own, which wait some seconds for more work. */
const idleName = 'libvips worker'

/** What one picture takes at most: libvips' workers for reading, for writing, and two that write behind. */
export const threadsPerPicture = (concurrency: number): number => 2 * concurrency + 3

const mostAsked = 64

/** As many run at once as libuv has threads for them; fewer where each has many threads of its own. */
function mostAtOnce(each: number): number {
  const pool = Number(process.env['UV_THREADPOOL_SIZE']) || 4
  return Math.max(Math.min(pool, Math.floor(mostAsked / each)), 1)
}

/**
 * Asks the system whenever no picture is in work, for as many as may be in work together; asking meanwhile could take
 * the very threads that those in work are about to start.
 */
export class ThreadRoom {
  private running = 0
  private places = 0
  private asking: Promise<void> | undefined
  private readonly waiting: (() => void)[] = []

  /** `room`: how many of so many threads there are. */
  constructor(private readonly room: (want: number) => Promise<number>) {}

  /** Runs `work` once it has room. Rejects where not even one picture's threads can be had. */
  async run<T>(concurrency: number, work: () => Promise<T>): Promise<T> {
    await this.enter(threadsPerPicture(concurrency))
    try {
      return await work()
    } finally {
      this.running--
      this.wakeOne()
    }
  }

  private async enter(each: number): Promise<void> {
    for (;;) {
      if (this.running === 0) await (this.asking ??= this.ask(each))
      if (this.running < this.places) break
      if (this.running === 0) {
        this.wakeOne()
        throw new Error(`a thread was refused, one of the ${each} that a picture needs at a time`)
      }
      await new Promise<void>((resolve) => this.waiting.push(resolve))
    }
    this.running++
  }

  private async ask(each: number): Promise<void> {
    const want = mostAtOnce(each) * each
    this.places = Math.floor((await this.room(want).catch(() => want)) / each)
    this.asking = undefined
  }

  private wakeOne(): void {
    this.waiting.shift()?.()
  }
}

const shared = new ThreadRoom(async (want) => {
  // Windows and macOS have no such limits in common use, and without an engine nobody can ask
  const engine = process.platform === 'linux' ? anyNative() : undefined
  return (await engine?.threadRoom?.(want, idleName)) ?? want
})

/** Runs what makes libvips work, once there is room for its threads. */
export async function withThreads<T>(sharp: { concurrency(): number }, work: () => Promise<T>): Promise<T> {
  return await shared.run(sharp.concurrency(), work)
}
